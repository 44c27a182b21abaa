//! monolithicSparse, and the extent files of twoGbMaxExtentSparse: the same but for the
//! descriptor, which these have not.

use super::{GRAIN, GRAIN_SECTORS, Plain, Split, TABLE_ENTRIES, sector_number, words};
use crate::copy::{Encode, Part, Payload, Summary, Tables, Target};
use crate::vmdk::layout::{
    COMPRESSION_NONE, FLAG_NEWLINE_TEST, FLAG_REDUNDANT_TABLE, FLAG_ZEROED_GRAIN, Header, NEWLINES,
    SECTOR,
};
use crate::vmdk::options::{DESCRIPTOR_SECTORS, WriteOptions};
use crate::{HostOffset, Result, Sink, UnitIndex};

const TABLE_SECTORS: u64 = TABLE_ENTRIES * 4 / SECTOR;
/// Bytes of the linear space for an extent file of 2 GiB, which takes a little more than that.
const WINDOW: u64 = 4 << 30;

/// Where the structures of an extent lie, all in sectors.
struct Layout {
    capacity: u64,
    /// Of the embedded descriptor, which begins at sector 1.
    descriptor_sectors: u64,
    tables: u64,
    /// Of one grain directory.
    directory_sectors: u64,
    /// Before the first grain.
    overhead: u64,
}

impl Layout {
    fn new(capacity: u64, descriptor_sectors: u64) -> Self {
        let tables = capacity.div_ceil(GRAIN_SECTORS * TABLE_ENTRIES);
        let directory_sectors = (tables * 4).div_ceil(SECTOR);
        let both = 2 * (directory_sectors + tables * TABLE_SECTORS);
        Self {
            capacity,
            descriptor_sectors,
            tables,
            directory_sectors,
            overhead: (1 + descriptor_sectors + both).next_multiple_of(GRAIN_SECTORS),
        }
    }

    /// The grain directory, or its redundant copy, which comes first.
    fn directory(&self, is_copy: bool) -> u64 {
        let first = 1 + self.descriptor_sectors;
        match is_copy {
            true => first,
            false => first + self.directory_sectors + self.tables * TABLE_SECTORS,
        }
    }

    fn table(&self, n: u64, is_copy: bool) -> u64 {
        self.directory(is_copy) + self.directory_sectors + n * TABLE_SECTORS
    }

    fn header(&self, options: &WriteOptions) -> Header {
        let mut flags = FLAG_NEWLINE_TEST | FLAG_REDUNDANT_TABLE;
        if options.zeroed_grain {
            flags |= FLAG_ZEROED_GRAIN;
        }
        Header {
            version: if options.zeroed_grain { 2 } else { 1 },
            flags,
            capacity_sectors: self.capacity,
            grain_sectors: GRAIN_SECTORS,
            descriptor_sector: self.descriptor_sectors.min(1),
            descriptor_sectors: self.descriptor_sectors,
            table_entries: TABLE_ENTRIES as u32,
            redundant_directory_sector: self.directory(true),
            directory_sector: Some(self.directory(false)),
            overhead_sectors: self.overhead,
            is_unclean: false,
            newlines: *NEWLINES,
            compression: COMPRESSION_NONE,
        }
    }

    /// Writes both grain directories, where every table has its place, used or not, and the
    /// header, from `base` on.
    fn write(&self, options: &WriteOptions, base: u64, sink: &dyn Sink) -> Result<()> {
        for is_copy in [true, false] {
            let entries = (0..self.tables)
                .map(|n| sector_number(self.table(n, is_copy)))
                .collect::<Result<Vec<_>>>()?;
            let at = HostOffset(base + self.directory(is_copy) * SECTOR);
            sink.write_all_at(&words(&entries), at)?;
        }
        sink.write_all_at(&self.header(options).emit(), HostOffset(base))
    }
}

pub(super) struct Writer {
    options: WriteOptions,
    /// Guest sectors of the disk, and its extent files where there are several.
    sectors: u64,
    split: Option<Split>,
    /// The extent being filled, and its first sector not given away.
    extent: u64,
    next: u64,
    /// Length in sectors of the extent files before that one.
    ends: Vec<u64>,
    /// The grain table being filled, counted through all extents.
    table: Option<(u64, Vec<u32>)>,
}

impl Writer {
    pub(super) fn single(options: &WriteOptions, sectors: u64) -> Self {
        Self::new(options, sectors, None)
    }

    pub(super) fn split(options: &WriteOptions, split: Split) -> Self {
        Self::new(options, split.sectors, Some(split))
    }

    fn new(options: &WriteOptions, sectors: u64, split: Option<Split>) -> Self {
        let mut writer = Self {
            options: options.clone(),
            sectors,
            split,
            extent: 0,
            next: 0,
            ends: Vec::new(),
            table: None,
        };
        writer.next = writer.layout(0).overhead;
        writer
    }

    fn layout(&self, extent: u64) -> Layout {
        match &self.split {
            None => Layout::new(self.sectors, DESCRIPTOR_SECTORS),
            Some(split) => Layout::new(split.sectors_of(extent), 0),
        }
    }

    /// Tables of every extent but the last.
    fn tables_an_extent(&self) -> u64 {
        self.split.as_ref().map_or(u64::MAX, |split| {
            split.extent_sectors / (GRAIN_SECTORS * TABLE_ENTRIES)
        })
    }

    /// Goes on to `extent`: those left behind have their length.
    fn begin(&mut self, extent: u64) {
        while self.extent < extent {
            self.ends.push(self.next);
            self.extent += 1;
            self.next = self.layout(self.extent).overhead;
        }
    }

    /// Hands out the current grain table.
    fn flush(&mut self, out: &mut Tables) {
        let Some((n, entries)) = self.table.take() else {
            return;
        };
        let bytes = words(&entries);
        let layout = self.layout(self.extent);
        let n = n % self.tables_an_extent();
        for is_copy in [true, false] {
            let at = self.extent * WINDOW + layout.table(n, is_copy) * SECTOR;
            out.push((HostOffset(at), bytes.clone()));
        }
    }
}

impl Target for Writer {
    fn unit(&self) -> u64 {
        GRAIN
    }

    fn parts(&self) -> Vec<Part> {
        let split = self.split.as_ref();
        split.map_or_else(Vec::new, |split| split.parts(WINDOW))
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(Plain))
    }

    fn place(&mut self, n: UnitIndex, _: Payload, tables: &mut Tables) -> Result<HostOffset> {
        let number = n / TABLE_ENTRIES;
        if self.table.as_ref().is_some_and(|(open, _)| *open != number) {
            self.flush(tables);
        }
        self.begin(number / self.tables_an_extent());
        let sector = self.next;
        let entry = sector_number(sector)?;
        let (_, entries) = self
            .table
            .get_or_insert_with(|| (number, vec![0; TABLE_ENTRIES as usize]));
        entries[(n % TABLE_ENTRIES) as usize] = entry;
        self.next += GRAIN_SECTORS;
        Ok(HostOffset(self.extent * WINDOW + sector * SECTOR))
    }

    fn finish(mut self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        let mut tables = Tables::new();
        self.flush(&mut tables);
        for (at, bytes) in &tables {
            sink.write_all_at(bytes, *at)?;
        }
        let count = self.split.as_ref().map_or(1, Split::count);
        self.begin(count - 1);
        self.ends.push(self.next);
        for (n, end) in (0..).zip(&self.ends) {
            sink.set_len(n * WINDOW + end * SECTOR)?;
        }
        let mut file_size = self.ends.iter().sum::<u64>() * SECTOR;
        match &self.split {
            None => {
                let line = format!("RW {} SPARSE \"disk.vmdk\"\n", self.sectors);
                let text = self.options.descriptor(self.sectors, &line);
                sink.write_all_at(text.as_bytes(), HostOffset(SECTOR))?;
                self.layout(0).write(&self.options, 0, sink)?;
            }
            Some(split) => {
                for n in 0..count {
                    self.layout(n).write(&self.options, n * WINDOW, sink)?;
                }
                file_size += split.write_descriptor(&self.options, WINDOW, sink)?;
            }
        }
        Ok(Summary { file_size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_beyond_32_bits_of_sectors_is_an_error() {
        let mut writer = Writer::single(&WriteOptions::default(), 1 << 33);
        writer.next = 1 << 32;
        let error = writer
            .place(0, Payload::Verbatim(GRAIN), &mut Tables::new())
            .unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Limit);
    }
}
