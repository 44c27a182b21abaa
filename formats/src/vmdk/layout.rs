//! The sparse header, its footer, and the markers of streams.

use super::tables::{Entries, Geometry};
use crate::bytes::{le16, le32, le64};
use crate::source::read_up_to;
use crate::{Error, Format, HostOffset, Limits, Result, Source};

/// Bytes of a sector: the unit of every offset and size in a vmdk.
pub(super) const SECTOR: u64 = 512;
/// Bytes of the header, the footer and a marker: a sector each.
pub(super) const HEADER_LEN: usize = 512;
/// `KDMV`: a hosted sparse extent.
pub(super) const SPARSE_MAGIC: &[u8] = b"KDMV";
/// `COWD`: an ESX sparse extent.
pub(super) const COWD_MAGIC: &[u8] = b"COWD";
/// First eight bytes of a seSparse extent.
pub(super) const SESPARSE_MAGIC: &[u8] = &0xcafe_babe_u64.to_le_bytes();
/// `gdOffset` of a stream: the true one is in the footer.
pub(super) const GD_AT_END: u64 = u64::MAX;

/// Flag: the newline characters of the header are valid.
pub(super) const FLAG_NEWLINE_TEST: u32 = 1;
/// Flag: there is a redundant grain directory.
pub(super) const FLAG_REDUNDANT_TABLE: u32 = 1 << 1;
/// Flag: a table entry of 1 means a grain of zeros.
pub(super) const FLAG_ZEROED_GRAIN: u32 = 1 << 2;
/// Flag: grains are compressed.
pub(super) const FLAG_COMPRESSED: u32 = 1 << 16;
/// Flag: grains and tables carry markers.
pub(super) const FLAG_MARKERS: u32 = 1 << 17;

/// `compressAlgorithm` of grains stored as they are.
pub(super) const COMPRESSION_NONE: u16 = 0;
/// `compressAlgorithm` of zlib grains.
pub(super) const COMPRESSION_DEFLATE: u16 = 1;

/// What a transfer in text mode destroys.
pub(super) const NEWLINES: &[u8; 4] = b"\n \r\n";

/// Bytes of the last structures of a stream: marker, footer, end-of-stream marker.
pub(super) const STREAM_END: u64 = 3 * SECTOR;
/// Bytes before the compressed data of a grain: `lba` (8), `size` (4).
pub(super) const GRAIN_MARKER_LEN: usize = 12;

/// Largest embedded descriptor, in bytes.
pub(super) const MAX_DESCRIPTOR: u64 = (1 << 20) - 1;

const GRAIN_SECTORS: std::ops::RangeInclusive<u64> = 8..=4096;
const TABLE_ENTRIES: std::ops::RangeInclusive<u32> = 1..=4096;

fn malformed(place: &'static str, message: impl Into<String>) -> Error {
    Error::malformed(Format::Vmdk, place, message)
}

/// The sparse header, with every field bounded. The footer of a stream is another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) flags: u32,
    /// Virtual size.
    pub(super) capacity_sectors: u64,
    pub(super) grain_sectors: u64,
    pub(super) descriptor_sector: u64,
    pub(super) descriptor_sectors: u64,
    pub(super) table_entries: u32,
    pub(super) redundant_directory_sector: u64,
    /// `None`: in the footer.
    pub(super) directory_sector: Option<u64>,
    pub(super) overhead_sectors: u64,
    pub(super) is_unclean: bool,
    pub(super) newlines: [u8; 4],
    pub(super) compression: u16,
}

impl Header {
    /// Parses the first sector of a sparse extent, or the footer of a stream (`place` says
    /// which).
    pub(super) fn parse(bytes: &[u8], place: &'static str, limits: &Limits) -> Result<Self> {
        let short = || malformed(place, format!("is {} bytes, wanted 512", bytes.len()));
        if bytes.get(..4).ok_or_else(short)? != SPARSE_MAGIC {
            return Err(malformed(place, "magic at byte 0 is not KDMV"));
        }
        let u16_at = |at| le16(bytes, at).ok_or_else(short);
        let u32_at = |at| le32(bytes, at).ok_or_else(short);
        let u64_at = |at| le64(bytes, at).ok_or_else(short);
        let newlines = bytes.get(73..77).and_then(|b| b.try_into().ok());
        let header = Self {
            version: u32_at(4)?,
            flags: u32_at(8)?,
            capacity_sectors: u64_at(12)?,
            grain_sectors: u64_at(20)?,
            descriptor_sector: u64_at(28)?,
            descriptor_sectors: u64_at(36)?,
            table_entries: u32_at(44)?,
            redundant_directory_sector: u64_at(48)?,
            directory_sector: Some(u64_at(56)?).filter(|&sector| sector != GD_AT_END),
            overhead_sectors: u64_at(64)?,
            is_unclean: *bytes.get(72).ok_or_else(short)? != 0,
            newlines: newlines.ok_or_else(short)?,
            compression: u16_at(77)?,
        };
        header.check(place, limits)?;
        Ok(header)
    }

    fn check(&self, place: &'static str, limits: &Limits) -> Result<()> {
        if !(1..=3).contains(&self.version) {
            return Err(malformed(
                place,
                format!("version is {} at byte 4, allowed 1 to 3", self.version),
            ));
        }
        check_grain_sectors(self.grain_sectors, GRAIN_SECTORS, place, 20)?;
        if !TABLE_ENTRIES.contains(&self.table_entries) {
            return Err(malformed(
                place,
                format!(
                    "numGTEsPerGT is {} at byte 44, allowed {} to {}",
                    self.table_entries,
                    TABLE_ENTRIES.start(),
                    TABLE_ENTRIES.end()
                ),
            ));
        }
        let Some(capacity) = self.capacity_sectors.checked_mul(SECTOR) else {
            return Err(malformed(
                place,
                format!(
                    "capacity is {:#x} sectors at byte 12, beyond 64 bits of bytes",
                    self.capacity_sectors
                ),
            ));
        };
        limits.virtual_size(Format::Vmdk, capacity)?;
        let is_compressed = self.flags & FLAG_COMPRESSED != 0;
        match (self.compression, is_compressed) {
            (COMPRESSION_NONE, false) => Ok(()),
            (COMPRESSION_DEFLATE, true) if self.flags & FLAG_MARKERS != 0 => Ok(()),
            (COMPRESSION_DEFLATE, true) => Err(Error::unsupported(
                Format::Vmdk,
                place,
                format!(
                    "flags are {:#x} at byte 8: compressed grains without markers",
                    self.flags
                ),
            )),
            (COMPRESSION_NONE | COMPRESSION_DEFLATE, _) => Err(malformed(
                place,
                format!(
                    "compressAlgorithm is {} at byte 77 but flags are {:#x} at byte 8: they \
                     contradict each other",
                    self.compression, self.flags
                ),
            )),
            (other, _) => Err(malformed(
                place,
                format!("compressAlgorithm is {other} at byte 77, allowed 0 and 1"),
            )),
        }
    }

    /// Virtual size in bytes.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity_sectors * SECTOR
    }

    /// Bytes of a grain.
    pub(super) fn grain_size(&self) -> u64 {
        self.grain_sectors * SECTOR
    }

    /// What the tables of this extent are like; `directory_sector` may come from a footer.
    pub(super) fn geometry(&self, directory_sector: u64) -> Geometry {
        Geometry {
            capacity: self.capacity(),
            grain_size: self.grain_size(),
            table_entries: self.table_entries,
            directory_sector,
            is_compressed: self.is_compressed(),
            entries: Entries::Sectors {
                has_zeroed_grains: self.flags & FLAG_ZEROED_GRAIN != 0,
            },
        }
    }

    /// The header that counts: this one, or the footer of `source` where it says so.
    pub(super) fn with_footer(self, source: &dyn Source, limits: &Limits) -> Result<Self> {
        if self.directory_sector.is_some() {
            return Ok(self);
        }
        let at = source.len().saturating_sub(STREAM_END);
        let end = read_up_to(source, HostOffset(at), STREAM_END as usize)?;
        self.parse_stream_end(&end, limits)
    }

    /// Entries of the grain directory.
    pub(super) fn directory_entries(&self) -> u64 {
        let table = self.grain_sectors * u64::from(self.table_entries);
        self.capacity_sectors.div_ceil(table)
    }

    pub(super) fn has_redundant_directory(&self) -> bool {
        self.flags & FLAG_REDUNDANT_TABLE != 0
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.flags & FLAG_COMPRESSED != 0
    }

    /// Whether a transfer in text mode changed the newline characters.
    pub(super) fn lost_newlines(&self) -> bool {
        self.flags & FLAG_NEWLINE_TEST != 0 && &self.newlines != NEWLINES
    }

    /// Where the embedded descriptor lies, in bytes: start and length. `None` without one.
    pub(super) fn descriptor(&self, place: &'static str) -> Result<Option<(u64, u64)>> {
        if self.descriptor_sector == 0 || self.descriptor_sectors == 0 {
            return Ok(None);
        }
        let start = self.descriptor_sector.checked_mul(SECTOR);
        let len = self.descriptor_sectors.checked_mul(SECTOR);
        match (start, len) {
            (Some(start), Some(len)) if len <= MAX_DESCRIPTOR && start <= u64::MAX - len => {
                Ok(Some((start, len)))
            }
            _ => Err(malformed(
                place,
                format!(
                    "descriptor is {:#x} sectors from sector {:#x}, allowed {} bytes",
                    self.descriptor_sectors, self.descriptor_sector, MAX_DESCRIPTOR
                ),
            )),
        }
    }

    /// Checks a footer against its header: it replaces it, and must not say anything else.
    pub(super) fn check_footer(&self, footer: &Self) -> Result<()> {
        let fields = [
            (
                "version",
                u64::from(self.version),
                u64::from(footer.version),
            ),
            ("flags", u64::from(self.flags), u64::from(footer.flags)),
            ("capacity", self.capacity_sectors, footer.capacity_sectors),
            ("grainSize", self.grain_sectors, footer.grain_sectors),
            (
                "descriptorOffset",
                self.descriptor_sector,
                footer.descriptor_sector,
            ),
            (
                "descriptorSize",
                self.descriptor_sectors,
                footer.descriptor_sectors,
            ),
            (
                "numGTEsPerGT",
                u64::from(self.table_entries),
                u64::from(footer.table_entries),
            ),
        ];
        for (field, header, footer) in fields {
            if header != footer {
                return Err(malformed(
                    "footer",
                    format!("{field} is {footer}, {header} in the header"),
                ));
            }
        }
        if footer.directory_sector.is_none() {
            return Err(malformed(
                "footer",
                "gdOffset at byte 56 points to a footer again",
            ));
        }
        Ok(())
    }

    /// Parses the last three sectors of a stream and checks them against this, its header.
    pub(super) fn parse_stream_end(&self, bytes: &[u8], limits: &Limits) -> Result<Self> {
        let (Some(marker), Some(footer), Some(end)) = (
            bytes.get(..512),
            bytes.get(512..1024),
            bytes.get(1024..1536),
        ) else {
            return Err(malformed(
                "footer",
                "the file ends before it: it was cut short",
            ));
        };
        // VMware leaves the first field, the sectors that follow, at 1; others at 0.
        if le32(marker, 8) != Some(0) || le32(marker, 12) != Some(MarkerType::Footer as u32) {
            return Err(malformed(
                "footer",
                "has no footer marker before it, 1536 bytes from the end: the file was cut short \
                 or something follows it",
            ));
        }
        if !crate::bytes::is_zero(&marker[16..]) {
            return Err(malformed("footer", "its marker holds more than it should"));
        }
        if !crate::bytes::is_zero(end) {
            return Err(malformed(
                "footer",
                "the last sector is no end-of-stream marker",
            ));
        }
        let footer = Self::parse(footer, "footer", limits)?;
        self.check_footer(&footer)?;
        Ok(footer)
    }

    /// The header as it is written.
    pub(super) fn emit(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, SPARSE_MAGIC);
        put(4, &self.version.to_le_bytes());
        put(8, &self.flags.to_le_bytes());
        put(12, &self.capacity_sectors.to_le_bytes());
        put(20, &self.grain_sectors.to_le_bytes());
        put(28, &self.descriptor_sector.to_le_bytes());
        put(36, &self.descriptor_sectors.to_le_bytes());
        put(44, &self.table_entries.to_le_bytes());
        put(48, &self.redundant_directory_sector.to_le_bytes());
        let directory = self.directory_sector.unwrap_or(GD_AT_END);
        put(56, &directory.to_le_bytes());
        put(64, &self.overhead_sectors.to_le_bytes());
        put(72, &[u8::from(self.is_unclean)]);
        put(73, &self.newlines);
        put(77, &self.compression.to_le_bytes());
        bytes
    }
}

/// Checks a grain size: a power of two of sectors, in range.
pub(super) fn check_grain_sectors(
    sectors: u64,
    allowed: std::ops::RangeInclusive<u64>,
    place: &'static str,
    at: usize,
) -> Result<()> {
    if allowed.contains(&sectors) && sectors.is_power_of_two() {
        return Ok(());
    }
    Err(malformed(
        place,
        format!(
            "grainSize is {sectors} sectors at byte {at}, allowed powers of two from {} to {}",
            allowed.start(),
            allowed.end()
        ),
    ))
}

/// What a marker announces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MarkerType {
    EndOfStream = 0,
    GrainTable = 1,
    GrainDirectory = 2,
    Footer = 3,
}

/// A marker: one sector before what it announces.
pub(super) fn emit_marker(kind: MarkerType, sectors: u64) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(&sectors.to_le_bytes());
    bytes[12..16].copy_from_slice(&(kind as u32).to_le_bytes());
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ErrorKind;

    pub(in crate::vmdk) fn sample() -> Header {
        Header {
            version: 3,
            flags: FLAG_NEWLINE_TEST | FLAG_COMPRESSED | FLAG_MARKERS,
            capacity_sectors: 20480,
            grain_sectors: 128,
            descriptor_sector: 1,
            descriptor_sectors: 20,
            table_entries: 512,
            redundant_directory_sector: 0,
            directory_sector: None,
            overhead_sectors: 128,
            is_unclean: false,
            newlines: *NEWLINES,
            compression: COMPRESSION_DEFLATE,
        }
    }

    fn parse(bytes: &[u8]) -> Result<Header> {
        Header::parse(bytes, "header", &Limits::default())
    }

    #[test]
    fn a_header_survives_the_way_there_and_back() {
        let header = sample();
        assert_eq!(parse(&header.emit()).unwrap(), header);
        let plain = Header {
            version: 1,
            flags: 3,
            directory_sector: Some(26),
            redundant_directory_sector: 21,
            compression: 0,
            is_unclean: true,
            ..sample()
        };
        assert_eq!(parse(&plain.emit()).unwrap(), plain);
    }

    #[test]
    fn every_field_is_bounded() {
        let bad = |change: fn(&mut Header)| {
            let mut header = sample();
            change(&mut header);
            parse(&header.emit()).unwrap_err()
        };
        for (error, says) in [
            (bad(|h| h.version = 4), "version is 4 at byte 4"),
            (bad(|h| h.grain_sectors = 0), "grainSize is 0"),
            (bad(|h| h.grain_sectors = 100), "grainSize is 100"),
            (bad(|h| h.grain_sectors = 8192), "grainSize is 8192"),
            (bad(|h| h.table_entries = 0), "numGTEsPerGT is 0"),
            (
                bad(|h| h.table_entries = u32::MAX),
                "numGTEsPerGT is 4294967295",
            ),
            (bad(|h| h.capacity_sectors = u64::MAX), "capacity is"),
            (bad(|h| h.compression = 7), "compressAlgorithm is 7"),
            (bad(|h| h.compression = 0), "contradict"),
        ] {
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
        }
        let huge = bad(|h| h.capacity_sectors = 1 << 40);
        assert_eq!(huge.kind(), ErrorKind::Limit);
        assert_eq!(
            bad(|h| h.flags = FLAG_COMPRESSED).kind(),
            ErrorKind::Unsupported
        );
        for len in 0..80 {
            assert!(parse(&sample().emit()[..len]).is_err() || len >= 79);
        }
    }

    #[test]
    fn a_footer_says_what_the_header_says() {
        let header = sample();
        let limits = Limits::default();
        let footer = Header {
            directory_sector: Some(545),
            ..sample()
        };
        let end = |footer: &Header| {
            let mut bytes = emit_marker(MarkerType::Footer, 1).to_vec();
            bytes.extend(footer.emit());
            bytes.extend(emit_marker(MarkerType::EndOfStream, 0));
            bytes
        };
        let good = end(&footer);
        assert_eq!(header.parse_stream_end(&good, &limits).unwrap(), footer);
        for len in 0..good.len() {
            assert!(header.parse_stream_end(&good[..len], &limits).is_err());
        }
        assert!(header.parse_stream_end(&end(&header), &limits).is_err());
        let larger = Header {
            capacity_sectors: 99999,
            ..footer
        };
        let error = header.parse_stream_end(&end(&larger), &limits).unwrap_err();
        assert_eq!(
            error.to_string(),
            "vmdk footer: capacity is 99999, 20480 in the header"
        );
    }
}
