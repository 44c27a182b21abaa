use super::header::HEADER_LEN;
use super::layout::{FOOTER_LEN, MAX_GEOMETRY, MAX_SECTORS, SECTOR, geometry, seal};
use crate::blocks::writer::{
    DEFAULT_UUID, Placer, Plain, TableWriter, UNIT, bad_option, fill_with, parse_switch,
    parse_uuid, refuse_compression, unknown_option,
};
use crate::copy::{Encode, Payload, Summary, Tables, Target};
use crate::{Error, Format, HostOffset, Result, Sink, UnitIndex};

/// Bytes of a block: what every program expects.
const BLOCK: u64 = 2 << 20;
/// Bytes of its sector bitmap.
const BITMAP: u64 = 512;
/// Byte of the block allocation table.
const TABLE_AT: u64 = (FOOTER_LEN + HEADER_LEN) as u64;
/// What Azure rounds sizes to, in bytes.
const AZURE_UNIT: u64 = 1 << 20;

/// How to write a vhd.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// The guest's bytes as they are, and a footer, instead of blocks as needed.
    pub is_fixed: bool,
    /// Keep the size as it is, though Virtual PC will not see it; otherwise it grows to the
    /// next that cylinders, heads and sectors can express.
    pub force_size: bool,
    /// For Azure, which takes fixed disks of whole MiB alone: the size grows to the next, and is
    /// kept there. The two above are as good as set.
    pub is_azure: bool,
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
            is_azure: false,
            unique_id: DEFAULT_UUID,
            timestamp: 0,
        }
    }
}

impl WriteOptions {
    /// From `subformat=dynamic|fixed`, `force_size=on|off`, `profile=azure`, `uuid=…`,
    /// `timestamp=…`.
    ///
    /// # Errors
    /// `Usage` for other keys and values, and for those that contradict the profile.
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
                ("profile", "azure") => options.is_azure = true,
                ("profile", _) => return Err(bad_option(format, key, value, "azure")),
                ("uuid", _) => options.unique_id = parse_uuid(format, key, value)?,
                ("timestamp", _) => {
                    let seconds = value.parse();
                    options.timestamp =
                        seconds.map_err(|_| bad_option(format, key, value, "seconds"))?;
                }
                _ => return Err(unknown_option(format, key)),
            }
        }
        let given = |wanted: &str| pairs.iter().any(|(key, _)| key == wanted);
        if options.is_azure {
            if given("subformat") && !options.is_fixed {
                return Err(Error::usage("the profile azure needs subformat=fixed"));
            }
            if given("force_size") && !options.force_size {
                return Err(Error::usage("the profile azure needs force_size=on"));
            }
        }
        Ok(options)
    }
}

/// Starts a disk of `virtual_size` bytes; it grows to whole sectors, and to a size that geometry
/// can express unless the options forbid. For Azure it grows to whole MiB instead.
///
/// # Errors
/// `Usage` when the disk would have more than 2040 GiB, and for a fixed one of 0 bytes, which
/// other programs do not open.
pub fn create(options: &WriteOptions, virtual_size: u64) -> Result<Box<dyn Target>> {
    let is_fixed = options.is_fixed || options.is_azure;
    if virtual_size == 0 && is_fixed {
        return Err(Error::usage("a fixed vhd cannot hold a disk of 0 bytes"));
    }
    let is_exact = options.force_size || options.is_azure;
    let unit = if options.is_azure { AZURE_UNIT } else { SECTOR };
    let wanted = virtual_size.div_ceil(unit).saturating_mul(unit / SECTOR);
    let (sectors, geometry) = match geometry(wanted) {
        Some((sectors, geometry)) if !is_exact => (sectors, geometry),
        _ => (wanted, MAX_GEOMETRY),
    };
    if sectors > MAX_SECTORS {
        return Err(Error::usage(format!(
            "vhd holds up to 2040 GiB, not {virtual_size} bytes"
        )));
    }
    let size = sectors * SECTOR;
    let footer = footer(options, is_fixed, size, geometry);
    if is_fixed {
        return Ok(Box::new(Fixed { size, footer }));
    }
    let entries = size.div_ceil(BLOCK);
    let table_len = (entries * 4).next_multiple_of(SECTOR);
    Ok(Box::new(Dynamic {
        entries,
        footer,
        table: TableWriter::new(HostOffset(TABLE_AT), table_len, fill_with(0xff)),
        placer: Placer::default(),
        next: TABLE_AT + table_len,
    }))
}

fn footer(
    options: &WriteOptions,
    is_fixed: bool,
    size: u64,
    (cylinders, heads, sectors): (u16, u8, u8),
) -> Vec<u8> {
    let (data_offset, disk_type) = if is_fixed {
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
        UNIT
    }

    fn preamble(&self) -> Option<Vec<u8>> {
        // The guest's bytes come first.
        Some(Vec::new())
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(Plain))
    }

    fn place(&mut self, n: UnitIndex, _: Payload, _: &mut Tables) -> Result<HostOffset> {
        Ok(HostOffset(n * UNIT))
    }

    fn finish(self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        let file_size = self.size + FOOTER_LEN as u64;
        sink.write_all_at(&self.footer, HostOffset(self.size))?;
        Ok(Summary { file_size })
    }
}

struct Dynamic {
    entries: u64,
    footer: Vec<u8>,
    table: TableWriter,
    placer: Placer,
    /// Byte of the next sector bitmap.
    next: u64,
}

impl Target for Dynamic {
    fn unit(&self) -> u64 {
        UNIT
    }

    fn block(&self) -> u64 {
        BLOCK
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(Plain))
    }

    fn place(&mut self, n: UnitIndex, _: Payload, tables: &mut Tables) -> Result<HostOffset> {
        let (table, next) = (&mut self.table, &mut self.next);
        Ok(self.placer.place(n, BLOCK, |block| {
            // Below 2^32: 2040 GiB and their bitmaps are fewer than 2^32 - 1 sectors.
            let sector = (*next / SECTOR) as u32;
            table.set(block * 4, &sector.to_be_bytes(), tables);
            tables.push((HostOffset(*next), vec![0xff; BITMAP as usize]));
            let at = HostOffset(*next + BITMAP);
            *next += BITMAP + BLOCK;
            at
        }))
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
