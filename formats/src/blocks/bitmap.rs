//! Sector bitmaps: which sectors of a block are stored in this file, where the others fall
//! through to the parent.

use std::ops::Range;

use crate::source::read_up_to;
use crate::{HostOffset, Result, Source};

/// Where the bitmap of a block stands, and how it is spelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SectorBitmap {
    /// Its first byte.
    pub(crate) at: HostOffset,
    /// Bytes of a sector: what one bit stands for.
    pub(crate) sector: u64,
    /// Whether the first sector of eight has the highest bit of a byte (vhd) or the lowest (vhdx).
    pub(crate) is_high_first: bool,
}

/// Neighbouring bytes of a block that are stored, or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    /// The byte of the block after the last.
    pub(super) end: u64,
    pub(super) is_stored: bool,
}

impl SectorBitmap {
    /// The runs that make up `range`, in bytes of the block: at least one, unless it is empty.
    ///
    /// # Errors
    /// `Io` when the bitmap does not lie in `source`.
    pub(super) fn runs(
        &self,
        source: &dyn Source,
        range: Range<u64>,
    ) -> Result<impl Iterator<Item = Run> + use<>> {
        let Self {
            at,
            sector,
            is_high_first,
        } = *self;
        let first = range.start / sector;
        let last = range.end.div_ceil(sector);
        let base = first / 8;
        // A block has 256 MiB at most, so its bitmap 64 KiB.
        let len = usize::try_from(last.div_ceil(8) - base).unwrap_or(usize::MAX);
        let bytes = read_up_to(source, HostOffset(at.0 + base), len)?;
        let bit = move |n: u64| {
            let byte = bytes.get((n / 8 - base) as usize).copied().unwrap_or(0);
            let byte = if is_high_first {
                byte.reverse_bits()
            } else {
                byte
            };
            byte >> (n % 8) & 1 == 1
        };
        let mut next = first;
        Ok(std::iter::from_fn(move || {
            if next >= last {
                return None;
            }
            let is_stored = bit(next);
            next += 1;
            while next < last && bit(next) == is_stored {
                next += 1;
            }
            Some(Run {
                end: (next * sector).min(range.end),
                is_stored,
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(is_high_first: bool, range: Range<u64>) -> Vec<(u64, bool)> {
        let file = vec![0xee, 0b1100_0000, 0b0000_0001, 0xff];
        let bitmap = SectorBitmap {
            at: HostOffset(1),
            sector: 512,
            is_high_first,
        };
        let runs = bitmap.runs(&file, range).unwrap();
        runs.map(|run| (run.end / 512, run.is_stored)).collect()
    }

    #[test]
    fn both_orders_of_bits_are_read() {
        let all = 0..24 * 512;
        assert_eq!(
            runs(true, all.clone()),
            [(2, true), (15, false), (24, true)]
        );
        assert_eq!(
            runs(false, all),
            [(6, false), (9, true), (16, false), (24, true)]
        );
        assert_eq!(runs(true, 512..3 * 512 - 1), [(2, true), (2, false)]);
        assert_eq!(runs(false, 9 * 512..10 * 512), [(10, false)]);
        assert!(runs(true, 512..512).is_empty());
    }
}
