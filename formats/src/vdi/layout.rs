//! The header: bytes to bounded values. Little-endian.

use crate::bytes::{is_zero, le32, le64};
use crate::{Error, Format, Result};

/// Bytes of the header, as far as it is looked at.
pub(super) const HEADER_LEN: usize = 512;
/// Byte of the signature.
const SIGNATURE_AT: usize = 0x40;
pub(super) const SIGNATURE: u32 = 0xbeda_107f;
/// Bytes of the largest block accepted.
const MAX_BLOCK: u32 = 256 << 20;
const SECTOR: u64 = 512;

/// What kind of image a header begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ImageType {
    /// Blocks are stored as they are written.
    Dynamic,
    /// Every block has its slot from the start.
    Static,
    /// What a rollback needs.
    Undo,
    /// Blocks over those of a parent.
    Differencing,
}

impl ImageType {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Dynamic => "dynamic",
            Self::Static => "static",
            Self::Undo => "undo",
            Self::Differencing => "differencing",
        }
    }
}

/// A header whose every field is within bounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) image_type: ImageType,
    /// Byte of the block map.
    pub(super) offset_blocks: u32,
    /// Byte of the first slot.
    pub(super) offset_data: u32,
    /// Bytes the guest sees.
    pub(super) disk_size: u64,
    /// Bytes of a block.
    pub(super) block_size: u32,
    /// Bytes before each block in its slot.
    pub(super) block_extra: u32,
    /// What the image's maker says of it.
    pub(super) comment: String,
    pub(super) blocks_in_image: u32,
    pub(super) blocks_allocated: u32,
    pub(super) uuid_image: [u8; 16],
    /// The state the image is in: a new one with each modification.
    pub(super) uuid_modified: [u8; 16],
    /// The image this one lies over.
    pub(super) uuid_link: [u8; 16],
    /// The state that image must be in: its last modification.
    pub(super) uuid_parent: [u8; 16],
}

/// Whether `bytes`, the beginning of a file, carry the signature.
pub(super) fn has_signature(bytes: &[u8]) -> bool {
    le32(bytes, SIGNATURE_AT) == Some(SIGNATURE)
}

fn malformed(message: String) -> Error {
    Error::malformed(Format::Vdi, "header", message)
}

impl Header {
    /// Parses the first 512 bytes of a file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        Self::fields(bytes)
            .ok_or_else(|| malformed(format!("has {} bytes of 456", bytes.len())))?
            .and_then(Self::bounded)
    }

    fn fields(bytes: &[u8]) -> Option<Result<Self>> {
        if !has_signature(bytes) {
            return Some(Err(malformed("signature at byte 64 is missing".to_owned())));
        }
        let version = le32(bytes, 0x44)?;
        if version >> 16 != 1 {
            return Some(Err(Error::unsupported(
                Format::Vdi,
                "header",
                format!("version is {version:#010x} at byte 68, known is 0x00010001"),
            )));
        }
        let image_type = match le32(bytes, 0x4c)? {
            1 => ImageType::Dynamic,
            2 => ImageType::Static,
            3 => ImageType::Undo,
            4 => ImageType::Differencing,
            other => {
                return Some(Err(malformed(format!(
                    "image type is {other} at byte 76, allowed 1 to 4"
                ))));
            }
        };
        let sector_size = le32(bytes, 0x168)?;
        if u64::from(sector_size) != SECTOR {
            return Some(Err(malformed(format!(
                "sector size is {sector_size} at byte 360, allowed 512"
            ))));
        }
        Some(Ok(Self {
            image_type,
            offset_blocks: le32(bytes, 0x154)?,
            offset_data: le32(bytes, 0x158)?,
            disk_size: le64(bytes, 0x170)?,
            block_size: le32(bytes, 0x178)?,
            block_extra: le32(bytes, 0x17c)?,
            comment: text(bytes.get(0x54..0x154)?),
            blocks_in_image: le32(bytes, 0x180)?,
            blocks_allocated: le32(bytes, 0x184)?,
            uuid_image: *bytes.get(0x188..)?.first_chunk()?,
            uuid_modified: *bytes.get(0x198..)?.first_chunk()?,
            uuid_link: *bytes.get(0x1a8..)?.first_chunk()?,
            uuid_parent: *bytes.get(0x1b8..)?.first_chunk()?,
        }))
    }

    fn bounded(mut self) -> Result<Self> {
        if !self.block_size.is_power_of_two() || !(512..=MAX_BLOCK).contains(&self.block_size) {
            return Err(malformed(format!(
                "block size is {} at byte 376, allowed are powers of two from 512 to {MAX_BLOCK}",
                self.block_size
            )));
        }
        if self.block_extra > self.block_size {
            return Err(malformed(format!(
                "block extra data is {} at byte 380, allowed up to the block size of {}",
                self.block_extra, self.block_size
            )));
        }
        // Made from raw files of odd length by VirtualBox itself; the block holds the rest of
        // the sector, and qemu rounds up too.
        self.disk_size = self
            .disk_size
            .checked_next_multiple_of(SECTOR)
            .ok_or_else(|| malformed(format!("disk size is {} at byte 368", self.disk_size)))?;
        let blocks = self.disk_size.div_ceil(u64::from(self.block_size));
        if blocks > u64::from(self.blocks_in_image) {
            return Err(malformed(format!(
                "blocks in image is {} at byte 384, but the disk has {blocks}",
                self.blocks_in_image
            )));
        }
        if (self.offset_blocks as usize) < HEADER_LEN {
            return Err(malformed(format!(
                "offset of the block map is {} at byte 340, inside the header of 512 bytes",
                self.offset_blocks
            )));
        }
        if !u64::from(self.offset_blocks).is_multiple_of(SECTOR) {
            return Err(malformed(format!(
                "offset of the block map is {} at byte 340, allowed are multiples of 512",
                self.offset_blocks
            )));
        }
        if u64::from(self.offset_data) < self.map_end() {
            return Err(malformed(format!(
                "offset of data is {:#x} at byte 344, before the block map ends at {:#x}",
                self.offset_data,
                self.map_end()
            )));
        }
        Ok(self)
    }

    /// Bytes of the block map.
    pub(super) fn map_len(&self) -> u64 {
        u64::from(self.blocks_in_image) * 4
    }

    /// The byte after the block map.
    pub(super) fn map_end(&self) -> u64 {
        u64::from(self.offset_blocks) + self.map_len()
    }

    /// The parent's UUID: the link, or what else names it.
    pub(super) fn uuid_of_parent(&self) -> &[u8; 16] {
        if is_zero(&self.uuid_link) {
            &self.uuid_parent
        } else {
            &self.uuid_link
        }
    }

    /// Whether blocks that are not stored are those of another image. A parent's UUID says so
    /// whatever the image's type.
    pub(super) fn has_parent(&self) -> bool {
        match self.image_type {
            ImageType::Undo | ImageType::Differencing => true,
            ImageType::Dynamic | ImageType::Static => !is_zero(self.uuid_of_parent()),
        }
    }

    /// Checks that `parent` is the image this one was made over, and not modified since.
    ///
    /// # Errors
    /// `Malformed` when it is not.
    pub(super) fn check_parent(&self, parent: &Self) -> Result<()> {
        let wrong = |what, found: &[u8; 16], wanted: &[u8; 16]| {
            let (found, wanted) = (uuid(found), uuid(wanted));
            Err(Error::malformed(
                Format::Vdi,
                "parent",
                format!(
                    "has the {what} UUID {found}, but the image over it was made over {wanted}"
                ),
            ))
        };
        if parent.uuid_image != *self.uuid_of_parent() {
            return wrong("image", &parent.uuid_image, self.uuid_of_parent());
        }
        let is_known = !is_zero(&self.uuid_link) && !is_zero(&self.uuid_parent);
        if is_known && !is_zero(&parent.uuid_modified) && parent.uuid_modified != self.uuid_parent {
            return wrong("modification", &parent.uuid_modified, &self.uuid_parent);
        }
        Ok(())
    }

    /// Why the image cannot be used alone.
    pub(super) fn parent(&self) -> Option<String> {
        self.has_parent().then(|| {
            format!(
                "is a {} image over {}: another file holds part of its content; merge it into one image first",
                self.image_type.name(),
                uuid(self.uuid_of_parent())
            )
        })
    }
}

/// Text of a fixed field, for people.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end])
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

/// A UUID as VirtualBox shows it: its first three fields are little-endian.
pub(super) fn uuid(b: &[u8; 16]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    format!(
        "{:08x}-{:04x}-{:04x}-{}-{}",
        u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        u16::from_le_bytes([b[4], b[5]]),
        u16::from_le_bytes([b[6], b[7]]),
        hex(&b[8..10]),
        hex(&b[10..])
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A header of a dynamic image of `blocks` blocks of 1 MiB.
    pub(crate) fn header(blocks: u32) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        let mut put = |at: usize, value: u32| {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        put(0x40, SIGNATURE);
        put(0x44, 0x0001_0001);
        put(0x4c, 1);
        put(0x154, 512);
        put(0x158, (512 + blocks * 4).next_multiple_of(512));
        put(0x168, 512);
        put(0x178, 1 << 20);
        put(0x180, blocks);
        bytes[0x170..0x178].copy_from_slice(&(u64::from(blocks) << 20).to_le_bytes());
        bytes
    }

    fn with(at: usize, value: u32) -> Result<Header> {
        let mut bytes = header(4);
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        Header::parse(&bytes)
    }

    #[test]
    fn bounds_every_field() {
        assert!(with(0x40, SIGNATURE).is_ok());
        for (at, value) in [
            (0x40, 0),
            (0x44, 1),
            (0x4c, 0),
            (0x4c, 5),
            (0x154, 0),
            (0x154, u32::MAX),
            (0x154, 0x240),
            (0x158, 512),
            (0x168, 4096),
            (0x174, u32::MAX),
            (0x178, 0),
            (0x178, 3 << 20),
            (0x178, 1 << 30),
            (0x17c, u32::MAX),
            (0x180, 3),
            (0x180, u32::MAX),
        ] {
            let e = with(at, value).expect_err("a bad field");
            assert_eq!(e.format(), Some(Format::Vdi), "{at:#x} {value:#x}");
        }
        assert!(Header::parse(&header(4)[..400]).is_err());
    }

    #[test]
    fn asks_for_no_parent_and_names_it() {
        assert_eq!(with(0x4c, 2).unwrap().parent(), None);
        assert!(with(0x4c, 4).unwrap().parent().is_some());
        for at in [0x1a8, 0x1b8] {
            let message = with(at, 0x1234_5678).unwrap().parent().unwrap();
            assert!(
                message.contains("12345678-0000-0000-0000-000000000000"),
                "{at:#x}"
            );
        }
    }

    #[test]
    fn an_odd_size_is_rounded_to_sectors() {
        assert_eq!(with(0x170, 1000).unwrap().disk_size, 1024);
    }
}
