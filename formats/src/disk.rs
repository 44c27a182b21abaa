//! The guest's view of an image.

use std::ops::Range;

use crate::{Error, Extent, GuestOffset, Result};

/// A virtual disk: what a guest would see. All lengths in bytes. Shared by threads; there is no
/// cursor to move.
pub trait Disk: Send + Sync {
    /// Bytes the guest sees.
    fn virtual_size(&self) -> u64;

    /// Allocation unit in bytes: cluster, grain, block; 1 MiB or so for raw. A hint for aligning
    /// reads, never zero.
    fn unit(&self) -> u64;

    /// Appends what `range` is made of: ascending, gapless from `range.start`, clipped to
    /// `range`.
    ///
    /// One call appends at most [`MAX_EXTENTS`](crate::MAX_EXTENTS) extents and may therefore
    /// describe only the beginning of the range (never nothing, unless it is empty): go on from
    /// the last end. A long hole costs one extent and next to no time.
    ///
    /// # Errors
    /// `Usage` when `range` reaches past the virtual size, else what reading the tables met.
    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()>;

    /// Fills `buf` with the guest's bytes from `at`, or fails: never short. Holes read as zeros.
    ///
    /// # Errors
    /// `Usage` when the range reaches past the virtual size, else what reading met.
    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()>;

    /// The two disks that this one is, where one lies on top of another: what the upper one
    /// leaves unallocated is the lower one's, and past the end of that nobody's.
    fn stack(&self) -> Option<[&dyn Disk; 2]> {
        None
    }
}

/// Checks that `len` bytes from `at` lie inside a disk of `virtual_size` bytes.
pub fn check_range(at: GuestOffset, len: u64, virtual_size: u64) -> Result<()> {
    match at.checked_add(len) {
        Some(end) if end.0 <= virtual_size => Ok(()),
        _ => Err(Error::usage(format!(
            "{len} bytes at {at} reach past the virtual size of {virtual_size} bytes"
        ))),
    }
}
