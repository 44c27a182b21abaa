//! Counting who uses which cluster of the file: a byte a cluster, over a window of them, so that
//! memory stays flat however large the file is.

use std::collections::HashMap;
use std::ops::Range;

use super::layout::Header;
use crate::{Error, Format, Result};

/// Clusters counted at once: 128 MiB of counts, of which the kernel gives us what is touched.
pub(super) const WINDOW: u64 = 1 << 27;
/// Clusters that may have more users than fit a byte.
const MAX_MANY: usize = 2 << 20;

/// The users in a cell; `MANY` means that `many` has their number.
const USERS: u8 = 0x1f;
const MANY: u8 = USERS;

/// What a cluster is used as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// Guest data, or a bitmap's.
    Data = 0x20,
    /// An L2 table, which snapshots share.
    L2 = 0x40,
    /// A structure that is there once and shares its clusters with nothing.
    Sole = 0x80,
}

/// The users of the clusters of a window.
pub(super) struct Census {
    window: Range<u64>,
    cluster_bits: u32,
    /// The largest refcount the image can hold.
    most: u64,
    cells: Vec<u8>,
    many: HashMap<u64, u64>,
}

impl Census {
    pub(super) fn new(header: &Header, window: Range<u64>) -> Self {
        let bits = 1 << header.refcount_order;
        Self {
            cluster_bits: header.geometry.cluster_bits,
            most: u64::MAX >> (64 - bits),
            cells: vec![0; (window.end - window.start) as usize],
            many: HashMap::new(),
            window,
        }
    }

    pub(super) const fn window(&self) -> &Range<u64> {
        &self.window
    }

    /// Counts `times` users of the `len` bytes from `at`, as far as the window holds them. Gives
    /// how many users more there are than a refcount can say.
    ///
    /// # Errors
    /// `Limit` when very many clusters have very many users.
    pub(super) fn count(&mut self, at: u64, len: u64, times: u64, used_as: Use) -> Result<u64> {
        if len == 0 || times == 0 {
            return Ok(0);
        }
        let first = (at >> self.cluster_bits).max(self.window.start);
        let last = at.saturating_add(len - 1) >> self.cluster_bits;
        let mut over = 0;
        for cluster in first..last.saturating_add(1).min(self.window.end) {
            let cell = &mut self.cells[(cluster - self.window.start) as usize];
            let users = u64::from(*cell & USERS);
            *cell |= used_as as u8;
            let sum = users + times.min(self.most);
            // The usual case, which must be quick.
            if *cell & USERS != MANY && sum < u64::from(MANY) && sum <= self.most {
                *cell += sum as u8 - users as u8;
                continue;
            }
            let users = match *cell & USERS {
                MANY => self.many.get(&cluster).copied().unwrap_or(0),
                few => few.into(),
            };
            let sum = users.saturating_add(times);
            over += sum.saturating_sub(self.most);
            let sum = sum.min(self.most);
            if sum < u64::from(MANY) {
                *cell = (*cell & !USERS) | sum as u8;
                continue;
            }
            *cell |= MANY;
            self.many.insert(cluster, sum);
            if self.many.len() > MAX_MANY {
                return Err(Error::limit(
                    Format::Qcow2,
                    "refcounts",
                    format!("more than {MAX_MANY} clusters are used more than {MANY} times each"),
                ));
            }
        }
        Ok(over)
    }

    /// Users of a cluster in the window; none where it lies past its end.
    pub(super) fn users(&self, cluster: u64) -> u64 {
        let cell = cluster
            .checked_sub(self.window.start)
            .and_then(|n| self.cells.get(n as usize));
        match cell.map_or(0, |cell| cell & USERS) {
            MANY => self.many.get(&cluster).copied().unwrap_or(0),
            few => few.into(),
        }
    }

    /// Whether nothing in `clusters`, all in the window, is used.
    pub(super) fn is_unused(&self, clusters: &Range<u64>) -> bool {
        let start = (clusters.start - self.window.start) as usize;
        let end = (clusters.end - self.window.start) as usize;
        crate::bytes::is_zero(&self.cells[start..end])
    }

    /// Whether a cluster holds a structure together with something else.
    pub(super) fn is_overlapped(&self, cluster: u64) -> bool {
        let cell = self.cells[(cluster - self.window.start) as usize];
        let has = |used_as: Use| cell & used_as as u8 != 0;
        (has(Use::Sole) && cell & USERS != 1) || (has(Use::L2) && has(Use::Data))
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::header;
    use super::*;

    #[test]
    fn users_are_counted_beyond_a_byte() {
        let mut census = Census::new(&header(), 0..100);
        for n in 1..=1000 {
            assert_eq!(census.count(65536 * 3 + 5, 65536, 1, Use::Data).unwrap(), 0);
            assert_eq!((census.users(3), census.users(4)), (n, n));
        }
        assert_eq!(census.count(65536 * 4, 1, 70_000, Use::L2).unwrap(), 5465);
        assert_eq!((census.users(3), census.users(4)), (1000, 65535));
        assert!(census.is_overlapped(4) && !census.is_overlapped(3));
        assert!(census.is_unused(&(5..100)) && !census.is_unused(&(0..100)));
        census.count(u64::MAX, u64::MAX, 1, Use::Data).unwrap();
    }

    #[test]
    fn a_window_counts_its_own() {
        let mut census = Census::new(&header(), 10..20);
        census.count(0, 65536 * 15, 2, Use::Sole).unwrap();
        assert_eq!([9, 10, 14, 15].map(|n| census.users(n)), [0, 2, 2, 0]);
        assert!(census.is_overlapped(10) && !census.is_overlapped(19));
    }
}
