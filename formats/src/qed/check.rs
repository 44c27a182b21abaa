//! Checking the tables against the file and each other.

use std::sync::Arc;

use super::layout::{HEADER_LEN, Header};
use crate::blocks::check::Space;
use crate::check::Check;
use crate::copy::Progress;
use crate::source::read_up_to;
use crate::{Error, Format, HostOffset, OpenOptions, Result, Source};

/// Bytes of an L2 table read at once.
const PIECE: u64 = 64 << 10;

/// Checks L1 and L2 tables: what lies outside the file or between clusters, two users of one
/// cluster, and clusters without any.
///
/// # Errors
/// `Malformed` and `Unsupported` by the header, `Limit` when there is too much to keep a record
/// of, `Cancelled`, `Io`.
pub fn check(
    source: &Arc<dyn Source>,
    options: &OpenOptions,
    progress: &Progress,
) -> Result<Check> {
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, HEADER_LEN)?;
    let header = Header::parse(&head)?;
    let file_len = source.len();
    let clusters = file_len.div_ceil(header.cluster_size);
    let len = options
        .limits
        .table(Format::Qed, "L1 table", header.l1_bytes())?;
    let mut walk = Walk {
        source: source.as_ref(),
        space: Space::new(Format::Qed, clusters, &options.limits)?,
        found: Check::default(),
        header: &header,
        file_len,
    };
    walk.found.total_units = header.size.div_ceil(header.cluster_size);
    walk.space.take(0..header.clusters);
    let at = header.l1_offset;
    if at
        .checked_add(len as u64)
        .is_none_or(|end| end.0 > file_len)
    {
        let message = format!("has {len} bytes at {at}, the file ends at {file_len:#x}");
        walk.found.corruption("L1 table", message);
        return Ok(walk.found);
    }
    if !walk.take(at, header.table_size) {
        let message = format!("the L1 table at {at} lies in the header's clusters");
        walk.found.corruption("header, byte 40", message);
    }
    let mut l1 = vec![0; len];
    source.read_exact_at(&mut l1, at)?;
    progress.start(len as u64);
    for (n, table) in (0..).zip(numbers(&l1)) {
        if progress.is_cancelled() {
            return Err(Error::cancelled());
        }
        if table != 0 {
            walk.table(n, HostOffset(table))?;
        }
        progress.reached((n + 1) * 8);
    }
    Ok(walk.finish())
}

struct Walk<'a> {
    source: &'a dyn Source,
    header: &'a Header,
    file_len: u64,
    /// Clusters of the file.
    space: Space,
    found: Check,
}

impl Walk<'_> {
    /// Takes `clusters` at `at`; false when some were taken already.
    fn take(&mut self, at: HostOffset, clusters: u64) -> bool {
        let first = at.0 / self.header.cluster_size;
        self.space.take(first..first + clusters)
    }

    /// Whether `len` bytes at `at` begin a cluster and lie in the file.
    fn fits(&self, at: HostOffset, len: u64) -> bool {
        at.0.is_multiple_of(self.header.cluster_size)
            && at
                .checked_add(len)
                .is_some_and(|end| end.0 <= self.file_len)
    }

    fn allowed(&self) -> String {
        let (unit, end) = (self.header.cluster_size, self.file_len);
        format!("allowed multiples of {unit:#x} inside the file, which ends at {end:#x}")
    }

    /// Checks the L2 table at `at`, of L1 entry `n`.
    fn table(&mut self, n: u64, at: HostOffset) -> Result<()> {
        let bytes = self.header.table_size * self.header.cluster_size;
        let place = || format!("L1 table, byte {:#x}", self.header.l1_offset.0 + n * 8);
        if !self.fits(at, bytes) {
            let message = format!(
                "the L2 table of {bytes} bytes is at {at}, {}",
                self.allowed()
            );
            self.found.corruption(place(), message);
            return Ok(());
        }
        let place = place();
        if !self.take(at, self.header.table_size) {
            let message = format!("the L2 table at {at} lies where something else does");
            self.found.corruption(place, message);
            // It may be a table that was gone through already.
            return Ok(());
        }
        let mut piece = vec![0; PIECE.min(bytes) as usize];
        let mut next = None;
        for start in (0..bytes).step_by(piece.len()) {
            let from = HostOffset(at.0 + start);
            self.source.read_exact_at(&mut piece, from)?;
            for (index, entry) in (0..).zip(numbers(&piece)) {
                // 0 is nothing, and 1 is zeros.
                if entry > 1 {
                    let byte = from.0 + index * 8;
                    let cluster = n * self.header.table_entries() + start / 8 + index;
                    self.cluster(cluster, HostOffset(entry), byte, &mut next);
                }
            }
        }
        Ok(())
    }

    /// Checks where the guest's `cluster` lies, by the L2 entry at `byte`. `next` is where it
    /// would follow its predecessor.
    fn cluster(&mut self, cluster: u64, at: HostOffset, byte: u64, next: &mut Option<HostOffset>) {
        let unit = self.header.cluster_size;
        self.found.allocated_units += 1;
        self.found.fragmented_units += u64::from(next.is_some_and(|next| next != at));
        *next = at.checked_add(unit);
        // The file may end with the last byte that the guest sees.
        let seen = self.header.size.saturating_sub(cluster * unit);
        let place = || format!("L2 table, byte {byte:#x}");
        if !self.fits(at, seen.clamp(1, unit)) {
            let message = format!("cluster {cluster} is at {at}, {}", self.allowed());
            self.found.corruption(place(), message);
        } else if !self.take(at, 1) {
            let message = format!("cluster {cluster} is at {at}, where something else is, too");
            self.found.corruption(place(), message);
        }
    }

    fn finish(mut self) -> Check {
        let unit = self.header.cluster_size;
        for gap in self.space.gaps() {
            let (start, end) = (gap.start * unit, (gap.end * unit).min(self.file_len));
            let message = format!("clusters {} to {} hold nothing", gap.start, gap.end - 1);
            self.found
                .leak(end - start, format!("byte {start:#x}"), message);
        }
        self.found.end_offset = (self.space.end() * unit).min(self.file_len);
        self.found
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b))
}
