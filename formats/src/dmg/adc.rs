//! Apple Data Compression: runs of literals, and copies of what came before.
//!
//! ```text
//!  1ccccccc                    c + 1 literals follow
//!  00ccccdd dddddddd           copy c + 3 bytes from d + 1 bytes back
//!  01cccccc dddddddd dddddddd  copy c + 4 bytes from d + 1 bytes back
//! ```

/// Unpacks exactly `len` bytes; `None` where the input does not hold that many, or more.
pub(super) fn decode(input: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(len);
    let mut rest = input;
    while out.len() < len {
        let (&first, after) = rest.split_first()?;
        rest = after;
        let (count, back) = if first & 0x80 != 0 {
            let (literals, after) = rest.split_at_checked(usize::from(first & 0x7f) + 1)?;
            out.extend_from_slice(literals);
            rest = after;
            continue;
        } else if first & 0x40 != 0 {
            let (distance, after) = rest.split_first_chunk::<2>()?;
            rest = after;
            (
                usize::from(first & 0x3f) + 4,
                usize::from(u16::from_be_bytes(*distance)),
            )
        } else {
            let (&low, after) = rest.split_first()?;
            rest = after;
            let high = usize::from(first & 3) << 8;
            (usize::from(first >> 2) + 3, high | usize::from(low))
        };
        copy_back(&mut out, back + 1, count)?;
    }
    (out.len() == len).then_some(out)
}

/// Appends `count` bytes from `back` bytes before the end, which may be its own.
pub(super) fn copy_back(out: &mut Vec<u8>, back: usize, count: usize) -> Option<()> {
    let start = out.len().checked_sub(back).filter(|_| back > 0)?;
    if back >= count {
        out.extend_from_within(start..start + count);
    } else {
        for at in start..start + count {
            out.push(out[at]);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacks_literals_and_both_copies() {
        let input = [0x82, b'a', b'b', b'c', 0x04, 2, 0x41, 0, 0];
        assert_eq!(decode(&input, 12).as_deref(), Some(&b"abcabcaaaaaa"[..]));
    }

    #[test]
    fn refuses_other_lengths_and_copies_from_before() {
        assert_eq!(decode(&[0x80, 1], 2), None);
        assert_eq!(decode(&[0x81, 1, 1], 1), None);
        assert_eq!(decode(&[0x80, 1, 0, 1], 4), None);
        assert_eq!(decode(&[0x40, 0], 4), None);
    }
}
