//! Runs of sectors, and those that are in two of them.

use std::ops::Range;

/// Runs kept at once, at 16 bytes each.
pub(super) const MAX_RUNS: usize = 4 << 20;

/// Runs of sectors that begin in one part of a file.
pub(super) struct Runs {
    part: Range<u64>,
    runs: Vec<Range<u64>>,
    overlaps: Vec<Range<u64>>,
    more_overlaps: u64,
    is_too_many: bool,
}

/// What [`Runs`] come to: ascending, apart, and what was in two of them.
pub(super) struct Sorted {
    pub(super) runs: Vec<Range<u64>>,
    pub(super) overlaps: Vec<Range<u64>>,
    pub(super) more_overlaps: u64,
}

impl Runs {
    pub(super) fn new(part: Range<u64>) -> Self {
        Self {
            part,
            runs: Vec::new(),
            overlaps: Vec::new(),
            more_overlaps: 0,
            is_too_many: false,
        }
    }

    pub(super) fn push(&mut self, run: Range<u64>) {
        if run.is_empty() || !self.part.contains(&run.start) || self.is_too_many {
            return;
        }
        match self.runs.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => self.runs.push(run),
        }
        if self.runs.len() >= MAX_RUNS {
            self.merge();
            self.is_too_many = self.runs.len() > MAX_RUNS / 4 * 3;
        }
    }

    /// Sorts, joins what touches, and notes what overlaps.
    fn merge(&mut self) {
        self.runs.sort_unstable_by_key(|run| run.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for run in self.runs.drain(..) {
            match merged.last_mut() {
                Some(last) if run.start <= last.end => {
                    if run.start < last.end {
                        if self.overlaps.len() < crate::check::MAX_PROBLEMS {
                            self.overlaps.push(run.start..run.end.min(last.end));
                        } else {
                            self.more_overlaps += 1;
                        }
                    }
                    last.end = last.end.max(run.end);
                }
                _ => merged.push(run),
            }
        }
        self.runs = merged;
    }

    /// The runs in order, or, where they were too many, the sector to cut their part of the
    /// file at.
    pub(super) fn finish(mut self) -> Result<Sorted, u64> {
        self.merge();
        if self.is_too_many {
            return Err(self.runs[self.runs.len() / 2].start);
        }
        Ok(Sorted {
            runs: self.runs,
            overlaps: self.overlaps,
            more_overlaps: self.more_overlaps,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_tell_what_is_used_twice() {
        let mut runs = Runs::new(0..1000);
        for run in [10..20, 20..30, 0..5, 25..27, 500..600, 599..700, 2000..3000] {
            runs.push(run);
        }
        let sorted = runs.finish().ok().unwrap();
        assert_eq!(sorted.runs, [0..5, 10..30, 500..700]);
        assert_eq!(sorted.overlaps, [25..27, 599..600]);
    }

    #[test]
    fn too_many_runs_are_cut_in_two() {
        let mut runs = Runs::new(0..u64::MAX);
        for n in 0..MAX_RUNS as u64 + 5 {
            runs.push(n * 10..n * 10 + 1);
        }
        let middle = runs.finish().err().unwrap();
        assert_eq!(middle, MAX_RUNS as u64 / 2 * 10);
    }
}
