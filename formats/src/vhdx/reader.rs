use std::ops::Range;
use std::sync::Arc;

use super::layout::{Header, SECTION_LEN, SIGNATURE, malformed};
use super::log::{Replay, Replayed};
use super::metadata::{LOOKED_AT, Metadata};
use super::region::Regions;
use crate::blocks::{Block, BlockDisk, BlockTable, Shape};
use crate::bytes::le64;
use crate::source::read_up_to;
use crate::{Disk, Error, Format, HostOffset, OpenOptions, Result, Source};

/// Opens the virtual disk in `source`.
///
/// # Errors
/// `Malformed` when a structure is damaged or the log cannot be played back, `Refused` for
/// differencing disks, `Unsupported` for what is marked as required and not known here, `Limit`
/// when the disk or its log are larger than allowed.
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let section = read_up_to(source.as_ref(), HostOffset::ZERO, SECTION_LEN)?;
    if !section.starts_with(SIGNATURE) {
        return Err(malformed(
            "file identifier",
            "does not begin with \"vhdxfile\"",
        ));
    }
    let (header, _) = Header::current(&section)?;
    let is_plain = !header.is_dirty();
    let source = if is_plain {
        source
    } else {
        let log = read_log(source.as_ref(), &header, options)?;
        let replay = Replay::new(&log, header.log_guid, Some(source.len()))?;
        Arc::new(Replayed::new(source, replay))
    };
    let section = read_up_to(source.as_ref(), HostOffset::ZERO, SECTION_LEN)?;
    let (regions, _) = Regions::parse(&section, &header)?;
    let metadata = read_metadata(source.as_ref(), &regions.metadata)?;
    if let Some(message) = metadata.parent_message() {
        return Err(Error::refused(Format::Vhdx, "metadata", message));
    }
    let virtual_size = options
        .limits
        .virtual_size(Format::Vhdx, metadata.virtual_disk_size)?;
    let bat = Bat::new(&metadata, &regions)?;
    let shape = Shape {
        virtual_size,
        block_size: u64::from(metadata.block_size),
        table_at: HostOffset(regions.bat.start),
        cache: options.limits.cache,
        is_plain,
    };
    Ok(Arc::new(BlockDisk::new(source, bat, shape)?))
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
    let len = (region.end - region.start).min(LOOKED_AT);
    let len = usize::try_from(len).unwrap_or(0);
    Metadata::parse(&read_up_to(source, HostOffset(region.start), len)?)
}

/// The block allocation table.
pub(super) struct Bat {
    /// Blocks between two entries of sector bitmaps.
    chunk_ratio: u64,
    block_size: u64,
    virtual_size: u64,
    /// Where no block can be.
    taken: Vec<Range<u64>>,
}

impl Bat {
    /// The BAT of a disk without a parent.
    ///
    /// # Errors
    /// `Malformed` when its region is too small.
    pub(super) fn new(metadata: &Metadata, regions: &Regions) -> Result<Self> {
        let bat = Self {
            chunk_ratio: metadata.chunk_ratio(),
            block_size: u64::from(metadata.block_size),
            virtual_size: metadata.virtual_disk_size,
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

    /// Bytes of the table up to the last block.
    pub(super) fn table_len(&self) -> u64 {
        let blocks = self.virtual_size.div_ceil(self.block_size);
        let last = blocks.checked_sub(1);
        last.map_or(0, |last| (self.slot(last) + 1) * Self::ENTRY)
    }
}

impl BlockTable for Bat {
    const FORMAT: Format = Format::Vhdx;
    const NAME: &'static str = "BAT";
    const ENTRY: u64 = 8;

    fn slot(&self, block: u64) -> u64 {
        block + block / self.chunk_ratio
    }

    fn block_from(&self, slot: u64) -> u64 {
        // The last of `chunk_ratio + 1` entries is that of the sector bitmap.
        slot - slot / (self.chunk_ratio + 1)
    }

    fn decode(&self, block: u64, entry: &[u8]) -> Result<Block> {
        let entry = le64(entry, 0).unwrap_or(0);
        match entry & 7 {
            // Not present; undefined; unmapped; unmapped as drafts of the format spelt it. The
            // middle ones may hold what was there before: zeros are as right, and safe.
            0 | 1 | 3 | 5 => Ok(Block::Unallocated),
            2 => Ok(Block::Zero),
            6 => {
                let start = entry & !0xf_ffff;
                let visible = (self.virtual_size - block * self.block_size).min(self.block_size);
                let end = start.saturating_add(visible);
                match self.taken.iter().find(|r| r.start < end && start < r.end) {
                    None => Ok(Block::At(HostOffset(start))),
                    Some(region) => Err(malformed(
                        Self::NAME,
                        format!(
                            "block {block} is at {start:#x}, inside the structures from {:#x} to {:#x}",
                            region.start, region.end
                        ),
                    )),
                }
            }
            state => Err(malformed(
                Self::NAME,
                format!("block {block} has state {state}, allowed 0 to 3 and 6 without a parent"),
            )),
        }
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
