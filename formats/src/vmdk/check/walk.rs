//! Goes through the tables and grains of one extent file.

use std::ops::Range;

use rayon::prelude::*;

use super::runs::Runs;
use super::{Extent, sectors_of};
use crate::check::Check;
use crate::copy::Progress;
use crate::vmdk::grains::{self, Wanted};
use crate::vmdk::layout::SECTOR;
use crate::vmdk::tables::{Grain, place_of};
use crate::{Error, ErrorKind, HostOffset, Result, Source};

/// Compressed grains read by one thread before it asks for more.
const GRAINS_AT_ONCE: usize = 16;

/// Goes through all tables of an extent.
pub(super) struct Walk<'a> {
    pub(super) extent: &'a Extent,
    pub(super) tables: &'a [(u64, u64)],
    pub(super) copies: &'a [(u64, u64)],
    /// Bytes of the files before this one.
    pub(super) base: u64,
    pub(super) progress: &'a Progress,
}

impl Walk<'_> {
    /// Collects the runs of all structures; tells what is wrong with them where `check` is given,
    /// as it is once.
    pub(super) fn walk(&self, runs: &mut Runs, mut check: Option<&mut Check>) -> Result<()> {
        let extent = self.extent;
        let geometry = &extent.geometry;
        let source = extent.source.as_ref();
        for fixed in &extent.fixed {
            runs.push(fixed.clone());
        }
        let table_sectors = |n: u64| geometry.entries_of(n) as u64 * geometry.entry_len();
        for &(n, sector) in self.tables.iter().chain(self.copies) {
            runs.push(sectors_of(sector * SECTOR, table_sectors(n)));
        }
        let mut copies = self.copies.iter().peekable();
        let mut hole = 0..0;
        let mut previous = None;
        for (done, &(n, sector)) in (0u64..).zip(self.tables) {
            if self.progress.is_cancelled() {
                return Err(Error::cancelled());
            }
            while copies.next_if(|copy| copy.0 < n).is_some() {}
            let copy = copies.next_if(|copy| copy.0 == n).map(|copy| copy.1);
            let bytes = table_sectors(n);
            if is_hole(source, &mut hole, sector * SECTOR, bytes)?
                && copy.is_none_or(|copy| {
                    is_hole(source, &mut (0..0), copy * SECTOR, bytes).unwrap_or(false)
                })
            {
                continue;
            }
            let count = geometry.entries_of(n);
            let entries = geometry.read_entries(source, "grain table", sector, count)?;
            if let Some(check) = check.as_deref_mut() {
                self.compare(n, &entries, copy, check)?;
            }
            self.grains(n, &entries, runs, &mut previous, check.as_deref_mut())?;
            let way = u128::from(source.len()) * u128::from(done) / self.tables.len() as u128;
            self.progress.reached(self.base + way as u64);
        }
        Ok(())
    }

    /// Holds the redundant copy of table `n` to it.
    fn compare(&self, n: u64, entries: &[u64], copy: Option<u64>, check: &mut Check) -> Result<()> {
        let extent = self.extent;
        let Some(sector) = copy else {
            if extent.copy_sector.is_some() && !self.copies.is_empty() {
                let message = format!("has no table {n}, which the first one has");
                extent.corruption(check, "redundant grain directory", message);
            }
            return Ok(());
        };
        let source = extent.source.as_ref();
        let place = "redundant grain table";
        let copy = extent
            .geometry
            .read_entries(source, place, sector, entries.len())?;
        let differ = entries.iter().zip(&copy).filter(|(a, b)| a != b).count();
        if differ > 0 {
            let message = format!(
                "table {n} at sector {sector:#x} differs from the first in {differ} entries"
            );
            extent.corruption(check, place, message);
        }
        Ok(())
    }

    /// The grains of table `n`.
    fn grains(
        &self,
        n: u64,
        entries: &[u64],
        runs: &mut Runs,
        previous: &mut Option<u64>,
        mut check: Option<&mut Check>,
    ) -> Result<()> {
        let extent = self.extent;
        let geometry = &extent.geometry;
        let first = n * u64::from(geometry.table_entries);
        let mut packed = Vec::new();
        for (grain, &entry) in (first..).zip(entries) {
            let start = grain * geometry.grain_size;
            let whole = geometry.grain_size.min(geometry.capacity - start);
            let sector = match geometry.grain(entry) {
                Ok(Grain::Absent | Grain::Zeroed) => continue,
                Ok(Grain::At(sector)) => sector,
                Err(e) => {
                    if let Some(check) = check.as_deref_mut() {
                        let message = format!("grain {grain}: {}", e.message());
                        extent.corruption(check, e.place(), message);
                    }
                    continue;
                }
            };
            if let Some(check) = check.as_deref_mut() {
                check.allocated_units += 1;
                check.compressed_units += u64::from(geometry.is_compressed);
                let follows = match *previous {
                    _ if grain == first && n == 0 => true,
                    None => true,
                    Some(last) if geometry.is_compressed => sector > last,
                    Some(last) => sector == last + geometry.grain_size / SECTOR,
                };
                check.fragmented_units += u64::from(!follows);
            }
            *previous = Some(sector);
            if geometry.is_compressed {
                packed.push(Wanted {
                    sector,
                    lba: start / SECTOR,
                    skip: 0,
                    whole: whole as usize,
                    part: 0..whole as usize,
                });
                continue;
            }
            match place_of(extent.source.as_ref(), "grain", sector, whole) {
                Ok(at) => {
                    runs.push(sectors_of(at.0, whole));
                    if let Some(check) = check.as_deref_mut() {
                        check.end_offset = check.end_offset.max(at.0 + whole);
                    }
                }
                Err(e) => {
                    if let Some(check) = check.as_deref_mut() {
                        let message = format!("grain {grain} {}", e.message());
                        extent.corruption(check, "grain table", message);
                    }
                }
            }
        }
        self.packed(&packed, runs, check)
    }

    /// Compressed grains: each has to be for its place and to inflate.
    fn packed(&self, grains: &[Wanted], runs: &mut Runs, check: Option<&mut Check>) -> Result<()> {
        let extent = self.extent;
        let source = extent.source.as_ref();
        let grain_size = extent.geometry.grain_size as usize;
        let inflates = check.is_some();
        let lens: Vec<_> = grains
            .par_chunks(GRAINS_AT_ONCE)
            .flat_map_iter(|some| grains::verify(source, grain_size, some, inflates))
            .collect();
        let mut check = check;
        for (grain, len) in grains.iter().zip(lens) {
            match len {
                Ok(len) => {
                    runs.push(sectors_of(grain.sector * SECTOR, len));
                    if let Some(check) = check.as_deref_mut() {
                        check.end_offset = check.end_offset.max(grain.sector * SECTOR + len);
                    }
                }
                Err(e) if e.kind() != ErrorKind::Malformed => return Err(e),
                Err(e) => {
                    if let Some(check) = check.as_deref_mut() {
                        extent.error(check, &e);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether the file has only a hole in `len` bytes at `at`; `hole` remembers the last one.
fn is_hole(source: &dyn Source, hole: &mut Range<u64>, at: u64, len: u64) -> Result<bool> {
    if !(hole.start <= at && at + len <= hole.end) {
        let data = source.next_data(HostOffset(at))?;
        *hole = at..data.map_or(source.len(), |data| data.start.0);
    }
    Ok(at + len <= hole.end)
}
