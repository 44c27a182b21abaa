use std::sync::Arc;

use super::header::{DynamicHeader, HEADER_LEN};
use super::layout::{DiskType, FOOTER_LEN, Footers, SECTOR, uuid};
use crate::blocks::{Block, BlockDisk, BlockTable, Entries, SectorBitmap, Shape, parent};
use crate::bytes::be32;
use crate::chain::{self, Overlay};
use crate::source::read_up_to;
use crate::{Disk, Error, Format, HostOffset, OpenOptions, Result, Slice, Source, raw};

/// An entry of the table that places no block.
const UNUSED: u32 = u32::MAX;

/// Bytes of the longest name of a parent looked at.
const MAX_NAME: u32 = 64 << 10;

/// Opens the virtual disk in `source`. Where it is a differencing one, its parent is asked for
/// by the names in the parent locators, relative ones first, and must have the unique id that
/// the disk remembers. Times are not compared: they change with every copy.
///
/// # Errors
/// `Malformed` when footer, header or table are damaged or the parent is another one, `Refused`
/// for differencing disks whose parent is not granted, `Limit` when the disk is larger than
/// allowed.
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let parts = Parts::read(source.as_ref())?;
    parts.open(source, options)
}

/// What stands around the blocks of a disk.
pub(super) struct Parts {
    pub(super) footers: Footers,
    /// Bytes the guest sees.
    pub(super) virtual_size: u64,
    /// `None` for fixed disks.
    pub(super) header: Option<DynamicHeader>,
}

impl Parts {
    /// Reads footer and dynamic header.
    pub(super) fn read(source: &dyn Source) -> Result<Self> {
        let head = read_up_to(source, HostOffset::ZERO, FOOTER_LEN)?;
        let tail_at = HostOffset(source.len().saturating_sub(FOOTER_LEN as u64));
        let tail = read_up_to(source, tail_at, FOOTER_LEN)?;
        let footers = Footers::find(&head, &tail)?.ok_or_else(|| {
            Error::malformed(Format::Vhd, "footer", "is neither at byte 0 nor at the end")
        })?;
        let virtual_size = footers.footer.virtual_size()?;
        let header = match footers.footer.disk_type {
            DiskType::Fixed => {
                let held = source.len() - footers.at_end;
                if held < virtual_size {
                    return Err(cut_short(virtual_size, held));
                }
                None
            }
            DiskType::Dynamic | DiskType::Differencing => {
                let at = HostOffset(footers.footer.data_offset);
                let bytes = if at.0 < source.len() {
                    read_up_to(source, at, HEADER_LEN)?
                } else {
                    Vec::new()
                };
                let header = DynamicHeader::parse(&bytes)?;
                header.table_len(virtual_size)?;
                Some(header)
            }
        };
        Ok(Self {
            footers,
            virtual_size,
            header,
        })
    }

    /// The disk in `source`, which these are the parts of.
    fn open(self, source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
        let limits = &options.limits;
        limits.virtual_size(Format::Vhd, self.virtual_size)?;
        let Some(header) = &self.header else {
            let guest = Slice::new(source, HostOffset::ZERO, self.virtual_size)?;
            return Ok(Arc::new(raw::Reader::new(Arc::new(guest))?));
        };
        let (table, shape) = (self.table(header), self.shape(header, limits.cache));
        let is_differencing = table.is_differencing;
        let blocks = Arc::new(BlockDisk::new(source.clone(), table, shape)?);
        if !is_differencing {
            return Ok(blocks);
        }
        let (parent, options, parts) = self.parent(source.as_ref(), header, options)?;
        let parent = parts.open(parent, &options)?;
        Ok(Arc::new(Overlay::new(blocks, parent)))
    }

    pub(super) fn table(&self, header: &DynamicHeader) -> Table {
        Table {
            bitmap_size: header.bitmap_size(),
            is_differencing: self.footers.footer.disk_type == DiskType::Differencing,
        }
    }

    pub(super) fn shape(&self, header: &DynamicHeader, cache: u64) -> Shape {
        Shape {
            virtual_size: self.virtual_size,
            block_size: u64::from(header.block_size),
            table_at: HostOffset(header.table_offset),
            cache,
            is_plain: true,
        }
    }

    /// The parent of a differencing disk, which is the one meant, and how to open it.
    ///
    /// # Errors
    /// `Refused` when it is not granted, `Malformed` when it is another disk.
    pub(super) fn parent(
        &self,
        source: &dyn Source,
        header: &DynamicHeader,
        options: &OpenOptions,
    ) -> Result<(Arc<dyn Source>, OpenOptions, Self)> {
        let names = parent_names(source, header)?;
        let granted = parent::request(Format::Vhd, names.iter().map(String::as_str), options)?;
        let options = chain::beneath(Format::Vhd, Format::Vhd, &granted, options)?;
        let parts = Self::read(granted.source.as_ref())?;
        let (found, wanted) = (parts.footers.footer.unique_id, header.parent_unique_id);
        if found != wanted {
            return Err(Error::malformed(
                Format::Vhd,
                "parent",
                format!(
                    "has the unique id {}, but the disk over it was made over {}",
                    uuid(&found),
                    uuid(&wanted)
                ),
            ));
        }
        Ok((granted.source, options, parts))
    }
}

/// What a differencing disk calls its parent, relative names first.
fn parent_names(source: &dyn Source, header: &DynamicHeader) -> Result<Vec<String>> {
    let named = |code: &[u8; 4]| -> Result<Option<String>> {
        let mut locators = header.parent_locators.iter();
        let Some(locator) = locators.find(|l| l.platform_code == *code) else {
            return Ok(None);
        };
        let end = locator.offset.checked_add(locator.len.into());
        if locator.len > MAX_NAME || end.is_none_or(|end| end > source.len()) {
            return Ok(None);
        }
        let bytes = read_up_to(source, HostOffset(locator.offset), locator.len as usize)?;
        Ok(locator.name(&bytes))
    };
    let mut names = Vec::new();
    for code in [b"W2ru", b"Wi2r", b"W2ku", b"Wi2k"] {
        names.extend(named(code)?);
    }
    names.push(header.parent_unicode_name.clone());
    names.extend(named(b"MacX")?);
    Ok(names)
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
    /// Whether the bitmaps count: without a parent a sector never written is zero either way.
    pub(super) is_differencing: bool,
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
            Some(sector) => {
                let host = HostOffset(u64::from(sector) * SECTOR + self.bitmap_size);
                Ok(if self.is_differencing {
                    Block::Partial(host)
                } else {
                    Block::At(host)
                })
            }
        }
    }

    fn bitmap(&self, _: u64, host: HostOffset, _: &Entries<'_>) -> Result<SectorBitmap> {
        Ok(SectorBitmap {
            at: HostOffset(host.0 - self.bitmap_size),
            sector: SECTOR,
            is_high_first: true,
        })
    }
}
