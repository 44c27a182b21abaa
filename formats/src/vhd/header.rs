//! The dynamic header and the names of a parent in it: bytes to bounded values. Big-endian.

use super::layout::{SECTOR, checksum, malformed};
use crate::bytes::{be32, be64};
use crate::{Error, Format, Result};

/// First bytes of a dynamic header.
const DYNAMIC_COOKIE: &[u8; 8] = b"cxsparse";
/// Bytes of a dynamic header.
pub(super) const HEADER_LEN: usize = 1024;
/// Bytes of the largest block accepted.
const MAX_BLOCK: u32 = 256 << 20;

/// A dynamic header whose checksum is right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DynamicHeader {
    /// Byte of the block allocation table.
    pub(super) table_offset: u64,
    pub(super) max_table_entries: u32,
    /// Bytes of a block without its sector bitmap.
    pub(super) block_size: u32,
    /// Identity of the parent, where the disk is a differencing one.
    pub(super) parent_unique_id: [u8; 16],
    /// The name of the parent, where the disk is a differencing one.
    pub(super) parent_unicode_name: String,
    /// The parent locators in use.
    pub(super) parent_locators: Vec<Locator>,
}

/// Where the name of a parent stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Locator {
    /// How it is spelled.
    pub(super) platform_code: [u8; 4],
    /// Byte of the name.
    pub(super) offset: u64,
    /// Bytes of the name.
    pub(super) len: u32,
    /// Bytes set aside for it.
    pub(super) space: u64,
}

impl DynamicHeader {
    /// Parses a dynamic header of 1024 bytes.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        Self::fields(bytes).ok_or_else(|| {
            malformed(
                "dynamic header",
                format!("has {} bytes of 1024 before the file ends", bytes.len()),
            )
        })?
    }

    fn fields(bytes: &[u8]) -> Option<Result<Self>> {
        let bytes = bytes.get(..HEADER_LEN)?;
        let fail = |message| Some(Err(malformed("dynamic header", message)));
        if !bytes.starts_with(DYNAMIC_COOKIE) {
            return fail("does not begin with \"cxsparse\"".to_owned());
        }
        let stored = be32(bytes, 36)?;
        let computed = checksum(bytes, 36);
        if stored != computed {
            return fail(format!(
                "checksum is {stored:#010x} at byte 36, its bytes sum to {computed:#010x}"
            ));
        }
        let version = be32(bytes, 24)?;
        if version >> 16 != 1 {
            return Some(Err(Error::unsupported(
                Format::Vhd,
                "dynamic header",
                format!("header version is {version:#010x} at byte 24, known is 0x00010000"),
            )));
        }
        let block_size = be32(bytes, 32)?;
        if !block_size.is_power_of_two() || !(512..=MAX_BLOCK).contains(&block_size) {
            return fail(format!(
                "block size is {block_size} at byte 32, allowed are powers of two from 512 to {MAX_BLOCK}"
            ));
        }
        let name: Vec<u16> = bytes
            .get(64..576)?
            .as_chunks::<2>()
            .0
            .iter()
            .map(|pair| u16::from_be_bytes(*pair))
            .take_while(|unit| *unit != 0)
            .collect();
        let (locators, _) = bytes.get(576..768)?.as_chunks::<24>();
        Some(Ok(Self {
            table_offset: be64(bytes, 16)?,
            max_table_entries: be32(bytes, 28)?,
            block_size,
            parent_unique_id: *bytes.get(40..)?.first_chunk()?,
            parent_unicode_name: String::from_utf16_lossy(&name),
            parent_locators: locators.iter().filter_map(Locator::parse).collect(),
        }))
    }

    /// Bytes of a sector bitmap, which precedes each block.
    pub(super) fn bitmap_size(&self) -> u64 {
        (u64::from(self.block_size) / SECTOR)
            .div_ceil(8)
            .next_multiple_of(SECTOR)
    }

    /// Bytes of the block allocation table that a disk of `virtual_size` bytes needs.
    pub(super) fn table_len(&self, virtual_size: u64) -> Result<u64> {
        let blocks = virtual_size.div_ceil(u64::from(self.block_size));
        if blocks > u64::from(self.max_table_entries) {
            return Err(malformed(
                "dynamic header",
                format!(
                    "max table entries is {} at byte 28, but the disk has {blocks} blocks",
                    self.max_table_entries
                ),
            ));
        }
        Ok(blocks * 4)
    }
}

impl Locator {
    /// Parses an entry of the dynamic header; `None` where it is not in use.
    fn parse(bytes: &[u8; 24]) -> Option<Self> {
        let platform_code = *bytes.first_chunk()?;
        let len = be32(bytes, 8)?;
        // Bytes by the specification, sectors as Virtual PC and others write it.
        let space = u64::from(be32(bytes, 4)?);
        let space = if space < u64::from(len) {
            space * SECTOR
        } else {
            space
        };
        (platform_code != [0; 4]).then_some(Self {
            platform_code,
            offset: be64(bytes, 16)?,
            len,
            space: space.max(len.into()),
        })
    }

    /// The name that `bytes` spell; `None` for platforms whose names are no paths.
    pub(super) fn name(&self, bytes: &[u8]) -> Option<String> {
        match &self.platform_code {
            b"W2ru" | b"W2ku" => {
                let (pairs, _) = bytes.as_chunks::<2>();
                // Little-endian in practice. The specification does not say, and names begin
                // with ASCII.
                let is_big = pairs.first().is_some_and(|pair| pair[0] == 0);
                let units = pairs.iter().map(|pair| match is_big {
                    true => u16::from_be_bytes(*pair),
                    false => u16::from_le_bytes(*pair),
                });
                let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
                Some(String::from_utf16_lossy(&units))
            }
            b"Wi2r" | b"Wi2k" | b"MacX" => {
                let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
                Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
            }
            _ => None,
        }
    }
}

/// A refusal that names the parent.
pub(super) fn parent_message(header: &DynamicHeader) -> String {
    format!(
        "is a differencing disk over {:?}: another file holds part of its content; merge it into one disk first",
        header.parent_unicode_name
    )
}
