//! The index at the end of an xz file, which tells what it holds without decoding it.
//!
//! ```text
//!  stream:  header 12 │ block, padded to 4 │ … │ index: records, CRC-32 │ footer 12 │ padding
//!                                                 ▲ backward size ──────────┘
//! ```
//! The .xz file format 1.2.1, sections 2 to 4. Nothing here is trusted: the decoder compares the
//! index with what it decoded.

use crate::bytes::{is_zero, le32};
use crate::source::read_up_to;
use crate::{HostOffset, Result, Source};

const HEADER: u64 = 12;
/// Bytes of all indexes read: some thirty thousand blocks.
const MAX_INDEX: u64 = 256 << 10;
/// Streams looked at.
const MAX_STREAMS: usize = 256;

/// Bytes that the file in `source` says it holds; `None` where it does not say it plainly.
pub(super) fn declared_len(source: &dyn Source) -> Result<Option<u64>> {
    let mut end = source.len();
    let mut budget = MAX_INDEX;
    let mut total = 0_u64;
    for _ in 0..MAX_STREAMS {
        let Some(stream) = stream_before(source, &mut end, &mut budget)? else {
            return Ok(None);
        };
        total = match total.checked_add(stream) {
            Some(total) => total,
            None => return Ok(None),
        };
        if end == 0 {
            return Ok(Some(total));
        }
    }
    Ok(None)
}

/// The content's length of the stream that ends at `end`, which moves to where it begins.
fn stream_before(source: &dyn Source, end: &mut u64, budget: &mut u64) -> Result<Option<u64>> {
    let mut footer = Vec::new();
    // Padding is zeros in fours; a footer ends with a mark.
    while *end >= 2 * HEADER {
        footer = read_up_to(source, HostOffset(*end - HEADER), HEADER as usize)?;
        if !is_zero(&footer[8..]) || *budget < 4 {
            break;
        }
        *end -= 4;
        *budget -= 4;
    }
    let (Some(size), true) = (le32(&footer, 4), footer.ends_with(b"YZ")) else {
        return Ok(None);
    };
    let index_len = (u64::from(size) + 1) * 4;
    let at = end.checked_sub(HEADER + index_len);
    let Some(at) = at.filter(|_| index_len <= *budget) else {
        return Ok(None);
    };
    *budget -= index_len;
    let index = read_up_to(
        source,
        HostOffset(at),
        usize::try_from(index_len).unwrap_or(0),
    )?;
    let Some((blocks, content)) = parse_index(&index) else {
        return Ok(None);
    };
    let start = blocks
        .checked_add(HEADER)
        .and_then(|len| at.checked_sub(len));
    Ok(start.map(|start| {
        *end = start;
        content
    }))
}

/// Bytes of all blocks with their padding, and of what they hold.
fn parse_index(index: &[u8]) -> Option<(u64, u64)> {
    let (records, check) = index.split_at_checked(index.len().checked_sub(4)?)?;
    if le32(check, 0)? != crc32fast::hash(records) {
        return None;
    }
    let mut rest = records.strip_prefix(&[0])?;
    let (mut blocks, mut content) = (0_u64, 0_u64);
    for _ in 0..number(&mut rest)? {
        let block = number(&mut rest)?.checked_next_multiple_of(4)?;
        blocks = blocks.checked_add(block)?;
        content = content.checked_add(number(&mut rest)?)?;
    }
    (rest.len() < 4 && is_zero(rest)).then_some((blocks, content))
}

/// A number in groups of seven bits, the lowest first.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn xz(len: usize, block: u64) -> Vec<u8> {
        let mut child = Command::new("xz")
            .args(["-1", "-T1", "-c", &format!("--block-size={block}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(&vec![7; len]).unwrap();
        drop(pipe);
        child.wait_with_output().unwrap().stdout
    }

    #[test]
    fn the_index_tells_the_length() {
        let one = xz(1_000_000, 100_000);
        assert_eq!(declared_len(&one).unwrap(), Some(1_000_000));
        let all = [one.clone(), vec![0; 8], xz(5, 1 << 20), vec![0; 4]].concat();
        assert_eq!(declared_len(&all).unwrap(), Some(1_000_005));
        assert_eq!(declared_len(&xz(0, 1 << 20)).unwrap(), Some(0));
    }

    #[test]
    fn what_is_damaged_says_nothing() {
        let good = xz(300_000, 100_000);
        for len in 0..good.len() {
            assert_eq!(declared_len(&good[..len].to_vec()).unwrap(), None, "{len}");
        }
        for at in good.len() - 40..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let said = declared_len(&bad).unwrap();
                assert!(said.is_none() || said == Some(300_000), "{at}: {said:?}");
            }
        }
        assert_eq!(declared_len(&vec![0; 100_000]).unwrap(), None);
    }
}
