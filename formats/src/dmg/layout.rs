//! The trailer, and the tables of chunks.

use std::ops::Range;

use super::plist;
use crate::bytes::{be32, be64};
use crate::{Error, Format, GuestOffset, HostOffset, Limits, Result};

pub(super) const SECTOR: u64 = 512;

/// The trailer; every range inside the file.
#[derive(Debug)]
pub(super) struct Trailer {
    pub(super) data_fork: Range<u64>,
    pub(super) xml: Range<u64>,
    /// 1: a device, 2: one partition.
    pub(super) variant: u32,
    /// Virtual size in bytes.
    pub(super) size: u64,
}

impl Trailer {
    /// Bytes of the trailer, the last of the file.
    pub(super) const LEN: u64 = 512;

    pub(super) fn has_magic(bytes: &[u8]) -> bool {
        bytes.len() as u64 == Self::LEN && bytes.starts_with(b"koly")
    }

    /// The trailer in `bytes`, which begins at byte `at` of the file.
    pub(super) fn parse(bytes: &[u8], at: u64) -> Result<Self> {
        let malformed = |message: String| Error::malformed(Format::Dmg, "trailer", message);
        let unsupported = |message: String| Error::unsupported(Format::Dmg, "trailer", message);
        let cut = || malformed("the file is shorter".into());
        if !Self::has_magic(bytes) {
            return Err(malformed("there is none in the last 512 bytes".into()));
        }
        let range = |field: usize, name| {
            let (start, len) = (be64(bytes, field), be64(bytes, field + 8));
            let (start, len) = (start.ok_or_else(cut)?, len.ok_or_else(cut)?);
            match start.checked_add(len) {
                Some(end) if end <= at => Ok(start..end),
                _ => Err(malformed(format!(
                    "{name} takes {len} bytes at {} (byte {field}), allowed up to the trailer at {}",
                    HostOffset(start),
                    HostOffset(at)
                ))),
            }
        };
        let version = be32(bytes, 4).ok_or_else(cut)?;
        if version != 4 {
            return Err(unsupported(format!(
                "the version is {version} at byte 4, known is 4"
            )));
        }
        let segments = be32(bytes, 60).ok_or_else(cut)?;
        if segments > 1 {
            return Err(unsupported(format!(
                "the image is split into {segments} segments"
            )));
        }
        let data_fork = range(24, "the data fork")?;
        let xml = range(216, "the property list")?;
        if xml.is_empty() {
            let message = "the chunks are listed in a resource fork, not in XML".into();
            return Err(unsupported(message));
        }
        let sectors = be64(bytes, 492).ok_or_else(cut)?;
        let size = sectors
            .checked_mul(SECTOR)
            .ok_or_else(|| malformed(format!("the disk has {sectors} sectors at byte 492")))?;
        Ok(Self {
            data_fork,
            xml,
            variant: be32(bytes, 488).ok_or_else(cut)?,
            size,
        })
    }
}

/// How a chunk's bytes are stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Coding {
    Zero,
    Raw,
    Adc,
    Zlib,
    Bzip2,
    Lzfse,
    Lzma,
}

/// A run of sectors and where it is stored.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) guest: Range<GuestOffset>,
    pub(super) coding: Coding,
    pub(super) host: HostOffset,
    /// Bytes stored.
    pub(super) len: u64,
}

const HEADER: usize = 204;
const ENTRY: usize = 40;
const COMMENT: u32 = 0x7fff_fffe;
const TERMINATOR: u32 = 0xffff_ffff;

/// All chunks of a property list, in guest order; no two hold the same bytes of the disk, or
/// share bytes of the file.
pub(super) fn chunks(xml: &[u8], trailer: &Trailer, limits: &Limits) -> Result<Vec<Chunk>> {
    let mut chunks = Vec::new();
    plist::tables(xml, |table| {
        parse_table(table, trailer, limits, &mut chunks)
    })?;
    // One at a time: the second order is the one that stays.
    chunks.sort_unstable_by_key(|chunk| chunk.host);
    let stored = chunks
        .iter()
        .filter(|chunk| chunk.coding != Coding::Zero && chunk.len != 0);
    // Inside the file: no overflow.
    let mut ends = stored.map(|chunk| (chunk.host, chunk.host.0 + chunk.len));
    if let Some((_, mut end)) = ends.next() {
        for (host, next) in ends {
            if host.0 < end {
                return Err(malformed(format!(
                    "two chunks share the bytes of the file at {host}"
                )));
            }
            end = next;
        }
    }
    chunks.sort_unstable_by_key(|chunk| chunk.guest.start);
    match chunks
        .windows(2)
        .find(|pair| pair[1].guest.start < pair[0].guest.end)
    {
        Some(pair) => Err(malformed(format!(
            "two chunks hold the bytes of the disk from {}",
            pair[1].guest.start
        ))),
        None => Ok(chunks),
    }
}

/// Reads a table of chunks and appends them to `out`.
fn parse_table(
    table: &[u8],
    trailer: &Trailer,
    limits: &Limits,
    out: &mut Vec<Chunk>,
) -> Result<()> {
    let cut = || malformed("it ends within its entries".into());
    if !table.starts_with(b"mish") {
        return Err(malformed("the magic \"mish\" is missing at byte 0".into()));
    }
    let first = be64(table, 8).ok_or_else(cut)?;
    let offset = be64(table, 24).ok_or_else(cut)?;
    let count = be32(table, 200).ok_or_else(cut)?;
    let entries = table.get(HEADER..).ok_or_else(cut)?.chunks_exact(ENTRY);
    if entries.len() < count as usize {
        return Err(cut());
    }
    for entry in entries.take(count as usize) {
        let field = |at| be64(entry, at).ok_or_else(cut);
        let coding = match be32(entry, 0).ok_or_else(cut)? {
            0 | 2 => Coding::Zero,
            1 => Coding::Raw,
            0x8000_0004 => Coding::Adc,
            0x8000_0005 => Coding::Zlib,
            0x8000_0006 => Coding::Bzip2,
            0x8000_0007 => Coding::Lzfse,
            0x8000_0008 => Coding::Lzma,
            COMMENT => continue,
            TERMINATOR => break,
            kind => {
                let message = format!("a chunk is of type {kind:#x}");
                return Err(Error::unsupported(Format::Dmg, "chunk table", message));
            }
        };
        let guest = guest_range(first, field(8)?, field(16)?, trailer.size)?;
        if guest.is_empty() {
            continue;
        }
        let (place, len) = (field(24)?, field(32)?);
        let host = place
            .checked_add(offset)
            .and_then(|at| at.checked_add(trailer.data_fork.start));
        let chunk = Chunk {
            guest,
            coding,
            host: HostOffset(host.unwrap_or(u64::MAX)),
            len,
        };
        chunk.check(trailer, limits)?;
        out.push(chunk);
    }
    Ok(())
}

fn malformed(message: String) -> Error {
    Error::malformed(Format::Dmg, "chunk table", message)
}

fn guest_range(first: u64, sector: u64, count: u64, size: u64) -> Result<Range<GuestOffset>> {
    let start = first
        .checked_add(sector)
        .and_then(|s| s.checked_mul(SECTOR));
    let len = count.checked_mul(SECTOR);
    match start
        .zip(len)
        .and_then(|(start, len)| Some((start, start.checked_add(len)?)))
    {
        Some((start, end)) if end <= size => Ok(GuestOffset(start)..GuestOffset(end)),
        _ => Err(malformed(format!(
            "a chunk has {count} sectors from {sector} of its table at {first}, the disk has {}",
            size / SECTOR
        ))),
    }
}

impl Coding {
    /// The field's word for it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Raw => "raw",
            Self::Adc => "adc",
            Self::Zlib => "zlib",
            Self::Bzip2 => "bzip2",
            Self::Lzfse => "lzfse",
            Self::Lzma => "lzma",
        }
    }
}

impl Chunk {
    fn check(&self, trailer: &Trailer, limits: &Limits) -> Result<()> {
        let guest_len = self.guest.end.since(self.guest.start);
        let host = self.host;
        match self.coding {
            Coding::Zero => return Ok(()),
            Coding::Raw if self.len != guest_len => {
                return Err(malformed(format!(
                    "the raw chunk at {host} has {} bytes for {guest_len} of the disk",
                    self.len
                )));
            }
            Coding::Raw => {}
            _ => {
                limits.table(Format::Dmg, "chunk", guest_len)?;
                limits.table(Format::Dmg, "chunk", self.len)?;
            }
        }
        // Some writers count the fork's length without its alignment: up to the list is fine.
        let end = trailer.data_fork.end.max(trailer.xml.start);
        match host.checked_add(self.len) {
            Some(stop) if stop.0 <= end => Ok(()),
            _ => Err(malformed(format!(
                "a chunk takes {} bytes at {host}, allowed up to {}",
                self.len,
                HostOffset(end)
            ))),
        }
    }
}
