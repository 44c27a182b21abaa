//! Zstandard (RFC 8878) of whole units: qcow2 clusters.

use std::cell::RefCell;
use std::io;

use zstd::zstd_safe::{CParameter, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use super::deflate::append;
use super::unit::Fault;

/// Largest window accepted, as a power of two: 8 MiB, what RFC 8878 asks every decoder to
/// support. A frame may ask for gigabytes; units hold 2 MiB at most.
const WINDOW_LOG_MAX: u32 = 23;

thread_local! {
    static CONTEXT: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// Decompresses the frames at the start of `packed` until `out` is full or the last frame ends;
/// gives the number of bytes made. Bytes behind a frame that fills `out` are not looked at.
///
/// # Errors
/// `Corrupt`, or `TooLong` when a frame goes on past the end of `out`.
pub fn inflate(packed: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    CONTEXT.with_borrow_mut(|slot| {
        let context = match slot {
            Some(context) => context,
            None => slot.insert(context().ok_or(Fault::Corrupt)?),
        };
        context
            .reset(ResetDirective::SessionOnly)
            .map_err(|_| Fault::Corrupt)?;
        run(context, packed, out)
    })
}

fn context() -> Option<DCtx<'static>> {
    let mut context = DCtx::try_create()?;
    context
        .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
        .ok()?;
    Some(context)
}

fn run(context: &mut DCtx<'_>, packed: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let room = out.len();
    let mut input = InBuffer::around(packed);
    let mut output = OutBuffer::around(out);
    // A unit may be made of several frames: qemu reads them so.
    loop {
        let before = (input.pos(), output.pos());
        let expects = context
            .decompress_stream(&mut output, &mut input)
            .map_err(|_| Fault::Corrupt)?;
        let done = output.pos();
        match expects {
            0 if done == room || input.pos() == packed.len() => return Ok(done),
            0 => {}
            _ if before == (input.pos(), done) => {
                return Err(if done == room {
                    Fault::TooLong
                } else {
                    Fault::Corrupt
                });
            }
            _ => {}
        }
    }
}

/// Levels a [`Compressor`] knows.
pub const LEVELS: std::ops::RangeInclusive<u8> = 1..=19;

/// Bytes of memory that compressing units of `unit` bytes at `level` takes at most: two tables, whose
/// largest sizes by level are zstd's, and which need not be larger than the unit makes useful.
#[must_use]
pub fn memory(level: u8, unit: u64) -> u64 {
    const MIB: u64 = 1 << 20;
    let tables = match level {
        ..=4 => 2,
        5..=8 => 6,
        9 => 12,
        10..=11 => 24,
        _ => 64,
    };
    MIB + (tables * MIB).min(16 * unit)
}

/// Compresses whole units, each into one frame that states its content's length. One a thread.
pub struct Compressor(zstd::bulk::Compressor<'static>);

impl Compressor {
    /// A compressor of `level`, clamped to [`LEVELS`].
    ///
    /// # Errors
    /// When memory runs out.
    pub fn new(level: u8) -> io::Result<Self> {
        let level = level.clamp(*LEVELS.start(), *LEVELS.end());
        let mut inner = zstd::bulk::Compressor::new(i32::from(level))?;
        inner.set_parameter(CParameter::ContentSizeFlag(true))?;
        Ok(Self(inner))
    }

    /// Appends `data` to `out` as a frame of at most `max` bytes and gives its length; `None`,
    /// with `out` as it was, when it would be longer.
    pub fn compress(&mut self, data: &[u8], max: usize, out: &mut Vec<u8>) -> Option<usize> {
        append(out, max, |room| self.0.compress_to_buffer(data, room).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(data: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        let len = Compressor::new(3)
            .unwrap()
            .compress(data, data.len() + 100, &mut packed);
        assert_eq!(len, Some(packed.len()));
        packed
    }

    #[test]
    fn units_come_back_and_padding_behind_them_is_ignored() {
        let data: Vec<u8> = (0..65536u32).map(|n| (n / 50) as u8).collect();
        let mut packed = pack(&data);
        packed.extend([0xff; 300]);
        let mut out = vec![0; data.len()];
        assert_eq!(inflate(&packed, &mut out), Ok(data.len()));
        assert_eq!(out, data);
    }

    #[test]
    fn a_unit_may_be_several_frames() {
        let mut packed = pack(&[1; 1000]);
        packed.extend(pack(&[2; 500]));
        let mut out = vec![0; 1500];
        assert_eq!(inflate(&packed, &mut out), Ok(1500));
        assert_eq!((out[999], out[1000]), (1, 2));
        assert_eq!(inflate(&packed, &mut vec![0; 2000]), Ok(1500));
    }

    #[test]
    fn bombs_and_torn_frames_are_refused() {
        let packed = pack(&vec![0; 1 << 20]);
        assert_eq!(inflate(&packed, &mut [0; 65536]), Err(Fault::TooLong));
        let torn = &packed[..packed.len() - 2];
        assert_eq!(inflate(torn, &mut vec![0; 1 << 20]), Err(Fault::Corrupt));
        assert_eq!(inflate(b"not a frame", &mut [0; 64]), Err(Fault::Corrupt));
        assert_eq!(
            Compressor::new(3)
                .unwrap()
                .compress(&packed, 4, &mut vec![]),
            None
        );
    }
}
