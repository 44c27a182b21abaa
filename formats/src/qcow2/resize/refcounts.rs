//! The refcounts of an image that is changed in place.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::qcow2::counts::refcount;
use crate::qcow2::layout::Header;
use crate::qcow2::rules;
use crate::{Error, Format, HostOffset, Result, Sink, Source};

/// Offsets in the refcount table.
const OFFSET_MASK: u64 = !511;

/// The refcount table in memory, and the blocks at hand.
pub(super) struct Refcounts {
    source: Arc<dyn Source>,
    cluster_size: u64,
    order: u32,
    /// Host offsets of the blocks; zero where there is none.
    pub(super) table: Vec<u64>,
    blocks: BTreeMap<usize, Vec<u8>>,
}

impl Refcounts {
    /// Reads the refcount table.
    ///
    /// # Errors
    /// `Malformed` when it is not where it should be, `Io`.
    pub(super) fn open(source: Arc<dyn Source>, header: &Header) -> Result<Self> {
        rules::refcount_table(header, source.len())?;
        // The last cluster of a file may be cut: what is not there is zero.
        let bytes = crate::read_up_to(
            source.as_ref(),
            header.refcount_table_offset,
            header.refcount_table_bytes() as usize, // at most 8 MiB
        )?;
        let mut table: Vec<u64> = crate::qcow2::entries::numbers(&bytes).collect();
        table.resize((header.refcount_table_bytes() / 8) as usize, 0);
        Ok(Self {
            source,
            cluster_size: header.geometry.cluster_size(),
            order: header.refcount_order,
            table,
            blocks: BTreeMap::new(),
        })
    }

    /// Clusters a block counts.
    pub(super) fn per_block(&self) -> u64 {
        (self.cluster_size * 8) >> self.order
    }

    /// The block that counts `cluster`.
    pub(super) fn block_of(&self, cluster: u64) -> usize {
        usize::try_from(cluster / self.per_block()).unwrap_or(usize::MAX)
    }

    /// Whether there is a block `index`.
    pub(super) fn has_block(&self, index: usize) -> bool {
        self.table.get(index).is_some_and(|e| e & OFFSET_MASK != 0)
    }

    /// A new block `index` at `at`, without any count. The table has room for it.
    pub(super) fn insert_block(&mut self, index: usize, at: HostOffset) {
        self.table[index] = at.0;
        self.blocks
            .insert(index, vec![0; self.cluster_size as usize]);
    }

    fn block(&mut self, index: usize) -> Result<Option<&mut Vec<u8>>> {
        if !self.has_block(index) {
            return Ok(None);
        }
        if let std::collections::btree_map::Entry::Vacant(free) = self.blocks.entry(index) {
            let at = HostOffset(self.table[index] & OFFSET_MASK);
            if !at.0.is_multiple_of(self.cluster_size) {
                return Err(Error::malformed(
                    Format::Qcow2,
                    format!("refcount table entry {index}"),
                    format!(
                        "points to {at}, allowed multiples of {:#x}",
                        self.cluster_size
                    ),
                ));
            }
            rules::inside("refcount block", at, self.cluster_size, self.source.len())?;
            let mut bytes = vec![0; self.cluster_size as usize];
            self.source.read_exact_at(&mut bytes, at)?;
            free.insert(bytes);
        }
        Ok(self.blocks.get_mut(&index))
    }

    /// The refcount of a cluster.
    ///
    /// # Errors
    /// `Malformed` when its block is not where it should be, `Io`.
    pub(super) fn get(&mut self, cluster: u64) -> Result<u64> {
        let (index, order, n) = (
            self.block_of(cluster),
            self.order,
            cluster % self.per_block(),
        );
        let count = self.block(index)?.and_then(|b| refcount(b, n, order));
        Ok(count.unwrap_or(0))
    }

    /// Sets the refcount of a cluster whose block exists. `count` fits any width: 0 or 1.
    pub(super) fn set(&mut self, cluster: u64, count: bool) -> Result<()> {
        let (index, order, n) = (
            self.block_of(cluster),
            self.order,
            cluster % self.per_block(),
        );
        if let Some(block) = self.block(index)? {
            put(block, n, order, u64::from(count));
        }
        Ok(())
    }

    /// Counts one user less for each of `clusters`, a cluster as often as it stands there. What
    /// nobody counts stays so. Blocks are written as they are done.
    pub(super) fn release(&mut self, clusters: &mut [u64], sink: &dyn Sink) -> Result<()> {
        clusters.sort_unstable();
        let (per_block, order) = (self.per_block(), self.order);
        for group in clusters.chunk_by(|a, b| a / per_block == b / per_block) {
            let index = self.block_of(group[0]);
            let Some(block) = self.block(index)? else {
                continue;
            };
            for cluster in group {
                let n = cluster % per_block;
                let count = refcount(block, n, order).unwrap_or(0);
                put(block, n, order, count.saturating_sub(1));
            }
            self.write(sink)?;
        }
        Ok(())
    }

    /// Writes the blocks at hand and lets go of them.
    pub(super) fn write(&mut self, sink: &dyn Sink) -> Result<()> {
        for (index, block) in std::mem::take(&mut self.blocks) {
            sink.write_all_at(&block, HostOffset(self.table[index] & OFFSET_MASK))?;
        }
        Ok(())
    }

    /// Lets go of the blocks at hand, which nobody has changed.
    pub(super) fn forget(&mut self) {
        self.blocks.clear();
    }
}

/// Puts a refcount of `1 << order` bits into a block that has room for it.
fn put(block: &mut [u8], index: u64, order: u32, count: u64) {
    let index = index as usize; // inside the block
    match order {
        0..=2 => {
            let bits = 1 << order;
            let bit = index * bits;
            let mask = ((1u16 << bits) - 1) as u8;
            let byte = &mut block[bit / 8];
            *byte = *byte & !(mask << (bit % 8)) | (count as u8 & mask) << (bit % 8);
        }
        _ => {
            let len = 1usize << (order - 3);
            let bytes = count.to_be_bytes();
            block[index * len..(index + 1) * len].copy_from_slice(&bytes[8 - len..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_any_width_stand_where_they_are_read() {
        for order in 0..=6 {
            let mut block = vec![0xff; 64];
            let counts = (64 * 8) >> order;
            for n in (0..counts).step_by(3) {
                put(&mut block, n, order, 0);
            }
            for n in (0..counts).step_by(6) {
                put(&mut block, n, order, 1);
            }
            for n in 0..counts {
                let all = u64::MAX >> (64 - (1 << order));
                let expected = match (n % 6, n % 3) {
                    (0, _) => 1,
                    (_, 0) => 0,
                    _ => all,
                };
                assert_eq!(refcount(&block, n, order), Some(expected), "{order} {n}");
            }
        }
    }
}
