//! What both writers share: the sizes that follow from the options, and the last steps.

use super::allocate::refcount_clusters;
use super::layout::{Geometry, MAX_L1_BYTES, MAX_REFCOUNT_TABLE_BYTES, NewHeader};
use super::options::{Version, WriteOptions};
use crate::{Error, HostOffset, Result, Sink};

/// Entries of a table that are written at once.
const PIECE: usize = 8192;

/// Sizes of a new image.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) geometry: Geometry,
    /// Whole sectors.
    pub(super) virtual_size: u64,
    pub(super) refcount_order: u32,
    /// Entries of the L1 table.
    pub(super) l1_size: u64,
    pub(super) l1_clusters: u64,
    /// Clusters of the refcount table.
    pub(super) refcount_table_clusters: u64,
}

impl Shape {
    /// For options that were checked, and `luks_len` bytes of encryption header.
    ///
    /// # Errors
    /// `Usage` when clusters of that size cannot address `virtual_size` bytes.
    pub(super) fn new(options: &WriteOptions, virtual_size: u64, luks_len: u64) -> Result<Self> {
        let cluster_size = options.cluster_size;
        let virtual_size = virtual_size
            .checked_next_multiple_of(512)
            .ok_or_else(|| too_large(options, virtual_size))?;
        let geometry = Geometry {
            cluster_bits: cluster_size.trailing_zeros(),
            is_extended: options.extended_l2,
        };
        let l1_size = geometry.l1_needed(virtual_size);
        if l1_size > MAX_L1_BYTES / 8 {
            return Err(too_large(options, virtual_size));
        }
        let l1_clusters = (l1_size * 8).div_ceil(cluster_size);
        let refcount_order = options.refcount_bits.trailing_zeros();
        // Room for the case that every guest cluster is stored, as far as there can be.
        let luks_clusters = luks_len.div_ceil(cluster_size);
        let most = 1 + l1_clusters + luks_clusters + l1_size + virtual_size.div_ceil(cluster_size);
        let refcount_table_clusters = refcount_clusters(most, cluster_size, refcount_order)
            .map_or(MAX_REFCOUNT_TABLE_BYTES / cluster_size, |(table, _)| table);
        Ok(Self {
            geometry,
            virtual_size,
            refcount_order,
            l1_size,
            l1_clusters,
            refcount_table_clusters,
        })
    }

    /// The header of the image, whose tables lie where these offsets say.
    pub(super) fn header(
        &self,
        options: &WriteOptions,
        l1_offset: HostOffset,
        refcount_table_offset: HostOffset,
    ) -> NewHeader {
        NewHeader {
            version: match options.compat {
                Version::V2 => 2,
                Version::V3 => 3,
            },
            geometry: self.geometry,
            refcount_order: self.refcount_order,
            has_lazy_refcounts: options.lazy_refcounts,
            virtual_size: self.virtual_size,
            compression: options.compression_type,
            l1_offset,
            l1_size: self.l1_size as u32, // at most 32 MiB of entries
            refcount_table_offset,
            refcount_table_clusters: self.refcount_table_clusters as u32, // at most 8 MiB
        }
    }
}

pub(super) fn too_large(options: &WriteOptions, virtual_size: u64) -> Error {
    Error::usage(format!(
        "clusters of {} bytes cannot address {virtual_size} bytes: choose a larger cluster_size",
        options.cluster_size
    ))
}

/// Writes `entries` as a table at `at`, but for what is zero anyway: of a huge disk that is
/// nearly all.
pub(super) fn write_table(sink: &dyn Sink, entries: &[u64], at: HostOffset) -> Result<()> {
    let mut start = at;
    for piece in entries.chunks(PIECE) {
        if piece.iter().any(|&entry| entry != 0) {
            sink.write_all_at(&emit(piece), start)?;
        }
        start.0 += piece.len() as u64 * 8;
    }
    Ok(())
}

/// The bytes of table entries.
pub(super) fn emit(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|e| e.to_be_bytes()).collect()
}
