//! UDF: from an anchor to the logical volume's name and revision.
//!
//! ```text
//!  block 256, 512, or the last   anchor: where the volume descriptor sequence lies
//!  sequence   primary (1) · partition (5) · logical volume (6) · … · terminator (8)
//! ```
//! ECMA-167 part 3; UDF 2.60. Blocks are 2048 bytes on discs, 512 or 4096 on other media.

use crate::HostOffset;
use crate::bytes::{le16, le32};
use crate::inspect::{Facts, Severity, Span};

/// Blocks of the sequence that are looked at: as many as the specification wants it to have.
const SEQUENCE: u64 = 16;
/// Where an anchor is looked for: block size and block. All further on than the descriptors.
const ANCHORS: [(u64, u64); 4] = [(512, 256), (2048, 256), (4096, 256), (2048, 512)];
const TAG_ANCHOR: u16 = 2;
const TAG_LOGICAL_VOLUME: u16 = 6;
const TAG_TERMINATOR: u16 = 8;

/// A sequence that an anchor points to.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    block_size: u64,
    at: u64,
}

impl Sequence {
    pub(super) fn span(&self) -> (u64, u64) {
        (self.at, SEQUENCE * self.block_size)
    }
}

/// The identifier of a descriptor whose tag is intact and says it stands in `block`, where that
/// is known.
fn tag(bytes: &[u8], block: Option<u64>) -> Option<u16> {
    let tag = bytes.get(..16)?;
    let sum = tag
        .iter()
        .enumerate()
        .filter(|(n, _)| *n != 4)
        .fold(0_u8, |sum, (_, byte)| sum.wrapping_add(*byte));
    let stands = u64::from(le32(tag, 12)?);
    (sum == tag[4] && block.is_none_or(|block| block == stands))
        .then(|| le16(tag, 0))
        .flatten()
}

/// The spans an anchor may stand in.
pub(super) fn anchor_spans() -> impl Iterator<Item = Span> {
    ANCHORS.iter().map(|(size, block)| Span::At {
        at: size * block,
        len: 512,
    })
}

/// The sequence by the first anchor found in those spans.
pub(super) fn anchored<'a>(regions: impl Iterator<Item = &'a [u8]>) -> Option<Sequence> {
    ANCHORS
        .iter()
        .zip(regions)
        .find_map(|((size, block), bytes)| sequence(bytes, *size, Some(*block)))
}

/// Whether `tail`, the end of a file, is the block with the last anchor.
pub(super) fn ends_with_anchor(tail: &[u8]) -> bool {
    [512, 2048, 4096].iter().any(|size| {
        let block = tail.len().checked_sub(*size).and_then(|at| tail.get(at..));
        block.is_some_and(|block| sequence(block, *size as u64, None).is_some())
    })
}

fn sequence(anchor: &[u8], block_size: u64, block: Option<u64>) -> Option<Sequence> {
    (tag(anchor, block)? == TAG_ANCHOR).then_some(())?;
    let (len, first) = (le32(anchor, 16)?, le32(anchor, 20)?);
    (len != 0).then_some(Sequence {
        block_size,
        at: u64::from(first) * block_size,
    })
}

/// Reports the logical volume in a sequence, those `bytes` of it that were there.
pub(super) fn report(sequence: &Sequence, bytes: &[u8], facts: &mut Facts) {
    let block = usize::try_from(sequence.block_size).unwrap_or(usize::MAX);
    let first = sequence.at / sequence.block_size;
    for (n, descriptor) in (first..).zip(bytes.chunks(block)) {
        match tag(descriptor, Some(n)) {
            Some(TAG_LOGICAL_VOLUME) => {
                if let Some(name) = descriptor.get(84..212).and_then(dstring) {
                    facts.detail("udf_volume_id", name);
                }
                // The suffix of the domain's identifier begins with the revision.
                if let Some(revision) = le16(descriptor, 240) {
                    let revision = format!("{:x}.{:02x}", revision >> 8, revision & 0xff);
                    facts.detail("udf_revision", revision);
                }
                facts.detail("udf_block_size", le32(descriptor, 212).unwrap_or(0));
                return;
            }
            Some(TAG_TERMINATOR) | None => break,
            Some(_) => {}
        }
    }
    facts.find(
        "udf_sequence",
        Severity::Warning,
        format!("udf volume descriptors, byte {}", HostOffset(sequence.at)),
        "there is no logical volume among them: the disc is damaged or cut",
    );
}

/// Text in OSTA compressed Unicode, its length in the last byte.
fn dstring(field: &[u8]) -> Option<String> {
    let (len, field) = field.split_last()?;
    let (coding, text) = field.get(..usize::from(*len))?.split_first()?;
    let text: String = match coding {
        8 => text.iter().map(|byte| char::from(*byte)).collect(),
        16 => {
            let units = text
                .as_chunks::<2>()
                .0
                .iter()
                .map(|c| u16::from_be_bytes(*c));
            char::decode_utf16(units)
                .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect()
        }
        _ => return None,
    };
    Some(super::layout::tidy(&text))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A descriptor of one block with an intact tag.
    pub(in crate::iso) fn descriptor(id: u16, block: u32, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        bytes[..2].copy_from_slice(&id.to_le_bytes());
        bytes[2] = 2;
        bytes[12..16].copy_from_slice(&block.to_le_bytes());
        bytes[4] = bytes[..16]
            .iter()
            .fold(0, |sum: u8, b| sum.wrapping_add(*b));
        bytes
    }

    #[test]
    fn names_are_read_in_both_codings() {
        assert_eq!(dstring(b"\x08disc\0\0\0\x05").as_deref(), Some("disc"));
        assert_eq!(
            dstring(b"\x10\0d\x04\x01\0\x05").as_deref(),
            Some("d\u{401}")
        );
        assert_eq!(dstring(b"\x08disc\0\0\0\x63"), None);
        assert_eq!(dstring(b"\x07disc\x05"), None);
        assert_eq!(dstring(b"\0\0"), None);
    }

    #[test]
    fn a_tag_must_be_intact_and_in_its_place() {
        let mut bytes = descriptor(TAG_ANCHOR, 256, 512);
        assert_eq!(tag(&bytes, Some(256)), Some(TAG_ANCHOR));
        assert_eq!(tag(&bytes, Some(512)), None);
        bytes[8] = 1;
        assert_eq!(tag(&bytes, None), None);
    }
}
