use super::layout::{FOOTER_LEN, HEADER_LEN, MAX_GEOMETRY, MAX_SECTORS, SECTOR, geometry, seal};
use crate::blocks::writer::{
    DEFAULT_UUID, Plain, TableWriter, bad_option, parse_switch, parse_uuid, refuse_compression,
    unknown_option,
};
use crate::copy::{Encode, Payload, Summary, Tables, Target};
use crate::{Error, Format, HostOffset, Result, Sink, UnitIndex};

/// Bytes of a block: what every program expects.
const BLOCK: u64 = 2 << 20;
/// Bytes of its sector bitmap.
const BITMAP: u64 = 512;
/// Byte of the block allocation table.
const TABLE_AT: u64 = (FOOTER_LEN + HEADER_LEN) as u64;
/// Bytes a fixed disk is written in, so that zeros stay holes.
const FIXED_UNIT: u64 = 4096;

/// How to write a vhd.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// The guest's bytes as they are, and a footer, instead of blocks as needed.
    pub is_fixed: bool,
    /// Keep the size as it is, though Virtual PC will not see it; otherwise it grows to the
    /// next that cylinders, heads and sectors can express.
    pub force_size: bool,
    /// Identity of the disk.
    pub unique_id: [u8; 16],
    /// Seconds since 2000-01-01 00:00 UTC.
    pub timestamp: u32,
}

impl Default for WriteOptions {
    /// Dynamic, with a size that geometry can express; identity and time fixed.
    fn default() -> Self {
        Self {
            is_fixed: false,
            force_size: false,
            unique_id: DEFAULT_UUID,
            timestamp: 0,
        }
    }
}

impl WriteOptions {
    /// From `subformat=dynamic|fixed`, `force_size=on|off`, `uuid=…`, `timestamp=…`.
    ///
    /// # Errors
    /// `Usage` for other keys and values.
    pub fn parse(pairs: &[(String, String)], compress: bool) -> Result<Self> {
        let format = Format::Vhd;
        refuse_compression(format, compress)?;
        let mut options = Self::default();
        for (key, value) in pairs {
            match (key.as_str(), value.as_str()) {
                ("subformat", "dynamic") => options.is_fixed = false,
                ("subformat", "fixed") => options.is_fixed = true,
                ("subformat", _) => {
                    return Err(bad_option(format, key, value, "dynamic or fixed"));
                }
                ("force_size", _) => options.force_size = parse_switch(format, key, value)?,
                ("uuid", _) => options.unique_id = parse_uuid(format, key, value)?,
                ("timestamp", _) => {
                    let seconds = value.parse();
                    options.timestamp =
                        seconds.map_err(|_| bad_option(format, key, value, "seconds"))?;
                }
                _ => return Err(unknown_option(format, key)),
            }
        }
        Ok(options)
    }
}

/// Starts a disk of `virtual_size` bytes; it grows to whole sectors, and to a size that geometry
/// can express unless the options forbid.
///
/// # Errors
/// `Usage` when the disk would have more than 2040 GiB, and for a fixed one of 0 bytes, which
/// other programs do not open.
pub fn create(options: &WriteOptions, virtual_size: u64) -> Result<Box<dyn Target>> {
    if virtual_size == 0 && options.is_fixed {
        return Err(Error::usage("a fixed vhd cannot hold a disk of 0 bytes"));
    }
    let wanted = virtual_size.div_ceil(SECTOR);
    let (sectors, geometry) = match geometry(wanted) {
        Some((sectors, geometry)) if !options.force_size => (sectors, geometry),
        _ => (wanted, MAX_GEOMETRY),
    };
    if sectors > MAX_SECTORS {
        return Err(Error::usage(format!(
            "vhd holds up to 2040 GiB, not {virtual_size} bytes"
        )));
    }
    let size = sectors * SECTOR;
    let footer = footer(options, size, geometry);
    if options.is_fixed {
        return Ok(Box::new(Fixed { size, footer }));
    }
    let entries = size.div_ceil(BLOCK);
    let table_len = (entries * 4).next_multiple_of(SECTOR);
    Ok(Box::new(Dynamic {
        entries,
        footer,
        table: TableWriter::new(HostOffset(TABLE_AT), table_len, 0xff),
        next: TABLE_AT + table_len,
    }))
}

fn footer(
    options: &WriteOptions,
    size: u64,
    (cylinders, heads, sectors): (u16, u8, u8),
) -> Vec<u8> {
    let (data_offset, disk_type) = if options.is_fixed {
        (u64::MAX, 2u32)
    } else {
        (FOOTER_LEN as u64, 3)
    };
    let mut bytes = [
        b"conectix".as_slice(),
        &2u32.to_be_bytes(),
        &0x0001_0000u32.to_be_bytes(),
        &data_offset.to_be_bytes(),
        &options.timestamp.to_be_bytes(),
        b"glnt",
        &0x0001_0000u32.to_be_bytes(),
        b"Wi2k",
        &size.to_be_bytes(),
        &size.to_be_bytes(),
        &cylinders.to_be_bytes(),
        &[heads, sectors],
        &disk_type.to_be_bytes(),
        &[0; 4],
        &options.unique_id,
    ]
    .concat();
    bytes.resize(FOOTER_LEN, 0);
    seal(&mut bytes, 64);
    bytes
}

fn dynamic_header(entries: u64) -> Vec<u8> {
    let mut bytes = [
        b"cxsparse".as_slice(),
        &u64::MAX.to_be_bytes(),
        &TABLE_AT.to_be_bytes(),
        &0x0001_0000u32.to_be_bytes(),
        // At most 2040 GiB in blocks of 2 MiB.
        &(entries as u32).to_be_bytes(),
        &(BLOCK as u32).to_be_bytes(),
    ]
    .concat();
    bytes.resize(HEADER_LEN, 0);
    seal(&mut bytes, 36);
    bytes
}

struct Fixed {
    size: u64,
    footer: Vec<u8>,
}

impl Target for Fixed {
    fn unit(&self) -> u64 {
        FIXED_UNIT
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(Plain))
    }

    fn place(&mut self, n: UnitIndex, _: Payload, _: &mut Tables) -> Result<HostOffset> {
        Ok(HostOffset(n * FIXED_UNIT))
    }

    fn finish(self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        let file_size = self.size + FOOTER_LEN as u64;
        sink.set_len(file_size)?;
        sink.write_all_at(&self.footer, HostOffset(self.size))?;
        Ok(Summary { file_size })
    }
}

struct Dynamic {
    entries: u64,
    footer: Vec<u8>,
    table: TableWriter,
    /// Byte of the next sector bitmap.
    next: u64,
}

impl Target for Dynamic {
    fn unit(&self) -> u64 {
        BLOCK
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(Plain))
    }

    fn place(&mut self, n: UnitIndex, _: Payload, tables: &mut Tables) -> Result<HostOffset> {
        // Below 2^32: 2040 GiB and their bitmaps are fewer than 2^32 - 1 sectors.
        let sector = (self.next / SECTOR) as u32;
        self.table.set(n * 4, &sector.to_be_bytes(), tables);
        tables.push((HostOffset(self.next), vec![0xff; BITMAP as usize]));
        let at = HostOffset(self.next + BITMAP);
        self.next += BITMAP + BLOCK;
        Ok(at)
    }

    fn finish(self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        let file_size = self.next + FOOTER_LEN as u64;
        sink.set_len(file_size)?;
        self.table.finish(sink)?;
        sink.write_all_at(&self.footer, HostOffset(self.next))?;
        sink.write_all_at(&dynamic_header(self.entries), HostOffset(FOOTER_LEN as u64))?;
        sink.write_all_at(&self.footer, HostOffset::ZERO)?;
        Ok(Summary { file_size })
    }
}
