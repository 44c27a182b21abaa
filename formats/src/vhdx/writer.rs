use super::layout::{Guid, HEADER_LEN, HEADERS, MIB, SECTION_LEN, SIGNATURE, checksum};
use super::metadata::{MAX_SIZE, Metadata, emit};
use super::region;
use crate::blocks::writer::{
    DEFAULT_UUID, Fill, Placer, Plain, TableWriter, UNIT, bad_option, mixed_endian, parse_bytes,
    parse_switch, parse_uuid, refuse_compression, unknown_option,
};
use crate::copy::{Encode, Payload, Summary, Tables, Target};
use crate::{Error, Format, HostOffset, Result, Sink, UnitIndex};

/// State of a block that is stored.
const FULLY_PRESENT: u64 = 6;
/// State of a block that is zero.
const ZERO: u64 = 2;

/// How to write a vhdx.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// A place for every block from the start.
    pub is_fixed: bool,
    /// Bytes of a block, a power of two from 1 to 256 MiB; chosen by the size where `None`.
    pub block_size: Option<u32>,
    /// Bytes of the (empty) log, whole MiB.
    pub log_size: u32,
    /// Bytes of a sector as the guest counts them: 512 or 4096.
    pub logical_sector_size: u32,
    /// Bytes of a sector as the medium has them: 512 or 4096, and no less than the former.
    pub physical_sector_size: u32,
    /// Blocks without data are marked as zero. Otherwise a dynamic disk marks them as not
    /// present, which reads the same and leaves their part of the BAT a hole, and a fixed one as
    /// present.
    pub block_state_zero: bool,
    /// Identity of the disk, in the order of its digits.
    pub uuid: [u8; 16],
}

impl Default for WriteOptions {
    /// Dynamic, with a log of 1 MiB and a fixed identity.
    fn default() -> Self {
        Self {
            is_fixed: false,
            block_size: None,
            log_size: 1 << 20,
            logical_sector_size: 512,
            physical_sector_size: 4096,
            block_state_zero: false,
            uuid: DEFAULT_UUID,
        }
    }
}

impl WriteOptions {
    /// From `subformat=dynamic|fixed`, `block_size=…` (0: chosen by the size), `log_size=…`,
    /// `logical_sector_size=512|4096`, `physical_sector_size=512|4096`,
    /// `block_state_zero=on|off`, `uuid=…`.
    ///
    /// # Errors
    /// `Usage` for other keys and values.
    pub fn parse(pairs: &[(String, String)], compress: bool) -> Result<Self> {
        let format = Format::Vhdx;
        refuse_compression(format, compress)?;
        let mut options = Self::default();
        let sector = |key: &str, value: &str| match value {
            "512" => Ok(512),
            "4096" | "4K" | "4k" => Ok(4096),
            _ => Err(bad_option(format, key, value, "512 or 4096")),
        };
        let mut physical = None;
        for (key, value) in pairs {
            match (key.as_str(), value.as_str()) {
                ("subformat", "dynamic") => options.is_fixed = false,
                ("subformat", "fixed") => options.is_fixed = true,
                ("subformat", _) => {
                    return Err(bad_option(format, key, value, "dynamic or fixed"));
                }
                ("block_size", "0") => options.block_size = None,
                ("block_size", _) => {
                    let size = u32::try_from(parse_bytes(format, key, value)?).unwrap_or(0);
                    if !size.is_power_of_two() || !(1 << 20..=256 << 20).contains(&size) {
                        let allowed = "a power of two from 1M to 256M";
                        return Err(bad_option(format, key, value, allowed));
                    }
                    options.block_size = Some(size);
                }
                ("log_size", _) => {
                    let size = u32::try_from(parse_bytes(format, key, value)?).unwrap_or(0);
                    if size == 0 || !u64::from(size).is_multiple_of(MIB) {
                        return Err(bad_option(format, key, value, "whole MiB below 4G"));
                    }
                    options.log_size = size;
                }
                ("logical_sector_size", _) => options.logical_sector_size = sector(key, value)?,
                ("physical_sector_size", _) => physical = Some(sector(key, value)?),
                ("block_state_zero", _) => {
                    options.block_state_zero = parse_switch(format, key, value)?;
                }
                ("uuid", _) => options.uuid = parse_uuid(format, key, value)?,
                _ => return Err(unknown_option(format, key)),
            }
        }
        options.physical_sector_size = physical.unwrap_or(4096);
        if options.physical_sector_size < options.logical_sector_size {
            return Err(Error::usage(
                "vhdx option physical_sector_size is less than logical_sector_size",
            ));
        }
        Ok(options)
    }
}

/// Starts a disk of `virtual_size` bytes, rounded up to whole sectors.
///
/// # Errors
/// `Usage` when the disk would have more than 64 TiB, and for 0 bytes, which other programs do not
/// open.
pub fn create(options: &WriteOptions, virtual_size: u64) -> Result<Box<dyn Target>> {
    if virtual_size == 0 {
        return Err(Error::usage("a vhdx cannot hold a disk of 0 bytes"));
    }
    if virtual_size > MAX_SIZE {
        return Err(Error::usage(format!(
            "vhdx holds up to 64 TiB, not {virtual_size} bytes"
        )));
    }
    let sector = u64::from(options.logical_sector_size);
    let size = virtual_size.next_multiple_of(sector);
    // Small blocks keep the file small where data lies scattered; large disks take larger ones
    // for a small BAT.
    let chosen = if size <= 4 << 40 { 2 << 20 } else { 32 << 20 };
    let metadata = Metadata {
        block_size: options.block_size.unwrap_or(chosen),
        leave_block_allocated: options.is_fixed,
        virtual_disk_size: size,
        logical_sector_size: options.logical_sector_size,
        physical_sector_size: options.physical_sector_size,
        virtual_disk_id: Guid(mixed_endian(options.uuid)),
        parent: None,
    };
    let block_size = u64::from(metadata.block_size);
    let chunk_ratio = metadata.chunk_ratio();
    let blocks = size.div_ceil(block_size);
    let bat_len = (blocks + blocks.saturating_sub(1) / chunk_ratio) * 8;
    let metadata_at = MIB + u64::from(options.log_size);
    let bat_at = metadata_at + MIB;
    let bat_region = bat_len.next_multiple_of(MIB).max(MIB);
    let data_at = bat_at + bat_region;
    let fill = unset(options, chunk_ratio, data_at, block_size);
    Ok(Box::new(Writer {
        options: options.clone(),
        metadata: emit(&metadata),
        block_size,
        chunk_ratio,
        metadata_at,
        bat_at,
        bat_region,
        bat: TableWriter::new(HostOffset(bat_at), bat_len, fill),
        placer: Placer::default(),
        data_at,
        placed: if options.is_fixed { blocks } else { 0 },
    }))
}

/// Entries of blocks that hold no data.
fn unset(options: &WriteOptions, chunk_ratio: u64, data_at: u64, block_size: u64) -> Option<Fill> {
    let (is_fixed, is_zero) = (options.is_fixed, options.block_state_zero);
    let state = if is_zero { ZERO } else { FULLY_PRESENT };
    (is_fixed || is_zero).then(|| {
        let fill: Fill = Box::new(move |at, page| {
            for (slot, entry) in (at / 8..).zip(page.as_chunks_mut().0) {
                let (chunk, within) = (slot / (chunk_ratio + 1), slot % (chunk_ratio + 1));
                let block = chunk * chunk_ratio + within;
                *entry = match (within == chunk_ratio, is_fixed) {
                    // That of a sector bitmap.
                    (true, _) => 0,
                    (_, true) => (data_at + block * block_size) | state,
                    (_, false) => state,
                }
                .to_le_bytes();
            }
        });
        fill
    })
}

struct Writer {
    options: WriteOptions,
    block_size: u64,
    chunk_ratio: u64,
    metadata: Vec<u8>,
    metadata_at: u64,
    bat_at: u64,
    bat_region: u64,
    bat: TableWriter,
    placer: Placer,
    data_at: u64,
    /// Blocks that have a place.
    placed: u64,
}

impl Writer {
    /// File identifier, headers and region tables.
    fn header_section(&self) -> Vec<u8> {
        let mut section = vec![0; SECTION_LEN];
        section[..8].copy_from_slice(SIGNATURE);
        for (at, unit) in (8..).step_by(2).zip("glint".encode_utf16()) {
            section[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        for (sequence_number, at) in (1u64..).zip(HEADERS) {
            let header = &mut section[at..at + HEADER_LEN];
            header[..4].copy_from_slice(b"head");
            header[8..16].copy_from_slice(&sequence_number.to_le_bytes());
            // Both change with the first write of whoever writes next. The second is what a
            // child knows its parent by.
            header[16..32].copy_from_slice(&mixed_endian(DEFAULT_UUID));
            header[32..48].copy_from_slice(&mixed_endian(self.options.uuid));
            header[66] = 1;
            header[68..72].copy_from_slice(&self.options.log_size.to_le_bytes());
            header[72..80].copy_from_slice(&MIB.to_le_bytes());
            let crc = checksum(header);
            header[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        let bat = self.bat_at..self.bat_at + self.bat_region;
        let metadata = self.metadata_at..self.metadata_at + MIB;
        region::emit(&mut section, &bat, &metadata);
        section
    }
}

impl Target for Writer {
    fn unit(&self) -> u64 {
        UNIT
    }

    fn block(&self) -> u64 {
        self.block_size
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(Plain))
    }

    fn place(&mut self, n: UnitIndex, _: Payload, tables: &mut Tables) -> Result<HostOffset> {
        let (data_at, block_size) = (self.data_at, self.block_size);
        let (bat, placed, chunk_ratio) = (&mut self.bat, &mut self.placed, self.chunk_ratio);
        let options = &self.options;
        Ok(self.placer.place(n, block_size, |block| {
            let place = if options.is_fixed { block } else { *placed };
            let at = HostOffset(data_at + place * block_size);
            if !options.is_fixed {
                *placed += 1;
            }
            if !options.is_fixed || options.block_state_zero {
                let slot = block + block / chunk_ratio;
                let entry = at.0 | FULLY_PRESENT;
                bat.set(slot * 8, &entry.to_le_bytes(), tables);
            }
            at
        }))
    }

    fn finish(self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        let file_size = self.data_at + self.placed * self.block_size;
        sink.set_len(file_size)?;
        let section = self.header_section();
        sink.write_all_at(&self.metadata, HostOffset(self.metadata_at))?;
        self.bat.finish(sink)?;
        sink.write_all_at(&section, HostOffset::ZERO)?;
        Ok(Summary { file_size })
    }
}
