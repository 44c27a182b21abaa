//! The header of an ESX sparse extent (`COWD`, vmfsSparse): the same two levels as a hosted
//! sparse extent, with 32-bit fields and tables of 4096 entries.

use super::layout::{COWD_MAGIC, SECTOR, check_grain_sectors};
use super::tables::{Entries, Geometry};
use crate::bytes::le32;
use crate::{Error, Format, Limits, Result};

/// Entries of a grain table.
const TABLE_ENTRIES: u32 = 4096;

fn malformed(message: String) -> Error {
    Error::malformed(Format::Vmdk, "COWD header", message)
}

/// Whether `head` begins such an extent.
pub(super) fn matches(head: &[u8]) -> bool {
    head.starts_with(COWD_MAGIC) && le32(head, 4) == Some(1)
}

/// Parses the header.
pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Geometry> {
    let field = |at| {
        le32(bytes, at).ok_or_else(|| malformed(format!("is {} bytes, wanted 32", bytes.len())))
    };
    if !matches(bytes) {
        return Err(malformed("magic and version are not COWD and 1".into()));
    }
    let capacity = u64::from(field(12)?) * SECTOR;
    limits.virtual_size(Format::Vmdk, capacity)?;
    let grain_sectors = u64::from(field(16)?);
    check_grain_sectors(grain_sectors, 1..=4096, "COWD header", 16)?;
    let geometry = Geometry {
        capacity,
        grain_size: grain_sectors * SECTOR,
        table_entries: TABLE_ENTRIES,
        directory_sector: u64::from(field(20)?),
        is_compressed: false,
        entries: Entries::Sectors {
            has_zeroed_grains: false,
        },
    };
    let wanted = geometry.tables();
    let entries = u64::from(field(24)?);
    if entries < wanted {
        return Err(malformed(format!(
            "numGDEntries is {entries} at byte 24, wanted {wanted} for the capacity"
        )));
    }
    Ok(geometry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(capacity: u32, grain: u32, directory: u32, entries: u32) -> Vec<u8> {
        let mut bytes = COWD_MAGIC.to_vec();
        for field in [1, 3, capacity, grain, directory, entries, 0] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.resize(512, 0);
        bytes
    }

    #[test]
    fn parses_and_bounds() {
        let limits = Limits::default();
        let good = parse(&header(20480, 1, 4, 5), &limits).unwrap();
        assert_eq!((good.capacity, good.grain_size), (20480 * 512, 512));
        assert_eq!(good.directory_sector, 4);
        assert!(parse(&header(20480, 1, 4, 4), &limits).is_err());
        assert!(parse(&header(20480, 3, 4, 5), &limits).is_err());
        assert!(parse(&header(20480, 0, 4, 5), &limits).is_err());
        assert!(parse(&header(20480, 1, 4, 5)[..20], &limits).is_err());
    }
}
