//! Compression wrapped around a whole file, undone as a stream.
//!
//! | name | begins with | parts | memory at most |
//! | --- | --- | --- | --- |
//! | gzip (RFC 1952) | `1f 8b 08` | members, then zeros | 64 KiB |
//! | xz (1.2.1) | `fd 37 7a 58 5a 00` | streams, then padding | 192 MiB |
//! | zstd (RFC 8878) | `28 b5 2f fd`, or a skippable frame before it | frames | 128 MiB window |
//! | bzip2 | `BZh1` … `BZh9` and a block | streams, then zeros | 4 MiB |
//! | zip (APPNOTE 6.3.10) | `PK 03 04` | exactly one file | that of its method |
//!
//! Whatever follows the last part is an error, and so is an end before it: a file that some
//! programs read further than others is not to be trusted.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Serialize, Serializer};

use super::parts::{Bzip2, Gzip, Input, Parts};
use super::{parallel, zip};
use crate::bytes::le32;
use crate::{Error, ErrorKind, HostOffset, Result, Source};

/// Memory the xz decoder may take: a dictionary of 128 MiB, twice that of `xz -9`.
const XZ_MEMORY: u64 = 192 << 20;
/// The largest zstd window: 2^27 = 128 MiB, that of `zstd --long`.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Bytes of a file's head that [`Compression::detect`] likes to see.
pub const HEAD: usize = 512;

/// A compression around a whole file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// The .xz format.
    Xz,
    /// RFC 8878.
    Zstd,
    /// bzip2.
    Bzip2,
    /// A zip archive of exactly one file.
    Zip,
}

impl Compression {
    /// Every compression, in declaration order.
    pub const ALL: [Self; 5] = [Self::Gzip, Self::Xz, Self::Zstd, Self::Bzip2, Self::Zip];

    /// The one of that [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }

    /// The name used on the wire and the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Zip => "zip",
        }
    }

    /// Recognises a compressed file by its first bytes ([`HEAD`] of them are plenty).
    #[must_use]
    pub fn detect(head: &[u8]) -> Option<Self> {
        const BZIP2_BLOCK: &[u8] = b"1AY&SY";
        const BZIP2_END: &[u8] = &[0x17, 0x72, 0x45, 0x38, 0x50, 0x90];
        let bzip2 = |head: &[u8]| {
            let [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..] = head else {
                return false;
            };
            rest.starts_with(BZIP2_BLOCK) || rest.starts_with(BZIP2_END)
        };
        if head.starts_with(&[0x1f, 0x8b, 8]) {
            Some(Self::Gzip)
        } else if head.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            Some(Self::Xz)
        } else if is_zstd(head) {
            Some(Self::Zstd)
        } else if bzip2(head) {
            Some(Self::Bzip2)
        } else if head.starts_with(b"PK\x03\x04") {
            Some(Self::Zip)
        } else {
            None
        }
    }

    /// Bytes that `source` says it holds, where it says so; a promise, told by a few reads.
    ///
    /// # Errors
    /// `Io`.
    pub fn declared_len(self, source: &Arc<dyn Source>) -> Result<Option<u64>> {
        match self {
            Self::Xz => super::xz::declared_len(source.as_ref()),
            Self::Zstd => super::frames::declared_len(source.as_ref()),
            Self::Zip => match zip::find(source) {
                Ok(file) => Ok(Some(file.size())),
                Err(e) if e.kind() == ErrorKind::Io => Err(e),
                Err(_) => Ok(None),
            },
            // The length at the end of a gzip member is a remainder, and of the last one only.
            Self::Gzip | Self::Bzip2 => Ok(None),
        }
    }

    /// Starts undoing the compression of `source`.
    ///
    /// # Errors
    /// `Refused` for a zip archive that does not hold exactly one file, `Malformed` or
    /// `Unsupported` for one that cannot be read, `Io`.
    pub fn reader(self, source: Arc<dyn Source>) -> Result<Reader> {
        if self == Self::Zip {
            let file = zip::find(&source)?;
            let body: Arc<dyn Source> = Arc::new(file.body(source)?);
            let input = Input::new(body);
            return Ok(Reader {
                compression: self,
                consumed: input.consumed.clone(),
                inner: file.inflate(input)?,
            });
        }
        let input = Input::new(source);
        Ok(Reader {
            compression: self,
            consumed: input.consumed.clone(),
            inner: decoder(self, input, true)?,
        })
    }

    /// The same by up to `threads` threads, where the file is made of parts that can be told
    /// apart: zstd frames, gzip members that say their length.
    ///
    /// # Errors
    /// Those of [`reader`](Self::reader).
    pub fn reader_by(self, source: Arc<dyn Source>, threads: usize) -> Result<Reader> {
        let consumed = Arc::default();
        match parallel::reader(self, &source, threads, &consumed)? {
            Some(inner) => Ok(Reader {
                compression: self,
                inner,
                consumed,
            }),
            None => self.reader(source),
        }
    }
}

/// A decoder of a file that is no zip archive, or of some parts of one: then zeros may follow
/// only those that are the last.
pub(super) fn decoder(
    compression: Compression,
    input: Input,
    is_last: bool,
) -> Result<Box<dyn Read + Send>> {
    match compression {
        Compression::Gzip => Ok(Box::new(Parts::<Gzip>::new(input, is_last))),
        Compression::Bzip2 => Ok(Box::new(Parts::<Bzip2>::new(input, is_last))),
        Compression::Xz => xz(input),
        Compression::Zstd => zstd(input),
        Compression::Zip => Err(Error::usage("a zip archive is no stream")),
    }
}

impl Serialize for Compression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

fn is_zstd(head: &[u8]) -> bool {
    const FRAME: u32 = 0xfd2f_b528;
    const SKIPPABLE: u32 = 0x184d_2a50;
    match le32(head, 0) {
        Some(FRAME) => true,
        // pzstd and others put a note in front, of any length: what is behind it may not be
        // seen here. LZ4 has the same notes; such a file is refused by the decoder.
        Some(magic) => magic & !15 == SKIPPABLE,
        None => false,
    }
}

pub(super) fn xz(input: Input) -> Result<Box<dyn Read + Send>> {
    let stream =
        liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)
            .map_err(|e| Error::io("starting the xz decoder", e.into()))?;
    Ok(Box::new(liblzma::bufread::XzDecoder::new_stream(
        input, stream,
    )))
}

pub(super) fn zstd(input: Input) -> Result<Box<dyn Read + Send>> {
    let start = || {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        Ok(decoder)
    };
    match start() {
        Ok(decoder) => Ok(Box::new(decoder)),
        Err(e) => Err(Error::io("starting the zstd decoder", e)),
    }
}

pub(super) fn bzip2(input: Input) -> Box<dyn Read + Send> {
    Box::new(Parts::<Bzip2>::new(input, true))
}

/// What a compressed file holds, from its beginning.
pub struct Reader {
    compression: Compression,
    inner: Box<dyn Read + Send>,
    consumed: Arc<AtomicU64>,
}

impl Reader {
    /// Fills `buf`, short only where the stream ends: `Ok(0)` is its proper end.
    ///
    /// # Errors
    /// `Malformed` where the stream is damaged, cut off or followed by something else,
    /// `Unsupported` where decoding takes too much memory, `Io`.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.inner.read(&mut buf[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.explain(e)),
            }
        }
        Ok(filled)
    }

    /// Bytes of the compressed file gone through.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.consumed.load(Relaxed)
    }

    /// Tells the source's failures from the stream's.
    fn explain(&self, e: io::Error) -> Error {
        let e = match e.downcast::<Error>() {
            Ok(ours) => return ours,
            Err(e) => e,
        };
        let place = match self.compression {
            Compression::Gzip => "gzip stream",
            Compression::Xz => "xz stream",
            Compression::Zstd => "zstd stream",
            Compression::Bzip2 => "bzip2 stream",
            Compression::Zip => "zip file",
        };
        if wants_memory(&e) {
            let message = format!(
                "takes too much memory to decode, allowed {} MiB for xz and a window of {} MiB for zstd",
                XZ_MEMORY >> 20,
                (1_u64 << ZSTD_WINDOW_LOG) >> 20
            );
            return Error::stream(ErrorKind::Unsupported, place, message);
        }
        let at = HostOffset(self.consumed());
        let message = match e.kind() {
            io::ErrorKind::UnexpectedEof => format!("is cut off: it ends too early, at byte {at}"),
            _ => format!("is damaged before byte {at}: {e}"),
        };
        Error::stream(ErrorKind::Malformed, place, message)
    }
}

fn wants_memory(e: &io::Error) -> bool {
    use liblzma::stream::Error as Xz;
    let xz = e.get_ref().and_then(|e| e.downcast_ref::<Xz>());
    matches!(xz, Some(Xz::MemLimit | Xz::Mem))
        // libzstd has a code for it, but its binding hands on the sentence only.
        || e.to_string().contains("too much memory")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn inflate(file: Vec<u8>) -> Result<Vec<u8>> {
        let compression = Compression::detect(&file).expect("compressed");
        let mut reader = compression.reader(Arc::new(file))?;
        let (mut all, mut buf) = (Vec::new(), [0; 1000]);
        loop {
            let n = reader.read(&mut buf)?;
            if n == 0 {
                return Ok(all);
            }
            all.extend_from_slice(&buf[..n]);
        }
    }

    type Encoder = fn(&[u8]) -> Vec<u8>;
    const ENCODERS: [(Compression, Encoder); 4] = [
        (Compression::Gzip, gzip),
        (Compression::Bzip2, bzip2),
        (Compression::Xz, xz),
        (Compression::Zstd, zstd),
    ];

    fn sample() -> Vec<u8> {
        (0..100_000_u32)
            .flat_map(|n| (n.wrapping_mul(n) >> 7).to_le_bytes())
            .collect()
    }

    #[test]
    fn undoes_what_others_compressed() {
        for (compression, encode) in ENCODERS {
            let file = encode(&sample());
            assert_eq!(Compression::detect(&file), Some(compression));
            assert_eq!(inflate(file).unwrap(), sample(), "{compression:?}");
            assert!(inflate(encode(&[])).unwrap().is_empty(), "{compression:?}");
        }
    }

    #[test]
    fn reads_all_parts() {
        for (compression, encode) in ENCODERS {
            let file = [encode(b"first "), encode(b"second")].concat();
            assert_eq!(inflate(file).unwrap(), b"first second", "{compression:?}");
        }
        let mut file = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        file.extend(zstd(b"behind a skippable frame"));
        assert_eq!(inflate(file).unwrap(), b"behind a skippable frame");
    }

    #[test]
    fn a_skippable_frame_of_any_length_begins_zstd() {
        for (n, len) in (0x50..=0x5f).zip([0_u32, 4, HEAD as u32, 100_000].into_iter().cycle()) {
            let mut file = vec![n, 0x2a, 0x4d, 0x18];
            file.extend(len.to_le_bytes());
            file.resize(file.len() + len as usize, 7);
            file.extend(zstd(b"behind it"));
            let head = &file[..HEAD.min(file.len())];
            assert_eq!(Compression::detect(head), Some(Compression::Zstd), "{n:#x}");
            assert_eq!(inflate(file).unwrap(), b"behind it", "{n:#x}, {len}");
        }
        for magic in [0x184d_2a4f_u32, 0x184d_2a60] {
            assert_eq!(Compression::detect(&magic.to_le_bytes()), None);
        }
    }

    #[test]
    fn refuses_what_is_cut_off() {
        for (compression, encode) in ENCODERS {
            let file = encode(&sample());
            for keep in [file.len() - 1, file.len() / 2, file.len() - 9] {
                let e = inflate(file[..keep].to_vec()).unwrap_err();
                assert_eq!(e.kind(), ErrorKind::Malformed, "{compression:?}: {e}");
            }
        }
    }

    #[test]
    fn refuses_what_follows_the_end_unless_it_is_padding() {
        for (compression, encode) in ENCODERS {
            let garbage = [encode(b"image"), b"#!/bin/sh".to_vec()].concat();
            let e = inflate(garbage).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Malformed, "{compression:?}: {e}");
            if compression != Compression::Zstd {
                let padded = [encode(b"image"), vec![0; 512]].concat();
                assert_eq!(inflate(padded).unwrap(), b"image", "{compression:?}");
            }
        }
    }

    #[test]
    fn refuses_damage_inside() {
        for (compression, encode) in ENCODERS {
            let mut file = encode(&sample());
            let middle = file.len() / 2;
            file[middle] ^= 0x55;
            let e = inflate(file).map(|bytes| bytes.len()).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Malformed, "{compression:?}: {e}");
        }
    }

    #[test]
    fn names_a_window_too_large() {
        let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(&vec![0; 300 << 10]).unwrap();
        let e = inflate(encoder.finish().unwrap()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
    }

    #[test]
    fn a_failing_source_is_not_the_streams_fault() {
        struct Broken;
        impl Source for Broken {
            fn len(&self) -> u64 {
                100
            }
            fn read_exact_at(&self, _: &mut [u8], _: HostOffset) -> Result<()> {
                Err(Error::io("reading", io::Error::other("disk on fire")))
            }
        }
        for (compression, _) in ENCODERS {
            let mut reader = compression.reader(Arc::new(Broken)).unwrap();
            let e = reader.read(&mut [0; 10]).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Io, "{compression:?}: {e}");
        }
    }
}
