//! File identifier and headers: bytes to bounded values.

use std::fmt;

use crate::bytes::{is_zero, le16, le32, le64};
use crate::{Error, Format, Result};

/// First bytes of the file.
pub(super) const SIGNATURE: &[u8; 8] = b"vhdxfile";
/// Bytes from the start of the file to the end of the second region table.
pub(super) const SECTION_LEN: usize = 320 << 10;
/// Everything in the file but the header section stands at multiples of this.
pub(super) const MIB: u64 = 1 << 20;
/// Bytes of both headers.
pub(super) const HEADERS: [usize; 2] = [64 << 10, 128 << 10];
/// Bytes of a header.
pub(super) const HEADER_LEN: usize = 4 << 10;

/// A GUID in the order of the file.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Guid(pub(super) [u8; 16]);

impl Guid {
    /// From the way GUIDs are written: `2DC27766-F623-4200-9D64-115E9BFD4A08` is
    /// `(0x2dc27766, 0xf623, 0x4200, 0x9d64_115e9bfd4a08)`.
    pub(super) const fn new(a: u32, b: u16, c: u16, d: u64) -> Self {
        let (a, b, c, d) = (
            a.to_le_bytes(),
            b.to_le_bytes(),
            c.to_le_bytes(),
            d.to_be_bytes(),
        );
        Self([
            a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5],
            d[6], d[7],
        ])
    }

    /// The GUID at byte `at`.
    pub(super) fn at(bytes: &[u8], at: usize) -> Option<Self> {
        bytes.get(at..)?.first_chunk().copied().map(Self)
    }

    /// From the way GUIDs are written, with or without braces.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        let text = text
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .unwrap_or(text);
        let mut parts = text.split('-');
        let mut part = |len: usize| {
            let part = parts.next()?;
            let is_right = part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
            is_right.then(|| u64::from_str_radix(part, 16).ok())?
        };
        let (a, b, c) = (part(8)?, part(4)?, part(4)?);
        let d = part(4)? << 48 | part(12)?;
        // Each part has as many digits as its field holds.
        let guid = Self::new(a as u32, b as u16, c as u16, d);
        parts.next().is_none().then_some(guid)
    }

    pub(super) fn is_zero(&self) -> bool {
        is_zero(&self.0)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = &self.0;
        let a = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let (m, n) = (
            u16::from_le_bytes([b[4], b[5]]),
            u16::from_le_bytes([b[6], b[7]]),
        );
        write!(f, "{a:08x}-{m:04x}-{n:04x}-{:02x}{:02x}-", b[8], b[9])?;
        b[10..].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(super) fn malformed(place: &'static str, message: impl Into<String>) -> Error {
    Error::malformed(Format::Vhdx, place, message)
}

/// CRC-32C of `bytes` with the checksum, the four bytes at byte 4, taken as zero.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let (head, rest) = bytes.split_at(bytes.len().min(4));
    let crc = crc32c::crc32c_append(crc32c::crc32c(head), &[0; 4]);
    crc32c::crc32c_append(crc, rest.get(4..).unwrap_or_default())
}

/// Checks signature and checksum of a structure that begins with them.
pub(super) fn check_sealed(bytes: &[u8], signature: &[u8; 4], place: &'static str) -> Result<()> {
    if !bytes.starts_with(signature) {
        let name = String::from_utf8_lossy(signature);
        return Err(malformed(place, format!("does not begin with {name:?}")));
    }
    let computed = checksum(bytes);
    match le32(bytes, 4) {
        Some(stored) if stored == computed => Ok(()),
        stored => Err(malformed(
            place,
            format!(
                "checksum is {:#010x} at byte 4, its bytes have {computed:#010x}",
                stored.unwrap_or(0)
            ),
        )),
    }
}

/// The program that made the file, in its own words.
pub(super) fn creator(section: &[u8]) -> String {
    let (units, _) = section.get(8..520).unwrap_or_default().as_chunks::<2>();
    let units = units.iter().map(|pair| u16::from_le_bytes(*pair));
    let name: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&name)
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

/// A valid header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) sequence_number: u64,
    /// Changes with every change of what the guest sees: what a child knows its parent by.
    pub(super) data_write_guid: Guid,
    /// Zero: the log is empty.
    pub(super) log_guid: Guid,
    /// Bytes of the log.
    pub(super) log_length: u32,
    /// Byte of the log.
    pub(super) log_offset: u64,
}

impl Header {
    /// The current header in the header section (the first [`SECTION_LEN`] bytes), and what is
    /// wrong with the other, where something is.
    pub(super) fn current(section: &[u8]) -> Result<(Self, Option<String>)> {
        let [first, second] = HEADERS.map(|at| {
            let bytes = section.get(at..at + HEADER_LEN).unwrap_or_default();
            Self::parse(bytes).map(|header| (header, bytes))
        });
        match (first, second) {
            (Ok((a, bytes_a)), Ok((b, bytes_b))) => {
                match a.sequence_number.cmp(&b.sequence_number) {
                    std::cmp::Ordering::Greater => Ok((a, None)),
                    std::cmp::Ordering::Less => Ok((b, None)),
                    // Disk2vhd writes the same header twice.
                    std::cmp::Ordering::Equal if bytes_a == bytes_b => Ok((a, None)),
                    std::cmp::Ordering::Equal => Err(malformed(
                        "header",
                        format!(
                            "both headers have sequence number {} and are not the same",
                            a.sequence_number
                        ),
                    )),
                }
            }
            (Ok((header, _)), Err(e)) => Ok((header, Some(format!("header 2: {}", e.message())))),
            (Err(e), Ok((header, _))) => Ok((header, Some(format!("header 1: {}", e.message())))),
            (Err(e), Err(_)) => Err(e),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        check_sealed(bytes, b"head", "header")?;
        Self::fields(bytes).ok_or_else(|| malformed("header", "is cut short"))?
    }

    fn fields(bytes: &[u8]) -> Option<Result<Self>> {
        let (log_version, version) = (le16(bytes, 64)?, le16(bytes, 66)?);
        let header = Self {
            sequence_number: le64(bytes, 8)?,
            data_write_guid: Guid::at(bytes, 32)?,
            log_guid: Guid::at(bytes, 48)?,
            log_length: le32(bytes, 68)?,
            log_offset: le64(bytes, 72)?,
        };
        if version != 1 {
            return Some(Err(Error::unsupported(
                Format::Vhdx,
                "header",
                format!("version is {version} at byte 66, known is 1"),
            )));
        }
        if header.is_dirty() && log_version != 0 {
            return Some(Err(Error::unsupported(
                Format::Vhdx,
                "header",
                format!("log version is {log_version} at byte 64, known is 0"),
            )));
        }
        let (at, len) = (header.log_offset, u64::from(header.log_length));
        if !at.is_multiple_of(MIB)
            || !len.is_multiple_of(MIB)
            || (len > 0 && at < MIB)
            || at.checked_add(len).is_none()
        {
            return Some(Err(malformed(
                "header",
                format!(
                    "log has {len:#x} bytes at {at:#x} (bytes 68 and 72), allowed are whole MiB from 1 MiB on"
                ),
            )));
        }
        if header.is_dirty() && len == 0 {
            return Some(Err(malformed("header", "has a log GUID, but no log")));
        }
        Some(Ok(header))
    }

    /// Whether the log holds writes not yet made.
    pub(super) fn is_dirty(&self) -> bool {
        !self.log_guid.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(sequence: [u64; 2]) -> Vec<u8> {
        let mut section = vec![0; SECTION_LEN];
        for (at, sequence) in HEADERS.into_iter().zip(sequence) {
            let header = &mut section[at..at + HEADER_LEN];
            header[..4].copy_from_slice(b"head");
            header[8..16].copy_from_slice(&sequence.to_le_bytes());
            header[66] = 1;
            let crc = checksum(header);
            header[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        section
    }

    #[test]
    fn the_higher_sequence_number_counts_and_damage_falls_back() {
        for sequence in [[7, 8], [8, 7]] {
            let (header, doubt) = Header::current(&section(sequence)).unwrap();
            assert_eq!((header.sequence_number, doubt), (8, None));
        }
        let mut broken = section([7, 8]);
        broken[HEADERS[1] + 100] ^= 1;
        let (header, doubt) = Header::current(&broken).unwrap();
        assert_eq!((header.sequence_number, doubt.is_some()), (7, true));
        broken[HEADERS[0] + 100] ^= 1;
        assert!(Header::current(&broken).is_err());
    }

    #[test]
    fn equal_sequence_numbers_need_equal_headers() {
        assert!(Header::current(&section([7, 7])).is_ok());
        let mut other = section([7, 7]);
        let header = &mut other[HEADERS[0]..HEADERS[0] + HEADER_LEN];
        header[16] = 1;
        let crc = checksum(header);
        header[4..8].copy_from_slice(&crc.to_le_bytes());
        assert!(Header::current(&other).is_err());
    }

    #[test]
    fn guids_are_written_as_microsoft_does() {
        let guid = Guid::new(0x2dc2_7766, 0xf623, 0x4200, 0x9d64_115e_9bfd_4a08);
        assert_eq!(guid.to_string(), "2dc27766-f623-4200-9d64-115e9bfd4a08");
        assert_eq!(guid.0[..4], [0x66, 0x77, 0xc2, 0x2d]);
        assert_eq!(Guid::parse(&guid.to_string()), Some(guid));
        assert_eq!(
            Guid::parse(&format!("{{{guid:?}}}").to_uppercase()),
            Some(guid)
        );
        for bad in [
            "",
            "{}",
            "2dc27766-f623-4200-9d64",
            "+dc27766-f623-4200-9d64-115e9bfd4a08",
        ] {
            assert_eq!(Guid::parse(bad), None);
        }
        assert_eq!(Guid::parse(&format!("{guid}-00")), None);
    }
}
