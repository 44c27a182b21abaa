//! How far the tables of a sparse extent point, as far as an inspection sees them.

use super::layout::{GRAIN_MARKER_LEN, Header, SECTOR};
use crate::bytes::le32;
use crate::inspect::Region;

/// The furthest that the tables seen point to.
#[derive(Default)]
pub(super) struct Reach {
    /// Number and sector of a table.
    table: Option<(u64, u64)>,
    /// Number and sector of a grain.
    pub(super) grain: Option<(u64, u64)>,
}

impl Reach {
    /// Goes through the directory and tables in `region`, which begins with the directory.
    pub(super) fn of(header: &Header, region: &Region<'_>) -> Self {
        let word = |at: u64| {
            let at = usize::try_from(at.checked_sub(region.at)?).ok()?;
            le32(region.bytes, at).map(u64::from)
        };
        let further = |last: &mut Option<(u64, u64)>, n, sector| {
            if last.is_none_or(|(_, furthest)| sector > furthest) {
                *last = Some((n, sector));
            }
        };
        let mut reach = Self::default();
        let table_entries = u64::from(header.table_entries);
        // Tables of an honest file do not overlap: no more entries than bytes for them.
        let mut left = region.bytes.len() / 4;
        for n in 0..header.directory_entries() {
            let Some(table) = word(region.at.saturating_add(n * 4)) else {
                break;
            };
            further(&mut reach.table, n, table);
            for entry in 0..table_entries {
                // Tables before the directory, or behind what was read, are not looked at.
                let Some(sector) = word(table * SECTOR + entry * 4) else {
                    break;
                };
                let Some(rest) = left.checked_sub(1) else {
                    return reach;
                };
                left = rest;
                // Not stored, or zeros.
                if sector > 1 {
                    further(&mut reach.grain, n * table_entries + entry, sector);
                }
            }
        }
        reach
    }

    /// What of it lies beyond the end of the file; `last` is the marker of a compressed grain.
    pub(super) fn beyond(
        &self,
        header: &Header,
        last: &Region<'_>,
        file_len: u64,
    ) -> Option<String> {
        if let Some((n, sector)) = self.table
            && sector * SECTOR >= file_len
        {
            return Some(format!(
                "table {n} is at sector {sector:#x}, past the end of the file at {file_len:#x}: \
                 it was cut short"
            ));
        }
        let (grain, sector) = self.grain?;
        let len = if header.is_compressed() {
            // How long it is stands in its marker.
            let size = le32(last.bytes, 8).map_or(0, u64::from);
            GRAIN_MARKER_LEN as u64 + size
        } else {
            // The last grain reaches only as far as the disk.
            let start = grain.saturating_mul(header.grain_size());
            let rest = header.capacity().saturating_sub(start);
            rest.min(header.grain_size())
        };
        (sector * SECTOR + len > file_len).then(|| {
            format!(
                "grain {grain} takes {len} bytes at sector {sector:#x}, past the end of the file \
                 at {file_len:#x}: it was cut short"
            )
        })
    }
}
