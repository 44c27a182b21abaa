//! LZVN, the small-block half of LZFSE.
//!
//! ```text
//!  LLMMMDDD D8               distance of 11 bits, its top three not 6 or 7
//!  LLMMM110                  the distance before
//!  LLMMM111 D16              little-endian
//!  101LLMMM DDDDDDMM D8      distance of 14 bits, match of 5
//!  1110LLLL  11100000 L8     literals alone, 1 to 15 or 16 and more
//!  1111MMMM  11110000 M8     a match alone, with the distance before
//!  06: end, 0e 16: nothing;  1e 26 2e 36 3e, 7x, dx: not in use
//! ```
//! Apple's reference implementation of LZFSE describes the opcodes. Matches are 3 longer than
//! written where they come with literals.

use super::adc::copy_back;

/// Unpacks `input` onto `out`, at most up to `end` bytes; `None` where it is damaged.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>, end: usize) -> Option<()> {
    let mut rest = input;
    let mut distance = 0;
    loop {
        let (&op, after) = rest.split_first()?;
        rest = after;
        let mut byte = || {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            Some(usize::from(byte))
        };
        let wide = usize::from(op);
        let (mut literals, mut matched) = (wide >> 6, (wide >> 3 & 7) + 3);
        match op {
            0x06 => return Some(()),
            0x0e | 0x16 => continue,
            0x1e | 0x26 | 0x2e | 0x36 | 0x3e | 0x70..=0x7f | 0xd0..=0xdf => return None,
            0xa0..=0xbf => {
                let (low, high) = (byte()?, byte()?);
                literals = wide >> 3 & 3;
                matched = ((wide & 7) << 2 | low & 3) + 3;
                distance = (high << 8 | low) >> 2;
            }
            0xe0 => (literals, matched) = (byte()? + 16, 0),
            0xe1..=0xef => (literals, matched) = (wide & 15, 0),
            0xf0 => (literals, matched) = (0, byte()? + 16),
            0xf1..=0xff => (literals, matched) = (0, wide & 15),
            _ => match op & 7 {
                6 => {}
                7 => distance = byte()? | byte()? << 8,
                high => distance = usize::from(high) << 8 | byte()?,
            },
        }
        if out.len() + literals + matched > end {
            return None;
        }
        let (bytes, after) = rest.split_at_checked(literals)?;
        out.extend_from_slice(bytes);
        rest = after;
        if matched > 0 {
            copy_back(out, distance, matched)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(input: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(input, &mut out, 100).map(|()| out)
    }

    #[test]
    fn follows_every_opcode() {
        let input = [
            0xe3,
            b'a',
            b'b',
            b'c', // three literals
            0x48,
            3,
            b'd', // one literal, 4 bytes from 3 back
            0x46,
            b'e', // one literal, 3 bytes with the same distance
            0x07,
            1,
            0, // 3 bytes from 1 back
            0xa0,
            2 << 2,
            0, // 3 bytes from 2 back
            0xf2,
            0x0e,
            0xe0,
            0,
        ];
        let mut input = input.to_vec();
        input.extend_from_slice(&[b'z'; 16]);
        input.extend_from_slice(&[0xf0, 0, 6]);
        let out = decoded(&input).unwrap();
        assert_eq!(&out[..23], b"abcdbcdbedbeeeeeeeeezzz");
        assert_eq!(out.len(), 52);
    }

    #[test]
    fn refuses_damage() {
        for input in [
            &[][..],
            &[0x70],
            &[0x00, 1, 6],
            &[0xe2, 1],
            &[0xf0, 200],
            &[0xa0, 1],
        ] {
            assert_eq!(decoded(input), None, "{input:x?}");
        }
    }
}
