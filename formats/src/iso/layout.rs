//! Volume descriptors.

use crate::bytes::{be16, be32, le16, le32};
use crate::inspect::{Facts, Severity};

/// Bytes of a sector, and of a volume descriptor.
pub(super) const SECTOR: usize = 2048;

/// Identifiers of ISO 9660 and of the UDF volume recognition sequence.
const KNOWN: [&[u8; 5]; 7] = [
    b"CD001", b"BEA01", b"NSR02", b"NSR03", b"TEA01", b"BOOT2", b"CDW02",
];

/// Whether a sector that begins with `bytes` is a volume descriptor.
pub(super) fn is_known(bytes: &[u8]) -> bool {
    bytes
        .get(1..6)
        .is_some_and(|id| KNOWN.iter().any(|known| id == known.as_slice()))
}

/// What a sector of the volume descriptor sequence holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Descriptor {
    Primary(Volume),
    /// A supplementary descriptor with the escape sequence of UCS-2: the volume's name.
    Joliet(String),
    /// The sector of the boot catalog.
    ElTorito(u64),
    /// `NSR02` or `NSR03`.
    Udf(&'static str),
    /// Known, but the file ends within.
    Cut,
    Other,
}

impl Descriptor {
    /// The descriptor in `sector`, or `None` past the end of the sequence.
    pub(super) fn parse(sector: &[u8]) -> Option<Self> {
        if !is_known(sector) {
            return None;
        }
        let kind = *sector.first()?;
        let id = sector.get(1..6)?;
        Some(match (id, kind) {
            _ if sector.len() < SECTOR => Self::Cut,
            (b"CD001", 1) => Self::Primary(Volume::parse(sector)?),
            (b"CD001", 2) if is_joliet(sector.get(88..120)?) => {
                Self::Joliet(ucs2(sector.get(40..72)?))
            }
            (b"CD001", 0) if sector.get(7..30)? == b"EL TORITO SPECIFICATION" => {
                Self::ElTorito(u64::from(le32(sector, 71)?))
            }
            (b"NSR02", _) => Self::Udf("NSR02"),
            (b"NSR03", _) => Self::Udf("NSR03"),
            _ => Self::Other,
        })
    }
}

/// Escape sequences for UCS-2 levels 1 to 3.
fn is_joliet(escapes: &[u8]) -> bool {
    [b"%/@", b"%/C", b"%/E"]
        .iter()
        .any(|level| escapes.starts_with(*level))
}

fn ucs2(bytes: &[u8]) -> String {
    let units = bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|c| u16::from_be_bytes(*c));
    let text: String = char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    tidy(&text)
}

/// Text of a descriptor, fit for print: no padding, no control characters.
pub(super) fn tidy(text: &str) -> String {
    text.trim_matches([' ', '\0'])
        .replace(char::is_control, "\u{fffd}")
}

/// A primary volume descriptor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Volume {
    id: String,
    /// What else the descriptor says in words, as far as it does.
    words: Vec<(&'static str, String)>,
    /// When it was made, as `2026-11-23 14:16:31`.
    created: Option<String>,
    /// First logical block of the root directory.
    root: u32,
    /// Logical blocks.
    blocks: u32,
    /// Bytes a logical block.
    block_size: u16,
    /// The little-endian and big-endian copies of both say the same.
    copies_agree: bool,
}

/// Fields of words: detail, first byte, byte after the last.
const WORDS: [(&str, usize, usize); 5] = [
    ("system_id", 8, 40),
    ("volume_set_id", 190, 318),
    ("publisher", 318, 446),
    ("preparer", 446, 574),
    ("application", 574, 702),
];

fn words(field: &[u8]) -> String {
    tidy(&String::from_utf8_lossy(field))
}

/// A date in digits, where it is one.
fn date(digits: &[u8]) -> Option<String> {
    let text = str::from_utf8(digits.get(..14)?).ok()?;
    let is_set = text.bytes().all(|b| b.is_ascii_digit()) && text.bytes().any(|b| b != b'0');
    is_set.then(|| {
        format!(
            "{}-{}-{} {}:{}:{}",
            &text[..4],
            &text[4..6],
            &text[6..8],
            &text[8..10],
            &text[10..12],
            &text[12..14]
        )
    })
}

impl Volume {
    fn parse(sector: &[u8]) -> Option<Self> {
        let (blocks, block_size) = (le32(sector, 80)?, le16(sector, 128)?);
        let fields = WORDS
            .iter()
            .filter_map(|(name, from, to)| Some((*name, words(sector.get(*from..*to)?))));
        Some(Self {
            id: words(sector.get(40..72)?),
            words: fields.filter(|(_, words)| !words.is_empty()).collect(),
            created: date(sector.get(813..830)?),
            root: le32(sector, 158)?,
            blocks,
            block_size,
            copies_agree: be32(sector, 84)? == blocks && be16(sector, 130)? == block_size,
        })
    }

    /// Byte of the root directory.
    pub(super) fn root(&self) -> u64 {
        u64::from(self.root) * u64::from(self.block_size)
    }

    /// Bytes of the volume.
    pub(super) fn size(&self) -> u64 {
        u64::from(self.blocks) * u64::from(self.block_size)
    }

    pub(super) fn report(&self, facts: &mut Facts, place: &str, file_len: Option<u64>) {
        let size = self.size();
        facts.detail("volume_id", self.id.as_str());
        for (name, words) in &self.words {
            facts.detail(name, words.as_str());
        }
        if let Some(created) = &self.created {
            facts.detail("created", created.as_str());
        }
        facts.detail("volume_size", size);
        facts.detail("logical_block_size", self.block_size);
        if !self.copies_agree {
            facts.find(
                "both_endian",
                Severity::Warning,
                place,
                "the little-endian and big-endian copies of its sizes differ",
            );
        }
        if !self.block_size.is_power_of_two() || !(512..=2048).contains(&self.block_size) {
            facts.find(
                "logical_block_size",
                Severity::Warning,
                place,
                format!(
                    "the logical block size is {} at byte 128, allowed 512, 1024 and 2048",
                    self.block_size
                ),
            );
        }
        if let Some(len) = file_len
            && size > len
        {
            facts.find(
                "truncated",
                Severity::Warning,
                place,
                format!("the volume has {size} bytes, the file only {len}: it was cut"),
            );
        }
    }
}

/// Whether a root directory that begins with `bytes` has Rock Ridge names: the record of the
/// directory itself carries `SP` of SUSP and `PX` of Rock Ridge.
pub(super) fn has_rock_ridge(bytes: &[u8]) -> bool {
    let Some(record) = bytes.first().and_then(|len| bytes.get(..usize::from(*len))) else {
        return false;
    };
    let name = usize::from(record.get(32).copied().unwrap_or(0));
    let mut fields = record
        .get((33 + name).next_multiple_of(2)..)
        .unwrap_or_default();
    let (mut has_sp, mut has_px) = (false, false);
    while let [a, b, len, ..] = *fields {
        match (&[a, b], fields.get(4..6)) {
            (b"SP", Some([0xbe, 0xef])) => has_sp = true,
            (b"PX", _) => has_px = true,
            _ => {}
        }
        match fields.get(usize::from(len).max(4)..) {
            Some(rest) => fields = rest,
            None => break,
        }
    }
    has_sp && has_px
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::iso) fn descriptor(kind: u8, id: &[u8; 5]) -> Vec<u8> {
        let mut sector = vec![0; SECTOR];
        sector[0] = kind;
        sector[1..6].copy_from_slice(id);
        sector[6] = 1;
        sector
    }

    pub(in crate::iso) fn primary(name: &str, blocks: u32) -> Vec<u8> {
        let mut sector = descriptor(1, b"CD001");
        sector[40..72].fill(b' ');
        sector[40..40 + name.len()].copy_from_slice(name.as_bytes());
        sector[80..84].copy_from_slice(&blocks.to_le_bytes());
        sector[84..88].copy_from_slice(&blocks.to_be_bytes());
        sector[128..130].copy_from_slice(&2048u16.to_le_bytes());
        sector[130..132].copy_from_slice(&2048u16.to_be_bytes());
        sector
    }

    #[test]
    fn reads_joliet_and_el_torito() {
        let mut joliet = descriptor(2, b"CD001");
        joliet[88..91].copy_from_slice(b"%/E");
        joliet[40..46].copy_from_slice(b"\0M\0\xe9\0 ");
        assert_eq!(
            Descriptor::parse(&joliet),
            Some(Descriptor::Joliet("Mé".into()))
        );
        let mut boot = descriptor(0, b"CD001");
        boot[7..30].copy_from_slice(b"EL TORITO SPECIFICATION");
        boot[71] = 19;
        assert_eq!(Descriptor::parse(&boot), Some(Descriptor::ElTorito(19)));
    }

    #[test]
    fn the_sequence_ends_at_a_foreign_sector_and_a_cut_one_is_told() {
        assert_eq!(Descriptor::parse(&[0; SECTOR]), None);
        assert_eq!(
            Descriptor::parse(&primary("X", 1)[..100]),
            Some(Descriptor::Cut)
        );
    }
}
