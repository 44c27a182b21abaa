//! The region tables: where metadata and BAT are. \[MS-VHDX\] 2.2.3.

use std::ops::Range;

use super::layout::{Guid, Header, MIB, check_sealed, checksum, malformed};
use crate::bytes::{le32, le64};
use crate::{Error, Format, Result};

/// Bytes of both tables.
const TABLES: [usize; 2] = [192 << 10, 256 << 10];
const TABLE_LEN: usize = 64 << 10;
const MAX_ENTRIES: u32 = 2047;
const BAT: Guid = Guid::new(0x2dc2_7766, 0xf623, 0x4200, 0x9d64_115e_9bfd_4a08);
const METADATA: Guid = Guid::new(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e);
const PLACE: &str = "region table";

/// The regions of a file, in bytes of it. They lie at whole MiB and share no byte with each
/// other, the log and the header section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Regions {
    pub(super) bat: Range<u64>,
    pub(super) metadata: Range<u64>,
    /// Everything that is no block: the header section, the log, all regions.
    pub(super) taken: Vec<Range<u64>>,
}

impl Regions {
    /// Parses the tables in the header section, and says what is wrong with one of the copies,
    /// where something is.
    pub(super) fn parse(section: &[u8], header: &Header) -> Result<(Self, Option<String>)> {
        let log = header.log_offset..header.log_offset.saturating_add(header.log_length.into());
        let [first, second] = TABLES.map(|at| {
            let bytes = section.get(at..at + TABLE_LEN).unwrap_or_default();
            check_sealed(bytes, b"regi", PLACE).map(|()| bytes)
        });
        let (table, doubt) = match (first, second) {
            (Ok(a), Ok(b)) if a == b => (a, None),
            (Ok(_), Ok(_)) => {
                return Err(malformed(PLACE, "both copies are whole and not the same"));
            }
            (Ok(a), Err(e)) => (a, Some(format!("region table 2: {}", e.message()))),
            (Err(e), Ok(b)) => (b, Some(format!("region table 1: {}", e.message()))),
            (Err(e), Err(_)) => return Err(e),
        };
        Ok((Self::entries(table, log)?, doubt))
    }

    fn entries(table: &[u8], log: Range<u64>) -> Result<Self> {
        let count = le32(table, 8).unwrap_or(0);
        if count > MAX_ENTRIES {
            return Err(malformed(
                PLACE,
                format!("entry count is {count} at byte 8, allowed up to {MAX_ENTRIES}"),
            ));
        }
        let mut taken = Vec::from([0..MIB, log]);
        taken.retain(|range| !range.is_empty());
        let (mut bat, mut metadata) = (None, None);
        let entries = table.get(16..).unwrap_or_default().as_chunks::<32>().0;
        for entry in entries.iter().take(count as usize) {
            let guid = Guid::at(entry, 0).unwrap_or_default();
            let start = le64(entry, 16).unwrap_or(0);
            let len = u64::from(le32(entry, 24).unwrap_or(0));
            let is_required = entry[28] & 1 != 0;
            let end = start.checked_add(len).filter(|_| {
                start >= MIB && len > 0 && start.is_multiple_of(MIB) && len.is_multiple_of(MIB)
            });
            let Some(end) = end else {
                return Err(malformed(
                    PLACE,
                    format!(
                        "region {guid} has {len:#x} bytes at {start:#x}, allowed are whole MiB from 1 MiB on"
                    ),
                ));
            };
            let region = start..end;
            taken.push(region.clone());
            let known = match guid {
                BAT => &mut bat,
                METADATA => &mut metadata,
                _ if is_required => {
                    return Err(Error::unsupported(
                        Format::Vhdx,
                        PLACE,
                        format!("region {guid} is marked as required and not known here"),
                    ));
                }
                _ => continue,
            };
            if known.replace(region).is_some() {
                return Err(malformed(PLACE, format!("region {guid} is there twice")));
            }
        }
        taken.sort_by_key(|range| range.start);
        if let Some(pair) = taken.windows(2).find(|pair| pair[0].end > pair[1].start) {
            return Err(malformed(
                PLACE,
                format!(
                    "regions overlap: {:#x} to {:#x} and {:#x} to {:#x}",
                    pair[0].start, pair[0].end, pair[1].start, pair[1].end
                ),
            ));
        }
        match (bat, metadata) {
            (Some(bat), Some(metadata)) => Ok(Self {
                bat,
                metadata,
                taken,
            }),
            (None, _) => Err(malformed(PLACE, "names no BAT region")),
            (_, None) => Err(malformed(PLACE, "names no metadata region")),
        }
    }
}

/// Writes both tables into a header section.
pub(super) fn emit(section: &mut [u8], bat: &Range<u64>, metadata: &Range<u64>) {
    for at in TABLES {
        let table = &mut section[at..at + TABLE_LEN];
        table[..4].copy_from_slice(b"regi");
        table[8] = 2;
        let regions = [(BAT, bat), (METADATA, metadata)];
        for (entry, (guid, region)) in table[16..].chunks_exact_mut(32).zip(regions) {
            entry[..16].copy_from_slice(&guid.0);
            entry[16..24].copy_from_slice(&region.start.to_le_bytes());
            // A BAT has 512 MiB at most.
            let len = (region.end - region.start) as u32;
            entry[24..28].copy_from_slice(&len.to_le_bytes());
            entry[28] = 1;
        }
        let crc = checksum(table);
        table[4..8].copy_from_slice(&crc.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entry = (Guid, u64, u32, u8);

    fn parse(entries: &[Entry]) -> Result<Regions> {
        let mut section = vec![0; 320 << 10];
        let table = &mut section[TABLES[0]..][..TABLE_LEN];
        table[..4].copy_from_slice(b"regi");
        table[8] = entries.len() as u8;
        for (n, (guid, start, len, required)) in entries.iter().enumerate() {
            let at = 16 + n * 32;
            table[at..at + 16].copy_from_slice(&guid.0);
            table[at + 16..at + 24].copy_from_slice(&start.to_le_bytes());
            table[at + 24..at + 28].copy_from_slice(&len.to_le_bytes());
            table[at + 28] = *required;
        }
        let crc = checksum(table);
        table[4..8].copy_from_slice(&crc.to_le_bytes());
        let header = Header {
            sequence_number: 1,
            data_write_guid: Guid::default(),
            log_guid: Guid::default(),
            log_length: 1 << 20,
            log_offset: MIB,
        };
        let (regions, doubt) = Regions::parse(&section, &header)?;
        assert!(doubt.is_some(), "the second table was left out");
        Ok(regions)
    }

    #[test]
    fn finds_both_regions_and_refuses_what_contradicts() {
        const LEN: u32 = 1 << 20;
        let other = Guid::new(1, 2, 3, 4);
        let (bat, metadata) = ((BAT, 2 * MIB, LEN, 1), (METADATA, 3 * MIB, LEN, 1));
        let good = parse(&[bat, metadata, (other, 4 * MIB, LEN, 0)]).unwrap();
        assert_eq!(good.bat, 2 * MIB..3 * MIB);
        assert_eq!(good.taken.len(), 5);
        for bad in [
            vec![bat],
            vec![metadata],
            vec![bat, metadata, (other, 4 * MIB, LEN, 1)],
            vec![bat, metadata, bat],
            vec![bat, (METADATA, 2 * MIB, LEN, 1)],
            vec![bat, (METADATA, MIB, LEN, 1)],
            vec![bat, (METADATA, 0, LEN, 1)],
            vec![bat, (METADATA, 3 * MIB + 1, LEN, 1)],
            vec![bat, (METADATA, u64::MAX - MIB + 1, LEN, 1)],
            vec![bat, (METADATA, 3 * MIB, 0, 1)],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }
}
