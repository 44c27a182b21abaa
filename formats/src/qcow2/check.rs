//! Checking: all tables against the refcounts, as `qemu-img check` counts.
//!
//! ```text
//!  header, L1 tables, snapshots, bitmaps, L2 tables ──► users of each cluster ─┐
//!                                                                              ├─ compared
//!  refcount table ──► refcount blocks ──► refcount of each cluster ────────────┘
//! ```
//! A cluster with fewer users than its refcount is leaked, one with more is corrupt: it would be
//! handed out while in use. An entry's COPIED flag says that its cluster's refcount is one. What
//! qemu does not look for is found, too: structures that share a cluster with something else
//! while all refcounts agree.

mod l2;

use std::ops::Range;
use std::sync::Arc;

use super::census::{Census, Use, WINDOW};
use super::counts::refcount;
use super::entries::{COPIED, OFFSET_MASK, numbers};
use super::image::Image;
use super::refcounts::{Block, Refcounts};
use super::report::Report;
use super::tables::read_zeroed;
use crate::check::Check;
use crate::copy::Progress;
use crate::{Error, Format, HostOffset, Limits, Result, Source};

/// Most clusters of a file, as qemu has it: they are gone through one by one.
const MAX_CLUSTERS: u64 = i32::MAX as u64;
/// Entries of all bitmap tables together.
const MAX_BITMAP_ENTRIES: u64 = 8 << 20;
/// Bits 1 to 8 and 56 to 63 of an entry of a bitmap table.
const BITMAP_RESERVED: u64 = 0xff00_0000_0000_01fe;

/// Checks the image in `source`.
///
/// # Errors
/// `Malformed` when header, L1 or refcount table are not there to compare with, `Unsupported` for
/// unknown features, `Limit`, `Cancelled`, `Io`.
pub(crate) fn check(
    source: &Arc<dyn Source>,
    limits: &Limits,
    progress: &Progress,
) -> Result<Check> {
    Ok(examine(source.as_ref(), limits, progress)?.check)
}

/// What a check found, and what a repair needs to know of it.
pub(super) struct Outcome {
    pub(super) check: Check,
    /// Corruptions that are COPIED flags.
    pub(super) copied: u64,
    /// Refcounts below the number of users.
    pub(super) too_low: u64,
    /// The refcounts can be changed where they are.
    pub(super) is_sound: bool,
}

pub(super) fn examine(
    source: &dyn Source,
    limits: &Limits,
    progress: &Progress,
) -> Result<Outcome> {
    let mut report = Report::default();
    let image = Image::open(source, limits, &mut report)?;
    let mut checker = Checker::new(&image, limits, progress)?;
    checker.report = report;
    progress.start(source.len());
    checker.l1_flags()?;
    for window in checker.windows() {
        checker.report.is_muted = window.start > 0;
        let census = checker.census(window, true)?;
        checker.report.is_muted = false;
        checker.compare(&census)?;
    }
    progress.reached(source.len());
    let cluster_size = image.header.geometry.cluster_size();
    let check = &mut checker.report.check;
    check.total_units = image.header.virtual_size.div_ceil(cluster_size);
    check.end_offset = (checker.highest + 1) * cluster_size;
    Ok(Outcome {
        check: checker.report.check,
        copied: checker.copied,
        too_low: checker.too_low,
        is_sound: checker.is_sound,
    })
}

/// Goes through the structures of an image.
pub(super) struct Checker<'a> {
    image: &'a Image<'a>,
    pub(super) refcounts: Refcounts<'a>,
    progress: &'a Progress,
    pub(super) report: Report,
    /// Clusters of the file.
    clusters: u64,
    /// The last cluster that has users or a refcount.
    highest: u64,
    copied: u64,
    too_low: u64,
    is_sound: bool,
}

impl<'a> Checker<'a> {
    pub(super) fn new(
        image: &'a Image<'a>,
        limits: &Limits,
        progress: &'a Progress,
    ) -> Result<Self> {
        let clusters = image
            .source
            .len()
            .div_ceil(image.header.geometry.cluster_size());
        if clusters > MAX_CLUSTERS {
            return Err(Error::limit(
                Format::Qcow2,
                "file",
                format!("has {clusters} clusters, allowed {MAX_CLUSTERS} to be checked"),
            ));
        }
        Ok(Self {
            image,
            refcounts: Refcounts::open(image.source, &image.header, limits)?,
            progress,
            report: Report::default(),
            clusters,
            highest: 0,
            copied: 0,
            too_low: 0,
            is_sound: true,
        })
    }

    fn cluster_size(&self) -> u64 {
        self.image.header.geometry.cluster_size()
    }

    /// Windows over the clusters of the file and the one behind: the last may reach past the end.
    pub(super) fn windows(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        let end = self.clusters + 1;
        (0..end)
            .step_by(WINDOW as usize)
            .map(move |start| start..end.min(start + WINDOW))
    }

    /// Counts the users of the clusters in `window`; those that are the refcounts' own as asked.
    pub(super) fn census(&mut self, window: Range<u64>, with_refcounts: bool) -> Result<Census> {
        let image = self.image;
        let mut census = Census::new(&image.header, window);
        for &(what, at, len) in &image.sole {
            self.mark(&mut census, what, at, len, 1, Use::Sole)?;
        }
        self.bitmaps(&mut census)?;
        let cluster_size = self.cluster_size();
        // Tables in holes of the file are empty: a file cannot make us read more than it has.
        let is_sparse = image.l2.len() as u64 * cluster_size > image.source.allocated();
        for l2 in &image.l2 {
            if self.progress.is_cancelled() {
                return Err(Error::cancelled());
            }
            self.mark(
                &mut census,
                "L2 table",
                l2.at,
                cluster_size,
                l2.times,
                Use::L2,
            )?;
            let is_hole = is_sparse && {
                let data = image.source.next_data(l2.at)?;
                data.is_none_or(|data| data.start.since(l2.at) >= cluster_size)
            };
            if l2.at.0.is_multiple_of(cluster_size) && !is_hole {
                self.l2_table(&mut census, l2)?;
            }
            self.progress.reached(l2.at.0.min(image.source.len()));
        }
        if with_refcounts {
            let (at, len) = (
                image.header.refcount_table_offset,
                image.header.refcount_table_bytes(),
            );
            self.mark(&mut census, "refcount table", at, len, 1, Use::Sole)?;
            self.refcount_blocks(&mut census)?;
        }
        Ok(census)
    }

    /// Counts `times` users of the `len` bytes from `at`.
    fn mark(
        &mut self,
        census: &mut Census,
        what: &'static str,
        at: HostOffset,
        len: u64,
        times: u64,
        used_as: Use,
    ) -> Result<()> {
        let file_len = self.image.source.len();
        let end = at.checked_add(len).unwrap_or(HostOffset(u64::MAX));
        // The file may end within its last cluster.
        if len > 0 && end.since(HostOffset(file_len)) >= self.cluster_size() {
            self.report.corruption(times, || {
                let message = format!("has {len} bytes at {at}, the file ends at {file_len:#x}");
                (format!("{what}, byte {at}"), message)
            });
            return Ok(());
        }
        let over = census.count(at.0, len, times, used_as)?;
        if over > 0 {
            // Told by the window that counts it, whichever that is.
            let was_muted = std::mem::take(&mut self.report.is_muted);
            self.report.corruption(over, || {
                let message =
                    "is used more often than a refcount can say: refcount_bits is too small";
                (format!("{what}, byte {at}"), message.into())
            });
            self.report.is_muted = was_muted;
        }
        Ok(())
    }

    fn bitmaps(&mut self, census: &mut Census) -> Result<()> {
        let image = self.image;
        let cluster_size = self.cluster_size();
        let all = image.bitmaps.iter().map(|b| u64::from(b.table_size));
        if all.sum::<u64>() > MAX_BITMAP_ENTRIES {
            return Err(Error::limit(
                Format::Qcow2,
                "bitmap directory",
                format!("bitmaps have more than {MAX_BITMAP_ENTRIES} clusters"),
            ));
        }
        for bitmap in &image.bitmaps {
            let len = u64::from(bitmap.table_size) * 8;
            self.mark(census, "bitmap table", bitmap.table, len, 1, Use::Sole)?;
            for entry in numbers(&read_zeroed(image.source, bitmap.table, len)?) {
                let at = HostOffset(entry & OFFSET_MASK);
                // Bit 0 says all ones, where there is no cluster.
                let is_both = at != HostOffset::ZERO && entry & 1 != 0;
                if entry & BITMAP_RESERVED != 0 || is_both || !at.0.is_multiple_of(cluster_size) {
                    self.report.corruption(1, || {
                        let place = format!("bitmap table, byte {}", bitmap.table);
                        let name = &bitmap.name;
                        (
                            place,
                            format!("entry {entry:#x} of {name:?} makes no sense"),
                        )
                    });
                } else if at != HostOffset::ZERO {
                    self.mark(census, "bitmap", at, cluster_size, 1, Use::Data)?;
                }
            }
        }
        Ok(())
    }

    /// Whether the refcount of the cluster at `at` is one; `None` where it cannot be told.
    pub(super) fn is_one(&mut self, at: HostOffset) -> Result<Option<bool>> {
        Ok(self.refcount(at)?.map(|count| count == 1))
    }

    /// The refcount of the cluster at `at`; `None` where it cannot be told.
    pub(super) fn refcount(&mut self, at: HostOffset) -> Result<Option<u64>> {
        let cluster = at.0 >> self.image.header.geometry.cluster_bits;
        self.refcounts.get(cluster)
    }

    /// The COPIED flags of the present L1 table.
    fn l1_flags(&mut self) -> Result<()> {
        let image = self.image;
        for (n, &entry) in image.l1.iter().enumerate() {
            let at = HostOffset(entry & OFFSET_MASK);
            if at == HostOffset::ZERO {
                continue;
            }
            let is_copied = entry & COPIED != 0;
            if self.is_one(at)?.is_some_and(|is_one| is_one != is_copied) {
                self.copied += 1;
                self.report.corruption(1, || {
                    let byte = HostOffset(image.header.l1_offset.0 + n as u64 * 8);
                    let message = format!("entry {entry:#x} {}", copied(is_copied));
                    (format!("L1 table, byte {byte}"), message)
                });
            }
        }
        Ok(())
    }

    fn refcount_blocks(&mut self, census: &mut Census) -> Result<()> {
        let cluster_size = self.cluster_size();
        let cluster_bits = self.image.header.geometry.cluster_bits;
        let table = self.image.header.refcount_table_offset;
        let entries: Vec<_> = self.refcounts.entries().collect();
        for (n, at, reserved) in entries {
            let cluster = at.0 >> cluster_bits;
            let tell = |what: &str| {
                let byte = HostOffset(table.0 + n * 8);
                let place = format!("refcount table, byte {byte}");
                (place, format!("the refcount block at {at} {what}"))
            };
            let fault = if reserved != 0 {
                Some("has reserved bits beside its offset")
            } else if !at.0.is_multiple_of(cluster_size) {
                Some("is between two clusters")
            } else if cluster >= self.clusters {
                Some("is past the end of the file")
            } else {
                None
            };
            if let Some(fault) = fault {
                self.is_sound = false;
                self.report.corruption(1, || tell(fault));
                continue;
            }
            self.mark(census, "refcount block", at, cluster_size, 1, Use::Sole)?;
            if census.window().contains(&cluster) && census.users(cluster) != 1 {
                self.is_sound = false;
                let was_muted = std::mem::take(&mut self.report.is_muted);
                self.report
                    .corruption(1, || tell("is used for something else, too"));
                self.report.is_muted = was_muted;
            }
        }
        Ok(())
    }

    /// Compares users and refcounts of the clusters in the window of `census`.
    fn compare(&mut self, census: &Census) -> Result<()> {
        let per_block = self.refcounts.per_block();
        let order = self.image.header.refcount_order;
        // The cluster behind the file counts where something reaches into it.
        let behind = u64::from(census.users(self.clusters) > 0);
        let end = census.window().end.min(self.clusters + behind);
        let mut start = census.window().start;
        while start < end {
            let range = start..end.min((start / per_block + 1) * per_block);
            start = range.end;
            match self.refcounts.block(range.start / per_block)? {
                // All of it was said of the block.
                Block::Misplaced => {}
                Block::Absent if census.is_unused(&range) => {}
                Block::Absent => range.for_each(|n| self.compare_cluster(census, n, 0)),
                Block::Counts(counts) => range.for_each(|n| {
                    let count = refcount(&counts, n % per_block, order).unwrap_or(0);
                    self.compare_cluster(census, n, count);
                }),
            }
        }
        Ok(())
    }

    #[inline]
    fn compare_cluster(&mut self, census: &Census, cluster: u64, count: u64) {
        let users = census.users(cluster);
        if users > 0 || count > 0 {
            self.highest = cluster;
        }
        if users == count && !census.is_overlapped(cluster) {
            return;
        }
        let cluster_size = self.cluster_size();
        let tell = || {
            let place = format!("cluster, byte {}", HostOffset(cluster * cluster_size));
            (
                place,
                format!("its refcount is {count}, it is used {users} times"),
            )
        };
        if count > users {
            self.report.leak(cluster_size, tell);
        } else if count < users {
            self.is_sound &= count > 0;
            self.too_low += 1;
            self.report.corruption(1, tell);
        } else {
            self.report.corruption(1, || {
                let message = "holds a table and something else, and its refcount says so";
                (tell().0, message.into())
            });
        }
    }
}

fn copied(is_copied: bool) -> &'static str {
    match is_copied {
        true => "has the COPIED flag, but the refcount is not 1",
        false => "lacks the COPIED flag, but the refcount is 1",
    }
}
