//! The headers of version 2: a binary one of 4096 bytes, big-endian, and a JSON area behind it,
//! under one checksum. All of it stands there twice; the newer sound copy counts.

use std::ops::Range;

use zeroize::Zeroizing;

use super::cipher::{MAX_SECTOR, SectorCipher, Spec};
use super::hash::{self, Hash};
use super::kdf::Work;
use super::metadata::{Keyslot, Metadata};
use super::sectors::Sectors;
use super::{SECTOR, Slots, payload_size, shown, text};
use crate::bytes::{be16, be64};
use crate::inspect::{Facts, Severity, Span};
use crate::source::read_up_to;
use crate::{Error, Format, HostOffset, Passphrase, Result, Source};

/// Bytes of the binary header.
pub(super) const LEN: u64 = 4096;
/// Sizes of binary header and JSON area together: powers of two between these.
const MIN_SIZE: u64 = 16 << 10;
const MAX_SIZE: u64 = 4 << 20;
/// The same for headers whose two copies are looked at in an inspection: what a stream remembers
/// holds both. cryptsetup makes 16 KiB unless it is told otherwise.
const MAX_INSPECTED: u64 = 256 << 10;
const SECONDARY_MAGIC: &[u8; 6] = b"SKUL\xba\xbe";
/// Where the checksum stands, counted as zeros in itself.
const CHECKSUM: Range<usize> = 448..512;

/// The binary header.
pub(super) struct Header {
    size: u64,
    seqid: u64,
    label: String,
    checksum_alg: String,
    uuid: String,
}

impl Header {
    /// Reads the header of the copy that stands at byte `at`.
    pub(super) fn parse(header: &[u8], at: u64) -> Result<Self> {
        let malformed = |message| Error::malformed(Format::Luks, place(at), message);
        if (header.len() as u64) < LEN {
            let message = format!("the file ends at byte {} within it", header.len());
            return Err(malformed(message));
        }
        let magic = if at == 0 {
            super::MAGIC
        } else {
            SECONDARY_MAGIC
        };
        if !header.starts_with(magic) || be16(header, 6) != Some(2) {
            return Err(malformed("no magic number and version 2 at byte 0".into()));
        }
        let size = be64(header, 8).unwrap_or(0);
        if !size.is_power_of_two() || !(MIN_SIZE..=MAX_SIZE).contains(&size) {
            return Err(malformed(format!(
                "the header size is {size} at byte 8, allowed powers of two from {MIN_SIZE} to \
                 {MAX_SIZE}"
            )));
        }
        match be64(header, 256) {
            Some(said) if said == at && (at == 0 || at == size) => {}
            said => {
                return Err(malformed(format!(
                    "says it is at byte {} (byte 256), it is at {at}",
                    said.unwrap_or(u64::MAX)
                )));
            }
        }
        Ok(Self {
            size,
            seqid: be64(header, 16).unwrap_or(0),
            label: text(header.get(24..72)),
            checksum_alg: text(header.get(72..104)),
            uuid: text(header.get(168..208)),
        })
    }

    /// What an inspection looks at behind the binary header: the JSON area and the second copy,
    /// or a part of the JSON area where they are too large.
    pub(super) fn spans(&self) -> Vec<Span> {
        let span = |at, len| Span::At { at, len };
        if self.size > MAX_INSPECTED {
            return vec![span(LEN, MAX_INSPECTED), span(LEN, 0)];
        }
        vec![span(LEN, self.size - LEN), span(self.size, self.size)]
    }
}

fn place(at: u64) -> &'static str {
    match at {
        0 => "header",
        _ => "second header",
    }
}

/// One of the two copies.
pub(super) struct Copy {
    header: Header,
    metadata: Metadata,
}

impl Copy {
    /// Reads the copy at byte `at` from its bytes, and verifies it.
    fn parse(bytes: &[u8], at: u64) -> Result<Self> {
        let header = Header::parse(bytes, at)?;
        let Some(bytes) = bytes.get(..header.size as usize) else {
            return Err(Error::malformed(
                Format::Luks,
                place(at),
                format!("the file ends at byte {} within it", bytes.len()),
            ));
        };
        let digest = Hash::named(&header.checksum_alg)?.digest(&[
            &bytes[..CHECKSUM.start],
            &[0; CHECKSUM.end - CHECKSUM.start],
            &bytes[CHECKSUM.end..],
        ]);
        if !bytes[CHECKSUM].starts_with(&digest) {
            return Err(Error::malformed(
                Format::Luks,
                place(at),
                format!(
                    "the {} checksum at byte {} does not fit",
                    shown(&header.checksum_alg),
                    CHECKSUM.start
                ),
            ));
        }
        let metadata = Metadata::parse(&bytes[LEN as usize..], 2 * header.size)?;
        Ok(Self { header, metadata })
    }

    fn read(source: &dyn Source, at: u64) -> Result<Self> {
        let head = read_up_to(source, HostOffset(at), LEN as usize)?;
        let size = Header::parse(&head, at)?.size;
        Self::parse(&read_up_to(source, HostOffset(at), size as usize)?, at)
    }
}

/// The copy that counts, and what is the matter with the other.
struct Chosen {
    copy: Copy,
    other: Option<String>,
}

/// The newer of two copies, or the one that is sound.
fn choose(first: Result<Copy>, second: Result<Copy>) -> Result<Chosen> {
    let (copy, other) = match (first, second) {
        (Ok(first), Ok(second)) => {
            let (old, new) = (first.header.seqid, second.header.seqid);
            let (copy, older) = match old >= new {
                true => (first, "second"),
                false => (second, "first"),
            };
            let stale = (old != new).then(|| {
                format!("the {older} one is out of date (sequence numbers {old} and {new})")
            });
            (copy, stale)
        }
        (Ok(copy), Err(e)) | (Err(e), Ok(copy)) => (copy, Some(e.to_string())),
        (Err(first), Err(_)) => return Err(first),
    };
    Ok(Chosen { copy, other })
}

/// Reads both copies and takes the better one.
///
/// # Errors
/// What is wrong with the first when neither is sound; `Io`.
pub(super) fn load(source: &dyn Source) -> Result<Copy> {
    let first = Copy::read(source, 0);
    let second = match &first {
        Ok(first) => Copy::read(source, first.header.size),
        // Its size cannot be trusted: the other copy is at any power of two.
        Err(_) => (MIN_SIZE.trailing_zeros()..=MAX_SIZE.trailing_zeros())
            .map(|bits| Copy::read(source, 1 << bits))
            .reduce(Result::or)
            .expect("there are sizes"),
    };
    choose(first, second).map(|chosen| chosen.copy)
}

/// Facts from the binary header and the spans it asked for.
pub(super) fn describe(
    binary: &[u8],
    json: &[u8],
    second: &[u8],
    file_len: Option<u64>,
) -> Result<Facts> {
    let header = Header::parse(binary, 0)?;
    if header.size > MAX_INSPECTED {
        let metadata = Metadata::parse(json, 2 * header.size)?;
        return Ok(Copy { header, metadata }.describe(file_len));
    }
    let first = Copy::parse(&[binary, json].concat(), 0);
    let Chosen { copy, other } = choose(first, Copy::parse(second, header.size))?;
    let mut facts = copy.describe(file_len);
    if let Some(message) = other {
        facts.find(
            "header_copy",
            Severity::Warning,
            "header",
            format!("only one of its two copies counts: {message}"),
        );
    }
    Ok(facts)
}

impl Copy {
    fn describe(&self, file_len: Option<u64>) -> Facts {
        let mut facts = Facts::new(Format::Luks);
        let segment = &self.metadata.segment;
        facts.detail("version", 2);
        facts.detail("label", shown(&self.header.label));
        facts.detail("uuid", shown(&self.header.uuid));
        facts.detail("checksum_alg", shown(&self.header.checksum_alg));
        facts.detail("cipher", shown(&segment.encryption));
        facts.detail("sector_size", segment.sector_size);
        facts.detail("active_key_slots", self.metadata.keyslots.len());
        if let Some(hindrance) = &self.metadata.hindrance {
            facts.find("not_read", Severity::Warning, "json area", hindrance);
        }
        let unit = u64::from(segment.sector_size).max(SECTOR);
        let rest = payload_size(&mut facts, segment.offset, file_len, unit);
        facts.virtual_size = match segment.size {
            None => rest,
            Some(size) => {
                if rest.is_some_and(|rest| size > rest) {
                    facts.find(
                        "truncated",
                        Severity::Unsafe,
                        "payload",
                        format!("has {size} bytes, the file ends before"),
                    );
                }
                Some(size)
            }
        };
        facts
    }

    /// Where the payload lies, in bytes of the file.
    ///
    /// # Errors
    /// `Unsupported` for payloads that are not read; `Malformed` for a file that ends before.
    pub(super) fn payload(&self, file_len: u64) -> Result<Range<u64>> {
        let malformed = |message| Err(Error::malformed(Format::Luks, "payload", message));
        let segment = &self.metadata.segment;
        if let Some(hindrance) = &self.metadata.hindrance {
            return Err(Error::unsupported(Format::Luks, "json area", hindrance));
        }
        if segment.offset == 0 {
            return Err(Error::unsupported(
                Format::Luks,
                "header",
                "is detached: its payload is another file, of which it says nothing",
            ));
        }
        let unit = u64::from(segment.sector_size);
        if !unit.is_power_of_two() || !(SECTOR..=MAX_SECTOR as u64).contains(&unit) {
            return malformed(format!(
                "has sectors of {unit} bytes, allowed powers of two from {SECTOR} to {MAX_SECTOR}"
            ));
        }
        let rest = file_len.checked_sub(segment.offset);
        let size = segment.size.or(rest.map(|rest| rest - rest % unit));
        match (rest, size) {
            (Some(rest), Some(size)) if size <= rest && size.is_multiple_of(unit) => {
                Ok(segment.offset..segment.offset + size)
            }
            _ => malformed(format!(
                "has {} bytes at byte {} in sectors of {unit}, the file ends at {file_len}",
                size.map_or("all".into(), |size| size.to_string()),
                segment.offset
            )),
        }
    }

    /// The cipher of the payload with its sector size and first initialization vector, if
    /// `passphrase` opens a key slot.
    ///
    /// # Errors
    /// `Refused` for a passphrase that opens none; else what stood in the way.
    pub(super) fn unlock(
        &self,
        source: &dyn Source,
        passphrase: &Passphrase,
    ) -> Result<(SectorCipher, usize, u64)> {
        let segment = &self.metadata.segment;
        let spec = Spec::parse(&segment.encryption)?;
        let mut work = Work::default();
        let mut slots = Slots::default();
        for (name, slot) in &self.metadata.keyslots {
            let opened = open(slot, source, passphrase, &mut work);
            let Some(key) = slots.tried(opened)? else {
                continue;
            };
            for digest in self.metadata.digests_of(name) {
                let fits = digest.fits(&key, &mut work);
                if slots.tried(fits)? == Some(true) {
                    return Ok((
                        spec.key(&key)?,
                        segment.sector_size as usize,
                        segment.iv_tweak,
                    ));
                }
            }
        }
        Err(slots.none_opened())
    }
}

/// What the key of the volume is if `passphrase` belongs to `slot`.
fn open(
    slot: &Keyslot,
    source: &dyn Source,
    passphrase: &Passphrase,
    work: &mut Work,
) -> Result<Zeroizing<Vec<u8>>> {
    let key_len = slot.key_size as usize;
    let spec = Spec::parse(&slot.area.encryption)?;
    let af_hash = Hash::named(&slot.af.hash)?;
    let len = hash::split_len(key_len, slot.af.stripes)?;
    // Stored in whole sectors.
    let stored = len.next_multiple_of(SECTOR as usize);
    if stored as u64 > slot.area.size {
        return Err(Error::malformed(
            Format::Luks,
            "json area",
            format!(
                "a key slot has {} bytes for {len} bytes of key material",
                slot.area.size
            ),
        ));
    }
    let slot_key = slot
        .kdf()?
        .derive(passphrase.bytes(), slot.area.key_size as usize, work)?;
    let mut material = vec![0; len];
    Sectors::plain(spec.key(&slot_key)?, slot.area.offset).read(source, &mut material, 0)?;
    let mut key = Zeroizing::new(vec![0; key_len]);
    hash::merge(af_hash, &material, &mut key);
    Ok(key)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ErrorKind;

    /// A copy of a header of 16 KiB with this JSON.
    fn copy(at: u64, seqid: u64, json: &str) -> Vec<u8> {
        let mut bytes = vec![0; 16 << 10];
        bytes[..6].copy_from_slice(if at == 0 {
            crate::luks::MAGIC
        } else {
            SECONDARY_MAGIC
        });
        bytes[7] = 2;
        bytes[8..16].copy_from_slice(&16384u64.to_be_bytes());
        bytes[16..24].copy_from_slice(&seqid.to_be_bytes());
        bytes[72..78].copy_from_slice(b"sha256");
        bytes[256..264].copy_from_slice(&at.to_be_bytes());
        bytes[4096..4096 + json.len()].copy_from_slice(json.as_bytes());
        let digest = Hash::Sha256.digest(&[&bytes]);
        bytes[448..480].copy_from_slice(&digest);
        bytes
    }

    /// A volume of 64 KiB with these segments.
    pub(in crate::luks) fn volume(segments: &str) -> Vec<u8> {
        let json = format!(r#"{{"keyslots":{{}},"digests":{{}},"segments":{segments}}}"#);
        let mut file = copy(0, 1, &json);
        file.extend(copy(16384, 1, &json));
        file.resize(64 << 10, 0);
        file
    }

    #[test]
    fn the_newer_sound_copy_counts() {
        let json = |size| {
            format!(
                r#"{{"keyslots":{{}},"digests":{{}},"segments":{{"0":{{"type":"crypt",
                "offset":"32768","size":"{size}","encryption":"aes-xts-plain64",
                "sector_size":512}}}}}}"#
            )
        };
        for (first, second, size) in [(1, 1, 512), (1, 2, 1024), (2, 1, 512)] {
            let mut file = copy(0, first, &json(512));
            file.extend(copy(16384, second, &json(1024)));
            let whole = file.clone();
            assert_eq!(load(&file).unwrap().metadata.segment.size, Some(size));
            let at = |file: &[u8]| {
                let (json, second) = file[4096..].split_at(12 << 10);
                describe(&file[..4096], json, second, Some(65536))
            };
            let facts = at(&file).unwrap();
            assert_eq!(facts.virtual_size, Some(size));
            assert_eq!(facts.findings.len(), usize::from(first != second));

            // A bit in the first copy: its checksum does not fit any more.
            file[5000] ^= 1;
            assert_eq!(load(&file).unwrap().metadata.segment.size, Some(1024));
            let facts = at(&file).unwrap();
            assert_eq!(facts.findings[0].rule, "header_copy");
            assert!(facts.findings[0].message.contains("checksum"));
            // Without its magic number and size, too.
            file[..4096].fill(0);
            assert_eq!(load(&file).unwrap().metadata.segment.size, Some(1024));

            let mut file = whole;
            file[16384 + 5000] ^= 1;
            assert_eq!(load(&file).unwrap().metadata.segment.size, Some(512));
            file[5000] ^= 1;
            let e = load(&file).err().unwrap();
            assert_eq!(e.kind(), ErrorKind::Malformed);
            assert!(at(&file).is_err());
        }
    }
}
