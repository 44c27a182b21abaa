//! What the tables name, against the length of the file.

use super::layout::{Cluster, Header};
use crate::HostOffset;
use crate::bytes::be64;
use crate::inspect::{Facts, Region, Severity};

/// L2 tables are looked at when they lie before this byte, which every driver still remembers.
/// Further ones are met when the disk is read.
pub(super) const TABLES_END: u64 = 512 << 10;

/// Checks the tables in `region`, which begins with the L1 table.
pub(super) fn tables(header: &Header, region: &Region<'_>, file_len: u64, facts: &mut Facts) {
    let l1_end = header.l1_offset.checked_add(header.l1_len());
    let fault = if l1_end.is_none_or(|end| end.0 > file_len) {
        let (len, at) = (header.l1_len(), header.l1_offset);
        Some(("l1 table", format!("takes {len} bytes at {at}")))
    } else {
        beyond(header, region, file_len)
    };
    if let Some((place, what)) = fault {
        let message = format!("{what}, past the end of the file at {file_len}: it was cut short");
        facts.find("truncated", Severity::Unsafe, place, message);
    }
}

/// The first table or cluster beyond the end of the file: its place, and what it takes.
fn beyond(header: &Header, region: &Region<'_>, file_len: u64) -> Option<(&'static str, String)> {
    let word = |at: u64| {
        let at = usize::try_from(at.checked_sub(region.at)?).ok()?;
        be64(region.bytes, at)
    };
    let is_outside =
        |at: HostOffset, len: u64| at.checked_add(len).is_none_or(|end| end.0 > file_len);
    let clusters = header.size.div_ceil(header.cluster_size());
    let table_entries = 1 << header.l2_bits;
    // Tables of an honest file do not overlap: no more entries than bytes for them.
    let mut left = region.bytes.len() / 8;
    for n in 0..header.l1_len() / 8 {
        let table = match word(header.l1_offset.0 + n * 8)? {
            0 => continue,
            at => HostOffset(at),
        };
        let first = n * table_entries;
        // The last table needs to reach only as far as the disk.
        let entries = table_entries.min(clusters - first);
        if is_outside(table, entries * 8) {
            let what = format!("table {n} takes {} bytes at {table}", entries * 8);
            return Some(("l2 table", what));
        }
        for entry in 0..entries {
            // Tables before the L1 table, or behind what was read, are not looked at.
            let Some(word) = word(table.0 + entry * 8) else {
                break;
            };
            left = left.checked_sub(1)?;
            let start = (first + entry) * header.cluster_size();
            let (at, len) = match Cluster::parse(word, header.cluster_bits) {
                Cluster::Unallocated => continue,
                Cluster::Plain(at) => (at, header.cluster_size().min(header.size - start)),
                Cluster::Compressed(at, len) => (at, len as u64),
            };
            if is_outside(at, len) {
                let what = format!("cluster {} takes {len} bytes at {at}", first + entry);
                return Some(("l2 table", what));
            }
        }
    }
    None
}
