//! Writing: one pass, in guest order, nothing kept but the tables at hand.

use super::allocate::{Allocator, refcount_table_clusters};
use super::entries::{compressed_entry, entry};
use super::layout::{Compression, Geometry, MAX_L1_BYTES, NewHeader};
use super::options::WriteOptions;
use crate::bytes::is_zero;
use crate::codec::deflate::Deflater;
use crate::codec::zstd;
use crate::copy::{Encode, Payload, Shape, Summary, Tables, Target};
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
    geometry: Geometry,
    virtual_size: u64,
    allocator: Allocator,
    refcount_table_offset: HostOffset,
    refcount_table_clusters: u32,
    l1_offset: HostOffset,
    l1: Vec<u64>,
    l2: Option<L2>,
}

/// The L2 table being filled.
struct L2 {
    l1_index: usize,
    at: HostOffset,
    entries: Vec<u64>,
}

impl Writer {
    pub(super) fn new(options: &WriteOptions, virtual_size: u64) -> Result<Self> {
        options.check()?;
        let cluster_size = options.cluster_size;
        let too_large = || {
            Error::usage(format!(
                "clusters of {cluster_size} bytes cannot address {virtual_size} bytes: choose a \
                 larger cluster_size"
            ))
        };
        let virtual_size = virtual_size
            .checked_next_multiple_of(512)
            .ok_or_else(too_large)?;
        let geometry = Geometry {
            cluster_bits: cluster_size.trailing_zeros(),
            is_extended: false,
        };
        let l1_size = geometry.l1_needed(virtual_size);
        if l1_size > MAX_L1_BYTES / 8 {
            return Err(too_large());
        }
        let l1_clusters = (l1_size * 8).div_ceil(cluster_size);
        // Room for the case that every guest cluster is stored.
        let most = 1 + l1_clusters + l1_size + virtual_size.div_ceil(cluster_size);
        let table_clusters = refcount_table_clusters(most, cluster_size).ok_or_else(too_large)?;
        let mut allocator = Allocator::new(cluster_size, table_clusters);
        allocator.clusters(1); // header
        Ok(Self {
            options: options.clone(),
            geometry,
            virtual_size,
            refcount_table_offset: allocator.clusters(table_clusters.into()),
            refcount_table_clusters: table_clusters,
            l1_offset: allocator.clusters(l1_clusters),
            l1: vec![0; l1_size as usize],
            l2: None,
            allocator,
        })
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
            entries: vec![0; self.geometry.l2_entries() as usize],
        })
    }
}

fn full(at: HostOffset) -> Error {
    Error::limit(
        Format::Qcow2,
        "L2 table",
        format!("cannot point to {at}: the file is too large"),
    )
}

fn emit(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|e| e.to_be_bytes()).collect()
}

impl Target for Writer {
    fn unit(&self) -> u64 {
        self.geometry.cluster_size()
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        let level = self.options.compression_level;
        let pack = match self.options.compression_type {
            _ if !self.options.compress => Pack::Nothing,
            Compression::Zlib => Pack::Zlib(Deflater::new(level.unwrap_or(ZLIB_LEVEL))),
            Compression::Zstd => Pack::Zstd(
                zstd::Compressor::new(level.unwrap_or(ZSTD_LEVEL))
                    .map_err(|e| Error::io("setting up zstd", e))?,
            ),
        };
        Ok(Box::new(Encoder {
            cluster_size: self.geometry.cluster_size() as usize,
            pack,
            whole: Vec::new(),
        }))
    }

    fn place(&mut self, n: UnitIndex, payload: Payload, tables: &mut Tables) -> Result<HostOffset> {
        let l2_entries = self.geometry.l2_entries();
        let l1_index = (n / l2_entries) as usize;
        if l1_index >= self.l1.len() {
            return Err(Error::usage(format!(
                "cluster {n} lies past the virtual size of {} bytes",
                self.virtual_size
            )));
        }
        let mut l2 = self.take_l2(l1_index, tables)?;
        let (at, entry) = match payload {
            Payload::Verbatim(_) => {
                let at = self.allocator.clusters(1);
                (at, entry(at))
            }
            Payload::Packed(len) => {
                let at = self.allocator.bytes(len);
                (at, compressed_entry(at, len, self.geometry.cluster_bits))
            }
        };
        l2.entries[(n % l2_entries) as usize] = entry.ok_or_else(|| full(at))?;
        self.l2 = Some(l2);
        self.allocator.place_blocks(tables)?;
        Ok(at)
    }

    fn finish(mut self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        let mut tables = Tables::new();
        self.close_l2(&mut tables);
        self.allocator.finish(&mut tables)?;
        tables.push((self.l1_offset, emit(&self.l1)));
        tables.push((self.refcount_table_offset, emit(self.allocator.blocks())));
        for (at, table) in &tables {
            sink.write_all_at(table, *at)?;
        }
        let file_size = self.allocator.file_size();
        sink.set_len(file_size)?;
        let header = NewHeader {
            cluster_bits: self.geometry.cluster_bits,
            virtual_size: self.virtual_size,
            compression: self.options.compression_type,
            l1_offset: self.l1_offset,
            l1_size: self.l1.len() as u32, // at most 32 MiB of entries
            refcount_table_offset: self.refcount_table_offset,
            refcount_table_clusters: self.refcount_table_clusters,
        };
        sink.write_all_at(&header.emit(), HostOffset::ZERO)?;
        Ok(Summary { file_size })
    }
}

struct Encoder {
    cluster_size: usize,
    pack: Pack,
    /// The last cluster of the disk, made whole with zeros.
    whole: Vec<u8>,
}

enum Pack {
    Nothing,
    Zlib(Deflater),
    Zstd(zstd::Compressor),
}

impl Encode for Encoder {
    fn encode(&mut self, _: UnitIndex, data: &[u8], packed: &mut Vec<u8>) -> Result<Shape> {
        if is_zero(data) {
            return Ok(Shape::Zero);
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
            Pack::Zstd(compressor) => compressor.compress(data, most, packed),
        };
        Ok(len.map_or(Shape::Verbatim, Shape::Packed))
    }
}
