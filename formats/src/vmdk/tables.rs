//! Grain directories and tables: what their entries say, whichever kind of extent they are of.

use super::layout::SECTOR;
use crate::source::read_up_to;
use crate::{Error, Format, HostOffset, Result, Source};

/// What the readers need of a header, whichever kind it was.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    /// Guest bytes.
    pub(super) capacity: u64,
    pub(super) grain_size: u64,
    pub(super) table_entries: u32,
    /// Where the grain directory lies, in sectors.
    pub(super) directory_sector: u64,
    pub(super) is_compressed: bool,
    pub(super) entries: Entries,
}

/// How directory and table entries are written.
#[derive(Clone, Debug)]
pub(super) enum Entries {
    /// 32 bits: the sector of a table or a grain, 0 for none.
    Sectors {
        /// A table entry of 1 is a grain of zeros.
        has_zeroed_grains: bool,
    },
    /// 64 bits: a type in the highest four, and the number of a table or a grain within its
    /// region (seSparse).
    Typed {
        /// Where the region of tables begins.
        tables_sector: u64,
        /// Where the region of grains begins.
        grains_sector: u64,
    },
}

/// What a table entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Grain {
    /// Not here: falls through to a parent.
    Absent,
    /// Zeros, whatever a parent holds.
    Zeroed,
    /// The sector it begins at.
    At(u64),
}

/// The type of a typed entry.
const TYPE_SHIFT: u32 = 60;
const TYPE_UNMAPPED: u64 = 1;
const TYPE_ZERO: u64 = 2;
const TYPE_ALLOCATED: u64 = 3;
/// The highest 32 bits of a typed directory entry that names a table.
const TABLE_ALLOCATED: u64 = 0x1000_0000;

fn malformed(place: &'static str, message: String) -> Error {
    Error::malformed(Format::Vmdk, place, message)
}

impl Geometry {
    /// Guest bytes behind one directory entry.
    pub(super) fn table_covers(&self) -> u64 {
        // At most 4096 grains of 2 MiB.
        self.grain_size * u64::from(self.table_entries)
    }

    /// Entries of the grain directory.
    pub(super) fn tables(&self) -> u64 {
        self.capacity.div_ceil(self.table_covers())
    }

    /// Grains of the disk.
    pub(super) fn grains(&self) -> u64 {
        self.capacity.div_ceil(self.grain_size)
    }

    /// Entries of table `n` that are meaningful: the last one needs to reach only as far as the
    /// disk.
    pub(super) fn entries_of(&self, n: u64) -> usize {
        let entries = u64::from(self.table_entries);
        let first = n.saturating_mul(entries);
        self.grains().saturating_sub(first).min(entries) as usize
    }

    /// Bytes of an entry.
    pub(super) fn entry_len(&self) -> u64 {
        match self.entries {
            Entries::Sectors { .. } => 4,
            Entries::Typed { .. } => 8,
        }
    }

    /// Bytes of a whole grain table.
    pub(super) fn table_len(&self) -> u64 {
        u64::from(self.table_entries) * self.entry_len()
    }

    /// The sector of the table that a directory entry names.
    pub(super) fn table_sector(&self, entry: u64) -> Result<Option<u64>> {
        match self.entries {
            _ if entry == 0 => Ok(None),
            Entries::Sectors { .. } => Ok(Some(entry)),
            Entries::Typed { tables_sector, .. } => {
                if entry >> 32 != TABLE_ALLOCATED {
                    return Err(malformed(
                        "grain directory",
                        format!(
                            "entry is {entry:#x}, allowed 0 and {TABLE_ALLOCATED:#x} above a table's number"
                        ),
                    ));
                }
                let number = entry & u64::from(u32::MAX);
                Ok(Some(tables_sector + number * (self.table_len() / SECTOR)))
            }
        }
    }

    /// What a table entry says.
    pub(super) fn grain(&self, entry: u64) -> Result<Grain> {
        match self.entries {
            _ if entry == 0 => Ok(Grain::Absent),
            Entries::Sectors {
                has_zeroed_grains: true,
            } if entry == 1 => Ok(Grain::Zeroed),
            Entries::Sectors { .. } if entry == 1 => Err(malformed(
                "grain table",
                "entry is 1, a zeroed grain, but the header's flags do not allow it".into(),
            )),
            Entries::Sectors { .. } => Ok(Grain::At(entry)),
            Entries::Typed { grains_sector, .. } => match entry >> TYPE_SHIFT {
                // Unmapped by the guest, which then reads zeros.
                TYPE_UNMAPPED | TYPE_ZERO => Ok(Grain::Zeroed),
                TYPE_ALLOCATED => {
                    // The lowest twelve bits of the number stand above the others.
                    let number = entry >> 48 & 0xfff | (entry & 0xffff_ffff_ffff) << 12;
                    let sector = number
                        .checked_mul(self.grain_size / SECTOR)
                        .and_then(|sectors| sectors.checked_add(grains_sector))
                        .filter(|&sector| sector < u64::MAX / SECTOR);
                    let beyond = || {
                        malformed(
                            "grain table",
                            format!("entry is {entry:#x}, grain {number:#x}, beyond any file"),
                        )
                    };
                    sector.map(Grain::At).ok_or_else(beyond)
                }
                _ => Err(malformed(
                    "grain table",
                    format!("entry is {entry:#x}, of a type that is not known"),
                )),
            },
        }
    }

    /// Reads `count` directory or table entries from `sector`.
    pub(super) fn read_entries(
        &self,
        source: &dyn Source,
        place: &'static str,
        sector: u64,
        count: usize,
    ) -> Result<Box<[u64]>> {
        let bytes = count as u64 * self.entry_len();
        let at = place_of(source, place, sector, bytes)?;
        let bytes = read_up_to(source, at, bytes as usize)?;
        Ok(match self.entries {
            Entries::Sectors { .. } => {
                let (words, _) = bytes.as_chunks::<4>();
                words
                    .iter()
                    .map(|w| u32::from_le_bytes(*w).into())
                    .collect()
            }
            Entries::Typed { .. } => {
                let (words, _) = bytes.as_chunks::<8>();
                words.iter().map(|w| u64::from_le_bytes(*w)).collect()
            }
        })
    }
}

/// Where `bytes` of a table at `sector` begin, when they lie inside the file.
pub(super) fn place_of(
    source: &dyn Source,
    place: &'static str,
    sector: u64,
    bytes: u64,
) -> Result<HostOffset> {
    let start = sector.checked_mul(SECTOR);
    let end = start.and_then(|start| start.checked_add(bytes));
    match (start, end) {
        (Some(start), Some(end)) if end <= source.len() => Ok(HostOffset(start)),
        _ => Err(malformed(
            place,
            format!(
                "is {bytes} bytes at sector {sector:#x}, past the end of the file at {:#x}",
                source.len()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed() -> Geometry {
        Geometry {
            capacity: 32 << 20,
            grain_size: 4096,
            table_entries: 4096,
            directory_sector: 8,
            is_compressed: false,
            entries: Entries::Typed {
                tables_sector: 100,
                grains_sector: 1000,
            },
        }
    }

    #[test]
    fn typed_entries_are_decoded() {
        let geometry = typed();
        assert_eq!(geometry.tables(), 2);
        assert_eq!(geometry.table_sector(0).unwrap(), None);
        let second = geometry.table_sector(0x1000_0000_0000_0001).unwrap();
        assert_eq!(second, Some(164));
        assert!(geometry.table_sector(0x2000_0000_0000_0001).is_err());
        assert!(geometry.table_sector(7).is_err());

        assert_eq!(geometry.grain(0).unwrap(), Grain::Absent);
        assert_eq!(geometry.grain(1 << 60).unwrap(), Grain::Zeroed);
        assert_eq!(geometry.grain(2 << 60).unwrap(), Grain::Zeroed);
        let grain = |number: u64| 3 << 60 | (number & 0xfff) << 48 | number >> 12;
        for number in [0, 1, 0xfff, 0x1000, 0x12_3456] {
            let at = geometry.grain(grain(number)).unwrap();
            assert_eq!(at, Grain::At(1000 + number * 8), "{number:#x}");
        }
        for bad in [7, 4 << 60, u64::MAX, grain(u64::MAX >> 4)] {
            assert!(geometry.grain(bad).is_err(), "{bad:#x}");
        }
    }

    #[test]
    fn the_last_table_ends_with_the_disk() {
        let geometry = Geometry {
            capacity: 4096 * 4096 + 1,
            ..typed()
        };
        assert_eq!((geometry.entries_of(0), geometry.entries_of(1)), (4096, 1));
        assert_eq!(geometry.entries_of(u64::MAX), 0);
    }
}
