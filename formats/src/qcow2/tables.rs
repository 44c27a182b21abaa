//! From guest offsets to what stands for them: the L1 table in memory, L2 tables by a cache.

use std::sync::Arc;

use super::cache::Cache;
use super::entries::{COMPRESSED, Entries, Mapping, OFFSET_MASK, numbers};
use super::layout::{Geometry, Header};
use super::rules;
use crate::limits::room_for;
use crate::{Error, Format, GuestOffset, HostOffset, Limits, Result, Source};

/// The mapping of an image. Shared by threads.
pub(super) struct Tables {
    source: Arc<dyn Source>,
    geometry: Geometry,
    entries: Entries,
    has_data_file: bool,
    l1: Vec<u64>,
    /// L2 tables by L1 index, as numbers.
    l2: Cache<[u64]>,
}

impl Tables {
    /// Reads the L1 table. `data_file_len` is the length of the external data file.
    ///
    /// # Errors
    /// `Malformed` when it does not lie inside the file, `Limit`, `Io`.
    pub(super) fn open(
        source: Arc<dyn Source>,
        header: &Header,
        data_file_len: Option<u64>,
        limits: &Limits,
    ) -> Result<Self> {
        rules::l1_table(header, source.len())?;
        let geometry = header.geometry;
        // Entries past the end of the disk mean nothing.
        let bytes = geometry.l1_needed(header.virtual_size) * 8;
        let mut l1 = vec![0; limits.table(Format::Qcow2, "L1 table", bytes)?];
        source.read_exact_at(&mut l1, header.l1_offset)?;
        let l1: Vec<_> = numbers(&l1).collect();
        let tables = l1.iter().filter(|&e| e & OFFSET_MASK != 0).count() as u64;
        let size = geometry.cluster_size();
        room_for(tables, size, source.len(), Format::Qcow2, "L1 table")?;
        Ok(Self {
            has_data_file: data_file_len.is_some(),
            geometry,
            entries: Entries::new(header, source.len(), data_file_len),
            source,
            l1,
            l2: Cache::new(limits.cache / 2, geometry.cluster_size()),
        })
    }

    /// The mapping at `at` and the end of the run, before `end`, that continues it. Never
    /// empty while `at < end`. A run ends with its L2 table at the latest, a compressed one with
    /// its cluster; of tables that are not there any number costs next to nothing.
    ///
    /// # Errors
    /// `Malformed` for entries that point nowhere, `Io`.
    pub(super) fn run(&self, at: GuestOffset, end: GuestOffset) -> Result<(GuestOffset, Mapping)> {
        let span = self.geometry.l1_span();
        let index = (at.0 / span) as usize;
        if self.l1.get(index).is_none_or(|e| e & OFFSET_MASK == 0) {
            let absent = self.l1[index.min(self.l1.len())..]
                .iter()
                .take_while(|&e| e & OFFSET_MASK == 0)
                .count();
            let stop = ((index + absent) as u64).saturating_mul(span);
            return Ok((GuestOffset(stop).min(end), Mapping::Unallocated));
        }
        let table = self.l2.get(index as u64, || self.read_l2(index))?;
        let first = self.entries.mapping(&table, at).map_err(|(_, e)| e)?;
        if let Mapping::Compressed { .. } = first {
            let cluster = at.align_down(self.geometry.cluster_size());
            let stop = cluster.0 + self.geometry.cluster_size();
            return Ok((GuestOffset(stop).min(end), first));
        }
        let granule = self.geometry.granule();
        let stop = end.min(GuestOffset((index as u64 + 1).saturating_mul(span)));
        let mut next = GuestOffset(at.align_down(granule).0 + granule);
        // What a later entry does wrong is told when it is reached.
        while next < stop
            && self
                .entries
                .mapping(&table, next)
                .is_ok_and(|m| continues(first, next.since(at), m))
        {
            next.0 += granule;
        }
        Ok((next.min(stop), first))
    }

    fn read_l2(&self, index: usize) -> Result<Arc<[u64]>> {
        let at = HostOffset(self.l1[index] & OFFSET_MASK);
        let malformed =
            |message| Error::malformed(Format::Qcow2, format!("L1 entry {index}"), message);
        let size = self.geometry.cluster_size();
        let file_len = self.source.len();
        if !at.0.is_multiple_of(size) {
            return Err(malformed(format!(
                "L2 table is at {at}, allowed multiples of {size:#x}"
            )));
        }
        if at.checked_add(size).is_none_or(|end| end.0 > file_len) {
            return Err(malformed(format!(
                "L2 table of {size} bytes is at {at}, the file ends at {file_len:#x}"
            )));
        }
        let mut bytes = vec![0; size as usize];
        self.source.read_exact_at(&mut bytes, at)?;
        let table: Arc<[u64]> = numbers(&bytes).collect();
        if !self.has_data_file {
            self.find_room(&table, index)?;
        }
        Ok(table)
    }

    /// Checks that the plain clusters of an L2 table can all be others.
    fn find_room(&self, table: &[u64], index: usize) -> Result<()> {
        let words = (self.geometry.l2_entry_size() / 8) as usize;
        let plain = |&&entry: &&u64| entry & COMPRESSED == 0 && entry & OFFSET_MASK != 0;
        let count = table.iter().step_by(words).filter(plain).count() as u64;
        let size = self.geometry.cluster_size();
        // The last cluster may be cut off.
        let file_len = HostOffset(self.source.len().saturating_add(size - 1)).align_down(size);
        let place = format!("L2 table of L1 entry {index}");
        room_for(count, size, file_len.0, Format::Qcow2, place)
    }
}

/// `len` bytes from `at`, which the caller has bounded; zeros where the file has ended.
///
/// # Errors
/// `Io`.
pub(super) fn read_zeroed(source: &dyn Source, at: HostOffset, len: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len as usize];
    let there = len.min(HostOffset(source.len()).since(at));
    source.read_exact_at(&mut bytes[..there as usize], at)?;
    Ok(bytes)
}

/// Whether `next`, `distance` bytes after `first`, goes on with it.
fn continues(first: Mapping, distance: u64, next: Mapping) -> bool {
    match (first, next) {
        (Mapping::Data(a), Mapping::Data(b)) => a.checked_add(distance) == Some(b),
        (Mapping::Unallocated, Mapping::Unallocated) | (Mapping::Zero, Mapping::Zero) => true,
        _ => false,
    }
}
