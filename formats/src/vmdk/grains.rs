//! Compressed grains: found, read in large pieces, inflated where they are wanted.
//!
//! A grain says its own length only in its header, so reading them one by one costs two reads
//! each. Streams lie in guest order: the grains of one request are mostly neighbours, and one
//! read fetches them all.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::layout::{GRAIN_MARKER_LEN, SECTOR};
use crate::bytes::{le32, le64};
use crate::codec::deflate::inflate_zlib;
use crate::{Error, Format, HostOffset, Result, Source};

/// Bytes fetched at once, unless one grain is larger.
const WINDOW: u64 = 1 << 20;

/// A grain, and the part of it that is wanted.
pub(super) struct Wanted {
    pub(super) sector: u64,
    /// The guest sector it must say it is for.
    pub(super) lba: u64,
    /// Bytes of the grain before the wanted part.
    pub(super) skip: usize,
    /// Bytes of the grain that lie inside the disk.
    pub(super) whole: usize,
    /// Where the wanted part goes.
    pub(super) part: Range<usize>,
}

/// The grain last read in part: whoever reads 4 KiB at a time comes back for the rest.
#[derive(Default)]
pub(super) struct Recent(Mutex<Option<(u64, Vec<u8>)>>);

impl Recent {
    /// Copies the wanted part, where this is its grain.
    fn copy(&self, grain: &Wanted, buf: &mut [u8]) -> bool {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = recent
            .as_ref()
            .filter(|(lba, _)| *lba == grain.lba)
            .and_then(|(_, bytes)| bytes.get(grain.skip..grain.skip + grain.part.len()));
        found.is_some_and(|bytes| {
            buf[grain.part.clone()].copy_from_slice(bytes);
            true
        })
    }

    fn keep(&self, lba: u64, bytes: &[u8]) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, into) = recent.get_or_insert_default();
        *kept = lba;
        into.clear();
        into.extend_from_slice(bytes);
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What a thread reuses from call to call.
#[derive(Default)]
struct Scratch {
    window: Window,
    grain: Vec<u8>,
}

/// A piece of the file in memory.
#[derive(Default)]
struct Window {
    bytes: Vec<u8>,
    at: u64,
    len: usize,
}

impl Window {
    /// The `len` bytes at `at`, where all of them are here.
    fn get(&self, at: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(at.checked_sub(self.at)?).ok()?;
        self.bytes[..self.len].get(start..start.checked_add(len)?)
    }

    /// Fetches `len` bytes from `at`, fewer where the file ends first.
    fn fetch(&mut self, source: &dyn Source, at: u64, len: u64) -> Result<()> {
        let len = usize::try_from(len.min(HostOffset(source.len()).since(HostOffset(at))))
            .unwrap_or(usize::MAX);
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        self.len = 0;
        source.read_exact_at(&mut self.bytes[..len], HostOffset(at))?;
        (self.at, self.len) = (at, len);
        Ok(())
    }
}

fn malformed(sector: u64, message: impl std::fmt::Display) -> Error {
    Error::malformed(
        Format::Vmdk,
        "grain",
        format!("at sector {sector:#x} {message}"),
    )
}

/// Reads the wanted parts of `grains` into `buf`.
pub(super) fn read(
    source: &dyn Source,
    grain_size: usize,
    grains: &[Wanted],
    buf: &mut [u8],
    recent: &Recent,
) -> Result<()> {
    if grains.is_empty() {
        return Ok(());
    }
    SCRATCH.with_borrow_mut(|scratch| {
        // Bytes of an earlier call may be those of another file.
        scratch.window.len = 0;
        for (n, grain) in grains.iter().enumerate() {
            let is_part = grain.part.len() < grain.whole;
            if is_part && recent.copy(grain, buf) {
                continue;
            }
            let Scratch {
                window,
                grain: inflated,
            } = scratch;
            let packed = packed(source, grain_size, &grains[n..], window)?;
            let fault = |e| malformed(grain.sector, e);
            if !is_part && grain.whole == grain_size {
                let out = &mut buf[grain.part.clone()];
                let len = inflate_zlib(packed, out).map_err(fault)?;
                check_len(grain, len, grain_size)?;
                continue;
            }
            // Read in part, or the last one: that is stored whole by some, cut by others.
            inflated.resize(grain_size, 0);
            let len = inflate_zlib(packed, inflated).map_err(fault)?;
            check_len(grain, len, grain.whole)?;
            if is_part {
                recent.keep(grain.lba, &inflated[..len]);
            }
            let end = grain.skip + grain.part.len();
            buf[grain.part.clone()].copy_from_slice(&inflated[grain.skip..end]);
        }
        Ok(())
    })
}

/// Looks at whole grains, and inflates them where asked to; answers the bytes that each takes in
/// the file, marker included.
pub(super) fn verify(
    source: &dyn Source,
    grain_size: usize,
    grains: &[Wanted],
    inflates: bool,
) -> Vec<Result<u64>> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.window.len = 0;
        let Scratch {
            window,
            grain: inflated,
        } = scratch;
        inflated.resize(grain_size, 0);
        let mut one = |n: usize| {
            let grain = &grains[n];
            let packed = packed(source, grain_size, &grains[n..], window)?;
            if inflates {
                let fault = |e| malformed(grain.sector, e);
                let len = inflate_zlib(packed, inflated).map_err(fault)?;
                check_len(grain, len, grain.whole)?;
            }
            Ok((GRAIN_MARKER_LEN + packed.len()) as u64)
        };
        (0..grains.len()).map(&mut one).collect()
    })
}

fn check_len(grain: &Wanted, len: usize, wanted: usize) -> Result<()> {
    if len < wanted {
        return Err(malformed(
            grain.sector,
            format_args!("inflates to {len} bytes, wanted {wanted}"),
        ));
    }
    Ok(())
}

/// The compressed bytes of the first of `grains`, fetched with those that follow it closely.
fn packed<'a>(
    source: &dyn Source,
    grain_size: usize,
    grains: &[Wanted],
    window: &'a mut Window,
) -> Result<&'a [u8]> {
    let grain = &grains[0];
    let at = grain.sector * SECTOR;
    if window.get(at, GRAIN_MARKER_LEN).is_none() {
        window.fetch(source, at, reach(grains, grain_size as u64))?;
    }
    let Some(marker) = window.get(at, GRAIN_MARKER_LEN) else {
        return Err(malformed(
            grain.sector,
            format_args!("lies past the end of the file at {:#x}", source.len()),
        ));
    };
    let lba = le64(marker, 0).unwrap_or(0);
    let size = le32(marker, 8).unwrap_or(0);
    if lba != grain.lba {
        return Err(malformed(
            grain.sector,
            format_args!(
                "says it is for guest sector {lba:#x}, wanted {:#x}",
                grain.lba
            ),
        ));
    }
    // Data that does not compress grows by a few bytes; twice as much is nonsense.
    let len = size as usize;
    if len == 0 || len > 2 * grain_size {
        return Err(malformed(
            grain.sector,
            format_args!("says it is {size} bytes, allowed 1 to {}", 2 * grain_size),
        ));
    }
    let data = at + GRAIN_MARKER_LEN as u64;
    if window.get(data, len).is_none() {
        let whole = (GRAIN_MARKER_LEN + len) as u64;
        window.fetch(source, at, whole.max(reach(grains, grain_size as u64)))?;
    }
    window.get(data, len).ok_or_else(|| {
        malformed(
            grain.sector,
            format_args!(
                "is {size} bytes, past the end of the file at {:#x}",
                source.len()
            ),
        )
    })
}

/// How far to read from the first of `grains`: as far as the next ones follow closely, and a
/// good part of the last.
fn reach(grains: &[Wanted], grain_size: u64) -> u64 {
    let start = grains[0].sector * SECTOR;
    // Data, its marker, the rest of the sector, and a grain table in between.
    let close = grain_size + 16 * SECTOR;
    let mut last = start;
    for grain in &grains[1..] {
        let next = grain.sector * SECTOR;
        let follows = next > last && next - last <= close && next - start < WINDOW;
        if !follows {
            break;
        }
        last = next;
    }
    last - start + grain_size / 2 + SECTOR
}
