//! Writing: one pass, in guest order, nothing kept but the tables at hand.

use super::allocate::Allocator;
use super::crypt::{Luks, Sealer};
use super::entries::{ALL_DATA, compressed_entry, entry};
use super::layout::Compression;
use super::options::WriteOptions;
use super::shape::{Shape, emit, write_table};
use crate::bytes::is_zero;
use crate::codec::deflate::Deflater;
use crate::codec::zstd;
use crate::copy::{self, Encode, Payload, Summary, Tables, Target};
use crate::{Error, Format, HostOffset, Result, Sink, UnitIndex};

/// libdeflate's fastest: four to five times as fast as zlib's default level with qemu's 4 KiB
/// window; denser on text, some 3 % less dense on programs. Its distances may reach back over
/// 32 KiB, as RFC 1951 allows: qemu inflates a cluster in one call into one buffer, and zlib
/// then takes them whatever window it was told.
const ZLIB_LEVEL: u8 = 1;
/// zstd's own default, which is qemu's.
const ZSTD_LEVEL: u8 = 3;

/// Writes an image.
pub(super) struct Writer {
    options: WriteOptions,
    shape: Shape,
    allocator: Allocator,
    refcount_table_offset: HostOffset,
    l1_offset: HostOffset,
    l1: Vec<u64>,
    l2: Option<L2>,
    /// Where an encrypted image has its LUKS header.
    luks: Option<(Luks, HostOffset)>,
}

/// The L2 table being filled.
struct L2 {
    l1_index: usize,
    at: HostOffset,
    entries: Vec<u64>,
}

impl Writer {
    pub(super) fn new(options: &WriteOptions, shape: Shape, luks: Option<Luks>) -> Self {
        let table_clusters = shape.refcount_table_clusters;
        let cluster_size = shape.geometry.cluster_size();
        let mut allocator = Allocator::new(cluster_size, shape.refcount_order, table_clusters);
        allocator.clusters(1); // header
        Self {
            options: options.clone(),
            shape,
            refcount_table_offset: allocator.clusters(table_clusters),
            l1_offset: allocator.clusters(shape.l1_clusters),
            l1: vec![0; shape.l1_size as usize],
            l2: None,
            luks: luks.map(|luks| {
                let at = allocator.clusters(luks.len().div_ceil(cluster_size));
                (luks, at)
            }),
            allocator,
        }
    }

    /// Hands out the L2 table being filled, where there is one.
    fn close_l2(&mut self, tables: &mut Tables) {
        if let Some(l2) = self.l2.take() {
            tables.push((l2.at, emit(&l2.entries)));
        }
    }

    /// Takes out the L2 table of L1 entry `l1_index`, begun if need be; the last one is handed
    /// out then.
    fn take_l2(&mut self, l1_index: usize, tables: &mut Tables) -> Result<L2> {
        if let Some(l2) = self.l2.take_if(|l2| l2.l1_index == l1_index) {
            return Ok(l2);
        }
        self.close_l2(tables);
        let at = self.allocator.clusters(1);
        self.l1[l1_index] = entry(at).ok_or_else(|| full(at))?;
        Ok(L2 {
            l1_index,
            at,
            entries: vec![0; self.shape.geometry.cluster_size() as usize / 8],
        })
    }
}

pub(super) fn full(at: HostOffset) -> Error {
    Error::limit(
        Format::Qcow2,
        "L2 table",
        format!("cannot point to {at}: the file is too large"),
    )
}

impl Target for Writer {
    fn unit(&self) -> u64 {
        self.shape.geometry.cluster_size()
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        let sealer = self.luks.as_ref().map(|(luks, _)| luks.sealer());
        Ok(Box::new(Encoder::new(&self.options, sealer)?))
    }

    fn place(&mut self, n: UnitIndex, payload: Payload, tables: &mut Tables) -> Result<HostOffset> {
        let geometry = self.shape.geometry;
        let l2_entries = geometry.l2_entries();
        let l1_index = (n / l2_entries) as usize;
        if l1_index >= self.l1.len() {
            return Err(Error::usage(format!(
                "cluster {n} lies past the virtual size of {} bytes",
                self.shape.virtual_size
            )));
        }
        let mut l2 = self.take_l2(l1_index, tables)?;
        let (at, entry, bitmap) = match payload {
            // Of an encrypted image nothing is compressed: this is the end of the disk, made
            // whole sectors.
            Payload::Packed(_) if self.luks.is_some() => {
                let at = self.allocator.clusters(1);
                (at, entry(at), ALL_DATA)
            }
            Payload::Verbatim(_) => {
                let at = self.allocator.clusters(1);
                (at, entry(at), ALL_DATA)
            }
            Payload::Packed(len) => {
                let at = self.allocator.bytes(len);
                (at, compressed_entry(at, len, geometry.cluster_bits), 0)
            }
        };
        let entry = entry.ok_or_else(|| full(at))?;
        let index = (n % l2_entries) as usize;
        if geometry.is_extended {
            l2.entries[2 * index] = entry;
            l2.entries[2 * index + 1] = bitmap;
        } else {
            l2.entries[index] = entry;
        }
        self.l2 = Some(l2);
        self.allocator.place_blocks(tables)?;
        Ok(at)
    }

    fn finish(mut self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        let mut tables = Tables::new();
        self.close_l2(&mut tables);
        self.allocator.finish(&mut tables)?;
        for (at, table) in &tables {
            sink.write_all_at(table, *at)?;
        }
        write_table(sink, &self.l1, self.l1_offset)?;
        write_table(sink, self.allocator.blocks(), self.refcount_table_offset)?;
        let file_size = self.allocator.file_size();
        sink.set_len(file_size)?;
        let (l1, refcounts) = (self.l1_offset, self.refcount_table_offset);
        let mut header = self.shape.header(&self.options, l1, refcounts).emit();
        if let Some((luks, at)) = &self.luks {
            luks.finish(sink, *at, &mut header)?;
        }
        sink.write_all_at(&header, HostOffset::ZERO)?;
        Ok(Summary { file_size })
    }
}

/// Finds zeros, compresses, encrypts; both writers' own.
pub(super) struct Encoder {
    cluster_size: usize,
    pack: Pack,
    sealer: Option<Sealer>,
    /// The last cluster of the disk, made whole with zeros.
    whole: Vec<u8>,
}

enum Pack {
    Nothing,
    Zlib(Deflater),
    /// And the bytes of memory it takes at most.
    Zstd(zstd::Compressor, u64),
}

impl Encoder {
    pub(super) fn new(options: &WriteOptions, sealer: Option<Sealer>) -> Result<Self> {
        let level = options.compression_level;
        let pack = match options.compression_type {
            _ if !options.compress => Pack::Nothing,
            Compression::Zlib => Pack::Zlib(Deflater::new(level.unwrap_or(ZLIB_LEVEL))),
            Compression::Zstd => {
                let level = level.unwrap_or(ZSTD_LEVEL);
                let compressor =
                    zstd::Compressor::new(level).map_err(|e| Error::io("setting up zstd", e))?;
                Pack::Zstd(compressor, zstd::memory(level, options.cluster_size))
            }
        };
        Ok(Self {
            cluster_size: options.cluster_size as usize,
            pack,
            sealer,
            whole: Vec::new(),
        })
    }
}

impl Encode for Encoder {
    fn encode(&mut self, _: UnitIndex, data: &[u8], packed: &mut Vec<u8>) -> Result<copy::Shape> {
        if is_zero(data) {
            return Ok(copy::Shape::Zero);
        }
        if self.sealer.is_some() {
            return Ok(Sealer::complete(data, packed));
        }
        let data = if data.len() < self.cluster_size {
            self.whole.clear();
            self.whole.extend_from_slice(data);
            self.whole.resize(self.cluster_size, 0);
            &self.whole
        } else {
            data
        };
        // What does not shrink is stored as it is.
        let most = self.cluster_size - 1;
        let len = match &mut self.pack {
            Pack::Nothing => None,
            Pack::Zlib(deflater) => deflater.raw(data, most, packed),
            Pack::Zstd(compressor, _) => compressor.compress(data, most, packed),
        };
        Ok(len.map_or(copy::Shape::Verbatim, copy::Shape::Packed))
    }

    fn seal(&mut self, at: HostOffset, bytes: &mut [u8]) {
        if let Some(sealer) = &self.sealer {
            sealer.seal(at, bytes);
        }
    }

    fn memory(&self) -> u64 {
        match &self.pack {
            Pack::Nothing => 0,
            Pack::Zlib(deflater) => deflater.memory(),
            Pack::Zstd(_, memory) => *memory,
        }
    }
}
