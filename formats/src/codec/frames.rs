//! Where the frames of a zstd file end, told by their headers and those of their blocks.
//!
//! ```text
//!  frame:  magic 4 │ descriptor 1 │ window │ dictionary │ content size │ block … │ checksum
//!  block:  last 1 bit, type 2, size 21 │ size bytes, or one that is repeated
//! ```
//! RFC 8878, sections 3.1.1 and 3.1.2.

use crate::bytes::{le16, le32, le64};
use crate::source::read_up_to;
use crate::{HostOffset, Result, Source};

const MAGIC: u32 = 0xfd2f_b528;
const SKIPPABLE: u32 = 0x184d_2a50;
/// The longest header.
const MAX_HEADER: usize = 18;
/// Bytes read at a time: blocks of zeros are four bytes long and stand together.
const WINDOW: usize = 4096;

/// A frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    /// Where the next one begins.
    pub(super) end: u64,
    /// Bytes it says it holds.
    pub(super) content: Option<u64>,
    /// Bytes of memory that decoding it takes.
    pub(super) window: u64,
}

/// Walks from frame to frame.
pub(super) struct Walker<'a> {
    source: &'a dyn Source,
    window: Vec<u8>,
    at: u64,
    /// Reads still allowed.
    reads: usize,
}

impl<'a> Walker<'a> {
    /// A walker through `source` that reads at most `reads` times.
    pub(super) fn new(source: &'a dyn Source, reads: usize) -> Self {
        Self {
            source,
            window: Vec::new(),
            at: 0,
            reads,
        }
    }

    /// Up to `len` bytes from `at`, at most [`WINDOW`]; `None` when it has read enough.
    fn bytes(&mut self, at: u64, len: usize) -> Result<Option<&[u8]>> {
        let known = at
            .checked_sub(self.at)
            .and_then(|from| usize::try_from(from).ok())
            .filter(|from| from + len <= self.window.len());
        let from = match known {
            Some(from) => from,
            None => {
                let Some(reads) = self.reads.checked_sub(1) else {
                    return Ok(None);
                };
                self.reads = reads;
                self.window = read_up_to(self.source, HostOffset(at), WINDOW)?;
                self.at = at;
                0
            }
        };
        let end = self.window.len().min(from + len);
        Ok(Some(&self.window[from..end]))
    }

    /// The frame at `at`; `None` where there is none that is whole.
    pub(super) fn frame(&mut self, at: u64) -> Result<Option<Frame>> {
        let Some(header) = self.bytes(at, MAX_HEADER)? else {
            return Ok(None);
        };
        let Some(Header {
            len,
            content,
            window,
            is_checked,
        }) = parse_header(header)
        else {
            return Ok(None);
        };
        let Some(blocks) = at.checked_add(len) else {
            return Ok(None);
        };
        let end = match is_checked {
            // A skippable frame has no blocks.
            None => Some(blocks),
            Some(is_checked) => self
                .blocks(blocks)?
                .map(|end| end + if is_checked { 4 } else { 0 }),
        };
        let end = end.filter(|&end| end <= self.source.len());
        Ok(end.map(|end| Frame {
            end,
            content,
            window,
        }))
    }

    /// Where the blocks that begin at `at` end.
    fn blocks(&mut self, mut at: u64) -> Result<Option<u64>> {
        loop {
            let header = match self.bytes(at, 3)? {
                Some(&[a, b, c]) => u32::from_le_bytes([a, b, c, 0]),
                _ => return Ok(None),
            };
            let size = match header >> 1 & 3 {
                0 | 2 => u64::from(header >> 3),
                1 => 1,
                _ => return Ok(None),
            };
            at += 3 + size;
            if header & 1 == 1 {
                return Ok(Some(at));
            }
        }
    }
}

/// What the header of a frame says.
struct Header {
    /// Bytes before the blocks; of a skippable frame all of it.
    len: u64,
    content: Option<u64>,
    window: u64,
    /// Whether a checksum follows; `None` for a skippable frame.
    is_checked: Option<bool>,
}

fn parse_header(bytes: &[u8]) -> Option<Header> {
    let magic = le32(bytes, 0)?;
    if magic & !15 == SKIPPABLE {
        return Some(Header {
            len: 8 + u64::from(le32(bytes, 4)?),
            content: Some(0),
            window: 0,
            is_checked: None,
        });
    }
    let &descriptor = bytes.get(4).filter(|_| magic == MAGIC)?;
    let is_single = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let at = 5 + usize::from(!is_single) + dictionary;
    let (len, content) = match descriptor >> 6 {
        0 if is_single => (1, Some(u64::from(*bytes.get(at)?))),
        0 => (0, None),
        1 => (2, Some(u64::from(le16(bytes, at)?) + 256)),
        2 => (4, Some(u64::from(le32(bytes, at)?))),
        _ => (8, Some(le64(bytes, at)?)),
    };
    let window = match content.filter(|_| is_single) {
        Some(content) => content,
        None => {
            let window = *bytes.get(5)?;
            let base = 1 << (10 + (window >> 3));
            base + base / 8 * u64::from(window & 7)
        }
    };
    Some(Header {
        len: (at + len) as u64,
        content,
        window,
        is_checked: Some(descriptor & 4 != 0),
    })
}

/// Bytes that the file in `source` says it holds; `None` where a frame does not say it.
pub(super) fn declared_len(source: &dyn Source) -> Result<Option<u64>> {
    // A MiB for files of zeros; else some GiB by one read a block.
    const READS: usize = 16 << 10;
    let mut walker = Walker::new(source, READS);
    let (mut at, mut total) = (0, 0_u64);
    while at < source.len() {
        let Some(frame) = walker.frame(at)? else {
            return Ok(None);
        };
        match frame.content.and_then(|len| total.checked_add(len)) {
            Some(sum) => total = sum,
            None => return Ok(None),
        }
        at = frame.end;
    }
    Ok(Some(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8], level: i32) -> Vec<u8> {
        zstd::bulk::compress(bytes, level).unwrap()
    }

    #[test]
    fn frames_end_where_the_next_begins() {
        let noise: Vec<u8> = (0..400_000_u32)
            .map(|n| (n.wrapping_mul(0x9e37_79b1) >> 13) as u8)
            .collect();
        let parts = [
            frame(&noise, 1),
            vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3],
            frame(&[], 3),
            frame(&vec![0; 5 << 20], 3),
            frame(&[7; 300], 19),
        ];
        let all = parts.concat();
        let mut walker = Walker::new(&all, usize::MAX);
        let mut at = 0;
        for part in &parts {
            let frame = walker.frame(at).unwrap().unwrap();
            assert_eq!(frame.end, at + part.len() as u64);
            at = frame.end;
        }
        let whole = 400_000 + (5 << 20) + 300;
        assert_eq!(declared_len(&all).unwrap(), Some(whole));
        for len in 1..parts[0].len() {
            assert_eq!(walker_end(&parts[0][..len]), None, "{len}");
        }
        // One segment is its own window; level 1 of a stream has half a MiB.
        let window = |bytes: &[u8]| parse_header(bytes).unwrap().window;
        assert_eq!(window(&parts[0]), 400_000);
        assert_eq!(
            window(&zstd::encode_all(noise.as_slice(), 1).unwrap()),
            1 << 19
        );
        // A stream's length is not known when its header is written.
        let streamed = zstd::encode_all(noise.as_slice(), 1).unwrap();
        assert_eq!(walker_end(&streamed), Some(streamed.len() as u64));
        assert_eq!(declared_len(&streamed).unwrap(), None);
        assert_eq!(Walker::new(&all, 1).frame(0).unwrap(), None);
    }

    fn walker_end(bytes: &[u8]) -> Option<u64> {
        let bytes = bytes.to_vec();
        let mut walker = Walker::new(&bytes, usize::MAX);
        walker.frame(0).unwrap().map(|frame| frame.end)
    }
}
