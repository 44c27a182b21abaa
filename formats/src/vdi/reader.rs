use std::sync::Arc;

use super::layout::{HEADER_LEN, Header};
use crate::blocks::{Block, BlockDisk, BlockTable, Shape};
use crate::bytes::le32;
use crate::source::read_up_to;
use crate::{Disk, Error, Format, HostOffset, OpenOptions, Result, Source};

/// A block that was never written.
const FREE: u32 = 0xffff_ffff;
/// A block that was discarded.
const ZERO: u32 = 0xffff_fffe;

/// Opens the virtual disk in `source`.
///
/// # Errors
/// `Malformed` when header or block map are damaged, `Refused` for images with a parent,
/// `Limit` when the disk is larger than allowed.
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let header = Header::parse(&read_up_to(source.as_ref(), HostOffset::ZERO, HEADER_LEN)?)?;
    if let Some(message) = header.parent() {
        return Err(Error::refused(Format::Vdi, "header", message));
    }
    let virtual_size = options.limits.virtual_size(Format::Vdi, header.disk_size)?;
    let shape = Shape {
        virtual_size,
        block_size: u64::from(header.block_size),
        table_at: HostOffset(u64::from(header.offset_blocks)),
        cache: options.limits.cache,
        is_plain: true,
    };
    Ok(Arc::new(BlockDisk::new(source, Map::new(&header), shape)?))
}

/// The block map.
pub(super) struct Map {
    first: u64,
    stride: u64,
    slots: u32,
}

impl Map {
    pub(super) fn new(header: &Header) -> Self {
        Self {
            first: u64::from(header.offset_data) + u64::from(header.block_extra),
            stride: u64::from(header.block_size) + u64::from(header.block_extra),
            slots: header.blocks_in_image,
        }
    }
}

impl BlockTable for Map {
    const FORMAT: Format = Format::Vdi;
    const NAME: &'static str = "block map";
    const ENTRY: u64 = 4;

    fn decode(&self, block: u64, entry: &[u8]) -> Result<Block> {
        match le32(entry, 0) {
            None | Some(FREE) => Ok(Block::Unallocated),
            Some(ZERO) => Ok(Block::Zero),
            Some(slot) if slot < self.slots => Ok(Block::At(HostOffset(
                self.first + u64::from(slot) * self.stride,
            ))),
            Some(slot) => Err(Error::malformed(
                Self::FORMAT,
                Self::NAME,
                format!(
                    "block {block} is in slot {slot}, but the image has {} slots",
                    self.slots
                ),
            )),
        }
    }
}
