//! Deflate (RFC 1951) and zlib (RFC 1950) of whole units: qcow2 clusters, vmdk grains.
//!
//! A unit is inflated in one call from one buffer into another. That is about twice as fast as
//! a streaming inflater, and no stream can give more bytes than the output has room for.

use std::cell::RefCell;

use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};

use super::unit::Fault;

thread_local! {
    /// Setting up a decompressor takes longer than a small unit: one a thread, kept.
    static INFLATER: RefCell<Decompressor> = RefCell::new(Decompressor::new());
}

/// Inflates the raw deflate stream at the start of `packed` into `out`; gives the number of
/// bytes it made. Bytes of `packed` behind the end of the stream are not looked at.
///
/// # Errors
/// `Corrupt`, or `TooLong` when `out` is too small. `out` then holds anything.
pub fn inflate_raw(packed: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    INFLATER
        .with_borrow_mut(|inflater| inflater.deflate_decompress(packed, out))
        .map_err(|e| fault(&e))
}

/// The same for a zlib stream, whose checksum is verified.
///
/// # Errors
/// As [`inflate_raw`].
pub fn inflate_zlib(packed: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    INFLATER
        .with_borrow_mut(|inflater| inflater.zlib_decompress(packed, out))
        .map_err(|e| fault(&e))
}

fn fault(e: &DecompressionError) -> Fault {
    match e {
        DecompressionError::BadData => Fault::Corrupt,
        DecompressionError::InsufficientSpace => Fault::TooLong,
    }
}

/// Levels a [`Deflater`] knows: 1 is the fastest, 12 the densest.
pub const LEVELS: std::ops::RangeInclusive<u8> = 1..=12;

/// Deflates whole units. One a thread: it owns its working memory.
pub struct Deflater {
    inner: Compressor,
    level: u8,
}

impl Deflater {
    /// A compressor of `level`, clamped to [`LEVELS`].
    #[must_use]
    pub fn new(level: u8) -> Self {
        let level = level.clamp(*LEVELS.start(), *LEVELS.end());
        Self {
            inner: Compressor::new(CompressionLvl::new(level.into()).unwrap_or_default()),
            level,
        }
    }

    /// Bytes of memory that it takes at most: the densest levels look for the cheapest of many
    /// ways.
    #[must_use]
    pub fn memory(&self) -> u64 {
        match self.level {
            ..=9 => 2 << 20,
            _ => 10 << 20,
        }
    }

    /// Appends `data` to `out` as a raw deflate stream of at most `max` bytes and gives its
    /// length; `None`, with `out` as it was, when it would be longer.
    pub fn raw(&mut self, data: &[u8], max: usize, out: &mut Vec<u8>) -> Option<usize> {
        append(out, max, |room| {
            self.inner.deflate_compress(data, room).ok()
        })
    }

    /// The same as a zlib stream.
    pub fn zlib(&mut self, data: &[u8], max: usize, out: &mut Vec<u8>) -> Option<usize> {
        append(out, max, |room| self.inner.zlib_compress(data, room).ok())
    }
}

/// Gives `pack` room for `max` bytes behind `out`, and keeps what it made.
pub(super) fn append(
    out: &mut Vec<u8>,
    max: usize,
    pack: impl FnOnce(&mut [u8]) -> Option<usize>,
) -> Option<usize> {
    let start = out.len();
    out.resize(start + max, 0);
    let made = pack(&mut out[start..]);
    out.truncate(start + made.unwrap_or(0));
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(len: usize) -> Vec<u8> {
        (0..len)
            .map(|n| b"cluster "[n % 8] ^ (n / 977) as u8)
            .collect()
    }

    #[test]
    fn units_come_back_and_padding_behind_them_is_ignored() {
        let data = text(65536);
        let mut packed = vec![1, 2, 3];
        let len = Deflater::new(1)
            .raw(&data, data.len(), &mut packed)
            .unwrap();
        assert_eq!(packed.len(), 3 + len);
        packed.extend([0xff; 511]);
        let mut out = vec![0; data.len()];
        assert_eq!(inflate_raw(&packed[3..], &mut out), Ok(data.len()));
        assert_eq!(out, data);

        let mut packed = Vec::new();
        Deflater::new(12)
            .zlib(&data, data.len(), &mut packed)
            .unwrap();
        assert_eq!(packed[0], 0x78);
        out.fill(0);
        assert_eq!(inflate_zlib(&packed, &mut out), Ok(data.len()));
        assert_eq!(out, data);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_nothing() {
        let mut state = 1u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(4096)
        .collect();
        let mut packed = vec![7];
        assert_eq!(Deflater::new(1).raw(&noise, 4095, &mut packed), None);
        assert_eq!(packed, [7]);
    }

    #[test]
    fn a_bomb_stops_at_the_end_of_the_unit() {
        let mut packed = Vec::new();
        Deflater::new(9)
            .raw(&vec![0; 1 << 20], 1 << 20, &mut packed)
            .unwrap();
        assert_eq!(inflate_raw(&packed, &mut [0; 65536]), Err(Fault::TooLong));
        let half = packed.len() / 2;
        assert_eq!(
            inflate_raw(&packed[..half], &mut vec![0; 1 << 20]),
            Err(Fault::Corrupt)
        );
        assert_eq!(inflate_raw(&[], &mut [0; 16]), Err(Fault::Corrupt));
    }
}
