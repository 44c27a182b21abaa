//! The headers of a seSparse extent, what ESX writes for snapshots since 6.5.
//!
//! ```text
//!  const header │ volatile header │ journal │ grain directory │ grain tables │ free bitmap,
//!  back map │ grains
//! ```
//! The constant header says where each region lies, in sectors. Entries of directory and tables
//! are 64 bits: a type, and a number within the region of tables or of grains (see `tables`).
//! VMware does not document it; this follows what qemu (`block/vmdk.c`) and dissect.hypervisor
//! agree on, and refuses whatever they did not see.

use super::layout::{SECTOR, SESPARSE_MAGIC};
use super::tables::{Entries, Geometry};
use crate::bytes::{is_zero, le64};
use crate::source::read_up_to;
use crate::{Error, Format, HostOffset, Limits, Result, Source};

/// Bytes of either header.
pub(super) const HEADER_LEN: usize = 512;
const VOLATILE_MAGIC: u64 = 0xcafe_cafe;
/// Version 2.1, the only one there is.
const VERSION: u64 = 0x0002_0000_0001;
const GRAIN_SECTORS: u64 = 8;
const TABLE_SECTORS: u64 = 64;
/// Bytes of the constant header that are fields; zeros follow.
const FIELDS: usize = 208;

const CONST: &str = "seSparse header";
const VOLATILE: &str = "seSparse volatile header";

fn malformed(place: &'static str, message: impl Into<String>) -> Error {
    Error::malformed(Format::Vmdk, place, message)
}

/// Whether `head` begins such an extent.
pub(super) fn matches(head: &[u8]) -> bool {
    head.starts_with(SESPARSE_MAGIC)
}

/// Reads both headers.
///
/// # Errors
/// `Refused` when changes wait in the journal, `Unsupported` for other versions, `Malformed`.
pub(super) fn parse(source: &dyn Source, limits: &Limits) -> Result<Geometry> {
    let bytes = read_up_to(source, HostOffset::ZERO, HEADER_LEN)?;
    if !matches(&bytes) {
        return Err(malformed(CONST, "magic at byte 0 is not 0xcafebabe"));
    }
    if bytes.len() < HEADER_LEN {
        let message = format!("is {} bytes, wanted {HEADER_LEN}", bytes.len());
        return Err(malformed(CONST, message));
    }
    let field = |at: usize| le64(&bytes, at).unwrap_or(0);
    for (name, at, wanted) in [
        ("version", 8, VERSION),
        ("grainSize", 24, GRAIN_SECTORS),
        ("grainTableSize", 32, TABLE_SECTORS),
        ("flags", 40, 0),
    ] {
        let value = field(at);
        if value != wanted {
            let message = format!("{name} is {value:#x} at byte {at}, allowed {wanted:#x}");
            return Err(Error::unsupported(Format::Vmdk, CONST, message));
        }
    }
    if !is_zero(&bytes[48..80]) || !is_zero(&bytes[FIELDS..]) {
        let message = "reserved bytes are not zero";
        return Err(Error::unsupported(Format::Vmdk, CONST, message));
    }
    let capacity = field(16).checked_mul(SECTOR).ok_or_else(|| {
        let message = format!("capacity is {:#x} sectors at byte 16", field(16));
        malformed(CONST, message)
    })?;
    limits.virtual_size(Format::Vmdk, capacity)?;
    let volatile = region(&bytes, "volatile header", 80)?;
    let directory = region(&bytes, "grain directory", 128)?;
    let tables = region(&bytes, "grain tables", 144)?;
    let grains = region(&bytes, "grains", 192)?;
    check_volatile(source, volatile.0)?;

    let geometry = Geometry {
        capacity,
        grain_size: GRAIN_SECTORS * SECTOR,
        table_entries: (TABLE_SECTORS * SECTOR / 8) as u32,
        directory_sector: directory.0,
        is_compressed: false,
        entries: Entries::Typed {
            tables_sector: tables.0,
            grains_sector: grains.0,
        },
    };
    let wanted = geometry.tables();
    let entries = directory.1.saturating_mul(SECTOR / 8);
    if entries < wanted {
        let message =
            format!("grain directory has {entries} entries, wanted {wanted} for the capacity");
        return Err(malformed(CONST, message));
    }
    Ok(geometry)
}

/// A region: its first sector and its sectors.
fn region(header: &[u8], name: &str, at: usize) -> Result<(u64, u64)> {
    let start = le64(header, at).unwrap_or(0);
    let len = le64(header, at + 8).unwrap_or(0);
    match start.checked_add(len) {
        // Leaves room for all sums of 32-bit table numbers and their sectors.
        Some(end) if end < u64::MAX >> 16 => Ok((start, len)),
        _ => Err(malformed(
            CONST,
            format!("{name} are {len:#x} sectors from {start:#x} at byte {at}, beyond any file"),
        )),
    }
}

fn check_volatile(source: &dyn Source, sector: u64) -> Result<()> {
    let at = HostOffset(sector * SECTOR);
    let bytes = read_up_to(source, at.min(HostOffset(source.len())), HEADER_LEN)?;
    if bytes.len() < HEADER_LEN || le64(&bytes, 0) != Some(VOLATILE_MAGIC) {
        let message = format!("magic at {at} is not {VOLATILE_MAGIC:#x}");
        return Err(malformed(VOLATILE, message));
    }
    if le64(&bytes, 24) != Some(0) {
        return Err(Error::refused(
            Format::Vmdk,
            VOLATILE,
            "replayJournal is set at byte 24: changes wait in the journal, which is not replayed; \
             open the disk once with ESX",
        ));
    }
    if !is_zero(&bytes[32..]) {
        let message = "reserved bytes are not zero";
        return Err(Error::unsupported(Format::Vmdk, VOLATILE, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn image() -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let mut put =
            |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        for (at, value) in [
            (0, 0xcafe_babe),
            (8, VERSION),
            (16, 80_000),
            (24, GRAIN_SECTORS),
            (32, TABLE_SECTORS),
            (80, 1),
            (88, 1),
            (128, 2),
            (136, 1),
            (144, 64),
            (152, 192),
            (192, 256),
            (200, 80_000),
            (512, VOLATILE_MAGIC),
        ] {
            put(at, value);
        }
        bytes
    }

    fn changed(at: usize, value: u64) -> Result<Geometry> {
        let mut bytes = image();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        parse(&bytes, &Limits::default())
    }

    #[test]
    fn parses_and_bounds() {
        let good = parse(&image(), &Limits::default()).unwrap();
        assert_eq!((good.capacity, good.tables()), (80_000 * 512, 3));
        assert_eq!((good.grain_size, good.table_entries), (4096, 4096));
        for (at, value, kind) in [
            (0, 1, ErrorKind::Malformed),
            (8, 1, ErrorKind::Unsupported),
            (16, u64::MAX, ErrorKind::Malformed),
            (16, 1 << 40, ErrorKind::Limit),
            (24, 16, ErrorKind::Unsupported),
            (40, 1, ErrorKind::Unsupported),
            (300, 1, ErrorKind::Unsupported),
            (80, u64::MAX, ErrorKind::Malformed),
            (80, 1 << 30, ErrorKind::Malformed),
            (136, 0, ErrorKind::Malformed),
            (536, 1, ErrorKind::Refused),
            (600, 1, ErrorKind::Unsupported),
        ] {
            let error = changed(at, value).unwrap_err();
            assert_eq!(error.kind(), kind, "byte {at}: {error}");
        }
        for len in [0, 8, 511, 512, 1000] {
            assert!(parse(&image()[..len].to_vec(), &Limits::default()).is_err());
        }
    }
}
