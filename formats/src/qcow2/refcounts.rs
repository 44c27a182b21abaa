//! The refcounts as the file has them.

use std::sync::Arc;

use super::cache::Cache;
use super::counts::refcount;
use super::entries::numbers;
use super::layout::Header;
use super::rules;
use super::tables::read_zeroed;
use crate::{HostOffset, Limits, Result, Source};

/// Bytes of refcount blocks kept.
const CACHE: u64 = 16 << 20;
/// Bits 9 to 63 of an entry of the refcount table.
const OFFSET_MASK: u64 = !RESERVED_MASK;
/// Bits that must not be set there.
const RESERVED_MASK: u64 = 0x1ff;

/// A refcount block.
#[derive(Clone)]
pub(super) enum Block {
    /// None: all its counts are 0.
    Absent,
    /// Between two clusters: it has no counts to tell.
    Misplaced,
    /// Its bytes; zeros where the file has ended.
    Counts(Arc<[u8]>),
}

/// The refcount table, and its blocks by a cache.
pub(super) struct Refcounts<'a> {
    source: &'a dyn Source,
    cluster_size: u64,
    order: u32,
    table: Vec<u64>,
    blocks: Cache<[u8]>,
    /// The block asked for last: neighbours are as a rule asked for one after the other.
    last: (u64, Block),
}

impl<'a> Refcounts<'a> {
    /// Reads the refcount table.
    ///
    /// # Errors
    /// `Malformed` when there is none to speak of, `Limit`, `Io`.
    pub(super) fn open(source: &'a dyn Source, header: &Header, limits: &Limits) -> Result<Self> {
        rules::refcount_table(header, source.len())?;
        let bytes = header.refcount_table_bytes();
        limits.table(crate::Format::Qcow2, "refcount table", bytes)?;
        let table = read_zeroed(source, header.refcount_table_offset, bytes)?;
        let cluster_size = header.geometry.cluster_size();
        Ok(Self {
            source,
            cluster_size,
            order: header.refcount_order,
            table: numbers(&table).collect(),
            blocks: Cache::new(CACHE, cluster_size),
            last: (u64::MAX, Block::Absent),
        })
    }

    /// Clusters a block counts.
    pub(super) const fn per_block(&self) -> u64 {
        (self.cluster_size * 8) >> self.order
    }

    /// Offsets of the blocks and the reserved bits beside them, by index; 0 for none.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u64, HostOffset, u64)> {
        (0..)
            .zip(&self.table)
            .filter(|(_, entry)| **entry != 0)
            .map(|(n, e)| (n, HostOffset(e & OFFSET_MASK), e & RESERVED_MASK))
    }

    /// Where block `index` is.
    pub(super) fn offset(&self, index: u64) -> HostOffset {
        let entry = usize::try_from(index).ok().and_then(|n| self.table.get(n));
        HostOffset(entry.map_or(0, |entry| entry & OFFSET_MASK))
    }

    /// Block `index`.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn block(&mut self, index: u64) -> Result<Block> {
        if self.last.0 != index {
            let at = self.offset(index);
            let block = if at == HostOffset::ZERO {
                Block::Absent
            } else if !at.0.is_multiple_of(self.cluster_size) {
                Block::Misplaced
            } else {
                let (source, len) = (self.source, self.cluster_size);
                let read = || read_zeroed(source, at, len).map(Arc::from);
                Block::Counts(self.blocks.get(index, read)?)
            };
            self.last = (index, block);
        }
        Ok(self.last.1.clone())
    }

    /// The refcount of a cluster; `None` where it cannot be told.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn get(&mut self, cluster: u64) -> Result<Option<u64>> {
        let per_block = self.per_block();
        let index = cluster / per_block;
        if self.last.0 != index {
            self.block(index)?;
        }
        Ok(match &self.last.1 {
            Block::Absent => Some(0),
            Block::Misplaced => None,
            Block::Counts(counts) => refcount(counts, cluster % per_block, self.order),
        })
    }
}
