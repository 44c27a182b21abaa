use super::layout::{Guid, HEADER_LEN, HEADERS, MIB, SECTION_LEN, SIGNATURE, checksum};
use super::metadata::{MAX_SIZE, emit};
use super::region;
use crate::blocks::writer::{
    DEFAULT_UUID, Plain, TableWriter, bad_option, mixed_endian, parse_bytes, parse_uuid,
    refuse_compression, unknown_option, write_all,
};
use crate::copy::{Encode, Payload, Summary, Tables, Target};
use crate::{Error, Format, HostOffset, Result, Sink, UnitIndex};

const LOGICAL_SECTOR: u64 = 512;
/// State of a block that is stored.
const FULLY_PRESENT: u64 = 6;

/// How to write a vhdx.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// A place for every block from the start.
    pub is_fixed: bool,
    /// Bytes of a block, a power of two from 1 to 256 MiB; chosen by the size where `None`.
    pub block_size: Option<u32>,
    /// Bytes of the (empty) log, whole MiB.
    pub log_size: u32,
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
            uuid: DEFAULT_UUID,
        }
    }
}

impl WriteOptions {
    /// From `subformat=dynamic|fixed`, `block_size=…`, `log_size=…`, `uuid=…`.
    ///
    /// # Errors
    /// `Usage` for other keys and values.
    pub fn parse(pairs: &[(String, String)], compress: bool) -> Result<Self> {
        let format = Format::Vhdx;
        refuse_compression(format, compress)?;
        let mut options = Self::default();
        for (key, value) in pairs {
            match (key.as_str(), value.as_str()) {
                ("subformat", "dynamic") => options.is_fixed = false,
                ("subformat", "fixed") => options.is_fixed = true,
                ("subformat", _) => {
                    return Err(bad_option(format, key, value, "dynamic or fixed"));
                }
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
                ("uuid", _) => options.uuid = parse_uuid(format, key, value)?,
                _ => return Err(unknown_option(format, key)),
            }
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
    let size = virtual_size.next_multiple_of(LOGICAL_SECTOR);
    // Small blocks keep zeros out of the file; large disks take larger ones for a small BAT.
    let chosen = if size <= 4 << 40 { 2 << 20 } else { 32 << 20 };
    let block_size = options.block_size.unwrap_or(chosen);
    let unit = u64::from(block_size);
    let chunk_ratio = (LOGICAL_SECTOR << 23) / unit;
    let blocks = size.div_ceil(unit);
    let entries = blocks + blocks.saturating_sub(1) / chunk_ratio;
    let metadata_at = MIB + u64::from(options.log_size);
    let bat_at = metadata_at + MIB;
    let bat_region = (entries * 8).next_multiple_of(MIB).max(MIB);
    Ok(Box::new(Writer {
        metadata: emit(
            block_size,
            options.is_fixed,
            size,
            Guid(mixed_endian(options.uuid)),
        ),
        is_fixed: options.is_fixed,
        log_size: options.log_size,
        unit,
        blocks,
        chunk_ratio,
        metadata_at,
        bat_at,
        bat_region,
        bat: TableWriter::new(HostOffset(bat_at), entries * 8, 0),
        data_at: bat_at + bat_region,
        placed: 0,
    }))
}

struct Writer {
    is_fixed: bool,
    log_size: u32,
    /// Bytes of a block.
    unit: u64,
    blocks: u64,
    chunk_ratio: u64,
    metadata: Vec<u8>,
    metadata_at: u64,
    bat_at: u64,
    bat_region: u64,
    bat: TableWriter,
    data_at: u64,
    /// Blocks that have a place.
    placed: u64,
}

impl Writer {
    /// Gives `block` the next place.
    fn assign(&mut self, block: u64, tables: &mut Tables) -> HostOffset {
        let at = self.data_at + self.placed * self.unit;
        self.placed += 1;
        let slot = block + block / self.chunk_ratio;
        let entry = at | FULLY_PRESENT;
        self.bat.set(slot * 8, &entry.to_le_bytes(), tables);
        HostOffset(at)
    }

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
            // Both change with the first write of whoever writes next.
            header[16..32].copy_from_slice(&mixed_endian(DEFAULT_UUID));
            header[32..48].copy_from_slice(&mixed_endian(DEFAULT_UUID));
            header[66] = 1;
            header[68..72].copy_from_slice(&self.log_size.to_le_bytes());
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
        self.unit
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(Plain))
    }

    fn place(&mut self, n: UnitIndex, _: Payload, tables: &mut Tables) -> Result<HostOffset> {
        if self.is_fixed {
            return Ok(HostOffset(self.data_at + n * self.unit));
        }
        Ok(self.assign(n, tables))
    }

    fn finish(mut self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        while self.is_fixed && self.placed < self.blocks {
            let mut tables = Tables::new();
            self.assign(self.placed, &mut tables);
            write_all(&tables, sink)?;
        }
        let file_size = self.data_at + self.placed * self.unit;
        sink.set_len(file_size)?;
        let section = self.header_section();
        sink.write_all_at(&self.metadata, HostOffset(self.metadata_at))?;
        self.bat.finish(sink)?;
        sink.write_all_at(&section, HostOffset::ZERO)?;
        Ok(Summary { file_size })
    }
}
