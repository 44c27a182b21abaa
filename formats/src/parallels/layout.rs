//! The header, and where the blocks lie by the BAT.

use std::ops::Range;

use crate::bytes::{le32, le64};
use crate::{Error, Format, HostOffset, Result};

const PLAIN: &str = "WithoutFreeSpace";
const EXTENDED: &str = "WithouFreSpacExt";
pub(super) const SECTOR: u64 = 512;
/// Bytes of the header: where the BAT begins.
pub(super) const LEN: u64 = 64;
/// Sectors a block may have: 1 GiB, a thousand times what is in use.
const MAX_BLOCK: u32 = 2 << 20;
/// Value of the field at byte 44 while the disk is open for writing.
const IN_USE: u32 = 0x746f_6e59;
/// What the format extension begins with.
const EXTENSION_MAGIC: u64 = 0xab23_4cef_23dc_ea87;
/// Bytes of the extension's magic.
pub(super) const EXTENSION_MAGIC_LEN: u64 = 8;

pub(super) fn has_magic(head: &[u8]) -> bool {
    head.starts_with(PLAIN.as_bytes()) || head.starts_with(EXTENDED.as_bytes())
}

/// The header; every value within its bounds.
#[derive(Debug)]
pub(super) struct Header {
    /// Virtual size in bytes.
    pub(super) size: u64,
    /// Bytes of a block; need not be a power of two.
    pub(super) block_size: u64,
    pub(super) bat_entries: u32,
    /// Bytes a BAT entry counts.
    pub(super) bat_unit: u64,
    /// The magic as text: which of the two layouts it is.
    pub(super) magic: &'static str,
    pub(super) is_in_use: bool,
    /// Where the format extension begins, in sectors; 0 where there is none.
    extension_sector: u64,
}

impl Header {
    pub(super) fn parse(head: &[u8]) -> Result<Self> {
        let malformed = |message: String| Error::malformed(Format::Parallels, "header", message);
        let cut = || malformed(format!("the file ends at byte {} within it", head.len()));
        let field = |at| le32(head, at).ok_or_else(cut);
        if !has_magic(head) {
            return Err(malformed("the magic is missing at byte 0".into()));
        }
        let is_extended = head.starts_with(EXTENDED.as_bytes());
        let version = field(16)?;
        if version != 2 {
            let message = format!("the version is {version} at byte 16, known is 2");
            return Err(Error::unsupported(Format::Parallels, "header", message));
        }
        let tracks = field(28)?;
        if !(1..=MAX_BLOCK).contains(&tracks) {
            return Err(malformed(format!(
                "the block size is {tracks} sectors at byte 28, allowed 1 to {MAX_BLOCK}"
            )));
        }
        let block_size = u64::from(tracks) * SECTOR;
        let sectors = if is_extended {
            le64(head, 36).ok_or_else(cut)?
        } else {
            // The upper half is not part of the older format.
            field(36)?.into()
        };
        let bat_entries = field(32)?;
        let room = u64::from(bat_entries) * u64::from(tracks);
        if sectors > room {
            return Err(malformed(format!(
                "the disk has {sectors} sectors at byte 36, the BAT has room for {room}"
            )));
        }
        let is_in_use = field(44)? == IN_USE;
        let extension_sector = le64(head, 56).ok_or_else(cut)?;
        if (head.len() as u64) < LEN {
            return Err(cut());
        }
        Ok(Self {
            // At most 2^32 entries of 2^30 bytes: no overflow.
            size: sectors * SECTOR,
            block_size,
            bat_entries,
            bat_unit: if is_extended { block_size } else { SECTOR },
            magic: if is_extended { EXTENDED } else { PLAIN },
            is_in_use,
            extension_sector,
        })
    }

    /// Bytes of the BAT.
    pub(super) const fn bat_len(&self) -> u64 {
        self.bat_entries as u64 * 4
    }

    /// The byte after the BAT.
    pub(super) const fn bat_end(&self) -> u64 {
        LEN + self.bat_len()
    }

    /// Where block `n` lies, by its BAT entry; `None` where it is not stored.
    pub(super) fn block(&self, n: u64, entry: u32) -> Result<Option<Range<HostOffset>>> {
        if entry == 0 {
            return Ok(None);
        }
        // At most 2^32 units of 2^30 bytes: no overflow.
        let at = u64::from(entry) * self.bat_unit;
        if at < self.bat_end() {
            let message = format!(
                "block {n} lies at {}, allowed from {}",
                HostOffset(at),
                HostOffset(self.bat_end())
            );
            return Err(Error::malformed(Format::Parallels, "bat", message));
        }
        // The last block counts only as far as the disk goes.
        let rest = self.size.saturating_sub(n * self.block_size);
        let end = at + rest.min(self.block_size);
        Ok(Some(HostOffset(at)..HostOffset(end)))
    }

    /// Where the format extension begins; `None` where there is none. One further than a file
    /// can reach is past the end of every file.
    pub(super) const fn extension(&self) -> Option<HostOffset> {
        match self.extension_sector {
            0 => None,
            sector => Some(HostOffset(sector.saturating_mul(SECTOR))),
        }
    }
}

/// Checks `bytes`, those of the file from `at`, where the format extension should begin.
pub(super) fn check_extension(at: HostOffset, bytes: &[u8]) -> Result<()> {
    let found = match le64(bytes, 0) {
        Some(EXTENSION_MAGIC) => return Ok(()),
        Some(found) => format!("its magic is {found:#x}"),
        None => "that is past the end of the file".into(),
    };
    Err(Error::malformed(
        Format::Parallels,
        "format extension",
        format!("is at {at} by the header, byte 56, but {found}; allowed is {EXTENSION_MAGIC:#x}"),
    ))
}
