//! What checking the tables of block disks takes: a walk over every entry, and a record of
//! which space of the file is taken.

use std::ops::Range;
use std::sync::Arc;

use super::{BlockTable, PAGE, Pages, Shape};
use crate::copy::Progress;
use crate::{Error, Format, Limits, Result, Source};

/// Hands all entries of `table` to `visit` by their index, but for those of pages that place
/// nothing.
///
/// # Errors
/// `Cancelled`, `Io`, and what `visit` says.
pub(crate) fn walk<T: BlockTable>(
    source: &Arc<dyn Source>,
    table: &T,
    shape: &Shape,
    progress: &Progress,
    mut visit: impl FnMut(u64, [u8; 8]) -> Result<()>,
) -> Result<()> {
    let blocks = shape.virtual_size.div_ceil(shape.block_size);
    let slots = table.slots(blocks);
    let len = slots.saturating_mul(T::ENTRY);
    let pages = Pages::new(source.clone(), shape.table_at, len, PAGE);
    progress.start(len);
    let mut slot = 0;
    while slot < slots {
        if progress.is_cancelled() {
            return Err(Error::cancelled());
        }
        let page = pages.page(slot * T::ENTRY / PAGE)?;
        let end = (page.end / T::ENTRY).clamp(slot + 1, slots);
        let block = table.block_from(slot);
        let is_empty = page.fill.is_some()
            && table
                .decode(block, &page.entry(slot, T::ENTRY))
                .is_ok_and(|first| first.hole().is_some());
        if !is_empty {
            (slot..end).try_for_each(|slot| visit(slot, page.entry(slot, T::ENTRY)))?;
        }
        slot = end;
        progress.reached(slot * T::ENTRY);
    }
    Ok(())
}

/// Which units of a file are taken: one bit each.
pub(crate) struct Space {
    taken: Vec<u64>,
    units: u64,
}

impl Space {
    /// `units` units, none taken.
    ///
    /// # Errors
    /// `Limit` when there are too many.
    pub(crate) fn new(format: Format, units: u64, limits: &Limits) -> Result<Self> {
        let words = units.div_ceil(64);
        let bytes = limits.table(
            format,
            "record of the file's space",
            words.saturating_mul(8),
        )?;
        Ok(Self {
            taken: vec![0; bytes / 8],
            units,
        })
    }

    /// Takes `range`, as far as the file goes; false when some of it was taken already.
    pub(crate) fn take(&mut self, range: Range<u64>) -> bool {
        let mut is_free = true;
        for unit in range.start..range.end.min(self.units) {
            let (word, bit) = ((unit / 64) as usize, 1 << (unit % 64));
            is_free &= self.taken[word] & bit == 0;
            self.taken[word] |= bit;
        }
        is_free
    }

    /// Takes what `other`, of as many units, has taken.
    pub(crate) fn join(&mut self, other: &Self) {
        for (word, more) in self.taken.iter_mut().zip(&other.taken) {
            *word |= more;
        }
    }

    /// The end of the last unit taken.
    pub(crate) fn end(&self) -> u64 {
        let last = self.taken.iter().rposition(|word| *word != 0);
        last.map_or(0, |n| {
            n as u64 * 64 + 64 - u64::from(self.taken[n].leading_zeros())
        })
    }

    /// The runs of units that are free, in order.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = Range<u64>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.next(at, false)?;
            at = self.next(start, true).unwrap_or(self.units);
            Some(start..at)
        })
    }

    /// The first unit from `at` that is taken, or free.
    fn next(&self, at: u64, is_taken: bool) -> Option<u64> {
        let mut unit = at;
        while unit < self.units {
            let word = self.taken[(unit / 64) as usize];
            let wanted = if is_taken { word } else { !word } >> (unit % 64);
            if wanted != 0 {
                let found = unit + u64::from(wanted.trailing_zeros());
                return (found < self.units).then_some(found);
            }
            unit = (unit / 64 + 1) * 64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_taken_once_and_gaps_are_told() {
        let mut space = Space::new(Format::Vdi, 200, &Limits::default()).unwrap();
        assert_eq!(space.end(), 0);
        assert!(space.take(0..3));
        assert!(space.take(60..70));
        assert!(!space.take(69..71));
        assert!(space.take(130..131));
        assert!(space.take(300..301));
        assert_eq!(space.end(), 131);
        let gaps: Vec<_> = space.gaps().collect();
        assert_eq!(gaps, [3..60, 71..130, 131..200]);
        assert!(space.take(131..1 << 40));
        assert_eq!(space.gaps().last(), Some(71..130));
        assert!(Space::new(Format::Vdi, 1 << 40, &Limits::default()).is_err());
    }
}
