//! Resizing in place.
//!
//! Whatever a crash leaves is an image of the old or the new size, at worst with clusters that
//! nobody uses: what is new is written and made durable before the header names it, what is old
//! is given back only afterwards.
//! ```text
//!  grow     new L1, its refcounts ─► sync ─► header ─► sync ─► old L1 given back
//!  shrink   header ─► sync ─► entries past the end cleared ─► sync ─► their clusters given back
//! ```
//! An L1 table whose clusters have room for more entries grows where it is.

mod patched;
mod refcounts;

use std::sync::Arc;

use crate::bytes::is_zero;
use crate::copy::Progress;
use crate::map::{Mapped, Walk};
use crate::qcow2::entries::{OFFSET_MASK, freed, numbers};
use crate::qcow2::layout::{Header, MAX_L1_BYTES, MAX_REFCOUNT_TABLE_BYTES, incompatible};
use crate::qcow2::{reader, rules};
use crate::source::read_up_to;
use crate::{
    Error, ExtentKind, Format, GuestOffset, HostOffset, Limits, OpenOptions, Result, Sink, Source,
};
use patched::Patched;
use refcounts::Refcounts;

/// Bytes of the header that are written anew: one sector, so that it is written wholly or not.
const HEAD: usize = 512;
/// Clusters given back at a time.
const BATCH: usize = 1 << 20;

/// Gives the image in `source` another virtual size in bytes, rounded up to whole sectors of 512,
/// by writing to `sink`, which is the same file. What is added reads as zeros; what is cut off is
/// lost. Answers the new size.
///
/// # Errors
/// `Usage` for a smaller size unless `may_shrink`, and for one that clusters of this size cannot
/// address; `Refused` for images with a backing file (growing), internal snapshots (shrinking, and
/// version 2), bitmaps, an external data file, encryption, and ones not closed properly;
/// `Malformed`, `Io`, `Cancelled`.
pub fn resize(
    source: &Arc<dyn Source>,
    sink: &dyn Sink,
    virtual_size: u64,
    may_shrink: bool,
    progress: &Progress,
) -> Result<u64> {
    let size = virtual_size
        .checked_next_multiple_of(512)
        .ok_or_else(|| Error::usage(format!("{virtual_size} bytes are too many")))?;
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, HEAD)?;
    let header = Header::parse(&head)?;
    if let Some((_, error)) = rules::features(&header).into_iter().next() {
        return Err(error);
    }
    rules::l1_table(&header, source.len())?;
    rules::apart(&header)?;
    is_resizable(&header, size)?;
    let mut image = Image {
        refcounts: Refcounts::open(Arc::clone(source), &header)?,
        source: Arc::clone(source),
        sink,
        head,
        header,
    };
    progress.start(image.header.virtual_size.abs_diff(size));
    match size.cmp(&image.header.virtual_size) {
        std::cmp::Ordering::Equal => {}
        std::cmp::Ordering::Greater => image.grow(size)?,
        std::cmp::Ordering::Less if may_shrink => image.shrink(size, progress)?,
        std::cmp::Ordering::Less => {
            return Err(Error::usage(format!(
                "{size} bytes are less than the {} of the disk, and all behind them would be lost",
                image.header.virtual_size
            )));
        }
    }
    progress.reached(progress.total());
    Ok(size)
}

/// Refuses what would need more than the tables of the image itself.
fn is_resizable(header: &Header, size: u64) -> Result<()> {
    let refused = |place: &'static str, message: &str| {
        Err(Error::refused(Format::Qcow2, place, message.to_owned()))
    };
    if header.has(incompatible::DIRTY) {
        return refused(
            "header",
            "was not closed properly, so that its refcounts may be wrong: repair it first",
        );
    }
    if header.has(incompatible::DATA_FILE) {
        return refused("header", "keeps its data in another file");
    }
    if header.has_bitmaps() {
        return refused("bitmaps", "cover the disk in its present size: remove them");
    }
    if header.backing_file.is_some() && size > header.virtual_size {
        return refused(
            "backing file",
            "could show through behind the present end: flatten the image first",
        );
    }
    let is_fit = header.version >= 3 && size >= header.virtual_size;
    if header.snapshots > 0 && !is_fit {
        return refused(
            "snapshots",
            "are kept, which only growing a version 3 image allows: delete them",
        );
    }
    Ok(())
}

struct Image<'a> {
    source: Arc<dyn Source>,
    sink: &'a dyn Sink,
    /// The first sector as it stands, or is to stand.
    head: Vec<u8>,
    header: Header,
    refcounts: Refcounts,
}

/// Bytes to be written.
type Writes = Vec<(HostOffset, Vec<u8>)>;

impl Image<'_> {
    fn cluster_size(&self) -> u64 {
        self.header.geometry.cluster_size()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.head[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_size(&mut self, size: u64) {
        self.put(24, &size.to_be_bytes());
        if self.header.version >= 3 {
            // Autoclear features: whoever does not know one clears it when it writes.
            self.put(88, &[0; 8]);
        }
    }

    fn write_head(&self) -> Result<()> {
        self.sink.write_all_at(&self.head, HostOffset::ZERO)?;
        self.sink.sync()
    }

    fn grow(&mut self, size: u64) -> Result<()> {
        let entries = self.header.geometry.l1_needed(size);
        if entries > MAX_L1_BYTES / 8 {
            return Err(Error::usage(format!(
                "clusters of {} bytes cannot address {size} bytes",
                self.cluster_size()
            )));
        }
        self.put_size(size);
        let (mut writes, mut old) = (Writes::new(), Vec::new());
        if entries > u64::from(self.header.l1_size) {
            self.put(36, &(entries as u32).to_be_bytes()); // at most 4 Mi
            if self.has_room(entries)? {
                let at = HostOffset(self.header.l1_offset.0 + self.header.l1_bytes());
                let more = entries * 8 - self.header.l1_bytes();
                writes.push((at, vec![0; more as usize]));
            } else {
                writes = self.move_l1(entries, &mut old)?;
            }
        }
        writes.extend(self.clear_tail(size, &writes)?);
        if !self.source.len().is_multiple_of(self.cluster_size()) {
            // The last cluster may reach behind the end of the file, as far as no guest saw it.
            let len = self.source.len().next_multiple_of(self.cluster_size());
            self.sink.set_len(len)?;
        }
        for (at, bytes) in &writes {
            self.sink.write_all_at(bytes, *at)?;
        }
        self.refcounts.write(self.sink)?;
        self.sink.sync()?;
        self.name_blocks()?;
        self.write_head()?;
        if !old.is_empty() {
            self.refcounts.release(&mut old, self.sink)?;
            self.sink.sync()?;
        }
        Ok(())
    }

    /// Whether the clusters of the L1 table have room for so many entries, and are its own.
    fn has_room(&mut self, entries: u64) -> Result<bool> {
        let cluster_size = self.cluster_size();
        let first = self.header.l1_offset.0 / cluster_size;
        let clusters = self.header.l1_bytes().div_ceil(cluster_size);
        if entries * 8 > clusters * cluster_size {
            return Ok(false);
        }
        for cluster in first..first + clusters {
            if self.refcounts.get(cluster)? != 1 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A longer L1 table at the end of the file, and all that counting its clusters needs. The
    /// clusters of tables that were left go to `old`.
    fn move_l1(&mut self, entries: u64, old: &mut Vec<u64>) -> Result<Writes> {
        let cluster_size = self.cluster_size();
        let first = self.source.len().div_ceil(cluster_size);
        let l1_clusters = (entries * 8).div_ceil(cluster_size);
        // Blocks and a table count themselves, so that more of them may need more.
        let (mut blocks, mut table_clusters) = (Vec::new(), 0);
        loop {
            let end = first + l1_clusters + blocks.len() as u64 + table_clusters;
            let last = self.refcounts.block_of(end - 1);
            let more: Vec<usize> = (self.refcounts.block_of(first)..=last)
                .filter(|n| !self.refcounts.has_block(*n))
                .collect();
            let more_table = match last < self.refcounts.table.len() {
                true => 0,
                false => ((last as u64 + 1) * 8).div_ceil(cluster_size),
            };
            if (more.len(), more_table) == (blocks.len(), table_clusters) {
                break;
            }
            (blocks, table_clusters) = (more, more_table);
        }
        if table_clusters * cluster_size > MAX_REFCOUNT_TABLE_BYTES {
            return Err(Error::usage(format!(
                "clusters of {cluster_size} bytes cannot count a file that large"
            )));
        }
        let blocks_at = first + l1_clusters;
        let table_at = blocks_at + blocks.len() as u64;
        let end = table_at + table_clusters;
        if table_clusters > 0 {
            let entries = (table_clusters * cluster_size / 8) as usize;
            self.refcounts.table.resize(entries, 0);
        }
        for (at, index) in (blocks_at..).zip(&blocks) {
            self.refcounts
                .insert_block(*index, HostOffset(at * cluster_size));
        }
        for cluster in first..end {
            if self.refcounts.get(cluster)? != 0 {
                return Err(Error::malformed(
                    Format::Qcow2,
                    "refcount block",
                    format!(
                        "counts a cluster at {:#x}, past the end of the file: repair it first",
                        cluster * cluster_size
                    ),
                ));
            }
            self.refcounts.set(cluster, true)?;
        }

        let mut l1 = vec![0; self.header.l1_bytes() as usize]; // at most 32 MiB
        self.source.read_exact_at(&mut l1, self.header.l1_offset)?;
        l1.resize((l1_clusters * cluster_size) as usize, 0);
        let mut writes = vec![(HostOffset(first * cluster_size), l1)];
        let left = |at: HostOffset, bytes: u64| {
            let start = at.0 / cluster_size;
            start..start + bytes.div_ceil(cluster_size)
        };
        old.extend(left(self.header.l1_offset, self.header.l1_bytes()));
        self.put(40, &(first * cluster_size).to_be_bytes());
        if table_clusters > 0 {
            let table = self.refcounts.table.iter().flat_map(|e| e.to_be_bytes());
            writes.push((HostOffset(table_at * cluster_size), table.collect()));
            let bytes = self.header.refcount_table_bytes();
            old.extend(left(self.header.refcount_table_offset, bytes));
            self.put(48, &(table_at * cluster_size).to_be_bytes());
            self.put(56, &(table_clusters as u32).to_be_bytes()); // at most 8 MiB
        }
        Ok(writes)
    }

    /// Names new refcount blocks in a table that stays where it is: each after the block that
    /// counts the cluster it lies in, so that none is ever in use without being counted.
    fn name_blocks(&mut self) -> Result<()> {
        let is_moved = self.head[48..56] != self.header.refcount_table_offset.0.to_be_bytes();
        if is_moved {
            return Ok(());
        }
        let mut named = Refcounts::open(Arc::clone(&self.source), &self.header)?;
        let all = self.refcounts.table.iter().copied().enumerate();
        let mut left: Vec<_> = all.filter(|(n, at)| named.table[*n] != *at).collect();
        while !left.is_empty() {
            let (ready, later): (Vec<_>, Vec<_>) = left.into_iter().partition(|&(n, at)| {
                let counter = named.block_of(at / self.cluster_size());
                counter == n || named.has_block(counter)
            });
            if ready.is_empty() {
                return Err(Error::malformed(
                    Format::Qcow2,
                    "refcount table",
                    "has blocks that count only each other",
                ));
            }
            for (n, at) in ready {
                let entry = HostOffset(self.header.refcount_table_offset.0 + n as u64 * 8);
                self.sink.write_all_at(&at.to_be_bytes(), entry)?;
                named.table[n] = at;
            }
            self.sink.sync()?;
            left = later;
        }
        Ok(())
    }

    /// What must be written so that everything between the old and the new end reads as zeros: a
    /// cluster may reach over the old end and hold there what an earlier, larger disk left.
    fn clear_tail(&self, size: u64, writes: &Writes) -> Result<Writes> {
        let old = GuestOffset(self.header.virtual_size);
        let mut patches = writes.clone();
        patches.push((HostOffset::ZERO, self.head.clone()));
        let options = OpenOptions {
            format: Some(Format::Qcow2),
            limits: Limits {
                max_virtual_size: u64::MAX,
                ..Limits::default()
            },
            ..OpenOptions::default()
        };
        let len = self.source.len().next_multiple_of(self.cluster_size());
        let patched = Patched::new(Arc::clone(&self.source), len, patches);
        let disk = reader::open(Arc::new(patched), &options)?;
        let mut walk = Walk::new(disk.as_ref(), old..GuestOffset(size));
        let mut zeros = Writes::new();
        while let Some(Mapped { extent, .. }) = walk.next()? {
            if extent.kind.is_hole() {
                continue;
            }
            let is_edge = extent.range.end <= old.align_up(self.cluster_size());
            let len = extent.range.end.since(extent.range.start);
            let stale = || {
                Error::malformed(
                    Format::Qcow2,
                    format!("L2 entry of guest offset {}", extent.range.start),
                    "holds data past the end of the disk: repair the image first",
                )
            };
            if !is_edge {
                return Err(stale());
            }
            let mut bytes = vec![0; len as usize]; // within a cluster
            disk.read_at(&mut bytes, extent.range.start)?;
            match extent.kind {
                _ if is_zero(&bytes) => {}
                ExtentKind::Data { host: Some(at) } if self.is_own(old)? => {
                    bytes.fill(0);
                    zeros.push((at, bytes));
                }
                _ => return Err(stale()),
            }
        }
        Ok(zeros)
    }

    /// Whether the cluster of the guest byte `at` belongs to it alone.
    fn is_own(&self, at: GuestOffset) -> Result<bool> {
        const COPIED: u64 = 1 << 63;
        let geometry = self.header.geometry;
        let entry = |table: HostOffset, index: u64, size: u64| {
            let mut bytes = [0; 8];
            let at = table.checked_add(index * size).unwrap_or(HostOffset::ZERO);
            self.source.read_exact_at(&mut bytes, at)?;
            Ok(u64::from_be_bytes(bytes))
        };
        let l1 = entry(self.header.l1_offset, at.0 / geometry.l1_span(), 8)?;
        let index = at.0 / geometry.cluster_size() % geometry.l2_entries();
        let l2 = entry(
            HostOffset(l1 & OFFSET_MASK),
            index,
            geometry.l2_entry_size(),
        )?;
        Ok(l1 & l2 & COPIED != 0)
    }

    fn shrink(&mut self, size: u64, progress: &Progress) -> Result<()> {
        self.put_size(size);
        self.write_head()?;
        let geometry = self.header.geometry;
        let kept = size.div_ceil(geometry.cluster_size());
        let first = kept / geometry.l2_entries();
        let mut l1 = vec![0; self.header.l1_bytes() as usize]; // at most 32 MiB
        self.source.read_exact_at(&mut l1, self.header.l1_offset)?;
        let l1: Vec<u64> = numbers(&l1).collect();
        let mut batch = Batch::default();
        for (index, entry) in (first..).zip(l1.iter().skip(first as usize)) {
            if progress.is_cancelled() {
                // What was given back so far is consistent, and the rest is only lost space.
                return Err(Error::cancelled());
            }
            let at = HostOffset(entry & OFFSET_MASK);
            if at == HostOffset::ZERO {
                continue;
            }
            rules::inside("L2 table", at, geometry.cluster_size(), self.source.len())?;
            let mut table = vec![0; geometry.cluster_size() as usize];
            self.source.read_exact_at(&mut table, at)?;
            let keeps = match index == first {
                true => kept % geometry.l2_entries(),
                false => 0,
            };
            let words: Vec<u64> = numbers(&table).collect();
            let width = geometry.l2_entry_size() as usize;
            for entry in words.chunks(width / 8).skip(keeps as usize) {
                batch.clusters.extend(freed(entry[0], geometry));
            }
            if keeps > 0 {
                table[keeps as usize * width..].fill(0);
                batch.writes.push((at, table));
            } else {
                let entry = self.header.l1_offset.0 + index * 8;
                batch.writes.push((HostOffset(entry), vec![0; 8]));
                batch.clusters.push(at.0 / geometry.cluster_size());
            }
            if batch.clusters.len() >= BATCH {
                self.give_back(std::mem::take(&mut batch))?;
            }
            progress.reached((index - first).saturating_mul(geometry.l1_span()));
        }
        self.give_back(batch)?;
        self.cut_file()
    }

    /// Clears entries, then gives back what they named.
    fn give_back(&mut self, mut batch: Batch) -> Result<()> {
        for (at, bytes) in &batch.writes {
            self.sink.write_all_at(bytes, *at)?;
        }
        self.sink.sync()?;
        self.refcounts.release(&mut batch.clusters, self.sink)?;
        self.sink.sync()
    }

    /// Cuts off the end of the file that nobody uses.
    fn cut_file(&mut self) -> Result<()> {
        let cluster_size = self.cluster_size();
        let all = self.source.len().div_ceil(cluster_size);
        let mut end = all;
        while end > 1 {
            let index = self.refcounts.block_of(end - 1);
            if !self.refcounts.has_block(index) {
                end = (index as u64 * self.refcounts.per_block()).max(1);
                continue;
            }
            if self.refcounts.get(end - 1)? != 0 {
                break;
            }
            end -= 1;
            if end.is_multiple_of(self.refcounts.per_block()) {
                self.refcounts.forget();
            }
        }
        if end < all {
            self.sink.set_len(end * cluster_size)?;
            self.sink.sync()?;
        }
        Ok(())
    }
}

/// Entries to clear, and the clusters they name.
#[derive(Default)]
struct Batch {
    writes: Writes,
    clusters: Vec<u64>,
}
