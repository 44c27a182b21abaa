//! Bounded fixed-width field readers.
//!
//! Every reader answers `None` where the field does not fit, so a short buffer is an error the
//! caller names instead of a panic.

macro_rules! readers {
    ($($name:ident, $ty:ty, $from:ident, $doc:literal;)*) => {$(
        #[doc = $doc]
        #[must_use]
        pub fn $name(bytes: &[u8], at: usize) -> Option<$ty> {
            let end = at.checked_add(size_of::<$ty>())?;
            bytes.get(at..end)?.try_into().ok().map(<$ty>::$from)
        }
    )*};
}

readers! {
    be16, u16, from_be_bytes, "Big-endian `u16` at byte `at`.";
    be32, u32, from_be_bytes, "Big-endian `u32` at byte `at`.";
    be64, u64, from_be_bytes, "Big-endian `u64` at byte `at`.";
    le16, u16, from_le_bytes, "Little-endian `u16` at byte `at`.";
    le32, u32, from_le_bytes, "Little-endian `u32` at byte `at`.";
    le64, u64, from_le_bytes, "Little-endian `u64` at byte `at`.";
}

/// Whether every byte is zero. Fast: the compiler turns it into wide compares.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // Most data differs early: look at a little before going wide.
    let (head, rest) = bytes.split_at(bytes.len().min(64));
    if head.iter().any(|&b| b != 0) {
        return false;
    }
    let (chunks, tail) = rest.as_chunks::<256>();
    chunks
        .iter()
        .all(|chunk| chunk.iter().fold(0, |acc, &b| acc | b) == 0)
        && tail.iter().all(|&b| b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_and_refuses_short_buffers() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(be32(&bytes, 4), Some(0x0506_0708));
        assert_eq!(le16(&bytes, 6), Some(0x0807));
        assert_eq!(be64(&bytes, 1), None);
        assert_eq!(le64(&bytes, usize::MAX), None);
    }

    #[test]
    fn finds_the_one_byte_that_is_not_zero() {
        for len in [0, 1, 63, 64, 65, 256, 320, 1000] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes), "{len}");
            for at in 0..len {
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "{at} of {len}");
                bytes[at] = 0;
            }
        }
    }
}
