use std::ops::Range;
use std::sync::Arc;

use super::layout::{Header, MIB, SECTION_LEN, SIGNATURE, malformed};
use super::log;
use super::metadata::{self, LOOKED_AT, Metadata};
use super::region::Regions;
use super::replay::Replayed;
use crate::blocks::{Block, BlockDisk, BlockTable, Entries, SectorBitmap, Shape, parent};
use crate::bytes::le64;
use crate::chain::{self, Overlay};
use crate::source::read_up_to;
use crate::{Disk, Format, HostOffset, OpenOptions, Result, Source};

/// Opens the virtual disk in `source`. Where it is a differencing one, its parent is asked for
/// by the names in the parent locator, the relative one first, and must have the data write GUID
/// that the disk remembers.
///
/// # Errors
/// `Malformed` when a structure is damaged, the log cannot be played back or the parent is
/// another one, `Refused` for differencing disks whose parent is not granted, `Unsupported` for
/// what is marked as required and not known here, `Limit` when the disk or its log are larger
/// than allowed.
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    Parts::read(source, options)?.open(options)
}

/// What stands around the blocks of a disk.
pub(super) struct Parts {
    /// The file, its log played back.
    pub(super) source: Arc<dyn Source>,
    /// Whether that is the file as it is.
    pub(super) is_plain: bool,
    pub(super) header: Header,
    pub(super) regions: Regions,
    pub(super) metadata: Metadata,
    /// What is wrong with one of two copies.
    pub(super) doubts: Vec<(&'static str, String)>,
}

impl Parts {
    /// Reads the structures and plays back the log.
    pub(super) fn read(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Self> {
        let section = read_up_to(source.as_ref(), HostOffset::ZERO, SECTION_LEN)?;
        if !section.starts_with(SIGNATURE) {
            return Err(malformed(
                "file identifier",
                "does not begin with \"vhdxfile\"",
            ));
        }
        let (header, header_doubt) = Header::current(&section)?;
        let is_plain = !header.is_dirty();
        let (source, section) = if is_plain {
            (source, section)
        } else {
            let bytes = read_log(source.as_ref(), &header, options)?;
            let replay = log::replay(&bytes, header.log_guid, Some(source.len()))?;
            let source: Arc<dyn Source> = Arc::new(Replayed::new(source, replay));
            let section = read_up_to(source.as_ref(), HostOffset::ZERO, SECTION_LEN)?;
            (source, section)
        };
        let (regions, regions_doubt) = Regions::parse(&section, &header)?;
        let metadata = read_metadata(source.as_ref(), &regions.metadata)?;
        let doubts = [("header", header_doubt), ("region table", regions_doubt)];
        let doubts = doubts
            .into_iter()
            .filter_map(|(place, doubt)| Some((place, doubt?)));
        Ok(Self {
            source,
            is_plain,
            header,
            regions,
            metadata,
            doubts: doubts.collect(),
        })
    }

    /// The disk these are the parts of.
    fn open(self, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
        let limits = &options.limits;
        limits.virtual_size(Format::Vhdx, self.metadata.virtual_disk_size)?;
        let bat = Bat::new(&self.metadata, &self.regions)?;
        let shape = self.shape(limits.cache);
        let blocks = Arc::new(BlockDisk::new(self.source.clone(), bat, shape)?);
        let Some((parent, options)) = self.parent(options)? else {
            return Ok(blocks);
        };
        Ok(Arc::new(Overlay::new(blocks, parent.open(&options)?)))
    }

    pub(super) fn shape(&self, cache: u64) -> Shape {
        Shape {
            virtual_size: self.metadata.virtual_disk_size,
            block_size: u64::from(self.metadata.block_size),
            table_at: HostOffset(self.regions.bat.start),
            cache,
            is_plain: self.is_plain,
        }
    }

    /// The parent of a differencing disk, which is the one meant, and how to open it.
    ///
    /// # Errors
    /// `Refused` when it is not granted, `Malformed` when it is another disk.
    pub(super) fn parent(&self, options: &OpenOptions) -> Result<Option<(Self, OpenOptions)>> {
        let Some(locator) = &self.metadata.parent else {
            return Ok(None);
        };
        let granted = parent::request(Format::Vhdx, locator.names(), options)?;
        let options = chain::beneath(Format::Vhdx, Format::Vhdx, &granted, options)?;
        let parent = Self::read(granted.source, &options)?;
        locator.check(parent.header.data_write_guid)?;
        let (above, beneath) = (&self.metadata, &parent.metadata);
        if above.logical_sector_size != beneath.logical_sector_size {
            return Err(malformed(
                "parent",
                format!(
                    "has sectors of {} bytes, the disk over it of {}",
                    beneath.logical_sector_size, above.logical_sector_size
                ),
            ));
        }
        Ok(Some((parent, options)))
    }
}

fn read_log(source: &dyn Source, header: &Header, options: &OpenOptions) -> Result<Vec<u8>> {
    let len = u64::from(header.log_length);
    if header.log_offset.saturating_add(len) > source.len() {
        return Err(malformed(
            "log",
            format!(
                "has {len:#x} bytes at {:#x}, but the file ends at {:#x}",
                header.log_offset,
                source.len()
            ),
        ));
    }
    let len = options.limits.table(Format::Vhdx, "log", len)?;
    read_up_to(source, HostOffset(header.log_offset), len)
}

fn read_metadata(source: &dyn Source, region: &Range<u64>) -> Result<Metadata> {
    if region.start >= source.len() {
        return Err(malformed(
            "metadata",
            format!(
                "region is at {:#x}, but the file ends at {:#x}",
                region.start,
                source.len()
            ),
        ));
    }
    let most = (region.end - region.start).min(LOOKED_AT);
    let read = |len: u64| {
        let len = usize::try_from(len.min(most)).unwrap_or(0);
        read_up_to(source, HostOffset(region.start), len)
    };
    let table = read(metadata::TABLE_LEN.into())?;
    Metadata::parse(&read(metadata::items_end(&table))?)
}

/// The block allocation table.
pub(super) struct Bat {
    /// Blocks between two entries of sector bitmaps.
    chunk_ratio: u64,
    block_size: u64,
    virtual_size: u64,
    sector: u64,
    has_parent: bool,
    /// Where no block can be.
    taken: Vec<Range<u64>>,
}

impl Bat {
    /// The BAT of a disk.
    ///
    /// # Errors
    /// `Malformed` when its region is too small.
    pub(super) fn new(metadata: &Metadata, regions: &Regions) -> Result<Self> {
        let bat = Self {
            chunk_ratio: metadata.chunk_ratio(),
            block_size: u64::from(metadata.block_size),
            virtual_size: metadata.virtual_disk_size,
            sector: u64::from(metadata.logical_sector_size),
            has_parent: metadata.parent.is_some(),
            taken: regions.taken.clone(),
        };
        let region = regions.bat.end - regions.bat.start;
        if bat.table_len() > region {
            return Err(malformed(
                Self::NAME,
                format!(
                    "takes {} bytes, but its region has {region}",
                    bat.table_len()
                ),
            ));
        }
        Ok(bat)
    }

    /// Bytes of the table.
    pub(super) fn table_len(&self) -> u64 {
        self.slots(self.virtual_size.div_ceil(self.block_size)) * Self::ENTRY
    }

    /// Whether the entry of this index is that of a sector bitmap.
    pub(super) fn is_bitmap(&self, slot: u64) -> bool {
        slot % (self.chunk_ratio + 1) == self.chunk_ratio
    }

    /// The chunk that the entry of this index belongs to.
    pub(super) fn chunk_of(&self, slot: u64) -> u64 {
        slot / (self.chunk_ratio + 1)
    }

    /// Where `len` bytes from `start` are, if none of them belongs to a structure.
    fn place(&self, what: &dyn Fn() -> String, start: u64, len: u64) -> Result<HostOffset> {
        let end = start.saturating_add(len);
        match self.taken.iter().find(|r| r.start < end && start < r.end) {
            None => Ok(HostOffset(start)),
            Some(region) => Err(malformed(
                Self::NAME,
                format!(
                    "{} is at {start:#x}, inside the structures from {:#x} to {:#x}",
                    what(),
                    region.start,
                    region.end
                ),
            )),
        }
    }

    /// Where the sector bitmaps of chunk `chunk` are; `None` when they are not stored.
    pub(super) fn decode_bitmap(&self, chunk: u64, entry: &[u8]) -> Result<Option<HostOffset>> {
        let entry = le64(entry, 0).unwrap_or(0);
        match entry & 7 {
            0 => Ok(None),
            6 => {
                let what = || format!("the sector bitmap of chunk {chunk}");
                self.place(&what, entry & !0xf_ffff, MIB).map(Some)
            }
            state => Err(malformed(
                Self::NAME,
                format!("the sector bitmap of chunk {chunk} has state {state}, allowed 0 and 6"),
            )),
        }
    }
}

impl BlockTable for Bat {
    const FORMAT: Format = Format::Vhdx;
    const NAME: &'static str = "BAT";
    const ENTRY: u64 = 8;

    fn slots(&self, blocks: u64) -> u64 {
        match blocks.checked_sub(1) {
            None => 0,
            // Every chunk has its bitmap, the last one too.
            Some(last) if self.has_parent => (last / self.chunk_ratio + 1) * (self.chunk_ratio + 1),
            Some(last) => self.slot(last) + 1,
        }
    }

    fn slot(&self, block: u64) -> u64 {
        block + block / self.chunk_ratio
    }

    fn block_from(&self, slot: u64) -> u64 {
        // The last of `chunk_ratio + 1` entries is that of the sector bitmap.
        slot - slot / (self.chunk_ratio + 1)
    }

    fn decode(&self, block: u64, entry: &[u8]) -> Result<Block> {
        let entry = le64(entry, 0).unwrap_or(0);
        let stored = || {
            let rest = self.virtual_size.saturating_sub(block * self.block_size);
            let (visible, what) = (rest.min(self.block_size), || format!("block {block}"));
            self.place(&what, entry & !0xf_ffff, visible)
        };
        match entry & 7 {
            0 => Ok(Block::Unallocated),
            // Undefined; unmapped; unmapped as drafts of the format spelt it. They may hold what
            // was there before, and hide the parent: zeros are as right, and safe.
            1 | 3 | 5 if !self.has_parent => Ok(Block::Unallocated),
            1 | 2 | 3 | 5 => Ok(Block::Zero),
            6 => stored().map(Block::At),
            7 if self.has_parent => stored().map(Block::Partial),
            state => Err(malformed(
                Self::NAME,
                format!("block {block} has state {state}, allowed 0 to 3, 6, and 7 over a parent"),
            )),
        }
    }

    fn bitmap(&self, block: u64, _: HostOffset, entry: &Entries<'_>) -> Result<SectorBitmap> {
        let chunk = block / self.chunk_ratio;
        let slot = chunk * (self.chunk_ratio + 1) + self.chunk_ratio;
        let Some(at) = self.decode_bitmap(chunk, &entry(slot)?)? else {
            return Err(malformed(
                Self::NAME,
                format!("block {block} is stored in part, but chunk {chunk} has no sector bitmap"),
            ));
        };
        let len = self.block_size / self.sector / 8;
        Ok(SectorBitmap {
            at: HostOffset(at.0 + block % self.chunk_ratio * len),
            sector: self.sector,
            is_high_first: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_sector_bitmaps_are_stepped_over() {
        let bat = Bat {
            chunk_ratio: 16,
            block_size: 256 << 20,
            virtual_size: 100 * (256 << 20),
            sector: 512,
            has_parent: false,
            taken: Vec::new(),
        };
        let slots: Vec<_> = [0, 15, 16, 31, 32].iter().map(|b| bat.slot(*b)).collect();
        assert_eq!(slots, [0, 15, 17, 32, 34]);
        for slot in 0..100 {
            let block = bat.block_from(slot);
            assert!(bat.slot(block) >= slot);
            assert!(block == 0 || bat.slot(block - 1) < slot);
        }
        assert_eq!(bat.table_len(), (100 + 99 / 16) * 8);
    }
}
