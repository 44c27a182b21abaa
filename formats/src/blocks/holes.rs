//! A source that remembers where it holds data.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::{HostOffset, Result, Source};

/// Answers [`next_data`](Source::next_data) from what was answered before, where it can. A kernel
/// may walk all pages of a file up to the next hole: asked for each block that is a square,
/// whatever order the blocks lie in.
pub(super) struct Remembering {
    inner: Arc<dyn Source>,
    known: Mutex<Known>,
}

/// What was learnt of the file: stretches of it, apart, each a hole or data up to its very end.
/// Behind a hole follows data, or nothing for ever.
#[derive(Default)]
struct Known {
    /// By their start: their end, and whether they are data.
    stretches: BTreeMap<u64, (u64, bool)>,
    /// How far before what is asked for the next question starts: blocks in descending order
    /// would have the kernel walk the same pages for each of them.
    back: u64,
}

/// The least that is asked for before a block.
const BACK: u64 = 1 << 20;
/// Stretches remembered, a few MiB; in a file of more holes they are near.
const MAX_KNOWN: usize = 1 << 16;

impl Remembering {
    pub(super) fn new(inner: Arc<dyn Source>) -> Self {
        Self {
            inner,
            known: Mutex::default(),
        }
    }

    fn learn(&self, from: u64, known: &mut Known) -> Result<()> {
        let data = self.inner.next_data(HostOffset(from))?;
        known.insert(from, data.map(|data| data.start.0..data.end.0));
        Ok(())
    }
}

impl Known {
    /// Where data follows from `at` on; the outer `None` where that is not known.
    fn at(&self, at: u64) -> Option<Option<Range<HostOffset>>> {
        let (_, &(end, is_data)) = self.stretches.range(..=at).next_back()?;
        if at >= end {
            return None;
        }
        let (start, end) = match is_data {
            true => (at, end),
            false => match self.stretches.get(&end) {
                Some(&(data_end, _)) => (end, data_end),
                None => return Some(None),
            },
        };
        Some(Some(HostOffset(start)..HostOffset(end)))
    }

    /// Where to ask, not to be asked again for what lies just before `at`.
    fn start(&mut self, at: u64) -> u64 {
        let is_backward = self.stretches.range(at..).next().is_some();
        self.back = match is_backward {
            true => self.back.saturating_mul(2).max(BACK),
            false => 0,
        };
        let before = self.stretches.range(..at).next_back();
        let before = before.map_or(0, |(_, &(end, _))| end);
        at.saturating_sub(self.back).max(before)
    }

    /// Notes that from `from` the next data is `data`.
    fn insert(&mut self, from: u64, data: Option<Range<u64>>) {
        if self.stretches.len() >= MAX_KNOWN {
            self.stretches.clear();
        }
        let (hole_end, end) = match &data {
            Some(data) => (data.start, data.end),
            None => (u64::MAX, u64::MAX),
        };
        // What begins in between ends there as well.
        while let Some((&start, _)) = self.stretches.range(from..end).next() {
            self.stretches.remove(&start);
        }
        if hole_end > from {
            self.stretches.insert(from, (hole_end, false));
        }
        if let Some(data) = data {
            self.stretches.insert(data.start, (data.end, true));
        }
    }
}

impl Source for Remembering {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], at: HostOffset) -> Result<()> {
        self.inner.read_exact_at(buf, at)
    }

    fn next_data(&self, from: HostOffset) -> Result<Option<Range<HostOffset>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = known.at(from.0) {
            return Ok(answer);
        }
        let start = known.start(from.0);
        self.learn(start, &mut known)?;
        if let Some(answer) = known.at(from.0) {
            return Ok(answer);
        }
        // There is a hole in between: those before are near, and nothing is gained by going back.
        known.back = 0;
        self.learn(from.0, &mut known)?;
        Ok(known.at(from.0).flatten())
    }

    fn allocated(&self) -> u64 {
        self.inner.allocated()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    /// Data in these ranges; counts the bytes that a kernel would walk over.
    struct Walked {
        ranges: Vec<Range<u64>>,
        len: u64,
        walked: AtomicU64,
    }

    impl Source for Walked {
        fn len(&self) -> u64 {
            self.len
        }

        fn read_exact_at(&self, _: &mut [u8], _: HostOffset) -> Result<()> {
            Ok(())
        }

        fn next_data(&self, from: HostOffset) -> Result<Option<Range<HostOffset>>> {
            let next = self.ranges.iter().find(|range| range.end > from.0);
            let end = next.map_or(self.len, |range| range.end);
            self.walked.fetch_add(end.saturating_sub(from.0), Relaxed);
            Ok(next.map(|range| HostOffset(range.start.max(from.0))..HostOffset(range.end)))
        }
    }

    /// Asks at each of `places`; the bytes walked over.
    fn walk(ranges: Vec<Range<u64>>, len: u64, places: impl IntoIterator<Item = u64>) -> u64 {
        let inner = Arc::new(Walked {
            ranges,
            len,
            walked: AtomicU64::new(0),
        });
        let source = Remembering::new(inner.clone());
        let mut walked = 0;
        for at in places.into_iter().map(HostOffset) {
            let answer = source.next_data(at).unwrap();
            walked += inner.walked.swap(0, Relaxed);
            assert_eq!(answer, inner.next_data(at).unwrap(), "at {at}");
            inner.walked.store(0, Relaxed);
        }
        walked
    }

    const BLOCK: u64 = 1 << 20;

    /// Each block once, in no order.
    fn scattered(blocks: u64) -> impl Iterator<Item = u64> {
        (0..blocks).map(move |n| n * 7919 % blocks * BLOCK)
    }

    #[test]
    fn blocks_in_any_order_take_a_walk_or_two() {
        let blocks = 5000;
        let len = blocks * BLOCK;
        let whole = || std::iter::once(0..len).collect::<Vec<_>>();
        assert_eq!(walk(whole(), len, (0..blocks).map(|n| n * BLOCK)), len);
        let back = walk(whole(), len, (0..blocks).rev().map(|n| n * BLOCK));
        assert!(back < 20 * len, "{}", back / len);
        let scattered = walk(whole(), len, scattered(blocks));
        assert!(scattered < 20 * len, "{}", scattered / len);
    }

    #[test]
    fn holes_are_where_they_are() {
        // The places between and in them, and those a byte beside a border.
        let blocks = 600;
        let len = blocks * BLOCK;
        let ranges: Vec<_> = (0..blocks / 3)
            .map(|n| n * 3 * BLOCK + 100..(n * 3 + 1 + n % 2) * BLOCK)
            .collect();
        let places = scattered(blocks).flat_map(|at| [at, at + 99, at + 100, at + BLOCK - 1]);
        walk(ranges.clone(), len, places);
        walk(ranges, len + BLOCK, (0..=blocks).rev().map(|n| n * BLOCK));
        walk(vec![], len, scattered(9));
    }
}
