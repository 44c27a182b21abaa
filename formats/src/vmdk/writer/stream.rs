//! streamOptimized: compressed grains in one pass.

use super::{GRAIN, GRAIN_SECTORS, TABLE_ENTRIES, sector_number, words};
use crate::bytes::is_zero;
use crate::codec::deflate::Deflater;
use crate::copy::{Encode, Payload, Shape, Summary, Tables, Target};
use crate::vmdk::layout::{
    COMPRESSION_DEFLATE, FLAG_COMPRESSED, FLAG_MARKERS, FLAG_NEWLINE_TEST, FLAG_ZEROED_GRAIN,
    GRAIN_MARKER_LEN, Header, MarkerType, NEWLINES, SECTOR, emit_marker,
};
use crate::vmdk::options::{DESCRIPTOR_SECTORS, WriteOptions};
use crate::{Error, Format, HostOffset, Result, Sink, UnitIndex};

pub(super) struct Writer {
    options: WriteOptions,
    /// Guest sectors.
    sectors: u64,
    /// First sector not given away.
    next: u64,
    /// The grain table being filled, and its number.
    table: Option<(u64, Vec<u32>)>,
    /// Where the tables went. Entries behind the last are zero.
    directory: Vec<u32>,
}

impl Writer {
    pub(super) fn new(options: &WriteOptions, sectors: u64) -> Self {
        Self {
            options: options.clone(),
            sectors,
            next: GRAIN_SECTORS,
            table: None,
            directory: Vec::new(),
        }
    }

    /// Hands out the current grain table.
    fn flush(&mut self, out: &mut Tables) -> Result<()> {
        let Some((n, entries)) = self.table.take() else {
            return Ok(());
        };
        let at = self.announce(MarkerType::GrainTable, &words(&entries), out);
        self.directory.resize(n as usize, 0);
        self.directory.push(sector_number(at)?);
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
        let mut flags = FLAG_NEWLINE_TEST | FLAG_COMPRESSED | FLAG_MARKERS;
        if self.options.zeroed_grain {
            flags |= FLAG_ZEROED_GRAIN;
        }
        Header {
            version: 3,
            flags,
            capacity_sectors: self.sectors,
            grain_sectors: GRAIN_SECTORS,
            descriptor_sector: 1,
            descriptor_sectors: DESCRIPTOR_SECTORS,
            table_entries: TABLE_ENTRIES as u32,
            redundant_directory_sector: 0,
            directory_sector: None,
            overhead_sectors: GRAIN_SECTORS,
            is_unclean: false,
            newlines: *NEWLINES,
            compression: COMPRESSION_DEFLATE,
        }
    }

    fn descriptor(&self) -> String {
        let line = format!("RDONLY {} SPARSE \"generated-stream.vmdk\"\n", self.sectors);
        self.options.descriptor(self.sectors, &line)
    }

    /// Grain directory, footer and end.
    fn end(&mut self, out: &mut Tables) {
        let tables = self.sectors.div_ceil(GRAIN_SECTORS * TABLE_ENTRIES);
        let mut directory = std::mem::take(&mut self.directory);
        directory.resize(tables as usize, 0);
        let at = self.announce(MarkerType::GrainDirectory, &words(&directory), out);
        let footer = Header {
            directory_sector: Some(at),
            ..self.header()
        };
        self.announce(MarkerType::Footer, &footer.emit(), out);
        self.announce(MarkerType::EndOfStream, &[], out);
    }
}

impl Target for Writer {
    fn unit(&self) -> u64 {
        GRAIN
    }

    fn preamble(&self) -> Option<Vec<u8>> {
        let mut bytes = self.header().emit().to_vec();
        bytes.resize(SECTOR as usize, 0);
        bytes.extend(self.descriptor().bytes());
        Some(bytes)
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(Packer {
            deflater: Deflater::new(self.options.compression_level),
            whole: Vec::new(),
        }))
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
        let (Payload::Verbatim(len) | Payload::Packed(len)) = payload;
        self.next += len.div_ceil(SECTOR);
        Ok(HostOffset(sector * SECTOR))
    }

    fn finish(mut self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        let mut tables = Tables::new();
        self.flush(&mut tables)?;
        self.end(&mut tables);
        for (at, bytes) in &tables {
            sink.write_all_at(bytes, *at)?;
        }
        let file_size = self.next * SECTOR;
        sink.set_len(file_size)?;
        sink.write_all_at(self.descriptor().as_bytes(), HostOffset(SECTOR))?;
        sink.write_all_at(&self.header().emit(), HostOffset::ZERO)?;
        Ok(Summary { file_size })
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

    fn memory(&self) -> u64 {
        self.deflater.memory()
    }
}
