use super::layout::{HEADER_LEN, SIGNATURE};
use crate::blocks::writer::{
    DEFAULT_UUID, Fill, Placer, Plain, TableWriter, UNIT, fill_with, mixed_endian, parse_switch,
    parse_uuid, refuse_compression, unknown_option,
};
use crate::copy::{Encode, Payload, Summary, Tables, Target};
use crate::{Error, Format, HostOffset, Result, Sink, UnitIndex};

/// Bytes of a block: the only size every program takes.
const BLOCK: u64 = 1 << 20;
/// Byte of the block map.
const MAP_AT: u64 = HEADER_LEN as u64;
const SECTOR: u64 = 512;
/// Bytes of the largest disk written, a little below 512 TiB: others hold the map's length in
/// 31 bits.
const MAX_SIZE: u64 = ((1 << 31) - SECTOR) / 4 * BLOCK;

/// How to write a vdi.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// A slot for every block from the start.
    pub is_static: bool,
    /// Identity of the image, in the order of its digits.
    pub uuid: [u8; 16],
}

impl Default for WriteOptions {
    /// Dynamic, with a fixed identity.
    fn default() -> Self {
        Self {
            is_static: false,
            uuid: DEFAULT_UUID,
        }
    }
}

impl WriteOptions {
    /// From `static=on|off`, `uuid=…`.
    ///
    /// # Errors
    /// `Usage` for other keys and values.
    pub fn parse(pairs: &[(String, String)], compress: bool) -> Result<Self> {
        refuse_compression(Format::Vdi, compress)?;
        let mut options = Self::default();
        for (key, value) in pairs {
            match key.as_str() {
                "static" => options.is_static = parse_switch(Format::Vdi, key, value)?,
                "uuid" => options.uuid = parse_uuid(Format::Vdi, key, value)?,
                _ => return Err(unknown_option(Format::Vdi, key)),
            }
        }
        Ok(options)
    }
}

/// Starts an image of `virtual_size` bytes, rounded up to whole sectors.
///
/// # Errors
/// `Usage` when the disk would have 512 TiB or more.
pub fn create(options: &WriteOptions, virtual_size: u64) -> Result<Box<dyn Target>> {
    if virtual_size > MAX_SIZE {
        return Err(Error::usage(format!(
            "vdi holds less than 512 TiB, not {virtual_size} bytes"
        )));
    }
    let size = virtual_size.next_multiple_of(SECTOR);
    let blocks = size.div_ceil(BLOCK);
    let map_len = blocks * 4;
    let (fill, slots) = if options.is_static {
        (Some(in_order()), blocks)
    } else {
        (fill_with(0xff), 0)
    };
    Ok(Box::new(Writer {
        options: options.clone(),
        size,
        blocks,
        map: TableWriter::new(HostOffset(MAP_AT), map_len, fill),
        placer: Placer::default(),
        data_at: (MAP_AT + map_len).next_multiple_of(BLOCK),
        slots,
    }))
}

/// A map that gives every block the slot of its number.
fn in_order() -> Fill {
    Box::new(|at, page| {
        // The number of the last block fits: the map has less than 2^31 bytes.
        for (slot, entry) in (at as u32 / 4..).zip(page.as_chunks_mut().0) {
            *entry = slot.to_le_bytes();
        }
    })
}

struct Writer {
    options: WriteOptions,
    size: u64,
    blocks: u64,
    map: TableWriter,
    placer: Placer,
    data_at: u64,
    /// Slots in use.
    slots: u64,
}

impl Writer {
    fn header(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        let text = b"<<< glint virtual disk image >>>\n";
        bytes[..text.len()].copy_from_slice(text);
        let mut put = |at: usize, value: u64| {
            // All of them fit: the largest is the offset of the data, 2 GiB and a little.
            bytes[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
        };
        put(0x40, u64::from(SIGNATURE));
        put(0x44, 0x0001_0001);
        put(0x48, 400);
        put(0x4c, if self.options.is_static { 2 } else { 1 });
        put(0x154, MAP_AT);
        put(0x158, self.data_at);
        put(0x168, SECTOR);
        put(0x178, BLOCK);
        put(0x180, self.blocks);
        put(0x184, self.slots);
        bytes[0x170..0x178].copy_from_slice(&self.size.to_le_bytes());
        bytes[0x188..0x198].copy_from_slice(&mixed_endian(self.options.uuid));
        bytes
    }
}

impl Target for Writer {
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
        if self.options.is_static {
            return Ok(HostOffset(self.data_at + n * UNIT));
        }
        let (map, slots, data_at) = (&mut self.map, &mut self.slots, self.data_at);
        Ok(self.placer.place(n, BLOCK, |block| {
            let slot = *slots as u32;
            map.set(block * 4, &slot.to_le_bytes(), tables);
            *slots += 1;
            HostOffset(data_at + u64::from(slot) * BLOCK)
        }))
    }

    fn finish(self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        let file_size = self.data_at + self.slots * BLOCK;
        sink.set_len(file_size)?;
        let header = self.header();
        self.map.finish(sink)?;
        sink.write_all_at(&header, HostOffset::ZERO)?;
        Ok(Summary { file_size })
    }
}
