use std::sync::Arc;

use super::layout::{HEADER_LEN, Header, uuid};
use crate::blocks::{Block, BlockDisk, BlockTable, Shape, parent};
use crate::bytes::le32;
use crate::chain::{self, Overlay};
use crate::source::read_up_to;
use crate::{Disk, Error, Format, HostOffset, OpenOptions, Result, Source};

/// A block that was never written.
const FREE: u32 = 0xffff_ffff;
/// A block that was discarded.
const ZERO: u32 = 0xffff_fffe;

/// Opens the virtual disk in `source`. Where it has a parent, that is asked for by its UUID, for
/// an image names no file: bare, and as the file name VirtualBox gives to a snapshot
/// (`{uuid}.vdi`). It must have that UUID, and not be modified since the image was made.
///
/// # Errors
/// `Malformed` when header or block map are damaged or the parent is another one, `Refused` for
/// images whose parent is not granted, `Limit` when the disk is larger than allowed.
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let header = read_header(source.as_ref())?;
    open_under(&header, source, options)
}

pub(super) fn read_header(source: &dyn Source) -> Result<Header> {
    Header::parse(&read_up_to(source, HostOffset::ZERO, HEADER_LEN)?)
}

fn open_under(
    header: &Header,
    source: Arc<dyn Source>,
    options: &OpenOptions,
) -> Result<Arc<dyn Disk>> {
    let limits = &options.limits;
    limits.virtual_size(Format::Vdi, header.disk_size)?;
    let shape = shape(header, limits.cache);
    let blocks = Arc::new(BlockDisk::new(source, Map::new(header), shape)?);
    if !header.has_parent() {
        return Ok(blocks);
    }
    let (parent, granted, options) = parent(header, options)?;
    let parent = open_under(&parent, granted, &options)?;
    Ok(Arc::new(Overlay::new(blocks, parent)))
}

pub(super) fn shape(header: &Header, cache: u64) -> Shape {
    Shape {
        virtual_size: header.disk_size,
        block_size: u64::from(header.block_size),
        table_at: HostOffset(u64::from(header.offset_blocks)),
        cache,
        is_plain: true,
    }
}

/// The parent of an image, which is the one meant, and how to open it.
///
/// # Errors
/// `Refused` when it is not granted, `Malformed` when it is another image.
pub(super) fn parent(
    header: &Header,
    options: &OpenOptions,
) -> Result<(Header, Arc<dyn Source>, OpenOptions)> {
    let bare = uuid(header.uuid_of_parent());
    let braced = format!("{{{bare}}}.vdi");
    let granted = parent::request(Format::Vdi, [bare.as_str(), &braced], options)?;
    let options = chain::beneath(Format::Vdi, Format::Vdi, &granted, options)?;
    let parent = read_header(granted.source.as_ref())?;
    header.check_parent(&parent)?;
    Ok((parent, granted.source, options))
}

/// The block map.
pub(super) struct Map {
    /// Byte of the block in the first slot.
    pub(super) first: u64,
    /// Bytes from one slot to the next.
    pub(super) stride: u64,
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
