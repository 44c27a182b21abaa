//! Disks made of equal blocks that one table in the file places: vhd, vhdx, vdi.
//!
//! ```text
//!  guest   |  block 0  |  block 1  |  block 2  | …
//!               │           │           │
//!  table   [ entry 0 ] [ entry 1 ] [ entry 2 ] …      read in pages, a bounded number is kept
//!               │                       │
//!  file    … [ block ] … [ block ] … (holes of the file inside a block are zeros)
//! ```
//! The formats differ in how an entry is spelled ([`BlockTable`]); finding runs, bounds and
//! reading are the same and live here. The table is never held whole: that of an empty 64 TiB
//! VHDX has 512 MiB, and costs one page. Where a block is stored in part, over that of a parent,
//! a bitmap says which of its sectors are ([`bitmap`]); the parent itself is found by name and
//! laid beneath ([`parent`]).

mod bitmap;
pub(crate) mod check;
mod holes;
mod look;
mod pages;
pub(crate) mod parent;
pub(crate) mod writer;

use std::ops::Range;
use std::sync::Arc;

pub(crate) use bitmap::SectorBitmap;
use holes::Remembering;
pub(crate) use look::{check_blocks, find_overlap};
use pages::{PAGE, Page, Pages};

use crate::disk::check_range;
use crate::extent::{has_room, push_stored};
use crate::{
    Disk, Error, Extent, ExtentKind, Format, GuestOffset, HostOffset, Result, Source, guest_len,
    push_extent,
};

/// What a table says of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Block {
    /// Its bytes start here.
    At(HostOffset),
    /// The place of its bytes starts here; its sector bitmap says which of them are stored.
    Partial(HostOffset),
    /// It is zero.
    Zero,
    /// It is not stored.
    Unallocated,
}

impl Block {
    /// The kind of a hole; `None` for stored blocks.
    const fn hole(self) -> Option<ExtentKind> {
        match self {
            Self::At(_) | Self::Partial(_) => None,
            Self::Zero => Some(ExtentKind::Zero),
            Self::Unallocated => Some(ExtentKind::Unallocated),
        }
    }
}

/// How a format spells its table.
pub(crate) trait BlockTable: Send + Sync {
    /// Whose table it is.
    const FORMAT: Format;
    /// What the format calls its table.
    const NAME: &'static str;
    /// Bytes of an entry: a power of two.
    const ENTRY: u64;

    /// Entries that a disk of `blocks` blocks needs.
    fn slots(&self, blocks: u64) -> u64 {
        blocks.checked_sub(1).map_or(0, |last| self.slot(last) + 1)
    }

    /// Index of the entry of `block`.
    fn slot(&self, block: u64) -> u64 {
        block
    }

    /// The first block whose entry has this index or a larger one.
    fn block_from(&self, slot: u64) -> u64 {
        slot
    }

    /// The meaning of an entry, which has [`ENTRY`](Self::ENTRY) bytes.
    fn decode(&self, block: u64, entry: &[u8]) -> Result<Block>;

    /// The bitmap of `block`, which is stored in part from `host`. `entry` reads others of the
    /// table. Formats that store blocks as a whole have none.
    fn bitmap(&self, block: u64, _: HostOffset, _: &Entries<'_>) -> Result<SectorBitmap> {
        let message = format!("block {block} is stored in part");
        Err(Error::malformed(Self::FORMAT, Self::NAME, message))
    }
}

/// Reads an entry of a table by its index.
pub(crate) type Entries<'a> = dyn Fn(u64) -> Result<[u8; 8]> + 'a;

/// Where the parts of a [`BlockDisk`] are, all in bytes.
pub(crate) struct Shape {
    /// Bytes the guest sees.
    pub(crate) virtual_size: u64,
    /// Bytes of a block; not zero.
    pub(crate) block_size: u64,
    /// Start of the table in the source.
    pub(crate) table_at: HostOffset,
    /// Memory for pages of the table.
    pub(crate) cache: u64,
    /// Whether offsets in the source are offsets in the image's file.
    pub(crate) is_plain: bool,
}

/// A disk whose blocks are found through a table.
pub(crate) struct BlockDisk<T> {
    source: Remembering,
    table: T,
    pages: Pages,
    shape: Shape,
}

impl<T: BlockTable> BlockDisk<T> {
    /// A disk over `source`.
    ///
    /// # Errors
    /// `Malformed` when the table does not lie in the source.
    pub(crate) fn new(source: Arc<dyn Source>, table: T, shape: Shape) -> Result<Self> {
        let blocks = shape.virtual_size.div_ceil(shape.block_size);
        let len = table.slots(blocks).saturating_mul(T::ENTRY);
        let end = shape.table_at.checked_add(len);
        if end.is_none_or(|end| end.0 > source.len()) {
            return Err(Error::malformed(
                T::FORMAT,
                T::NAME,
                format!(
                    "takes {len} bytes from {}, but the file ends at {:#x}",
                    shape.table_at,
                    source.len()
                ),
            ));
        }
        let pages = Pages::new(source.clone(), shape.table_at, len, shape.cache);
        Ok(Self {
            source: Remembering::new(source),
            table,
            pages,
            shape,
        })
    }

    /// Bytes of `block` that the guest sees: the last block may be cut short.
    fn visible(&self, block: u64) -> u64 {
        let start = block.saturating_mul(self.shape.block_size);
        let rest = self.shape.virtual_size.saturating_sub(start);
        rest.min(self.shape.block_size)
    }

    /// What `block` is, with its bytes inside the file.
    fn decode(&self, block: u64, page: &Page) -> Result<Block> {
        let decoded = self
            .table
            .decode(block, &page.entry(self.table.slot(block), T::ENTRY))?;
        if let Block::At(host) | Block::Partial(host) = decoded {
            inside::<T>(block, host, self.visible(block), self.source.len())?;
        }
        Ok(decoded)
    }

    /// The bitmap of `block`, which is stored in part from `host`.
    fn bitmap(&self, block: u64, host: HostOffset) -> Result<SectorBitmap> {
        let bitmap = self.table.bitmap(block, host, &|slot| {
            let page = self.pages.page(slot * T::ENTRY / PAGE)?;
            Ok(page.entry(slot, T::ENTRY))
        })?;
        let len = self.visible(block).div_ceil(bitmap.sector).div_ceil(8);
        let end = bitmap.at.checked_add(len);
        if end.is_none_or(|end| end.0 > self.source.len()) {
            let (at, end) = (bitmap.at, self.source.len());
            return Err(Error::malformed(
                T::FORMAT,
                "sector bitmap",
                format!("of block {block} is at {at}, but the file ends at {end:#x}"),
            ));
        }
        Ok(bitmap)
    }

    fn page_of(&self, block: u64) -> Result<Arc<Page>> {
        self.pages.page(self.table.slot(block) * T::ENTRY / PAGE)
    }

    /// What `block` is, and the end of the run of blocks that continue it, at most `end`. A
    /// run may be cut short at the border of a page.
    fn run(&self, block: u64, end: u64) -> Result<(Block, u64)> {
        let page = self.page_of(block)?;
        let first = self.decode(block, &page)?;
        let page_end = self.table.block_from(page.end / T::ENTRY).min(end);
        if first.hole().is_some() && page.fill.is_some() {
            return Ok((first, page_end.max(block + 1)));
        }
        let mut next = block + 1;
        let mut expected = first;
        while next < page_end {
            expected = match expected {
                Block::Partial(_) => break,
                Block::At(host) => match host.checked_add(self.shape.block_size) {
                    Some(host) => Block::At(host),
                    None => break,
                },
                hole => hole,
            };
            // An entry that makes no sense ends the run here, and fails when it is met first.
            if self.decode(next, &page).ok() != Some(expected) {
                break;
            }
            next += 1;
        }
        Ok((first, next))
    }
}

impl<T: BlockTable> BlockDisk<T> {
    /// Appends what `range`, inside a block that is stored in part from `host`, is made of.
    /// Answers how far it came before the call, which began with `base` extents, was full.
    fn push_partial(
        &self,
        block: u64,
        host: HostOffset,
        range: Range<GuestOffset>,
        base: usize,
        out: &mut Vec<Extent>,
    ) -> Result<GuestOffset> {
        let start = block * self.shape.block_size;
        let within = range.start.0 - start..range.end.0 - start;
        let mut at = range.start;
        let bitmap = self.bitmap(block, host)?;
        for run in bitmap.runs(&self.source, within)? {
            let end = GuestOffset(start + run.end);
            if !has_room(out, base) {
                break;
            }
            if run.is_stored {
                let host = HostOffset(host.0 + (at.0 - start));
                let is_own = self.shape.is_plain;
                let came = push_stored(&self.source, at..end, host, is_own, base, out)?;
                if came < end {
                    return Ok(came);
                }
            } else {
                let (range, kind) = (at..end, ExtentKind::Unallocated);
                push_extent(out, Extent { range, kind });
            }
            at = end;
        }
        Ok(at)
    }

    /// Fills `buf` from byte `within` of a block that is stored in part from `host`.
    fn read_partial(
        &self,
        buf: &mut [u8],
        block: u64,
        host: HostOffset,
        within: u64,
    ) -> Result<()> {
        let bitmap = self.bitmap(block, host)?;
        let (mut rest, mut at) = (buf, within);
        let range = within..within + rest.len() as u64;
        for run in bitmap.runs(&self.source, range)? {
            let (part, tail) = rest.split_at_mut((run.end - at) as usize);
            if run.is_stored {
                self.source.read_exact_at(part, HostOffset(host.0 + at))?;
            } else {
                part.fill(0);
            }
            (rest, at) = (tail, run.end);
        }
        Ok(())
    }
}

impl<T: BlockTable> Disk for BlockDisk<T> {
    fn virtual_size(&self) -> u64 {
        self.shape.virtual_size
    }

    fn unit(&self) -> u64 {
        self.shape.block_size
    }

    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        check_range(range.start, guest_len(&range), self.shape.virtual_size)?;
        let size = self.shape.block_size;
        let base = out.len();
        let last = range.end.0.div_ceil(size);
        let mut at = range.start;
        while at < range.end && has_room(out, base) {
            let block = at.0 / size;
            let (first, next) = self.run(block, last)?;
            let end = GuestOffset(next.saturating_mul(size)).min(range.end);
            at = match first {
                Block::At(host) => {
                    let host = HostOffset(host.0 + at.0 % size);
                    let is_own = self.shape.is_plain;
                    push_stored(&self.source, at..end, host, is_own, base, out)?
                }
                Block::Partial(host) => self.push_partial(block, host, at..end, base, out)?,
                Block::Zero | Block::Unallocated => {
                    let kind = first.hole().unwrap_or(ExtentKind::Zero);
                    push_extent(
                        out,
                        Extent {
                            range: at..end,
                            kind,
                        },
                    );
                    end
                }
            };
        }
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        check_range(at, buf.len() as u64, self.shape.virtual_size)?;
        let size = self.shape.block_size;
        let last = (at.0 + buf.len() as u64).div_ceil(size);
        let mut rest = buf;
        let mut at = at.0;
        while !rest.is_empty() {
            let (block, within) = (at / size, at % size);
            // Blocks that follow each other in the file are one read.
            let (first, next) = self.run(block, last)?;
            let len = usize::try_from(next.saturating_mul(size) - at)
                .unwrap_or(usize::MAX)
                .min(rest.len());
            let (part, tail) = rest.split_at_mut(len);
            match first {
                Block::At(host) => self
                    .source
                    .read_exact_at(part, HostOffset(host.0 + within))?,
                Block::Partial(host) => self.read_partial(part, block, host, within)?,
                Block::Zero | Block::Unallocated => part.fill(0),
            }
            rest = tail;
            at += len as u64;
        }
        Ok(())
    }
}

/// Checks that the `visible` bytes of a block lie in a file of `file_len` bytes.
fn inside<T: BlockTable>(block: u64, host: HostOffset, visible: u64, file_len: u64) -> Result<()> {
    match host.checked_add(visible) {
        Some(end) if end.0 <= file_len => Ok(()),
        _ => Err(Error::malformed(
            T::FORMAT,
            T::NAME,
            format!("block {block} is at {host}, but the file ends at {file_len:#x}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries of one byte: 255 unallocated, 254 zero, else the host block.
    struct Bytes;

    impl BlockTable for Bytes {
        const FORMAT: Format = Format::Raw;
        const NAME: &'static str = "table";
        const ENTRY: u64 = 1;

        fn decode(&self, _: u64, entry: &[u8]) -> Result<Block> {
            Ok(match entry[0] {
                255 => Block::Unallocated,
                254 => Block::Zero,
                n => Block::At(HostOffset(u64::from(n) * 16)),
            })
        }
    }

    fn disk(table: &[u8], blocks: u64, virtual_size: u64) -> Result<BlockDisk<Bytes>> {
        let mut file: Vec<u8> = (0..blocks * 16).map(|at| (at / 16) as u8).collect();
        let table_at = HostOffset(file.len() as u64);
        file.extend_from_slice(table);
        let shape = Shape {
            virtual_size,
            block_size: 16,
            table_at,
            cache: 1,
            is_plain: true,
        };
        BlockDisk::new(Arc::new(file), Bytes, shape)
    }

    #[test]
    fn joins_neighbours_and_cuts_at_the_ends() {
        let disk = disk(&[255, 255, 1, 2, 4, 254], 5, 6 * 16 - 3).unwrap();
        let mut out = Vec::new();
        disk.extents(GuestOffset(5)..GuestOffset(93), &mut out)
            .unwrap();
        let data = |at| ExtentKind::Data {
            host: Some(HostOffset(at)),
        };
        let found: Vec<_> = out
            .iter()
            .map(|e| (e.range.start.0, e.range.end.0, e.kind))
            .collect();
        assert_eq!(
            found,
            [
                (5, 32, ExtentKind::Unallocated),
                (32, 64, data(16)),
                (64, 80, data(64)),
                (80, 93, ExtentKind::Zero),
            ]
        );
        let mut buf = [9; 50];
        disk.read_at(&mut buf, GuestOffset(30)).unwrap();
        assert_eq!(buf[..4], [0, 0, 1, 1]);
        assert_eq!(buf[18..20], [2, 2]);
        assert_eq!(buf[49], 4);
        assert!(disk.read_at(&mut buf, GuestOffset(44)).is_err());
    }

    #[test]
    fn refuses_a_table_or_a_block_past_the_end() {
        assert!(disk(&[255; 5], 1, 96).is_err());
        let disk = disk(&[255, 7], 2, 32).unwrap();
        let mut out = Vec::new();
        disk.extents(GuestOffset(0)..GuestOffset(16), &mut out)
            .unwrap();
        assert!(
            disk.extents(GuestOffset(16)..GuestOffset(32), &mut out)
                .is_err()
        );
        assert!(disk.read_at(&mut [0; 16], GuestOffset(16)).is_err());
    }

    #[test]
    fn walks_many_pages_with_one_kept() {
        let mut table = vec![255; 3 * PAGE as usize];
        table[2 * PAGE as usize + 5] = 0;
        let size = table.len() as u64 * 16;
        let disk = disk(&table, 1, size).unwrap();
        let mut out = Vec::new();
        disk.extents(GuestOffset(0)..GuestOffset(size), &mut out)
            .unwrap();
        assert_eq!(out.len(), 3);
        assert_eq!(out[1].range.start.0, (2 * PAGE + 5) * 16);
    }
}
