//! Places in a new file, one after the other, and the refcounts that follow from them.
//!
//! Nothing is ever freed, so the refcounts of a block are final once the next free cluster lies
//! behind what it counts. It is given a place then: memory holds the counts of one block.

use super::counts::emit_refcounts;
use super::layout::MAX_REFCOUNT_TABLE_BYTES;
use crate::copy::Tables;
use crate::{Error, Format, HostOffset, Result};

/// Hands out clusters, and bytes for compressed clusters.
pub(super) struct Allocator {
    cluster_size: u64,
    refcount_order: u32,
    /// Index of the next free cluster.
    next: u64,
    /// Refcounts of the clusters before `next` that no finished block counts.
    counts: Vec<u16>,
    /// Finished counts whose blocks have no place yet.
    finished: Vec<Vec<u16>>,
    /// Host offsets of the refcount blocks that have one: the refcount table.
    blocks: Vec<u64>,
    /// Entries the refcount table has room for.
    max_blocks: u64,
    /// Free bytes at the end of the last compressed cluster.
    tail: Option<Tail>,
}

#[derive(Clone, Copy)]
struct Tail {
    at: u64,
    end: u64,
}

/// Refcounts in a block.
const fn per_block(cluster_size: u64, refcount_order: u32) -> u64 {
    (cluster_size * 8) >> refcount_order
}

/// Clusters of the refcount table, and refcount blocks, that can count `clusters` clusters,
/// themselves among them; `None` when the table is larger than programs accept.
pub(super) fn refcount_clusters(
    clusters: u64,
    cluster_size: u64,
    refcount_order: u32,
) -> Option<(u64, u64)> {
    let (mut table, mut blocks) = (1, 1);
    loop {
        let all = clusters.checked_add(table)?.checked_add(blocks)?;
        let more_blocks = all.div_ceil(per_block(cluster_size, refcount_order));
        let more_table = more_blocks.checked_mul(8)?.div_ceil(cluster_size);
        if more_table * cluster_size > MAX_REFCOUNT_TABLE_BYTES {
            return None;
        }
        if (more_table, more_blocks) == (table, blocks) {
            return Some((table, blocks));
        }
        (table, blocks) = (more_table, more_blocks);
    }
}

impl Allocator {
    /// Nothing allocated yet. The refcount table will have `table_clusters` clusters, and a
    /// refcount `1 << refcount_order` bits.
    pub(super) fn new(cluster_size: u64, refcount_order: u32, table_clusters: u64) -> Self {
        Self {
            cluster_size,
            refcount_order,
            next: 0,
            counts: Vec::new(),
            finished: Vec::new(),
            blocks: Vec::new(),
            max_blocks: table_clusters * cluster_size / 8,
            tail: None,
        }
    }

    /// `count` neighbouring clusters.
    pub(super) fn clusters(&mut self, count: u64) -> HostOffset {
        let at = HostOffset(self.next * self.cluster_size);
        for _ in 0..count {
            self.next += 1;
            self.counts.push(1);
            if self.counts.len() as u64 == per_block(self.cluster_size, self.refcount_order) {
                self.finished.push(std::mem::take(&mut self.counts));
            }
        }
        at
    }

    /// `len` bytes, fewer than a cluster, behind the last ones handed out so where possible:
    /// compressed clusters share host clusters, whose refcount is the number of sharers.
    pub(super) fn bytes(&mut self, len: u64) -> HostOffset {
        let cluster_size = self.cluster_size;
        let at = match self.tail.take() {
            Some(tail) if self.fits(tail, len) && self.share(tail) => tail.at,
            _ => self.next * cluster_size,
        };
        let end = at + len;
        let new = end.div_ceil(cluster_size).saturating_sub(self.next);
        self.clusters(new);
        self.tail = (!end.is_multiple_of(cluster_size)).then(|| Tail {
            at: end,
            end: end.next_multiple_of(cluster_size),
        });
        HostOffset(at)
    }

    /// Whether `len` bytes can go on at `tail`: in its cluster, or into the next, if still free.
    fn fits(&self, tail: Tail, len: u64) -> bool {
        tail.at + len <= tail.end || tail.end == self.next * self.cluster_size
    }

    /// Counts one more user of the cluster of `tail`; false when it is counted out.
    fn share(&mut self, tail: Tail) -> bool {
        // Neither the image nor the memory here can hold a larger count.
        let most = u16::MAX >> 16_u32.saturating_sub(1 << self.refcount_order);
        let behind = self.next - tail.at / self.cluster_size;
        let count = (self.counts.len() as u64)
            .checked_sub(behind)
            .and_then(|n| self.counts.get_mut(n as usize));
        match count {
            Some(count) if *count < most => {
                *count += 1;
                true
            }
            _ => false,
        }
    }

    /// Gives finished refcount blocks their places and hands them out.
    ///
    /// # Errors
    /// `Limit` when the refcount table is full.
    pub(super) fn place_blocks(&mut self, tables: &mut Tables) -> Result<()> {
        while !self.finished.is_empty() {
            for counts in std::mem::take(&mut self.finished) {
                let at = self.clusters(1);
                self.place_block(at, &counts, tables)?;
            }
        }
        Ok(())
    }

    /// Places the last block, which counts itself. Nothing may be allocated afterwards.
    ///
    /// # Errors
    /// `Limit` when the refcount table is full.
    pub(super) fn finish(&mut self, tables: &mut Tables) -> Result<()> {
        self.place_blocks(tables)?;
        if self.counts.is_empty() {
            return Ok(());
        }
        let at = self.clusters(1);
        // Counting itself may just have filled it.
        let counts = self
            .finished
            .pop()
            .unwrap_or_else(|| std::mem::take(&mut self.counts));
        self.place_block(at, &counts, tables)
    }

    fn place_block(&mut self, at: HostOffset, counts: &[u16], tables: &mut Tables) -> Result<()> {
        if self.blocks.len() as u64 == self.max_blocks {
            return Err(Error::limit(
                Format::Qcow2,
                "refcount table",
                format!(
                    "is full with {} blocks: choose a larger cluster_size",
                    self.max_blocks
                ),
            ));
        }
        let mut block = emit_refcounts(counts, self.refcount_order);
        block.resize(self.cluster_size as usize, 0);
        tables.push((at, block));
        self.blocks.push(at.0);
        Ok(())
    }

    /// The entries of the refcount table.
    pub(super) fn blocks(&self) -> &[u64] {
        &self.blocks
    }

    /// Bytes of the file so far.
    pub(super) fn file_size(&self) -> u64 {
        self.next * self.cluster_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refcounts by cluster, from the blocks handed out.
    fn counts(blocks: &Tables) -> Vec<u16> {
        blocks
            .iter()
            .flat_map(|(_, block)| block.as_chunks().0)
            .map(|count| u16::from_be_bytes(*count))
            .collect()
    }

    #[test]
    fn sharers_of_a_cluster_are_counted() {
        let mut a = Allocator::new(512, 4, 1);
        assert_eq!(a.clusters(1), HostOffset(0));
        assert_eq!(a.bytes(300), HostOffset(512));
        assert_eq!(a.bytes(300), HostOffset(812)); // crosses into cluster 2
        assert_eq!(a.clusters(1), HostOffset(1536));
        assert_eq!(a.bytes(400), HostOffset(1112)); // still fits behind
        assert_eq!(a.bytes(200), HostOffset(2048)); // does not
        let mut tables = Tables::new();
        a.finish(&mut tables).unwrap();
        assert_eq!(counts(&tables)[..7], [1, 2, 2, 1, 1, 1, 0]);
        assert_eq!(a.blocks(), [2560]);
        assert_eq!(a.file_size(), 3072);
    }

    #[test]
    fn every_cluster_is_counted_whatever_the_border() {
        for clusters in 1..1100 {
            let mut a = Allocator::new(512, 4, 1);
            let mut tables = Tables::new();
            for _ in 0..clusters {
                a.clusters(1);
                a.place_blocks(&mut tables).unwrap();
            }
            a.finish(&mut tables).unwrap();
            let counts = counts(&tables);
            let used = (a.file_size() / 512) as usize;
            assert!(counts[..used].iter().all(|&c| c == 1), "{clusters}");
            assert!(counts[used..].iter().all(|&c| c == 0), "{clusters}");
            assert!(counts.len() < used + 256);
        }
    }

    #[test]
    fn a_refcount_never_overflows() {
        let mut a = Allocator::new(2 << 20, 4, 1);
        for _ in 0..=u16::MAX {
            a.bytes(1);
        }
        assert_eq!(a.counts, [u16::MAX, 1]);
        let mut a = Allocator::new(65536, 0, 1);
        assert_eq!(a.bytes(300), HostOffset(0));
        assert_eq!(a.bytes(300), HostOffset(65536));
        let mut a = Allocator::new(65536, 1, 1);
        let ends: Vec<_> = (0..5).map(|_| a.bytes(300).0).collect();
        assert_eq!(ends, [0, 300, 600, 65536, 65836]);
    }

    #[test]
    fn the_table_has_room_for_itself() {
        assert_eq!(refcount_clusters(1, 65536, 4), Some((1, 1)));
        assert_eq!(refcount_clusters(64 * 254, 512, 4), Some((1, 64)));
        assert_eq!(refcount_clusters(64 * 256, 512, 4), Some((2, 65)));
        assert_eq!(refcount_clusters(u64::MAX, 65536, 4), None);
        for order in 0..=6 {
            for clusters in (1..100_000).step_by(77) {
                let (table, blocks) = refcount_clusters(clusters, 512, order).unwrap();
                assert!(blocks * per_block(512, order) >= clusters + table + blocks);
                assert!(table * 64 >= blocks);
            }
        }
    }
}
