//! The metadata region: sizes, identity, parent. \[MS-VHDX\] 2.6.

use super::layout::{Guid, malformed};
use crate::bytes::{le16, le32, le64};
use crate::{Error, Format, Result};

/// Bytes of the region looked at: its table, and more items than there are kinds of.
pub(super) const LOOKED_AT: u64 = 1 << 20;
const TABLE_LEN: u32 = 64 << 10;
const MAX_ENTRIES: u16 = 2047;
/// Keys of a parent locator looked at.
const MAX_KEYS: u16 = 16;
/// Bytes of the largest disk: 64 TiB.
pub(super) const MAX_SIZE: u64 = 64 << 40;

const FILE_PARAMETERS: Guid = Guid::new(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b);
const VIRTUAL_DISK_SIZE: Guid = Guid::new(0x2fa5_4224, 0xcd1b, 0x4876, 0xb211_5dbe_d83b_f4b8);
const VIRTUAL_DISK_ID: Guid = Guid::new(0xbeca_12ab, 0xb2e6, 0x4523, 0x93ef_c309_e000_c746);
const LOGICAL_SECTOR_SIZE: Guid = Guid::new(0x8141_bf1d, 0xa96f, 0x4709, 0xba47_f233_a8fa_ab5f);
const PHYSICAL_SECTOR_SIZE: Guid = Guid::new(0xcda3_48c7, 0x445d, 0x4471, 0x9cc9_e988_5251_c556);
const PARENT_LOCATOR: Guid = Guid::new(0xa8d3_5f2d, 0xb30b, 0x454d, 0xabf7_d3d8_4834_ab0c);
const PLACE: &str = "metadata";

/// What the metadata says, every value within bounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Metadata {
    /// Bytes of a block.
    pub(super) block_size: u32,
    /// Blocks stay where they are when they are trimmed: a fixed disk.
    pub(super) leave_block_allocated: bool,
    pub(super) virtual_disk_size: u64,
    pub(super) logical_sector_size: u32,
    pub(super) physical_sector_size: u32,
    pub(super) virtual_disk_id: Guid,
    /// Keys and values of the parent locator, for differencing disks.
    pub(super) parent: Option<Vec<(String, String)>>,
}

impl Metadata {
    /// Parses the first bytes of the region, [`LOOKED_AT`] of them where it has as many.
    pub(super) fn parse(region: &[u8]) -> Result<Self> {
        let items = Items::parse(region)?;
        let block_size = items.u32(FILE_PARAMETERS, "file parameters", 0)?;
        if !block_size.is_power_of_two() || !(1 << 20..=256 << 20).contains(&block_size) {
            return Err(malformed(
                PLACE,
                format!("block size is {block_size}, allowed are powers of two from 1 to 256 MiB"),
            ));
        }
        let flags = items.u32(FILE_PARAMETERS, "file parameters", 4)?;
        let sector = |guid, what| {
            let size = items.u32(guid, what, 0)?;
            match size {
                512 | 4096 => Ok(size),
                _ => Err(malformed(
                    PLACE,
                    format!("{what} is {size}, allowed 512 and 4096"),
                )),
            }
        };
        let logical_sector_size = sector(LOGICAL_SECTOR_SIZE, "logical sector size")?;
        let physical_sector_size = sector(PHYSICAL_SECTOR_SIZE, "physical sector size")?;
        let virtual_disk_size = items
            .find(VIRTUAL_DISK_SIZE, "virtual disk size")
            .and_then(|item| le64(item, 0).ok_or_else(|| short("virtual disk size")))?;
        if virtual_disk_size > MAX_SIZE
            || !virtual_disk_size.is_multiple_of(logical_sector_size.into())
        {
            return Err(malformed(
                PLACE,
                format!(
                    "virtual disk size is {virtual_disk_size}, allowed are multiples of the sector size of {logical_sector_size} up to 64 TiB"
                ),
            ));
        }
        let has_parent = flags & 2 != 0;
        let locator = items.items.iter().find(|(guid, _)| *guid == PARENT_LOCATOR);
        let parent = (has_parent || locator.is_some())
            .then(|| locator.map_or_else(Vec::new, |(_, item)| parent_locator(item)));
        Ok(Self {
            block_size,
            leave_block_allocated: flags & 1 != 0,
            virtual_disk_size,
            logical_sector_size,
            physical_sector_size,
            virtual_disk_id: items
                .find(VIRTUAL_DISK_ID, "virtual disk id")
                .and_then(|item| Guid::at(item, 0).ok_or_else(|| short("virtual disk id")))?,
            parent,
        })
    }

    /// Blocks a chunk has: after as many, the BAT holds the entry of a sector bitmap.
    pub(super) fn chunk_ratio(&self) -> u64 {
        // At least 16, by the bounds on both sizes.
        (1 << 23) * u64::from(self.logical_sector_size) / u64::from(self.block_size)
    }

    /// Why the disk cannot be used alone.
    pub(super) fn parent_message(&self) -> Option<String> {
        let locator = self.parent.as_ref()?;
        let name = ["absolute_win32_path", "relative_path", "volume_path"]
            .iter()
            .find_map(|key| locator.iter().find(|(found, _)| found == key))
            .map_or("an unnamed parent", |(_, value)| value);
        Some(format!(
            "is a differencing disk over {name:?}: another file holds part of its content; merge it into one disk first"
        ))
    }
}

/// The beginning of a metadata region for a disk of 512-byte sectors without a parent.
pub(super) fn emit(block_size: u32, is_fixed: bool, size: u64, id: Guid) -> Vec<u8> {
    let flags = u32::from(is_fixed);
    let parameters = [block_size.to_le_bytes(), flags.to_le_bytes()].concat();
    emit_items(&[
        (FILE_PARAMETERS, parameters, 4),
        (VIRTUAL_DISK_SIZE, size.to_le_bytes().into(), 6),
        (VIRTUAL_DISK_ID, id.0.into(), 6),
        (LOGICAL_SECTOR_SIZE, 512u32.to_le_bytes().into(), 6),
        (PHYSICAL_SECTOR_SIZE, 4096u32.to_le_bytes().into(), 6),
    ])
}

/// A region with the given items one after the other, each with its flags.
fn emit_items(items: &[(Guid, Vec<u8>, u8)]) -> Vec<u8> {
    let mut region = vec![0; TABLE_LEN as usize];
    region[..8].copy_from_slice(b"metadata");
    region[10] = items.len() as u8;
    for (n, (guid, bytes, flags)) in items.iter().enumerate() {
        let offset = region.len() as u32;
        let entry = &mut region[32 + n * 32..][..32];
        entry[..16].copy_from_slice(&guid.0);
        entry[16..20].copy_from_slice(&offset.to_le_bytes());
        entry[20..24].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        entry[24] = *flags;
        region.extend_from_slice(bytes);
    }
    region
}

fn short(what: &str) -> Error {
    malformed(PLACE, format!("{what} is cut short"))
}

/// The items of a region by their GUID.
struct Items<'a> {
    items: Vec<(Guid, &'a [u8])>,
}

impl<'a> Items<'a> {
    fn parse(region: &'a [u8]) -> Result<Self> {
        if !region.starts_with(b"metadata") {
            return Err(malformed(
                PLACE,
                "table does not begin with \"metadata\"".to_owned(),
            ));
        }
        let count = le16(region, 10).unwrap_or(0);
        if count > MAX_ENTRIES {
            return Err(malformed(
                PLACE,
                format!("entry count is {count} at byte 10, allowed up to {MAX_ENTRIES}"),
            ));
        }
        let table = region
            .get(32..TABLE_LEN as usize)
            .ok_or_else(|| short("table"))?;
        let mut items: Vec<(Guid, &[u8])> = Vec::new();
        for entry in table.as_chunks::<32>().0.iter().take(count.into()) {
            let guid = Guid::at(entry, 0).unwrap_or_default();
            let (offset, len) = (le32(entry, 16).unwrap_or(0), le32(entry, 20).unwrap_or(0));
            let is_required = entry[24] & 4 != 0;
            let is_known = [
                FILE_PARAMETERS,
                VIRTUAL_DISK_SIZE,
                VIRTUAL_DISK_ID,
                LOGICAL_SECTOR_SIZE,
                PHYSICAL_SECTOR_SIZE,
                PARENT_LOCATOR,
            ]
            .contains(&guid);
            if !is_known {
                if is_required {
                    return Err(Error::unsupported(
                        Format::Vhdx,
                        PLACE,
                        format!("item {guid} is marked as required and not known here"),
                    ));
                }
                continue;
            }
            if items.iter().any(|(known, _)| *known == guid) {
                return Err(malformed(PLACE, format!("item {guid} is there twice")));
            }
            let bytes = offset
                .checked_add(len)
                .filter(|_| offset >= TABLE_LEN)
                .and_then(|end| region.get(offset as usize..end as usize));
            let Some(bytes) = bytes else {
                return Err(malformed(
                    PLACE,
                    format!(
                        "item {guid} has {len} bytes at {offset:#x} of the region, allowed are {TABLE_LEN:#x} to {:#x}",
                        region.len()
                    ),
                ));
            };
            items.push((guid, bytes));
        }
        Ok(Self { items })
    }

    fn find(&self, guid: Guid, what: &'static str) -> Result<&'a [u8]> {
        self.items
            .iter()
            .find_map(|(known, bytes)| (*known == guid).then_some(*bytes))
            .ok_or_else(|| malformed(PLACE, format!("{what} is missing")))
    }

    fn u32(&self, guid: Guid, what: &'static str, at: usize) -> Result<u32> {
        le32(self.find(guid, what)?, at).ok_or_else(|| short(what))
    }
}

/// The pairs of a parent locator, as far as they make sense: they only serve a message.
fn parent_locator(item: &[u8]) -> Vec<(String, String)> {
    let count = le16(item, 18).unwrap_or(0).min(MAX_KEYS);
    let entries = item.get(20..).unwrap_or_default().as_chunks::<12>().0;
    let text = |offset: Option<u32>, len: Option<u16>| {
        let start = offset? as usize;
        let bytes = item.get(start..start.checked_add(len?.into())?)?;
        let (units, _) = bytes.as_chunks::<2>();
        let units: Vec<_> = units.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
        Some(String::from_utf16_lossy(&units))
    };
    entries
        .iter()
        .take(count.into())
        .filter_map(|entry| {
            let key = text(le32(entry, 0), le16(entry, 8))?;
            let value = text(le32(entry, 4), le16(entry, 10))?;
            Some((key, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(items: &[(Guid, Vec<u8>, u8)]) -> Vec<u8> {
        let mut region = emit_items(items);
        region.resize(128 << 10, 0);
        region
    }

    fn items(block: u32, flags: u32, size: u64, sector: u32) -> Vec<(Guid, Vec<u8>, u8)> {
        let parameters = [block.to_le_bytes(), flags.to_le_bytes()].concat();
        vec![
            (FILE_PARAMETERS, parameters, 4),
            (VIRTUAL_DISK_SIZE, size.to_le_bytes().to_vec(), 6),
            (VIRTUAL_DISK_ID, vec![7; 16], 6),
            (LOGICAL_SECTOR_SIZE, sector.to_le_bytes().to_vec(), 6),
            (PHYSICAL_SECTOR_SIZE, 4096u32.to_le_bytes().to_vec(), 6),
        ]
    }

    #[test]
    fn reads_sizes_and_bounds_them() {
        let good = Metadata::parse(&region(&items(1 << 20, 0, 1 << 30, 512))).unwrap();
        assert_eq!(good.chunk_ratio(), 4096);
        assert_eq!(good.parent_message(), None);
        for bad in [
            items(0, 0, 1 << 30, 512),
            items(3 << 20, 0, 1 << 30, 512),
            items(512 << 20, 0, 1 << 30, 512),
            items(1 << 20, 0, (64 << 40) + 512, 512),
            items(1 << 20, 0, 512, 4096),
            items(1 << 20, 0, 1 << 30, 1024),
            items(1 << 20, 0, 1 << 30, 512)[1..].to_vec(),
        ] {
            assert!(Metadata::parse(&region(&bad)).is_err());
        }
        assert!(Metadata::parse(&region(&items(1 << 20, 0, 1 << 30, 512))[..70_000]).is_ok());
        assert!(Metadata::parse(&region(&items(1 << 20, 0, 1 << 30, 512))[..65_540]).is_err());
    }

    #[test]
    fn refuses_required_items_it_does_not_know_and_doubles() {
        let mut unknown = items(1 << 20, 0, 1 << 30, 512);
        unknown.push((Guid::new(1, 2, 3, 4), vec![0; 4], 0));
        assert!(Metadata::parse(&region(&unknown)).is_ok());
        unknown[5].2 = 4;
        assert!(Metadata::parse(&region(&unknown)).is_err());
        let mut twice = items(1 << 20, 0, 1 << 30, 512);
        twice.push(twice[0].clone());
        assert!(Metadata::parse(&region(&twice)).is_err());
    }

    #[test]
    fn names_the_parent() {
        let utf16 = |s: &str| {
            s.encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<_>>()
        };
        let (key, value) = (utf16("relative_path"), utf16(".\\base.vhdx"));
        let mut locator = vec![0; 18];
        locator.extend_from_slice(&1u16.to_le_bytes());
        locator.extend_from_slice(&32u32.to_le_bytes());
        locator.extend_from_slice(&(32 + key.len() as u32).to_le_bytes());
        locator.extend_from_slice(&(key.len() as u16).to_le_bytes());
        locator.extend_from_slice(&(value.len() as u16).to_le_bytes());
        locator.extend_from_slice(&key);
        locator.extend_from_slice(&value);
        let mut all = items(1 << 20, 2, 1 << 30, 512);
        let nameless = Metadata::parse(&region(&all)).unwrap();
        assert!(nameless.parent_message().is_some());
        all.push((PARENT_LOCATOR, locator, 4));
        let found = Metadata::parse(&region(&all)).unwrap();
        assert!(found.parent_message().unwrap().contains(".\\\\base.vhdx"));
    }
}
