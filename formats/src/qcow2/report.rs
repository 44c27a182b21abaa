//! What a check found: problems are told once however often they count, and only while wanted.

use crate::check::{Check, MAX_PROBLEMS};

/// A check in the making.
#[derive(Default)]
pub(super) struct Report {
    pub(super) check: Check,
    /// Everything that is said now has been said before.
    pub(super) is_muted: bool,
}

impl Report {
    /// `times` corruptions with one place and sentence.
    pub(super) fn corruption(&mut self, times: u64, tell: impl FnOnce() -> (String, String)) {
        if self.is_muted || times == 0 {
            return;
        }
        if self.check.problems.len() < MAX_PROBLEMS {
            let (place, message) = tell();
            self.check.corruption(place, message);
            self.check.corruptions += times - 1;
        } else {
            self.check.corruptions += times;
        }
    }

    /// A leak of `bytes`.
    pub(super) fn leak(&mut self, bytes: u64, tell: impl FnOnce() -> (String, String)) {
        if self.check.problems.len() < MAX_PROBLEMS {
            let (place, message) = tell();
            self.check.leak(bytes, place, message);
        } else {
            self.check.leaks += 1;
            self.check.leaked_bytes += bytes;
        }
    }
}
