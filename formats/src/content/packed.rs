//! Compressed kernels and ramdisks: which compression, and what the head unpacks to.
//!
//! A compressed file as a whole is described by what it holds (see
//! [`container`](crate::container)). This is for one that is looked at as it is, because its
//! bytes are what counts: a ramdisk that is uploaded, one behind a microcode archive.

use std::io::Read;

use super::view::View;
use super::{Content, inner};
use crate::bytes::{le32, le64};
use crate::codec::stream::Compression;

/// Bytes unpacked of a head.
const UNPACKED: u64 = 128 << 10;
/// Memory a decoder may take.
const MEMORY: u64 = 64 << 20;
/// The same for zstd, as a power of two.
const WINDOW_LOG: u32 = 26;

/// The compression `bytes` begin with.
pub(super) fn name(bytes: &[u8]) -> Option<&'static str> {
    let others: [(&[u8], &str); 2] = [(b"\x89LZO\0\x0d\x0a\x1a\x0a", "lzo"), (b"LZIP\x01", "lzip")];
    let known = Compression::detect(bytes).filter(|c| *c != Compression::Zip);
    known.map(Compression::name).or_else(|| {
        let other = others.iter().find(|(magic, _)| bytes.starts_with(magic));
        let other = other.map(|(_, name)| *name);
        other
            .or_else(|| lz4_block(bytes).map(|_| "lz4"))
            .or_else(|| is_lzma(bytes).then_some("lzma"))
    })
}

/// The compression `bytes` begin with, where whoever wants a disk cannot have it undone.
pub(super) fn unread(bytes: &[u8]) -> Option<&'static str> {
    name(bytes).filter(|_| Compression::detect(bytes).is_none())
}

/// The first block of an lz4 stream, of a frame or as kernels have it, from behind its length on.
fn lz4_block(bytes: &[u8]) -> Option<&[u8]> {
    /// Bytes that 8 MiB become at worst.
    const LEGACY_MOST: u32 = (8 << 20) + (8 << 20) / 255 + 16;
    const CONTENT_SIZE: u8 = 1 << 3;
    const DICTIONARY: u8 = 1;
    if bytes.starts_with(&[0x02, 0x21, 0x4c, 0x18]) {
        let len = le32(bytes, 4)?;
        return (1..=LEGACY_MOST).contains(&len).then(|| &bytes[8..]);
    }
    let [0x04, 0x22, 0x4d, 0x18, flags, most, ..] = bytes else {
        return None;
    };
    // Version 1, its reserved bits, and a maximum of 64 KiB to 4 MiB.
    if flags & 0xc2 != 0x40 || most & 0x8f != 0 || !(4..=7).contains(&(most >> 4)) {
        return None;
    }
    let mut at = 6 + 1 + 4;
    if flags & CONTENT_SIZE != 0 {
        at += 8;
    }
    if flags & DICTIONARY != 0 {
        at += 4;
    }
    bytes.get(at..)
}

/// The bytes that a block of lz4 begins with before it refers back to any.
fn lz4_literals(block: &[u8]) -> Option<&[u8]> {
    let (token, mut rest) = block.split_first()?;
    let mut len = usize::from(token >> 4);
    if len == 15 {
        loop {
            let (more, behind) = rest.split_first()?;
            rest = behind;
            len += usize::from(*more);
            if *more != u8::MAX {
                break;
            }
        }
    }
    rest.get(..len.min(rest.len()))
}

/// The lone-lzma format has no magic: the usual properties, a dictionary that is a power of two,
/// a plausible or unknown length, and the zero that its range coder begins with.
fn is_lzma(bytes: &[u8]) -> bool {
    let [0x5d, a, b, c, d, rest @ ..] = bytes else {
        return false;
    };
    let dictionary = u32::from_le_bytes([*a, *b, *c, *d]);
    let (Some(len), Some(0)) = (le64(rest, 0), rest.get(8)) else {
        return false;
    };
    dictionary.is_power_of_two()
        && (1 << 16..=1 << 26).contains(&dictionary)
        && (len == u64::MAX || len < 1 << 40)
}

/// The compressed content a view begins with.
pub(super) fn recognise(v: View<'_>) -> Option<Content> {
    let bytes = v.rest(0)?;
    let name = name(bytes)?;
    let head = unpack(bytes, name);
    let content = inner(View(&[(0, &head)])).unwrap_or(Content::new("compressed", name));
    Some(content.with("compression", name))
}

/// What the beginning of a compressed file unpacks to, as far as it goes.
fn unpack(bytes: &[u8], name: &str) -> Vec<u8> {
    let reader: Option<Box<dyn Read>> = match name {
        "lz4" => lz4_block(bytes)
            .and_then(lz4_literals)
            .map(|literals| Box::new(literals) as _),
        "gzip" => Some(Box::new(flate2::read::GzDecoder::new(bytes))),
        "bzip2" => Some(Box::new(bzip2::read::BzDecoder::new(bytes))),
        "xz" | "lzma" => liblzma::stream::Stream::new_auto_decoder(MEMORY, 0)
            .ok()
            .map(|stream| Box::new(liblzma::read::XzDecoder::new_stream(bytes, stream)) as _),
        "zstd" => zstd::Decoder::with_buffer(bytes)
            .ok()
            .and_then(|mut decoder| {
                decoder.window_log_max(WINDOW_LOG).ok()?;
                Some(Box::new(decoder) as _)
            }),
        _ => None,
    };
    let mut head = Vec::new();
    if let Some(reader) = reader {
        // The head is cut off somewhere: what came out before counts.
        let _ = reader.take(UNPACKED).read_to_end(&mut head);
    }
    head
}
