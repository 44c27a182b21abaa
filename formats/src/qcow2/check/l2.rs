//! What the entries of an L2 table use, and whether they make sense.

use super::super::census::{Census, Use};
use super::super::entries::{self, ALL_DATA, COMPRESSED, COPIED, OFFSET_MASK, ZERO, numbers};
use super::super::image::L2;
use super::super::layout::incompatible;
use super::super::tables::read_zeroed;
use super::{Checker, copied};
use crate::{HostOffset, Result};

/// Bits 1 to 8 and 56 to 61 of a standard L2 entry.
const RESERVED: u64 = 0x3f00_0000_0000_01fe;

impl Checker<'_> {
    /// Counts what the entries of a table use, and holds them against the rules.
    pub(super) fn l2_table(&mut self, census: &mut Census, l2: &L2) -> Result<()> {
        let image = self.image;
        let geometry = image.header.geometry;
        let (cluster_size, entry_size) = (geometry.cluster_size(), geometry.l2_entry_size());
        let has_data_file = image.header.has(incompatible::DATA_FILE);
        let rest = HostOffset(image.source.len()).since(l2.at);
        if rest < cluster_size {
            // One that is past the end altogether is told already.
            if rest > 0 {
                self.report.corruption(l2.times, || {
                    let message = format!("the file ends {rest} bytes into it");
                    (format!("L2 table, byte {}", l2.at), message)
                });
            }
            return Ok(());
        }
        let bytes = read_zeroed(image.source, l2.at, cluster_size)?;
        let mut follows = None;
        for (n, words) in bytes.chunks_exact(entry_size as usize).enumerate() {
            let mut words = numbers(words);
            let (entry, bitmap) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
            if entry == 0 && bitmap == 0 {
                continue;
            }
            let tell = |what: &str| {
                let byte = HostOffset(l2.at.0 + n as u64 * entry_size);
                (
                    format!("L2 table, byte {byte}"),
                    format!("entry {entry:#x} {what}"),
                )
            };
            if entry & COMPRESSED != 0 {
                for (is_wrong, what) in [
                    (entry & COPIED != 0, "is compressed and has the COPIED flag"),
                    (has_data_file, "is compressed beside an external data file"),
                    (bitmap != 0, "is compressed and has subclusters"),
                ] {
                    if is_wrong {
                        self.report.corruption(l2.times, || tell(what));
                    }
                }
                if has_data_file || bitmap != 0 {
                    continue;
                }
                let (at, len) = entries::compressed_span(entry, geometry.cluster_bits);
                let file_len = image.source.len();
                // `mark` tells of those that lie further out.
                let beyond = (at.0 + len).saturating_sub(file_len);
                if beyond < cluster_size && entries::is_cut(at, len, file_len) {
                    self.report
                        .corruption(l2.times, || tell("reaches past the end of the file"));
                }
                self.mark(census, "compressed cluster", at, len, l2.times, Use::Data)?;
                if !self.report.is_muted {
                    self.report.check.allocated_units += l2.active;
                    self.report.check.compressed_units += l2.active;
                    self.report.check.fragmented_units += l2.active;
                }
                continue;
            }
            if entry & RESERVED != 0 {
                self.report
                    .corruption(l2.times, || tell("has reserved bits set"));
            }
            let at = HostOffset(entry & OFFSET_MASK);
            if at == HostOffset::ZERO && !(has_data_file && entry & COPIED != 0) {
                if geometry.is_extended && bitmap & ALL_DATA != 0 {
                    self.report
                        .corruption(l2.times, || tell("has data subclusters but no offset"));
                }
                continue;
            }
            if (bitmap >> 32) & bitmap != 0 {
                self.report
                    .corruption(l2.times, || tell("has subclusters that are data and zero"));
            }
            if !at.0.is_multiple_of(cluster_size) {
                self.report
                    .corruption(l2.times, || tell("points between two clusters"));
            }
            if !self.report.is_muted && l2.active > 0 {
                self.report.check.allocated_units += l2.active;
                if follows.is_some_and(|expected| expected != at.0) {
                    self.report.check.fragmented_units += l2.active;
                }
                follows = Some(at.0 + cluster_size);
                let is_one = match has_data_file {
                    true => Some(true),
                    false => self.is_one(at)?,
                };
                if is_one.is_some_and(|is_one| is_one != (entry & COPIED != 0)) {
                    self.copied += l2.active;
                    self.report
                        .corruption(l2.active, || tell(copied(entry & COPIED != 0)));
                }
            }
            if !has_data_file {
                self.mark(census, "cluster", at, cluster_size, l2.times, Use::Data)?;
                let rest = image.source.len().saturating_sub(at.0);
                if l2.active > 0 && rest > 0 && rest < self.needed(l2, n as u64, entry, bitmap) {
                    let cut = "leads to a cluster that the end of the file cuts short";
                    self.report.corruption(l2.active, || tell(cut));
                }
            }
        }
        Ok(())
    }

    /// How far the guest reads into the cluster of entry `n` of the present state: the file may
    /// end in the last cluster of the disk, behind what the disk has of it.
    fn needed(&self, l2: &L2, n: u64, entry: u64, bitmap: u64) -> u64 {
        let header = &self.image.header;
        let geometry = header.geometry;
        let cluster_size = geometry.cluster_size();
        let stored = match geometry.is_extended {
            true => {
                let last = 32 - (bitmap as u32).leading_zeros();
                u64::from(last) * geometry.granule()
            }
            false if entry & ZERO != 0 => 0,
            false => cluster_size,
        };
        let last = header.virtual_size.saturating_sub(1);
        let l1_index = usize::try_from(last / geometry.l1_span()).unwrap_or(usize::MAX);
        let table = self.image.l1.get(l1_index).map_or(0, |e| e & OFFSET_MASK);
        let is_last =
            l2.active == 1 && l2.at.0 == table && n == last % geometry.l1_span() / cluster_size;
        match is_last {
            true => stored.min(last % cluster_size + 1),
            false => stored,
        }
    }
}
