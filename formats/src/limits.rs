//! Bounds on what an image may make us allocate or walk. A value, passed down; nothing global.

use std::borrow::Cow;

use crate::{Error, Format, Result};

/// Bounds for reading one image. All sizes in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest virtual size accepted.
    pub max_virtual_size: u64,
    /// Largest single table (L1, BAT, grain directory, descriptor) held in memory.
    pub max_table: u64,
    /// Memory a reader may use to cache tables and decompressed units.
    pub cache: u64,
    /// Largest output of a decompressed wrapper (`.gz`, `.xz`, …).
    pub max_inflated: u64,
    /// Bytes of a wrapper's content that inspection decompresses however short the wrapper is;
    /// of long ones it is 256 times their length. What is longer is judged by its beginning, and
    /// wholly when it is converted.
    pub max_look: u64,
    /// Largest ratio of decompressed to compressed bytes of a wrapper, once the output is
    /// larger than [`Limits::RATIO_FREE`].
    pub max_ratio: u64,
}

impl Limits {
    /// Output below this is never judged by its ratio: sparse images compress very well.
    pub const RATIO_FREE: u64 = 16 << 30;

    /// The bytes of a table as `usize`, or a [`Limit`](crate::ErrorKind::Limit) error that names it.
    pub fn table(&self, format: Format, what: &'static str, bytes: u64) -> Result<usize> {
        match usize::try_from(bytes) {
            Ok(len) if bytes <= self.max_table => Ok(len),
            _ => Err(Error::limit(
                format,
                what,
                format!("wants {bytes} bytes of memory, allowed {}", self.max_table),
            )),
        }
    }

    /// Checks a virtual size against [`Limits::max_virtual_size`].
    pub fn virtual_size(&self, format: Format, bytes: u64) -> Result<u64> {
        if bytes > self.max_virtual_size {
            return Err(Error::limit(
                format,
                "virtual size",
                format!("is {bytes} bytes, allowed {}", self.max_virtual_size),
            ));
        }
        Ok(bytes)
    }
}

/// Checks that `count` structures of `each` bytes find room in a file of `file_len` without sharing
/// any. One that is named again and again makes a disk full of data of next to nothing.
///
/// # Errors
/// `Malformed`: some must overlap.
pub(crate) fn room_for(
    count: u64,
    each: u64,
    file_len: u64,
    format: Format,
    place: impl Into<Cow<'static, str>>,
) -> Result<()> {
    if count.saturating_mul(each) > file_len {
        return Err(Error::malformed(
            format,
            place,
            format!(
                "names {count} times {each} bytes in a file of {file_len}: some must be the same"
            ),
        ));
    }
    Ok(())
}

impl Default for Limits {
    /// 64 TiB of disk (the largest VHDX), 64 MiB a table, 32 MiB of cache, 1 TiB decompressed,
    /// 256 MiB of that looked at by inspection.
    fn default() -> Self {
        Self {
            max_virtual_size: 64 << 40,
            max_table: 64 << 20,
            cache: 32 << 20,
            max_inflated: 1 << 40,
            max_look: 1 << 30,
            max_ratio: 2000,
        }
    }
}
