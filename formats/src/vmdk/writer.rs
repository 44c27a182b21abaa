//! Writes monolithicSparse and streamOptimized.
//!
//! Grains come in guest order. A stream takes them as they come, each grain table behind its
//! grains, directory and footer at the end: nothing is written before what precedes it, so the
//! layout is that of a stream written by VMware. In monolithicSparse the places of all tables
//! follow from the virtual size.

use super::layout::{
    COMPRESSION_DEFLATE, COMPRESSION_NONE, FLAG_COMPRESSED, FLAG_MARKERS, FLAG_NEWLINE_TEST,
    FLAG_REDUNDANT_TABLE, GRAIN_MARKER_LEN, Header, MarkerType, NEWLINES, SECTOR, emit_marker,
};
use super::options::{DESCRIPTOR_SECTORS, Subformat, WriteOptions};
use crate::bytes::is_zero;
use crate::codec::deflate::Deflater;
use crate::copy::{Encode, Payload, Shape, Summary, Tables, Target};
use crate::{Error, Format, HostOffset, Result, Sink, UnitIndex};

/// Bytes of a grain: what every writer uses.
const GRAIN: u64 = 64 << 10;
const GRAIN_SECTORS: u64 = GRAIN / SECTOR;
/// `numGTEsPerGT`.
const TABLE_ENTRIES: u64 = 512;
const TABLE_SECTORS: u64 = TABLE_ENTRIES * 4 / SECTOR;
const DESCRIPTOR_SECTOR: u64 = 1;
/// First sector after the descriptor: the redundant grain directory.
const TABLES_SECTOR: u64 = DESCRIPTOR_SECTOR + DESCRIPTOR_SECTORS;
/// Largest disk written; VMware's own bound is 62 TiB.
const MAX_VIRTUAL_SIZE: u64 = 64 << 40;

/// Starts a new vmdk of `virtual_size` bytes, rounded up to whole sectors.
///
/// # Errors
/// `Usage` beyond 64 TiB, and for 0 bytes, which other programs do not open.
pub fn create(options: &WriteOptions, virtual_size: u64) -> Result<Box<dyn Target>> {
    if virtual_size == 0 {
        return Err(Error::usage("a vmdk cannot hold a disk of 0 bytes"));
    }
    if virtual_size > MAX_VIRTUAL_SIZE {
        return Err(Error::usage(format!(
            "a vmdk of {virtual_size} bytes is larger than {MAX_VIRTUAL_SIZE}"
        )));
    }
    let layout = Layout::new(virtual_size.div_ceil(SECTOR));
    Ok(Box::new(Writer {
        next: match options.subformat {
            Subformat::MonolithicSparse => layout.overhead,
            Subformat::StreamOptimized => GRAIN_SECTORS,
        },
        options: options.clone(),
        layout,
        table: None,
        directory: Vec::new(),
    }))
}

/// Where the structures lie, all in sectors.
struct Layout {
    capacity: u64,
    tables: u64,
    /// Of one grain directory.
    directory_sectors: u64,
    /// Before the first grain of monolithicSparse.
    overhead: u64,
}

impl Layout {
    fn new(capacity: u64) -> Self {
        let tables = capacity.div_ceil(GRAIN_SECTORS * TABLE_ENTRIES);
        let directory_sectors = (tables * 4).div_ceil(SECTOR);
        let both = 2 * (directory_sectors + tables * TABLE_SECTORS);
        Self {
            capacity,
            tables,
            directory_sectors,
            overhead: (TABLES_SECTOR + both).next_multiple_of(GRAIN_SECTORS),
        }
    }

    /// The grain directory of monolithicSparse, or its redundant copy, which comes first.
    fn directory(&self, is_copy: bool) -> u64 {
        match is_copy {
            true => TABLES_SECTOR,
            false => TABLES_SECTOR + self.directory_sectors + self.tables * TABLE_SECTORS,
        }
    }

    /// A grain table of monolithicSparse.
    fn table(&self, n: u64, is_copy: bool) -> u64 {
        self.directory(is_copy) + self.directory_sectors + n * TABLE_SECTORS
    }
}

struct Writer {
    options: WriteOptions,
    layout: Layout,
    /// First sector not given away.
    next: u64,
    /// The grain table being filled, and its number.
    table: Option<(u64, Vec<u32>)>,
    /// Of a stream: where the tables went. Entries behind the last are zero.
    directory: Vec<u32>,
}

impl Writer {
    fn is_stream(&self) -> bool {
        self.options.subformat == Subformat::StreamOptimized
    }

    /// Hands out the current grain table.
    fn flush(&mut self, out: &mut Tables) -> Result<()> {
        let Some((n, entries)) = self.table.take() else {
            return Ok(());
        };
        let bytes = words(&entries);
        if self.is_stream() {
            let at = self.announce(MarkerType::GrainTable, &bytes, out);
            self.directory.resize(n as usize, 0);
            self.directory.push(sector_number(at)?);
        } else {
            for is_copy in [true, false] {
                let at = HostOffset(self.layout.table(n, is_copy) * SECTOR);
                out.push((at, bytes.clone()));
            }
        }
        Ok(())
    }

    /// Appends a marker and what it announces; answers the sector of the latter.
    fn announce(&mut self, kind: MarkerType, what: &[u8], out: &mut Tables) -> u64 {
        let sectors = (what.len() as u64).div_ceil(SECTOR);
        let mut bytes = emit_marker(kind, sectors).to_vec();
        bytes.extend(what);
        bytes.resize(((sectors + 1) * SECTOR) as usize, 0);
        out.push((HostOffset(self.next * SECTOR), bytes));
        let at = self.next + 1;
        self.next = at + sectors;
        at
    }

    fn header(&self) -> Header {
        let is_stream = self.is_stream();
        Header {
            version: if is_stream { 3 } else { 1 },
            flags: FLAG_NEWLINE_TEST
                | if is_stream {
                    FLAG_COMPRESSED | FLAG_MARKERS
                } else {
                    FLAG_REDUNDANT_TABLE
                },
            capacity_sectors: self.layout.capacity,
            grain_sectors: GRAIN_SECTORS,
            descriptor_sector: DESCRIPTOR_SECTOR,
            descriptor_sectors: DESCRIPTOR_SECTORS,
            table_entries: TABLE_ENTRIES as u32,
            redundant_directory_sector: if is_stream {
                0
            } else {
                self.layout.directory(true)
            },
            directory_sector: (!is_stream).then(|| self.layout.directory(false)),
            overhead_sectors: if is_stream {
                GRAIN_SECTORS
            } else {
                self.layout.overhead
            },
            is_unclean: false,
            newlines: *NEWLINES,
            compression: if is_stream {
                COMPRESSION_DEFLATE
            } else {
                COMPRESSION_NONE
            },
        }
    }

    /// Grain directory, footer and end of a stream.
    fn end_stream(&mut self, out: &mut Tables) {
        let mut directory = std::mem::take(&mut self.directory);
        directory.resize(self.layout.tables as usize, 0);
        let at = self.announce(MarkerType::GrainDirectory, &words(&directory), out);
        let footer = Header {
            directory_sector: Some(at),
            ..self.header()
        };
        self.announce(MarkerType::Footer, &footer.emit(), out);
        self.announce(MarkerType::EndOfStream, &[], out);
    }

    /// Both grain directories of monolithicSparse: every table has its place, used or not.
    fn directories(&self, out: &mut Tables) -> Result<()> {
        for is_copy in [true, false] {
            let entries = (0..self.layout.tables)
                .map(|n| sector_number(self.layout.table(n, is_copy)))
                .collect::<Result<Vec<_>>>()?;
            let at = HostOffset(self.layout.directory(is_copy) * SECTOR);
            out.push((at, words(&entries)));
        }
        Ok(())
    }
}

fn words(entries: &[u32]) -> Vec<u8> {
    entries
        .iter()
        .flat_map(|entry| entry.to_le_bytes())
        .collect()
}

fn sector_number(sector: u64) -> Result<u32> {
    u32::try_from(sector).map_err(|_| {
        Error::limit(
            Format::Vmdk,
            "file",
            "grows beyond 2 TiB, the most that 32 bits of sectors address",
        )
    })
}

impl Target for Writer {
    fn unit(&self) -> u64 {
        GRAIN
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Ok(match self.options.subformat {
            Subformat::MonolithicSparse => Box::new(Plain),
            Subformat::StreamOptimized => Box::new(Packer {
                deflater: Deflater::new(self.options.compression_level),
                whole: Vec::new(),
            }),
        })
    }

    fn place(&mut self, n: UnitIndex, payload: Payload, tables: &mut Tables) -> Result<HostOffset> {
        let number = n / TABLE_ENTRIES;
        if self.table.as_ref().is_some_and(|(open, _)| *open != number) {
            self.flush(tables)?;
        }
        let sector = self.next;
        let entry = sector_number(sector)?;
        let (_, entries) = self
            .table
            .get_or_insert_with(|| (number, vec![0; TABLE_ENTRIES as usize]));
        entries[(n % TABLE_ENTRIES) as usize] = entry;
        self.next += match payload {
            Payload::Verbatim(_) => GRAIN_SECTORS,
            Payload::Packed(len) => len.div_ceil(SECTOR),
        };
        Ok(HostOffset(sector * SECTOR))
    }

    fn finish(mut self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        let mut tables = Tables::new();
        self.flush(&mut tables)?;
        if self.is_stream() {
            self.end_stream(&mut tables);
        } else {
            self.directories(&mut tables)?;
        }
        for (at, bytes) in &tables {
            sink.write_all_at(bytes, *at)?;
        }
        let file_size = self.next * SECTOR;
        sink.set_len(file_size)?;
        let text = self.options.descriptor(self.layout.capacity);
        sink.write_all_at(text.as_bytes(), HostOffset(DESCRIPTOR_SECTOR * SECTOR))?;
        sink.write_all_at(&self.header().emit(), HostOffset::ZERO)?;
        Ok(Summary { file_size })
    }
}

/// Grains as they are.
struct Plain;

impl Encode for Plain {
    fn encode(&mut self, _: UnitIndex, data: &[u8], _: &mut Vec<u8>) -> Result<Shape> {
        Ok(if is_zero(data) {
            Shape::Zero
        } else {
            Shape::Verbatim
        })
    }
}

/// Compressed grains: marker, zlib stream, zeros up to a sector.
struct Packer {
    deflater: Deflater,
    /// The last grain, filled up: some readers want it whole.
    whole: Vec<u8>,
}

impl Encode for Packer {
    fn encode(&mut self, n: UnitIndex, data: &[u8], packed: &mut Vec<u8>) -> Result<Shape> {
        if is_zero(data) {
            return Ok(Shape::Zero);
        }
        let data = if (data.len() as u64) < GRAIN {
            self.whole.clear();
            self.whole.extend_from_slice(data);
            self.whole.resize(GRAIN as usize, 0);
            &self.whole
        } else {
            data
        };
        let start = packed.len();
        packed.extend_from_slice(&(n * GRAIN_SECTORS).to_le_bytes());
        packed.extend_from_slice(&[0; 4]);
        // Noise grows by a few bytes for each 64 KiB, never by a sector.
        let max = data.len() + SECTOR as usize;
        let Some(len) = self.deflater.zlib(data, max, packed) else {
            return Err(Error::limit(
                Format::Vmdk,
                "grain",
                format!("compresses to more than {max} bytes"),
            ));
        };
        let size = u32::try_from(len).unwrap_or(u32::MAX);
        packed[start + 8..start + GRAIN_MARKER_LEN].copy_from_slice(&size.to_le_bytes());
        let len = (GRAIN_MARKER_LEN + len).next_multiple_of(SECTOR as usize);
        packed.resize(start + len, 0);
        Ok(Shape::Packed(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_beyond_32_bits_of_sectors_is_an_error() {
        let mut writer = Writer {
            options: WriteOptions::default(),
            layout: Layout::new(1 << 33),
            next: 1 << 32,
            table: None,
            directory: Vec::new(),
        };
        let error = writer
            .place(0, Payload::Verbatim(GRAIN), &mut Tables::new())
            .unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Limit);
        assert!(create(&WriteOptions::default(), (64 << 40) + 1).is_err());
    }
}
