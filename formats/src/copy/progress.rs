//! Progress out, cancellation in: shared by whoever watches.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Counters of a running copy. All in bytes.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
    written: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// Guest bytes to go through.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Guest bytes gone through, holes among them.
    pub fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// Bytes written to the output.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Asks the copy to stop at the next unit.
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    /// Whether it was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Begins anew: a job may consist of several passes.
    pub(crate) fn start(&self, total: u64) {
        self.total.store(total, Relaxed);
        self.done.store(0, Relaxed);
    }

    pub(crate) fn reached(&self, guest: u64) {
        self.done.fetch_max(guest, Relaxed);
    }

    pub(crate) fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Relaxed);
    }
}
