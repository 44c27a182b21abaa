//! The directory of persistent dirty bitmaps: which clusters were written since some backup.
//! They say nothing of the disk's content, so they are listed and counted, never followed.
//!
//! ```text
//!  byte 0   bitmap table offset, entries, flags, type, granularity   big-endian
//!      18   bytes of the name and of extra data
//!      24   extra data, name, padding to eight bytes; the next entry
//! ```

use serde_json::{Value, json};

use crate::HostOffset;
use crate::bytes::{be16, be32, be64};

/// Bytes of an entry before its extra data.
const FIXED: usize = 24;
/// qemu's bounds.
pub(super) const MAX_BITMAPS: u32 = 65535;
pub(super) const MAX_DIRECTORY_BYTES: u64 = 64 << 20;
const MAX_GRANULARITY_BITS: u8 = 63;

/// The bitmaps extension: where the directory is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directory {
    pub(super) bitmaps: u32,
    pub(super) at: HostOffset,
    pub(super) bytes: u64,
}

impl Directory {
    /// `None` when the extension is too short or promises more than anybody writes.
    pub(super) fn parse(extension: &[u8]) -> Option<Self> {
        let found = Self {
            bitmaps: be32(extension, 0)?,
            bytes: be64(extension, 8)?,
            at: HostOffset(be64(extension, 16)?),
        };
        (found.bitmaps <= MAX_BITMAPS && found.bytes <= MAX_DIRECTORY_BYTES).then_some(found)
    }
}

/// A bitmap's entry.
pub(super) struct Bitmap {
    pub(super) table: HostOffset,
    /// Entries.
    pub(super) table_size: u32,
    flags: u32,
    granularity_bits: u8,
    pub(super) name: String,
}

impl Bitmap {
    /// The entry at the start of `bytes`, and its length; `None` when it goes on past their end
    /// or makes no sense.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let name_len = usize::from(be16(bytes, 18)?);
        let extra = usize::try_from(be32(bytes, 20)?).ok()?;
        let start = FIXED.checked_add(extra)?;
        let end = start.checked_add(name_len)?;
        let found = Self {
            table: HostOffset(be64(bytes, 0)?),
            table_size: be32(bytes, 8)?,
            flags: be32(bytes, 12)?,
            granularity_bits: *bytes.get(17)?,
            name: String::from_utf8_lossy(bytes.get(start..end)?).into_owned(),
        };
        (found.granularity_bits <= MAX_GRANULARITY_BITS).then(|| (found, end.next_multiple_of(8)))
    }

    /// What there is to say about it. Granularity in bytes of the guest a bit.
    pub(super) fn describe(&self) -> Value {
        let named = [(1, "in-use"), (2, "auto")];
        let flags: Vec<_> = named
            .iter()
            .filter(|(bit, _)| self.flags & bit != 0)
            .map(|(_, name)| *name)
            .collect();
        json!({
            "name": self.name,
            "granularity": 1u64 << self.granularity_bits,
            "flags": flags,
        })
    }
}

/// The bitmaps in the bytes of a directory, as far as these hold them.
pub(super) fn in_view(directory: &Directory, bytes: &[u8]) -> Vec<Bitmap> {
    let bytes = &bytes[..bytes.len().min(directory.bytes as usize)];
    let (mut all, mut at) = (Vec::new(), 0);
    while (all.len() as u64) < u64::from(directory.bitmaps)
        && let Some(rest) = bytes.get(at..)
        && let Some((bitmap, len)) = Bitmap::parse(rest)
    {
        all.push(bitmap);
        at += len;
    }
    all
}
