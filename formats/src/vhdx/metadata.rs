//! The metadata region: sizes, identity, parent. \[MS-VHDX\] 2.6.

use super::layout::{Guid, malformed};
use crate::bytes::{le16, le32, le64};
use crate::{Error, Format, Result};

/// Bytes of the region looked at: its table, and more items than there are kinds of.
pub(super) const LOOKED_AT: u64 = 1 << 20;
/// Bytes of the table at the beginning of the region.
pub(super) const TABLE_LEN: u32 = 64 << 10;
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
/// The type of a locator that names a vhdx.
const VHDX_PARENT: Guid = Guid::new(0xb04a_efb7, 0xd19e, 0x4a81, 0xb789_25b8_e944_5913);
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
    /// Who the parent is, for differencing disks.
    pub(super) parent: Option<ParentLocator>,
}

/// What names the parent of a differencing disk. \[MS-VHDX\] 2.6.2.6.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ParentLocator {
    kind: Guid,
    pub(super) pairs: Vec<(String, String)>,
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
        let parent = (has_parent || locator.is_some()).then(|| {
            locator.map_or_else(ParentLocator::default, |(_, item)| {
                ParentLocator::parse(item)
            })
        });
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
        let name = locator.names().next_back().unwrap_or("an unnamed parent");
        Some(format!(
            "is a differencing disk over {name:?}: another file holds part of its content; merge it into one disk first"
        ))
    }
}

impl ParentLocator {
    /// The pairs of a locator, as far as they make sense.
    fn parse(item: &[u8]) -> Self {
        let count = le16(item, 18).unwrap_or(0).min(MAX_KEYS);
        let entries = item.get(20..).unwrap_or_default().as_chunks::<12>().0;
        let text = |offset: Option<u32>, len: Option<u16>| {
            let start = offset? as usize;
            let bytes = item.get(start..start.checked_add(len?.into())?)?;
            let (units, _) = bytes.as_chunks::<2>();
            let units: Vec<_> = units.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
            Some(String::from_utf16_lossy(&units))
        };
        let pair = |entry: &[u8; 12]| {
            let key = text(le32(entry, 0), le16(entry, 8))?;
            let value = text(le32(entry, 4), le16(entry, 10))?;
            Some((key, value))
        };
        Self {
            kind: Guid::at(item, 0).unwrap_or_default(),
            pairs: entries.iter().take(count.into()).filter_map(pair).collect(),
        }
    }

    fn value(&self, key: &str) -> Option<&str> {
        let mut pairs = self.pairs.iter();
        pairs.find_map(|(known, value)| (known == key).then_some(value.as_str()))
    }

    /// The names of the parent, relative ones first.
    pub(super) fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        let keys = ["relative_path", "volume_path", "absolute_win32_path"];
        keys.into_iter().filter_map(|key| self.value(key))
    }

    /// Checks that `found`, the data write GUID of a file, is that of the parent.
    ///
    /// # Errors
    /// `Unsupported` for locators of other kinds of parents, `Malformed` for another parent.
    pub(super) fn check(&self, found: Guid) -> Result<()> {
        if self.kind != VHDX_PARENT {
            return Err(Error::unsupported(
                Format::Vhdx,
                "parent locator",
                format!("type is {}, known is {VHDX_PARENT}", self.kind),
            ));
        }
        let linkage = |key| self.value(key).and_then(Guid::parse);
        // The second one is there while a merge is under way: either may be right then.
        let (first, second) = (linkage("parent_linkage"), linkage("parent_linkage2"));
        let Some(wanted) = first else {
            return Err(malformed("parent locator", "has no parent_linkage"));
        };
        if found == wanted || second == Some(found) {
            return Ok(());
        }
        Err(malformed(
            "parent",
            format!("has the data write GUID {found}, but the disk over it was made over {wanted}"),
        ))
    }
}

/// The beginning of a metadata region for a disk without a parent.
pub(super) fn emit(metadata: &Metadata) -> Vec<u8> {
    let flags = u32::from(metadata.leave_block_allocated);
    let parameters = [metadata.block_size.to_le_bytes(), flags.to_le_bytes()].concat();
    let sizes = [metadata.logical_sector_size, metadata.physical_sector_size];
    let [logical, physical] = sizes.map(|size| size.to_le_bytes().into());
    emit_items(&[
        (FILE_PARAMETERS, parameters, 4),
        (
            VIRTUAL_DISK_SIZE,
            metadata.virtual_disk_size.to_le_bytes().into(),
            6,
        ),
        (VIRTUAL_DISK_ID, metadata.virtual_disk_id.0.into(), 6),
        (LOGICAL_SECTOR_SIZE, logical, 6),
        (PHYSICAL_SECTOR_SIZE, physical, 6),
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

/// The end of the last item that `table` names, in bytes of the region.
pub(super) fn items_end(table: &[u8]) -> u64 {
    let entries = table.get(32..).unwrap_or_default().as_chunks::<32>().0;
    let count = le16(table, 10).unwrap_or(0);
    let ends = entries.iter().take(count.into()).map(|entry| {
        let (offset, len) = (le32(entry, 16).unwrap_or(0), le32(entry, 20).unwrap_or(0));
        u64::from(offset) + u64::from(len)
    });
    ends.max().unwrap_or(0).max(TABLE_LEN.into())
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
