//! Comparing: whether a guest would see the same in two disks, whatever formats they are in.
//!
//! ```text
//!  extents of both ─► pieces that somebody stores ─► N threads: read ► compare ─► lowest offset
//! ```
//! What is a hole on both sides is never read. Pieces are handed out in guest order, and none
//! behind a difference that is known: all before it are then already in somebody's hands, so the
//! answer is the same whatever the number of threads.

use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::bytes::is_zero;
use crate::copy::{CopyOptions, Progress};
use crate::map::Walk;
use crate::{Disk, Error, Extent, GuestOffset, Result};

/// How to compare.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// Threads to work with; the answer does not depend on it.
    pub threads: NonZero<usize>,
}

impl Default for CompareOptions {
    /// As many threads as there are cores.
    fn default() -> Self {
        Self {
            threads: CopyOptions::default().threads,
        }
    }
}

/// Bytes a thread takes at a time: two of them fit well into the second-level cache.
const PORTION: u64 = 256 << 10;
/// Pieces a thread takes at a time.
const PIECES: usize = 512;

/// The first byte at which a guest would see a difference; `None` where the disks are the same.
/// Past the end of the shorter one the longer must be zero. `progress` counts guest bytes.
///
/// # Errors
/// What reading either disk met before the first difference; `Cancelled`.
pub fn compare(
    a: &dyn Disk,
    b: &dyn Disk,
    options: &CompareOptions,
    progress: &Progress,
) -> Result<Option<GuestOffset>> {
    let size = a.virtual_size().max(b.virtual_size());
    progress.start(size);
    let run = Run {
        a,
        b,
        progress,
        pairs: Mutex::new(Pairs::new(a, b)),
        end: AtomicU64::new(u64::MAX),
        failed: Mutex::new(None),
    };
    let threads = options.threads.get();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|n| format!("compare-{n}"))
        .build()
        .map_err(|e| Error::io("starting threads", std::io::Error::other(e)))?;
    pool.scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|_| run.work());
        }
    });
    let end = run.end.into_inner();
    let failed = run.failed.into_inner();
    match failed.unwrap_or_else(PoisonError::into_inner) {
        // An error behind a difference changes nothing about the answer.
        Some((at, error)) if at <= end => Err(error),
        _ if end == u64::MAX => {
            progress.reached(size);
            Ok(None)
        }
        _ => Ok(Some(GuestOffset(end))),
    }
}

/// The first byte that one disk stores and the other does not, zero or not; past its end a disk
/// stores nothing. Reads tables only.
///
/// # Errors
/// What reading the tables met.
pub fn allocation_difference(a: &dyn Disk, b: &dyn Disk) -> Result<Option<GuestOffset>> {
    let mut pairs = Pairs::new(a, b);
    while let Some(pair) = pairs.next()? {
        if pair.in_a != pair.in_b {
            return Ok(Some(pair.range.start));
        }
    }
    Ok(None)
}

/// A range and who stores it.
struct Pair {
    range: Range<GuestOffset>,
    in_a: bool,
    in_b: bool,
}

/// The extents of two disks, laid upon each other.
struct Pairs<'a> {
    a: Side<'a>,
    b: Side<'a>,
    at: GuestOffset,
    size: u64,
    /// What does not fit the portion before.
    left: Option<Pair>,
}

/// A disk and the extent the walk stands in.
struct Side<'a> {
    walk: Walk<'a>,
    now: Option<Extent>,
}

impl Side<'_> {
    /// Whether bytes are stored at `at`, and how far that holds; past the end nothing is.
    fn state(&mut self, at: GuestOffset) -> Result<(bool, GuestOffset)> {
        while self.now.as_ref().is_none_or(|e| e.range.end <= at) {
            self.now = self.walk.next()?.map(|mapped| mapped.extent);
            if self.now.is_none() {
                return Ok((false, GuestOffset(u64::MAX)));
            }
        }
        Ok(self
            .now
            .as_ref()
            .map_or((false, GuestOffset(u64::MAX)), |e| {
                (!e.kind.is_hole(), e.range.end)
            }))
    }
}

impl<'a> Pairs<'a> {
    fn new(a: &'a dyn Disk, b: &'a dyn Disk) -> Self {
        let side = |disk: &'a dyn Disk| Side {
            walk: Walk::new(disk, GuestOffset::ZERO..GuestOffset(disk.virtual_size())),
            now: None,
        };
        Self {
            a: side(a),
            b: side(b),
            at: GuestOffset::ZERO,
            size: a.virtual_size().max(b.virtual_size()),
            left: None,
        }
    }

    fn next(&mut self) -> Result<Option<Pair>> {
        let start = self.at;
        if start.0 >= self.size {
            return Ok(None);
        }
        let (in_a, a_end) = self.a.state(start)?;
        let (in_b, b_end) = self.b.state(start)?;
        self.at = a_end.min(b_end).min(GuestOffset(self.size));
        let range = start..self.at;
        Ok(Some(Pair { range, in_a, in_b }))
    }

    /// The next pieces that somebody stores, a portion at most; empty at the end of the disks.
    /// `end` is where looking makes no sense any more.
    fn portion(&mut self, end: u64, out: &mut Vec<Pair>) -> Result<()> {
        let mut bytes = 0;
        while bytes < PORTION && out.len() < PIECES {
            let pair = match self.left.take() {
                Some(pair) => pair,
                None => match self.next()? {
                    Some(pair) if pair.in_a || pair.in_b => pair,
                    Some(_) if self.at.0 < end => continue,
                    _ => return Ok(()),
                },
            };
            if pair.range.start.0 >= end {
                return Ok(());
            }
            let room = GuestOffset(pair.range.start.0 + (PORTION - bytes));
            let Pair { range, in_a, in_b } = pair;
            let stop = range.end.min(room);
            if stop < range.end {
                let range = stop..range.end;
                self.left = Some(Pair { range, in_a, in_b });
            }
            bytes += stop.since(range.start);
            let range = range.start..stop;
            out.push(Pair { range, in_a, in_b });
        }
        Ok(())
    }
}

struct Run<'a> {
    a: &'a dyn Disk,
    b: &'a dyn Disk,
    progress: &'a Progress,
    pairs: Mutex<Pairs<'a>>,
    /// The lowest difference or error known.
    end: AtomicU64,
    failed: Mutex<Option<(u64, Error)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run<'_> {
    fn work(&self) {
        let mut pieces = Vec::new();
        let (mut left, mut right) = (Vec::new(), Vec::new());
        loop {
            pieces.clear();
            {
                let mut pairs = lock(&self.pairs);
                let found = pairs.portion(self.end.load(Relaxed), &mut pieces);
                if let Err(error) = found {
                    // Pieces found before it are still to be compared.
                    let at = pairs.at.0;
                    pairs.at = GuestOffset(pairs.size);
                    drop(pairs);
                    self.fail(at, error);
                }
            }
            if pieces.is_empty() {
                return;
            }
            for piece in &pieces {
                let at = piece.range.start.0;
                if at >= self.end.load(Relaxed) {
                    return;
                }
                if self.progress.is_cancelled() {
                    return self.fail(0, Error::cancelled());
                }
                match self.compare(piece, &mut left, &mut right) {
                    Ok(None) => self.progress.reached(piece.range.end.0),
                    Ok(Some(difference)) => {
                        self.end.fetch_min(difference, Relaxed);
                        return;
                    }
                    Err(error) => return self.fail(at, error),
                }
            }
        }
    }

    /// Notes an error, unless one nearer to the start is known.
    fn fail(&self, at: u64, error: Error) {
        let mut failed = lock(&self.failed);
        if failed.as_ref().is_none_or(|(known, _)| at < *known) {
            *failed = Some((at, error));
        }
        self.end.fetch_min(at, Relaxed);
    }

    fn compare(
        &self,
        piece: &Pair,
        left: &mut Vec<u8>,
        right: &mut Vec<u8>,
    ) -> Result<Option<u64>> {
        let start = piece.range.start;
        // A portion at most.
        let len = piece.range.end.since(start) as usize;
        let read = |disk: &dyn Disk, buf: &mut Vec<u8>| {
            buf.resize(len, 0);
            disk.read_at(buf, start)
        };
        if piece.in_a {
            read(self.a, left)?;
        }
        if piece.in_b {
            read(self.b, right)?;
        }
        let first = match (piece.in_a, piece.in_b) {
            (true, true) if left != right => left.iter().zip(&*right).position(|(a, b)| a != b),
            (true, false) if !is_zero(left) => left.iter().position(|b| *b != 0),
            (false, true) if !is_zero(right) => right.iter().position(|b| *b != 0),
            _ => None,
        };
        Ok(first.map(|n| start.0 + n as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{ExtentKind, HostOffset, Source, raw};

    fn options(threads: usize) -> CompareOptions {
        CompareOptions {
            threads: NonZero::new(threads).unwrap(),
        }
    }

    fn raw(bytes: &[u8]) -> raw::Reader {
        raw::Reader::new(Arc::new(bytes.to_vec())).unwrap()
    }

    fn first(a: &dyn Disk, b: &dyn Disk, threads: usize) -> Option<u64> {
        let progress = Progress::default();
        let found = compare(a, b, &options(threads), &progress).unwrap();
        found.map(|at| at.0)
    }

    #[test]
    fn the_lowest_of_many_differences_is_found_whatever_the_threads() {
        let bytes = vec![7; 5 << 20];
        for places in [&[0][..], &[3_000_001, 600_000, 5_242_879], &[5_242_879]] {
            let mut other = bytes.clone();
            for at in places {
                other[*at] = 8;
            }
            for threads in [1, 2, 7] {
                let found = first(&raw(&bytes), &raw(&other), threads);
                assert_eq!(found, places.iter().min().map(|at| *at as u64));
            }
        }
        assert_eq!(first(&raw(&bytes), &raw(&bytes), 3), None);
    }

    #[test]
    fn past_the_end_of_the_shorter_only_zeros_are_the_same() {
        let short = raw(&[1; 1000]);
        let mut bytes = vec![1; 1000];
        bytes.resize(3000, 0);
        assert_eq!(first(&short, &raw(&bytes), 2), None);
        assert_eq!(first(&raw(&bytes), &short, 2), None);
        bytes[2999] = 1;
        assert_eq!(first(&short, &raw(&bytes), 2), Some(2999));
        assert_eq!(first(&raw(&bytes), &short, 2), Some(2999));
        assert_eq!(first(&raw(&[]), &raw(&[]), 2), None);
    }

    /// A disk that cannot be read from `.0` on.
    struct Broken(u64);

    impl Disk for Broken {
        fn virtual_size(&self) -> u64 {
            8 << 20
        }

        fn unit(&self) -> u64 {
            4096
        }

        fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
            let kind = ExtentKind::Data {
                host: Some(HostOffset(range.start.0)),
            };
            out.push(Extent { range, kind });
            Ok(())
        }

        fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
            if at.0 + buf.len() as u64 > self.0 {
                return Err(Error::usage("broken"));
            }
            buf.fill(1);
            Ok(())
        }
    }

    #[test]
    fn an_error_counts_only_before_the_first_difference() {
        let mut bytes = vec![1; 8 << 20];
        let progress = Progress::default();
        let broken = Broken(6 << 20);
        for threads in [1, 4] {
            let e = compare(&broken, &raw(&bytes), &options(threads), &progress).unwrap_err();
            assert_eq!(e.to_string(), "broken");
        }
        bytes[1 << 20] = 0;
        for threads in [1, 4] {
            assert_eq!(first(&broken, &raw(&bytes), threads), Some(1 << 20));
        }
    }

    #[test]
    fn a_cancelled_comparison_ends() {
        let progress = Progress::default();
        progress.cancel();
        let e = compare(&raw(&[1; 9]), &raw(&[1; 9]), &options(2), &progress).unwrap_err();
        assert_eq!(e.kind(), crate::ErrorKind::Cancelled);
    }

    #[test]
    fn stored_zeros_differ_in_allocation_alone() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let sparse: Arc<dyn Source> = Arc::new(crate::FileSource::new(file).unwrap());
        let sparse = raw::Reader::new(sparse).unwrap();
        let stored = raw(&vec![0; 1 << 20]);
        assert_eq!(first(&sparse, &stored, 2), None);
        let found = allocation_difference(&sparse, &stored).unwrap();
        assert_eq!(found, Some(GuestOffset(0)));
        assert_eq!(allocation_difference(&stored, &stored).unwrap(), None);
    }
}
