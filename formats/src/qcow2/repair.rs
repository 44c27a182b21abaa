//! Repairing: what refcounts and flags say is made what the other tables say. No entry that leads
//! to a guest's bytes is touched.
//!
//! A crash between any two writes leaves an image that is no worse than it was:
//! 1. Where refcounts are too low or their tables broken, new ones are written behind the end of
//!    the file, made durable, and one write to the header switches to them.
//! 2. Else refcounts that are too high are lowered, each on its own: nothing uses the difference.
//! 3. Then the COPIED flags are set as the refcounts have it: until then a flag is as wrong as it
//!    was, or a cluster is copied that need not be.
//! 4. Last of all, when nothing is wrong any more, the dirty and the corrupt bit are cleared.

use std::ops::Range;
use std::sync::Arc;

use super::allocate::refcount_clusters;
use super::census::Census;
use super::check::{Checker, Outcome, examine};
use super::counts::{refcount, set_refcount};
use super::entries::{COMPRESSED, COPIED, OFFSET_MASK, numbers};
use super::image::Image;
use super::layout::{Header, incompatible};
use super::refcounts::Block;
use super::report::Report;
use super::shape::write_table;
use super::tables::read_zeroed;
use crate::check::Check;
use crate::copy::Progress;
use crate::{Error, Format, HostOffset, Limits, Result, Sink, Source};

/// What to repair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repair {
    /// Free what nothing uses; the rest stays as it is.
    Leaks,
    /// All that can be: refcounts and flags.
    All,
}

/// Repairs the image in `source`, which sees what is written to `sink`, past the length it had
/// when it was opened too. Gives what is still wrong, and how much no longer is.
///
/// # Errors
/// As of [`check`](crate::check::check), and what the sink met.
pub fn repair(
    source: &Arc<dyn Source>,
    sink: &dyn Sink,
    what: Repair,
    progress: &Progress,
) -> Result<Check> {
    let limits = Limits::default();
    let mut file = Grown {
        inner: source.as_ref(),
        len: source.len(),
    };
    let found = examine(&file, &limits, progress)?;
    let wrong = found.check.corruptions + found.check.leaks;
    let mut now = found;
    let is_broken = !now.is_sound || now.too_low > 0;
    if what == Repair::All && is_broken {
        file.len = rebuild(&file, sink, &limits, progress)?;
        now = examine(&file, &limits, progress)?;
    } else if now.is_sound && now.check.leaks > 0 {
        lower(&file, sink, &limits, progress)?;
        now = examine(&file, &limits, progress)?;
    }
    if now.copied > 0 && (what == Repair::All || is_trusted(&now)) {
        set_flags(&file, sink, &limits, progress)?;
        now = examine(&file, &limits, progress)?;
    }
    let mut check = now.check;
    if check.corruptions == 0 {
        clear_bits(&file, sink)?;
    }
    check.repaired = wrong.saturating_sub(check.corruptions + check.leaks);
    Ok(check)
}

/// Whether nothing but flags is wrong: the refcounts they follow are right, then.
fn is_trusted(now: &Outcome) -> bool {
    now.check.corruptions == now.copied && now.check.leaks == 0
}

/// A file that has become longer than when it was opened.
struct Grown<'a> {
    inner: &'a dyn Source,
    len: u64,
}

impl Source for Grown<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], at: HostOffset) -> Result<()> {
        self.inner.read_exact_at(buf, at)
    }

    fn next_data(&self, from: HostOffset) -> Result<Option<Range<HostOffset>>> {
        if self.len == self.inner.len() {
            return self.inner.next_data(from);
        }
        let end = HostOffset(self.len);
        Ok((from < end).then_some(from..end))
    }

    fn allocated(&self) -> u64 {
        self.inner.allocated()
    }
}

/// Writes new refcounts behind the end of the file, and makes them those of the image. Gives the
/// length of the file.
fn rebuild(
    source: &dyn Source,
    sink: &dyn Sink,
    limits: &Limits,
    progress: &Progress,
) -> Result<u64> {
    let image = Image::open(source, limits, &mut Report::default())?;
    let header = &image.header;
    let order = header.refcount_order;
    let cluster_size = header.geometry.cluster_size();
    let mut checker = Checker::new(&image, limits, progress)?;
    checker.report.is_muted = true;
    let per_block = checker.refcounts.per_block();
    // The cluster behind the end may be in use already, by what reaches into it.
    let used = source.len().div_ceil(cluster_size) + 1;
    let too_many = || {
        Error::limit(
            Format::Qcow2,
            "refcount table",
            format!("cannot count {used} clusters"),
        )
    };
    let (table, blocks) = refcount_clusters(used, cluster_size, order).ok_or_else(too_many)?;
    let end = used + table + blocks;
    let at = |cluster: u64| HostOffset(cluster * cluster_size);
    let mut census: Option<Census> = None;
    let mut windows = checker.windows();
    let mut entries = vec![0; blocks as usize];
    for n in 0..blocks {
        let clusters = n * per_block..end.min((n + 1) * per_block);
        let is_past = |census: &Census| census.window().end <= clusters.start;
        if census.as_ref().is_none_or(is_past)
            && let Some(window) = windows.next()
        {
            // Two at once would be twice the memory.
            drop(census.take());
            let counted = checker.census(window, false)?;
            if n == 0 && counted.users(0) != 1 {
                return Err(Error::malformed(
                    Format::Qcow2,
                    "header",
                    "its cluster is used for something else, too: nothing can be written there",
                ));
            }
            census = Some(counted);
        }
        let mut block = vec![0; cluster_size as usize];
        for cluster in clusters {
            let users = match &census {
                _ if cluster >= used => 1,
                Some(census) => census.users(cluster),
                None => 0,
            };
            set_refcount(&mut block, cluster % per_block, order, users);
        }
        sink.write_all_at(&block, at(used + table + n))?;
        entries[n as usize] = at(used + table + n).0;
    }
    sink.set_len(at(end).0)?;
    write_table(sink, &entries, at(used))?;
    sink.sync()?;
    // Both fields lie in one sector.
    let mut fields = at(used).0.to_be_bytes().to_vec();
    fields.extend((table as u32).to_be_bytes());
    sink.write_all_at(&fields, HostOffset(48))?;
    sink.sync()?;
    Ok(at(end).0)
}

/// Lowers the refcounts that are too high.
fn lower(source: &dyn Source, sink: &dyn Sink, limits: &Limits, progress: &Progress) -> Result<()> {
    let image = Image::open(source, limits, &mut Report::default())?;
    let order = image.header.refcount_order;
    let mut checker = Checker::new(&image, limits, progress)?;
    checker.report.is_muted = true;
    let per_block = checker.refcounts.per_block();
    for window in checker.windows() {
        let census = checker.census(window.clone(), true)?;
        for index in window.start / per_block..window.end.div_ceil(per_block) {
            let Block::Counts(counts) = checker.refcounts.block(index)? else {
                continue;
            };
            let mut changed = counts.to_vec();
            let first = index * per_block;
            // What is counted past the end of the file is nobody's business: qemu keeps it, too.
            for cluster in first..window.end.min(first + per_block) {
                let n = cluster - first;
                let users = census.users(cluster);
                if refcount(&counts, n, order).is_some_and(|count| count > users) {
                    set_refcount(&mut changed, n, order, users);
                }
            }
            if changed[..] != counts[..] {
                sink.write_all_at(&changed, checker.refcounts.offset(index))?;
            }
        }
    }
    sink.sync()
}

/// Makes the COPIED flags of the present state say what the refcounts say.
fn set_flags(
    source: &dyn Source,
    sink: &dyn Sink,
    limits: &Limits,
    progress: &Progress,
) -> Result<()> {
    let image = Image::open(source, limits, &mut Report::default())?;
    let geometry = image.header.geometry;
    let (cluster_size, words) = (geometry.cluster_size(), geometry.l2_entry_size() / 8);
    let has_data_file = image.header.has(incompatible::DATA_FILE);
    let mut checker = Checker::new(&image, limits, progress)?;
    for (n, &entry) in image.l1.iter().enumerate() {
        let at = HostOffset(entry & OFFSET_MASK);
        if at == HostOffset::ZERO {
            continue;
        }
        let byte = HostOffset(image.header.l1_offset.0 + n as u64 * 8);
        let flagged = flagged(entry, checker.is_one(at)?);
        if flagged != entry && checker.refcount(byte)? == Some(1) {
            sink.write_all_at(&flagged.to_be_bytes(), byte)?;
        }
    }
    for l2 in image.l2.iter().filter(|l2| l2.active > 0) {
        let is_inside = l2.at.0 + cluster_size <= source.len();
        if !l2.at.0.is_multiple_of(cluster_size) || !is_inside {
            continue;
        }
        // What else uses it may be a guest's bytes.
        if checker.refcount(l2.at)? != Some(l2.times) {
            continue;
        }
        let bytes = read_zeroed(source, l2.at, cluster_size)?;
        for (n, entry) in (0..).zip(numbers(&bytes)).step_by(words as usize) {
            let at = HostOffset(entry & OFFSET_MASK);
            let is_copied = has_data_file && entry & COPIED != 0;
            if entry & COMPRESSED != 0 || (at == HostOffset::ZERO && !is_copied) {
                continue;
            }
            let is_one = match has_data_file {
                true => Some(true),
                false => checker.is_one(at)?,
            };
            let flagged = flagged(entry, is_one);
            if flagged != entry {
                let byte: u64 = l2.at.0 + n * 8;
                sink.write_all_at(&flagged.to_be_bytes(), HostOffset(byte))?;
            }
        }
    }
    sink.sync()
}

/// `entry` with the COPIED flag as the refcount has it, where that is known.
const fn flagged(entry: u64, is_one: Option<bool>) -> u64 {
    match is_one {
        Some(true) => entry | COPIED,
        Some(false) => entry & !COPIED,
        None => entry,
    }
}

/// Clears the dirty and the corrupt bit, where one is set.
fn clear_bits(source: &dyn Source, sink: &dyn Sink) -> Result<()> {
    let head = read_zeroed(source, HostOffset::ZERO, 512)?;
    let header = Header::parse(&head)?;
    let bits = incompatible::DIRTY | incompatible::CORRUPT;
    if header.has(bits) {
        let features = header.incompatible_features & !bits;
        sink.write_all_at(&features.to_be_bytes(), HostOffset(72))?;
        sink.sync()?;
    }
    Ok(())
}
