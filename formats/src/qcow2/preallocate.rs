//! Writing with every cluster in its place: the file is arithmetic, so nothing is kept in memory
//! and the tables are written one by one at the end.

use std::ops::Range;

use super::allocate::refcount_clusters;
use super::counts::emit_refcounts;
use super::entries::{ALL_DATA, entry};
use super::options::{Preallocation, WriteOptions};
use super::shape::{Shape, emit, too_large, write_table};
use super::writer::{Encoder, full};
use crate::copy::{Encode, Payload, Summary, Tables, Target};
use crate::sink::write_zeros;
use crate::{Error, HostOffset, Result, Sink, UnitIndex};

/// Writes an image whose clusters are all there.
pub(super) struct Writer {
    options: WriteOptions,
    shape: Shape,
    /// Guest clusters.
    clusters: u64,
    refcount_blocks: u64,
    /// Guest clusters that were given data, as runs.
    placed: Vec<Range<UnitIndex>>,
}

impl Writer {
    /// # Errors
    /// `Usage` when refcounts cannot count that many clusters.
    pub(super) fn new(options: &WriteOptions, mut shape: Shape) -> Result<Self> {
        let cluster_size = shape.geometry.cluster_size();
        let clusters = shape.virtual_size.div_ceil(cluster_size);
        let most = 1 + shape.l1_clusters + shape.l1_size + clusters;
        let (table, refcount_blocks) = refcount_clusters(most, cluster_size, shape.refcount_order)
            .ok_or_else(|| too_large(options, shape.virtual_size))?;
        shape.refcount_table_clusters = table;
        let new = Self {
            options: options.clone(),
            shape,
            clusters,
            refcount_blocks,
            placed: Vec::new(),
        };
        let end = HostOffset(new.file_size());
        // Whatever lies before can be pointed to, then.
        entry(end).map(|_| new).ok_or_else(|| full(end))
    }

    fn cluster(&self, n: u64) -> HostOffset {
        // Bounded by the largest refcount table: 2^20 blocks of 2^24 clusters of 2^21 bytes do
        // not occur, for `new` has checked the end.
        HostOffset(n.saturating_mul(self.shape.geometry.cluster_size()))
    }

    fn refcount_table(&self) -> HostOffset {
        self.cluster(1)
    }

    fn l1(&self) -> HostOffset {
        self.cluster(1 + self.shape.refcount_table_clusters)
    }

    fn first_block(&self) -> HostOffset {
        self.cluster(1 + self.shape.refcount_table_clusters + self.shape.l1_clusters)
    }

    fn first_l2(&self) -> HostOffset {
        HostOffset(self.first_block().0 + self.cluster(self.refcount_blocks).0)
    }

    fn first_data(&self) -> HostOffset {
        HostOffset(self.first_l2().0 + self.cluster(self.shape.l1_size).0)
    }

    fn file_size(&self) -> u64 {
        let data = self.cluster(self.clusters).0;
        self.first_data().0.saturating_add(data)
    }

    fn at(&self, base: HostOffset, n: u64) -> HostOffset {
        HostOffset(base.0 + self.cluster(n).0)
    }

    fn write_l2(&self, sink: &dyn Sink) -> Result<()> {
        let geometry = self.shape.geometry;
        let per_table = geometry.l2_entries();
        for index in 0..self.shape.l1_size {
            let first = index * per_table;
            let last = self.clusters.min(first + per_table);
            let mut table = Vec::with_capacity(geometry.cluster_size() as usize / 8);
            for n in first..last {
                let at = self.at(self.first_data(), n);
                table.push(entry(at).ok_or_else(|| full(at))?);
                if geometry.is_extended {
                    table.push(ALL_DATA);
                }
            }
            sink.write_all_at(&emit(&table), self.at(self.first_l2(), index))?;
        }
        Ok(())
    }

    fn write_refcounts(&self, sink: &dyn Sink) -> Result<()> {
        let cluster_size = self.shape.geometry.cluster_size();
        let per_block = (cluster_size * 8) >> self.shape.refcount_order;
        let used = self.file_size() / cluster_size;
        // All blocks but the last are the same.
        let block = |counts| emit_refcounts(&vec![1; counts as usize], self.shape.refcount_order);
        let whole = block(per_block);
        for n in 0..self.refcount_blocks {
            let at = self.at(self.first_block(), n);
            match used.saturating_sub(n * per_block) {
                counts if counts >= per_block => sink.write_all_at(&whole, at)?,
                counts => sink.write_all_at(&block(counts), at)?,
            }
        }
        let blocks: Vec<_> = (0..self.refcount_blocks)
            .map(|n| self.at(self.first_block(), n).0)
            .collect();
        write_table(sink, &blocks, self.refcount_table())
    }

    /// Writes zeros to the clusters that were given nothing.
    fn write_zeros(&self, sink: &dyn Sink) -> Result<()> {
        let end = self.clusters..self.clusters;
        let mut from = 0;
        for run in self.placed.iter().chain([&end]) {
            let gap = self.at(self.first_data(), from)..self.at(self.first_data(), run.start);
            write_zeros(sink, gap)?;
            from = run.end;
        }
        Ok(())
    }
}

impl Target for Writer {
    fn unit(&self) -> u64 {
        self.shape.geometry.cluster_size()
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(Encoder::new(&self.options, None)?))
    }

    fn place(&mut self, n: UnitIndex, _: Payload, _: &mut Tables) -> Result<HostOffset> {
        if n >= self.clusters {
            return Err(Error::usage(format!(
                "cluster {n} lies past the virtual size of {} bytes",
                self.shape.virtual_size
            )));
        }
        if self.options.preallocation == Preallocation::Full {
            match self.placed.last_mut() {
                Some(last) if last.end == n => last.end += 1,
                _ => self.placed.push(n..n + 1),
            }
        }
        Ok(self.at(self.first_data(), n))
    }

    fn finish(self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        let file_size = self.file_size();
        sink.set_len(file_size)?;
        match self.options.preallocation {
            Preallocation::Falloc => sink.reserve(file_size)?,
            Preallocation::Full => self.write_zeros(sink)?,
            Preallocation::Off | Preallocation::Metadata => {}
        }
        self.write_l2(sink)?;
        self.write_refcounts(sink)?;
        let l1 = (0..self.shape.l1_size).map(|n| {
            let at = self.at(self.first_l2(), n);
            entry(at).ok_or_else(|| full(at))
        });
        write_table(sink, &l1.collect::<Result<Vec<_>>>()?, self.l1())?;
        let header = self
            .shape
            .header(&self.options, self.l1(), self.refcount_table());
        sink.write_all_at(&header.emit(), HostOffset::ZERO)?;
        Ok(Summary { file_size })
    }
}
