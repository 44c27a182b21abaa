//! Compressed kernels and ramdisks: which compression, and what the head unpacks to.
//!
//! A compressed file as a whole is described by what it holds (see
//! [`container`](crate::container)). This is for one that is looked at as it is, because its
//! bytes are what counts: a ramdisk that is uploaded, one behind a microcode archive.

use std::io::Read;

use super::view::View;
use super::{Content, inner};
use crate::codec::stream::Compression;

/// Bytes unpacked of a head.
const UNPACKED: u64 = 128 << 10;
/// Memory a decoder may take.
const MEMORY: u64 = 64 << 20;
/// The same for zstd, as a power of two.
const WINDOW_LOG: u32 = 26;

/// The compression `bytes` begin with.
pub(super) fn name(bytes: &[u8]) -> Option<&'static str> {
    let others: [(&[u8], &str); 4] = [
        (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
        (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
        (b"\x89LZO\0\x0d\x0a\x1a\x0a", "lzo"),
        (b"LZIP\x01", "lzip"),
    ];
    let known = Compression::detect(bytes).filter(|c| *c != Compression::Zip);
    known.map(Compression::name).or_else(|| {
        let other = others.iter().find(|(magic, _)| bytes.starts_with(magic));
        let other = other.map(|(_, name)| *name);
        other.or_else(|| is_lzma(bytes).then_some("lzma"))
    })
}

/// The lone-lzma format has no magic: the usual properties, a dictionary that is a power of two,
/// and a plausible or unknown length.
fn is_lzma(bytes: &[u8]) -> bool {
    let [0x5d, a, b, c, d, rest @ ..] = bytes else {
        return false;
    };
    let dictionary = u32::from_le_bytes([*a, *b, *c, *d]);
    let Some(len) = crate::bytes::le64(rest, 0) else {
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
