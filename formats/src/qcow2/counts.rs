//! The counts in a refcount block: 1 to 64 bits each, big-endian where they are bytes, the first in
//! the lowest bits where they are not.

use crate::bytes::{be16, be32, be64};

/// Refcounts of `1 << order` bits as the bytes of a refcount block. Every count fits.
pub(super) fn emit_refcounts(counts: &[u16], order: u32) -> Vec<u8> {
    let numbers = counts.iter().map(|&count| u64::from(count));
    match order {
        0..=2 => {
            let per_byte = 8 >> order;
            let pack = |counts: &[u16]| {
                let shifted = (0u32..).zip(counts).map(|(n, count)| count << (n << order));
                shifted.fold(0, |byte, count| byte | count as u8)
            };
            counts.chunks(per_byte).map(pack).collect()
        }
        3 => numbers.map(|count| count as u8).collect(),
        4 => counts.iter().flat_map(|c| c.to_be_bytes()).collect(),
        5 => numbers.flat_map(|c| (c as u32).to_be_bytes()).collect(),
        _ => numbers.flat_map(u64::to_be_bytes).collect(),
    }
}

/// One refcount of `1 << order` bits out of a refcount block; `None` past its end.
pub(super) fn refcount(block: &[u8], index: u64, order: u32) -> Option<u64> {
    let index = usize::try_from(index).ok()?;
    match order {
        0..=2 => {
            let bits = 1 << order;
            let bit = index.checked_mul(bits)?;
            let byte = *block.get(bit / 8)?;
            Some(u64::from(byte >> (bit % 8)) & ((1 << bits) - 1))
        }
        3 => block.get(index).map(|&byte| u64::from(byte)),
        4 => be16(block, index.checked_mul(2)?).map(u64::from),
        5 => be32(block, index.checked_mul(4)?).map(u64::from),
        _ => be64(block, index.checked_mul(8)?),
    }
}

/// Sets one refcount, which fits, in a refcount block that holds it.
pub(super) fn set_refcount(block: &mut [u8], index: u64, order: u32, count: u64) {
    let index = index as usize;
    if order < 3 {
        let bits = 1 << order;
        let (byte, shift) = (index * bits / 8, index * bits % 8);
        let mask = ((1u8 << bits) - 1) << shift;
        block[byte] = (block[byte] & !mask) | (count as u8) << shift;
        return;
    }
    let bytes = 1 << (order - 3);
    let start = index * bytes;
    block[start..start + bytes].copy_from_slice(&count.to_be_bytes()[8 - bytes..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refcounts_of_any_width_round_trip() {
        for order in 0..=6 {
            let counts: Vec<u16> = (0..64).map(|n| n % (1u16 << (1 << order).min(6))).collect();
            let block = emit_refcounts(&counts, order);
            assert_eq!(block.len(), (64 << order) / 8);
            let mut set = vec![0xff; block.len()];
            for (n, count) in (0..).zip(counts) {
                assert_eq!(refcount(&block, n, order), Some(count.into()));
                set_refcount(&mut set, n, order, count.into());
            }
            assert_eq!(set, block);
        }
    }

    #[test]
    fn refcounts_of_any_width_are_read() {
        let block = [0b1010_0110, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde];
        assert_eq!(refcount(&block, 1, 0), Some(1));
        assert_eq!(refcount(&block, 3, 0), Some(0));
        assert_eq!(refcount(&block, 3, 1), Some(0b10));
        assert_eq!(refcount(&block, 1, 2), Some(0b1010));
        assert_eq!(refcount(&block, 1, 3), Some(0x12));
        assert_eq!(refcount(&block, 1, 4), Some(0x3456));
        assert_eq!(refcount(&block, 1, 5), Some(0x789a_bcde));
        assert_eq!(refcount(&block, 0, 6), Some(0xa612_3456_789a_bcde));
        assert_eq!(refcount(&block, 1, 6), None);
        assert_eq!(refcount(&block, u64::MAX, 6), None);
    }
}
