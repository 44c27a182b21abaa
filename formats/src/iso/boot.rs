//! El Torito: the boot catalogue, and who may start what from the disc.
//!
//! ```text
//!  0    validation entry: 1, platform, developer, words that add up to zero, 55 AA
//!  32   default entry: 88, medium, first sector, sectors of 512 bytes
//!  64   section header (90, or 91 for the last): platform, entries · its entries · …
//! ```
//! "El Torito" Bootable CD-ROM Format Specification 1.0; platform EF is of UEFI 2.10, 13.3.2.1.

use serde_json::{Value, json};

use super::layout::SECTOR;
use crate::bytes::{le16, le32};
use crate::inspect::{Facts, Severity};

/// Bytes of an entry.
const ENTRY: usize = 32;
const BOOTABLE: u8 = 0x88;
const NOT_BOOTABLE: u8 = 0;
const SECTION: u8 = 0x90;
const LAST_SECTION: u8 = 0x91;
const EXTENSION: u8 = 0x44;

fn platform(id: u8) -> &'static str {
    match id {
        0 => "bios",
        1 => "powerpc",
        2 => "mac",
        0xef => "efi",
        _ => "unknown",
    }
}

fn medium(kind: u8) -> &'static str {
    match kind & 15 {
        0 => "no emulation",
        1 => "1.2M floppy",
        2 => "1.44M floppy",
        3 => "2.88M floppy",
        4 => "hard disk",
        _ => "unknown",
    }
}

/// Reports the catalogue in `bytes`, those of `sector`.
pub(super) fn report(bytes: &[u8], sector: u64, file_len: Option<u64>, facts: &mut Facts) {
    let place = format!("boot catalogue, sector {sector}");
    let Some(validation) = bytes.get(..ENTRY) else {
        return;
    };
    let words = validation.as_chunks::<2>().0;
    let sum = words.iter().fold(0_u16, |sum, word| {
        sum.wrapping_add(u16::from_le_bytes(*word))
    });
    if validation[0] != 1 || validation[30..] != [0x55, 0xaa] {
        let message = "has no validation entry: nothing will start from the disc";
        facts.find("boot_catalog", Severity::Warning, place, message);
        return;
    }
    if sum != 0 {
        let message = format!("the words of its validation entry add up to {sum:#06x}, allowed 0");
        facts.find("boot_catalog", Severity::Warning, place.as_str(), message);
    }
    let entries = entries(bytes, validation[1]);
    for (n, entry) in (1..).zip(&entries) {
        if let (Some(start), Some(len)) = (entry["start"].as_u64(), file_len)
            && start >= len
        {
            let message = format!("image {n} begins at byte {start}, past the end of the file");
            facts.find("truncated", Severity::Warning, place.as_str(), message);
        }
    }
    facts.detail("boot", entries);
}

/// The entries, the default one first, of the first `platform`.
fn entries(bytes: &[u8], first: u8) -> Vec<Value> {
    let mut rows = bytes[ENTRY..].chunks_exact(ENTRY);
    let mut found: Vec<_> = rows
        .next()
        .and_then(|row| entry(row, first))
        .into_iter()
        .collect();
    while let Some(header) = rows.next() {
        if !matches!(header[0], SECTION | LAST_SECTION) {
            break;
        }
        let count = le16(header, 2).unwrap_or(0);
        let section = rows.by_ref().filter(|row| row[0] != EXTENSION);
        found.extend(
            section
                .take(count.into())
                .filter_map(|row| entry(row, header[1])),
        );
        if header[0] == LAST_SECTION {
            break;
        }
    }
    found
}

fn entry(row: &[u8], id: u8) -> Option<Value> {
    let is_bootable = match row[0] {
        BOOTABLE => true,
        NOT_BOOTABLE => false,
        _ => return None,
    };
    let (sectors, start) = (le16(row, 6)?, le32(row, 8)?);
    (start != 0).then(|| {
        json!({
            "platform": platform(id),
            "bootable": is_bootable,
            "medium": medium(row[1]),
            "start": u64::from(start) * SECTOR as u64,
            "size": u64::from(sectors) * 512,
        })
    })
}
