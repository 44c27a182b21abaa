use std::sync::Arc;

use super::layout::{
    DiskType, DynamicHeader, FOOTER_LEN, Footers, HEADER_LEN, SECTOR, parent_message,
};
use crate::blocks::{Block, BlockDisk, BlockTable, Shape};
use crate::bytes::be32;
use crate::source::read_up_to;
use crate::{Disk, Error, Format, HostOffset, OpenOptions, Result, Slice, Source, raw};

/// An entry of the table that places no block.
const UNUSED: u32 = u32::MAX;

/// Opens the virtual disk in `source`.
///
/// # Errors
/// `Malformed` when footer, header or table are damaged, `Refused` for differencing disks,
/// `Limit` when the disk is larger than allowed.
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, FOOTER_LEN)?;
    let tail_at = HostOffset(source.len().saturating_sub(FOOTER_LEN as u64));
    let tail = read_up_to(source.as_ref(), tail_at, FOOTER_LEN)?;
    let Footers { footer, at_end, .. } = Footers::find(&head, &tail)?.ok_or_else(|| {
        Error::malformed(Format::Vhd, "footer", "is neither at byte 0 nor at the end")
    })?;
    let virtual_size = options
        .limits
        .virtual_size(Format::Vhd, footer.virtual_size()?)?;
    if footer.disk_type == DiskType::Fixed {
        let held = source.len() - at_end;
        if held < virtual_size {
            return Err(cut_short(virtual_size, held));
        }
        let guest = Slice::new(source, HostOffset::ZERO, virtual_size)?;
        return Ok(Arc::new(raw::Reader::new(Arc::new(guest))?));
    }
    let header_at = HostOffset(footer.data_offset);
    let header = if header_at.0 < source.len() {
        read_up_to(source.as_ref(), header_at, HEADER_LEN)?
    } else {
        Vec::new()
    };
    let header = DynamicHeader::parse(&header)?;
    if footer.disk_type == DiskType::Differencing {
        return Err(Error::refused(
            Format::Vhd,
            "dynamic header",
            parent_message(&header),
        ));
    }
    header.table_len(virtual_size)?;
    let table = Table {
        bitmap_size: header.bitmap_size(),
    };
    let shape = Shape {
        virtual_size,
        block_size: u64::from(header.block_size),
        table_at: HostOffset(header.table_offset),
        cache: options.limits.cache,
        is_plain: true,
    };
    Ok(Arc::new(BlockDisk::new(source, table, shape)?))
}

/// A fixed disk that promises more than the file holds.
pub(super) fn cut_short(virtual_size: u64, held: u64) -> Error {
    Error::malformed(
        Format::Vhd,
        "footer",
        format!("the disk has {virtual_size} bytes, but only {held} stand before the footer"),
    )
}

/// The block allocation table.
pub(super) struct Table {
    pub(super) bitmap_size: u64,
}

impl BlockTable for Table {
    const FORMAT: Format = Format::Vhd;
    const NAME: &'static str = "block allocation table";
    const ENTRY: u64 = 4;

    fn decode(&self, block: u64, entry: &[u8]) -> Result<Block> {
        match be32(entry, 0) {
            None | Some(UNUSED) => Ok(Block::Unallocated),
            Some(0) => Err(Error::malformed(
                Self::FORMAT,
                Self::NAME,
                format!("block {block} is at sector 0, where the footer copy stands"),
            )),
            Some(sector) => Ok(Block::At(HostOffset(
                u64::from(sector) * SECTOR + self.bitmap_size,
            ))),
        }
    }
}
