//! What to read next: runs of units that hold data, in guest order.

use std::collections::VecDeque;
use std::ops::Range;

use crate::{Disk, Extent, GuestOffset, Result};

/// A run of whole units to copy, in guest order.
pub(super) struct Job {
    /// Counts from zero, without gaps.
    pub(super) seq: u64,
    /// Starts on a unit border and ends on one, or with the disk.
    pub(super) range: Range<GuestOffset>,
}

/// Walks a disk's extents and cuts out jobs of at most `segment` bytes.
pub(super) struct Planner<'a> {
    disk: &'a dyn Disk,
    unit: u64,
    segment: u64,
    asked: GuestOffset,
    extents: VecDeque<Extent>,
    /// Everything before is planned or a hole.
    at: GuestOffset,
    seq: u64,
}

impl<'a> Planner<'a> {
    pub(super) fn new(disk: &'a dyn Disk, unit: u64, segment: u64) -> Self {
        let segment = (segment / unit).max(1) * unit;
        Self {
            disk,
            unit,
            segment,
            asked: GuestOffset::ZERO,
            extents: VecDeque::new(),
            at: GuestOffset::ZERO,
            seq: 0,
        }
    }

    /// The next job, or `None` at the end of the disk.
    pub(super) fn next(&mut self) -> Result<Option<Job>> {
        let mut job: Option<Range<GuestOffset>> = None;
        let size = self.disk.virtual_size();
        while let Some(extent) = self.peek()?.cloned() {
            let start = extent.range.start.max(self.at);
            if extent.kind.is_hole() || start >= extent.range.end {
                self.extents.pop_front();
                continue;
            }
            let first = start.align_down(self.unit).max(self.at);
            let from = match &job {
                None => first,
                Some(run) if first <= run.end => run.start,
                Some(_) => break,
            };
            let end = extent.range.end.align_up(self.unit).0.min(size);
            let end = GuestOffset(end.min(from.0 + self.segment));
            job = Some(from..end);
            self.at = end;
            if end.since(from) >= self.segment {
                break;
            }
        }
        Ok(job.map(|range| {
            self.seq += 1;
            Job {
                seq: self.seq - 1,
                range,
            }
        }))
    }

    /// The first extent not planned yet; asks the disk for more as needed.
    fn peek(&mut self) -> Result<Option<&Extent>> {
        let end = GuestOffset(self.disk.virtual_size());
        while self.extents.is_empty() && self.asked < end {
            let mut more = Vec::new();
            self.disk.extents(self.asked..end, &mut more)?;
            // An empty answer breaks the contract of `Disk`; end rather than spin.
            self.asked = more.last().map_or(end, |e| e.range.end);
            self.extents = more.into();
        }
        Ok(self.extents.front())
    }
}
