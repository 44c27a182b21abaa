//! Compression around a finished image: many threads, one stream, the same bytes whatever the
//! number of threads.
//!
//! ```text
//!  gzip   member │ member │ …      1 MiB each: header with field "IG" = length of the member,
//!                                  raw deflate, CRC-32, length (RFC 1952)
//!  zstd   frame │ frame │ …        4 MiB each, with content size and checksum (RFC 8878)
//! ```
//! Every gzip and zstd program reads parts one after the other as one stream. The lengths (the
//! field is that of `mgzip` and `pgzip`) let readers find the parts ahead and take many at once.
//! Runs of zeros become parts of up to 16 MiB that are compressed once.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use crate::bytes::is_zero;
use crate::codec::deflate::{self, Deflater};
use crate::codec::zstd as zstd_units;
use crate::copy::{CopyOptions, Encode, Payload, Progress, Shape, Summary, Tables, Target, copy};
use crate::extent::has_room;
use crate::{
    Disk, Error, Extent, ExtentKind, GuestOffset, HostOffset, Result, Sink, UnitIndex, push_extent,
};

/// The longest run of zeros in one part.
const MAX_ZEROS: u64 = 16 << 20;
/// Bytes after which a part is made in any case, so that no run of zeros makes more of them at
/// once than memory holds.
const STRIDE: u64 = 4 << 30;

/// A compression to put around an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrap {
    /// gzip, of a level from 1 (fastest) to 12 (densest).
    Gzip(u8),
    /// Zstandard, of a level from 1 (fastest) to 19 (densest).
    Zstd(u8),
}

impl Wrap {
    /// Bytes of the image in a part.
    const fn unit(self) -> u64 {
        match self {
            Self::Gzip(_) => 1 << 20,
            Self::Zstd(_) => 4 << 20,
        }
    }

    /// What parts of zeros are compressed with: no level makes them smaller, and the parts are
    /// larger than those whose memory is bounded.
    fn of_zeros(self) -> Self {
        match self {
            Self::Zstd(level) => Self::Zstd(level.min(3)),
            gzip @ Self::Gzip(_) => gzip,
        }
    }

    fn packer(self) -> Result<Packer> {
        Ok(match self {
            Self::Gzip(level) => Packer::Gzip(Deflater::new(level)),
            Self::Zstd(level) => {
                let start = || {
                    let mut zstd = Compressor::new(i32::from(level))?;
                    zstd.set_parameter(CParameter::ContentSizeFlag(true))?;
                    zstd.set_parameter(CParameter::ChecksumFlag(true))?;
                    Ok(zstd)
                };
                let zstd = start().map_err(|e| Error::io("starting the zstd encoder", e))?;
                Packer::Zstd(zstd, zstd_units::memory(level, self.unit()))
            }
        })
    }
}

impl fmt::Display for Wrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gzip(level) => write!(f, "gz:{level}"),
            Self::Zstd(level) => write!(f, "zst:{level}"),
        }
    }
}

/// `gz` or `zst`, and a level if wanted: `gz:9`.
impl FromStr for Wrap {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::usage(format!(
                "{text:?} is no compression: gz or zst, with a level if wanted, as gz:1 to gz:12 and \
                 zst:1 to zst:19"
            ))
        };
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level.parse::<u8>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let (wrap, levels) = match name {
            "gz" => (Self::Gzip(level.unwrap_or(6)), deflate::LEVELS),
            "zst" => (Self::Zstd(level.unwrap_or(3)), zstd_units::LEVELS),
            _ => return Err(bad()),
        };
        match level {
            Some(level) if !levels.contains(&level) => Err(bad()),
            _ => Ok(wrap),
        }
    }
}

/// Writes the bytes of `disk` to `sink`, compressed. The sink may be sequential.
///
/// # Errors
/// Those of [`copy`].
pub fn compress(
    disk: &dyn Disk,
    wrap: Wrap,
    sink: &dyn Sink,
    options: &CopyOptions,
    progress: &Progress,
) -> Result<Summary> {
    let target = Writer {
        zeros: Zeros {
            packer: wrap.of_zeros().packer()?,
            known: HashMap::new(),
        },
        wrap,
        len: disk.virtual_size(),
        from: 0,
        next: HostOffset::ZERO,
    };
    let strided = Strided {
        disk,
        unit: wrap.unit(),
    };
    copy(&strided, Box::new(target), sink, options, progress)
}

/// A disk that has data at every [`STRIDE`], be it zeros.
struct Strided<'a> {
    disk: &'a dyn Disk,
    unit: u64,
}

impl Disk for Strided<'_> {
    fn virtual_size(&self) -> u64 {
        self.disk.virtual_size()
    }

    fn unit(&self) -> u64 {
        self.disk.unit()
    }

    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        let base = out.len();
        let mut found = Vec::new();
        self.disk.extents(range, &mut found)?;
        for extent in found {
            let Range { start: mut at, end } = extent.range;
            while at < end && has_room(out, base) {
                let into = at.0 % STRIDE;
                let (len, kind) = match into < self.unit && extent.kind.is_hole() {
                    true => (self.unit - into, ExtentKind::Data { host: None }),
                    false => (STRIDE - into, extent.kind),
                };
                let next = GuestOffset(at.0.saturating_add(len)).min(end);
                let kind = match kind {
                    // Where the bytes lie is of no use to a compressor.
                    ExtentKind::Data { .. } => ExtentKind::Data { host: None },
                    other => other,
                };
                let range = at..next;
                push_extent(out, Extent { range, kind });
                at = next;
            }
            if at < end {
                break;
            }
        }
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        self.disk.read_at(buf, at)
    }
}

struct Writer {
    wrap: Wrap,
    /// Bytes of the image.
    len: u64,
    /// Bytes of the image that have their parts.
    from: u64,
    /// Where the next part goes.
    next: HostOffset,
    zeros: Zeros,
}

impl Writer {
    fn push(&mut self, part: Vec<u8>, tables: &mut Tables) {
        let at = self.next;
        self.next.0 += part.len() as u64;
        tables.push((at, part));
    }

    /// Zeros up to byte `to` of the image.
    fn fill(&mut self, to: u64, tables: &mut Tables) -> Result<()> {
        while self.from < to {
            let len = (to - self.from).min(MAX_ZEROS);
            let part = self.zeros.part(len)?;
            self.push(part, tables);
            self.from += len;
        }
        Ok(())
    }
}

impl Target for Writer {
    fn unit(&self) -> u64 {
        self.wrap.unit()
    }

    fn preamble(&self) -> Option<Vec<u8>> {
        Some(Vec::new())
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(Encoder {
            packer: self.wrap.packer()?,
            unit: self.unit(),
        }))
    }

    fn place(&mut self, n: UnitIndex, payload: Payload, tables: &mut Tables) -> Result<HostOffset> {
        let start = n * self.unit();
        self.fill(start, tables)?;
        self.from = self.len.min(start.saturating_add(self.unit()));
        let at = self.next;
        let (Payload::Packed(len) | Payload::Verbatim(len)) = payload;
        self.next.0 += len;
        Ok(at)
    }

    fn finish(mut self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        let mut tables = Tables::new();
        self.fill(self.len, &mut tables)?;
        if self.next == HostOffset::ZERO && tables.is_empty() {
            // Nothing, compressed, is one part too.
            let part = self.zeros.part(0)?;
            self.push(part, &mut tables);
        }
        for (at, part) in &tables {
            sink.write_all_at(part, *at)?;
        }
        sink.set_len(self.next.0)?;
        Ok(Summary {
            file_size: self.next.0,
        })
    }
}

struct Encoder {
    packer: Packer,
    unit: u64,
}

impl Encode for Encoder {
    fn encode(&mut self, n: UnitIndex, data: &[u8], packed: &mut Vec<u8>) -> Result<Shape> {
        if is_zero(data) && !(n * self.unit).is_multiple_of(STRIDE) {
            return Ok(Shape::Zero);
        }
        let start = packed.len();
        self.packer.pack(data, packed)?;
        Ok(Shape::Packed(packed.len() - start))
    }

    fn memory(&self) -> u64 {
        match &self.packer {
            Packer::Gzip(deflater) => deflater.memory(),
            Packer::Zstd(_, memory) => *memory,
        }
    }
}

/// Parts of zeros, by their length: all but the last are whole units.
struct Zeros {
    packer: Packer,
    known: HashMap<u64, Vec<u8>>,
}

impl Zeros {
    fn part(&mut self, len: u64) -> Result<Vec<u8>> {
        if let Some(part) = self.known.get(&len) {
            return Ok(part.clone());
        }
        let zeros = vec![0; usize::try_from(len.min(MAX_ZEROS)).unwrap_or(0)];
        let mut part = Vec::new();
        self.packer.pack(&zeros, &mut part)?;
        self.known.insert(len, part.clone());
        Ok(part)
    }
}

enum Packer {
    Gzip(Deflater),
    /// And the bytes of memory it takes at most for a unit.
    Zstd(Compressor<'static>, u64),
}

/// A gzip header: no name, no time, unknown system, and 8 bytes of extra fields, which are one
/// of 4 bytes called "IG".
const GZIP_HEADER: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 8, 0, b'I', b'G', 4, 0];

impl Packer {
    /// Appends `data` as one part.
    fn pack(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let too_long = |_| Error::usage("a part of 4 GiB or more");
        match self {
            Self::Gzip(deflater) => {
                let start = out.len();
                out.extend(GZIP_HEADER);
                out.extend([0; 4]);
                // What does not compress is stored, in blocks of 65535 bytes with 5 in front.
                let max = data.len() + data.len() / 4096 + 64;
                deflater
                    .raw(data, max, out)
                    .ok_or_else(|| Error::usage("a part that does not deflate"))?;
                out.extend(crc32fast::hash(data).to_le_bytes());
                let len = u32::try_from(data.len()).map_err(too_long)?;
                out.extend(len.to_le_bytes());
                let len = u32::try_from(out.len() - start).map_err(too_long)?;
                let field = start + GZIP_HEADER.len();
                out[field..field + 4].copy_from_slice(&len.to_le_bytes());
            }
            Self::Zstd(zstd, _) => {
                let frame = zstd
                    .compress(data)
                    .map_err(|e| Error::io("compressing a part", e))?;
                out.extend(frame);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_are_named_with_their_level() {
        for (text, wrap) in [
            ("gz", Wrap::Gzip(6)),
            ("gz:12", Wrap::Gzip(12)),
            ("zst", Wrap::Zstd(3)),
            ("zst:19", Wrap::Zstd(19)),
        ] {
            assert_eq!(text.parse::<Wrap>().unwrap(), wrap);
            assert_eq!(wrap.to_string().parse::<Wrap>().unwrap(), wrap);
        }
        for bad in ["", "xz", "gz:", "gz:0", "gz:13", "zst:20", "gz:x", "GZ"] {
            assert!(bad.parse::<Wrap>().is_err(), "{bad}");
        }
    }
}
