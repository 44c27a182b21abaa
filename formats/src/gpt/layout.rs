//! On-disk structures of MBR and GPT.

use crate::bytes::{le16, le32, le64};
use crate::inspect::Span;

use super::MAX_ENTRIES_END;

/// Byte of the first MBR partition entry.
const ENTRIES: usize = 446;
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// Type of the entry that protects a GPT.
const PROTECTIVE: u8 = 0xee;

/// The partition table of a boot sector.
#[derive(Debug)]
pub(super) struct Mbr {
    pub(super) entries: [MbrEntry; 4],
}

#[derive(Debug)]
pub(super) struct MbrEntry {
    start_chs: [u8; 3],
    pub(super) kind: u8,
    /// First sector.
    pub(super) start: u32,
    /// Length in sectors.
    pub(super) sectors: u32,
}

impl MbrEntry {
    fn parse(entry: &[u8]) -> Option<Self> {
        if !matches!(entry.first()?, 0 | 0x80) {
            return None;
        }
        Some(Self {
            start_chs: entry.get(1..4)?.try_into().ok()?,
            kind: *entry.get(4)?,
            start: le32(entry, 8)?,
            sectors: le32(entry, 12)?,
        })
    }

    /// Whether it holds a chain of tables for further, logical partitions.
    pub(super) const fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }

    pub(super) const fn is_used(&self) -> bool {
        self.kind != 0 && self.sectors != 0
    }
}

impl Mbr {
    /// The table in a boot sector, or `None` where there is none.
    pub(super) fn parse(sector: &[u8]) -> Option<Self> {
        if sector.get(510..512)? != SIGNATURE {
            return None;
        }
        let entry = |n: usize| MbrEntry::parse(sector.get(ENTRIES + 16 * n..)?);
        let entries = [entry(0)?, entry(1)?, entry(2)?, entry(3)?];
        entries
            .iter()
            .any(MbrEntry::is_used)
            .then_some(Self { entries })
    }

    pub(super) fn has_protective(&self) -> bool {
        self.entries.iter().any(|e| e.kind == PROTECTIVE)
    }

    /// How a protective entry breaks UEFI's rules, where one does.
    pub(super) fn broken_protective(&self) -> Option<String> {
        let (n, entry) = (1..)
            .zip(&self.entries)
            .find(|(_, e)| e.kind == PROTECTIVE)?;
        let others = self.entries.iter().filter(|e| e.kind != 0).count() - 1;
        if others != 0 {
            Some(format!(
                "the protective entry stands beside {others} other, allowed none"
            ))
        } else if n != 1 {
            Some(format!("the protective entry is number {n}, allowed 1"))
        } else if entry.start_chs != [0, 2, 0] || entry.start != 1 {
            let ([head, sector, cylinder], start) = (entry.start_chs, entry.start);
            Some(format!(
                "the protective entry starts at CHS bytes {head:02x} {sector:02x} {cylinder:02x} \
                 and LBA {start}, allowed 00 02 00 and 1"
            ))
        } else {
            None
        }
    }
}

/// Whether a boot sector is that of a file system, whose fields overlap nothing but whose boot
/// code lies where a partition table would.
pub(super) fn is_boot_record(sector: &[u8]) -> bool {
    let jumps = matches!(sector, [0xeb, _, 0x90, ..] | [0xe9, ..]);
    let named = [b"NTFS    ", b"-FVE-FS-", b"EXFAT   "]
        .iter()
        .any(|name| sector.get(3..11) == Some(name.as_slice()));
    jumps && (named || is_fat(sector))
}

/// Whether the BIOS parameter block of a boot sector is one of FAT.
pub(crate) fn is_fat(sector: &[u8]) -> bool {
    has_fat_parameters(sector).unwrap_or(false)
}

fn has_fat_parameters(sector: &[u8]) -> Option<bool> {
    let bytes_per_sector = le16(sector, 11)?;
    let sectors_per_cluster = *sector.get(13)?;
    let reserved = le16(sector, 14)?;
    let (fats, media) = (*sector.get(16)?, *sector.get(21)?);
    Some(
        matches!(bytes_per_sector, 512 | 1024 | 2048 | 4096)
            && sectors_per_cluster.is_power_of_two()
            && reserved != 0
            && matches!(fats, 1 | 2)
            && media >= 0xf0,
    )
}

/// A GPT header, primary or backup; its values are as suspect as the file.
#[derive(Debug)]
pub(super) struct GptHeader {
    /// Bytes of a block.
    pub(super) block_size: u64,
    size: u32,
    crc_matches: bool,
    my_lba: u64,
    first_usable: u64,
    pub(super) last_usable: u64,
    pub(super) disk_guid: String,
    entries_lba: u64,
    entry_count: u32,
    entry_size: u32,
    pub(super) entries_crc: u32,
}

/// A partition entry in use; bytes.
pub(super) struct GptEntry {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) start: u64,
    pub(super) size: u64,
}

impl GptHeader {
    /// The header a block begins with, or `None` where there is none.
    pub(super) fn parse(block: &[u8], block_size: u64) -> Option<Self> {
        if !block.starts_with(b"EFI PART") {
            return None;
        }
        let size = le32(block, 12)?;
        Some(Self {
            block_size,
            size,
            crc_matches: header_crc(block, size) == le32(block, 16),
            my_lba: le64(block, 24)?,
            first_usable: le64(block, 40)?,
            last_usable: le64(block, 48)?,
            disk_guid: guid(block.get(56..72)?)?,
            entries_lba: le64(block, 72)?,
            entry_count: le32(block, 80)?,
            entry_size: le32(block, 84)?,
            entries_crc: le32(block, 88)?,
        })
    }

    /// Whether the header is intact as the primary one.
    pub(super) fn is_sound(&self) -> bool {
        self.fault(1).is_none()
    }

    /// What is wrong with the header found at `lba`.
    pub(super) fn fault(&self, lba: u64) -> Option<String> {
        let Self {
            size,
            my_lba,
            first_usable,
            last_usable,
            ..
        } = self;
        if !(92..=512).contains(size) {
            Some(format!(
                "the header size is {size} at byte 12, allowed 92 to 512"
            ))
        } else if !self.crc_matches {
            Some("the checksum at byte 16 does not match".into())
        } else if *my_lba != lba {
            Some(format!("says it is at LBA {my_lba}, found at {lba}"))
        } else if first_usable > last_usable {
            Some(format!(
                "usable LBAs run from {first_usable} to {last_usable}"
            ))
        } else {
            None
        }
    }

    /// Where the entries lie, when they are near enough to be read.
    pub(super) fn entries_span(&self) -> Option<Span> {
        let at = self.entries_lba.checked_mul(self.block_size)?;
        let len = self.entries_len()?;
        (at.checked_add(len)? <= MAX_ENTRIES_END).then_some(Span::At { at, len })
    }

    fn entries_len(&self) -> Option<u64> {
        let sane = self.entry_size >= 128 && self.entry_size.is_power_of_two();
        sane.then(|| u64::from(self.entry_count) * u64::from(self.entry_size))
    }

    /// What is wrong with the entries, of which `bytes` were there.
    pub(super) fn entries_fault(&self, bytes: &[u8]) -> Option<String> {
        let Some(len) = self.entries_len() else {
            return Some(format!(
                "the entry size is {} at byte 84 of the header, allowed 128 × 2^n",
                self.entry_size
            ));
        };
        if self.entries_span().is_none() {
            let lba = self.entries_lba;
            Some(format!(
                "the {len} bytes of entries at LBA {lba} are too far away to be checked"
            ))
        } else if (bytes.len() as u64) < len {
            Some(format!("the file ends within the {len} bytes of entries"))
        } else if crc32fast::hash(bytes) != self.entries_crc {
            Some("their checksum at byte 88 of the header does not match".into())
        } else {
            None
        }
    }

    /// The entries in use and their numbers, from one.
    pub(super) fn entries<'a>(
        &self,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = (usize, GptEntry)> + use<'a> {
        let block = self.block_size;
        let size = usize::try_from(self.entry_size)
            .unwrap_or(usize::MAX)
            .max(128);
        (1..)
            .zip(bytes.chunks_exact(size))
            .filter_map(move |(n, entry)| Some((n, GptEntry::parse(entry, block)?)))
    }
}

impl GptEntry {
    fn parse(entry: &[u8], block: u64) -> Option<Self> {
        let kind = entry.get(..16).filter(|kind| **kind != [0; 16])?;
        let (first, last) = (le64(entry, 32)?, le64(entry, 40)?);
        let units = entry
            .get(56..128)?
            .as_chunks::<2>()
            .0
            .iter()
            .map(|c| u16::from_le_bytes(*c));
        let name: String = char::decode_utf16(units.take_while(|&unit| unit != 0))
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .map(|c| {
                if c.is_control() {
                    char::REPLACEMENT_CHARACTER
                } else {
                    c
                }
            })
            .collect();
        Some(Self {
            kind: guid(kind)?,
            name,
            start: first.saturating_mul(block),
            size: last
                .saturating_sub(first)
                .saturating_add(1)
                .saturating_mul(block),
        })
    }
}

/// The checksum of the first `size` bytes with the checksum field itself zero.
fn header_crc(block: &[u8], size: u32) -> Option<u32> {
    let bytes = block.get(..usize::try_from(size).ok()?)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytes.get(..16)?);
    crc.update(&[0; 4]);
    crc.update(bytes.get(20..)?);
    Some(crc.finalize())
}

/// A GUID as text; its first three groups are little-endian.
fn guid(bytes: &[u8]) -> Option<String> {
    let (a, b, c) = (le32(bytes, 0)?, le16(bytes, 4)?, le16(bytes, 6)?);
    let rest: String = bytes
        .get(8..16)?
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    Some(format!(
        "{a:08x}-{b:04x}-{c:04x}-{}-{}",
        &rest[..4],
        &rest[4..]
    ))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A boot sector with these entries.
    pub(in crate::gpt) fn mbr(entries: &[[u8; 16]]) -> Vec<u8> {
        let mut sector = vec![0; 512];
        for (n, entry) in entries.iter().enumerate() {
            sector[ENTRIES + 16 * n..][..16].copy_from_slice(entry);
        }
        sector[510..].copy_from_slice(&SIGNATURE);
        sector
    }

    /// A disk of `blocks` blocks with a GPT of one partition, `root`, of blocks 8 to 19.
    pub(in crate::gpt) fn table(block: usize, blocks: u64) -> Vec<u8> {
        let mut disk = mbr(&[[
            0, 0, 2, 0, PROTECTIVE, 255, 255, 255, 1, 0, 0, 0, 63, 0, 0, 0,
        ]]);
        disk.resize(block * usize::try_from(blocks).unwrap(), 0);
        let mut entries = vec![0; 4 * 128];
        entries[..16].fill(0xaa);
        entries[16..32].fill(0xbb);
        entries[32] = 8;
        entries[40] = 19;
        entries[56..64].copy_from_slice(b"r\0o\0o\0t\0");
        disk[2 * block..][..512].copy_from_slice(&entries);
        for (my, other) in [(1, blocks - 1), (blocks - 1, 1)] {
            let mut header = vec![0; 92];
            header[..12].copy_from_slice(b"EFI PART\0\0\x01\0");
            header[12] = 92;
            header[24..32].copy_from_slice(&my.to_le_bytes());
            header[32..40].copy_from_slice(&other.to_le_bytes());
            header[40] = 4;
            header[48..56].copy_from_slice(&(blocks - 2).to_le_bytes());
            header[56..72].fill(0xcc);
            header[72] = 2;
            header[80] = 4;
            header[84] = 128;
            header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
            let crc = crc32fast::hash(&header).to_le_bytes();
            header[16..20].copy_from_slice(&crc);
            let at = usize::try_from(my).unwrap() * block;
            disk[at..at + 92].copy_from_slice(&header);
        }
        disk
    }

    #[test]
    fn a_guid_is_written_mixed_endian() {
        let bytes: Vec<u8> = (0..16).collect();
        let text = "03020100-0504-0706-0809-0a0b0c0d0e0f";
        assert_eq!(guid(&bytes).as_deref(), Some(text));
    }
}
