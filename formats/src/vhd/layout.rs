//! The footer: bytes to bounded values. Big-endian throughout.

use crate::bytes::{be16, be32, be64};
use crate::{Error, Format, Result};

/// First bytes of a footer.
const COOKIE: &[u8; 8] = b"conectix";
/// Bytes of a footer.
pub(super) const FOOTER_LEN: usize = 512;
/// Bytes of a footer as the first Virtual PC wrote it.
const SHORT_FOOTER_LEN: usize = 511;
/// Bytes of a sector, the unit of block allocation table entries.
pub(super) const SECTOR: u64 = 512;
/// Sectors of the largest disk: 2040 GiB.
pub(super) const MAX_SECTORS: u64 = 0xff00_0000;
/// Cylinders, heads and sectors when the geometry says only that the disk is large.
pub(super) const MAX_GEOMETRY: (u16, u8, u8) = (65535, 16, 255);

/// What kind of disk a footer ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DiskType {
    /// The guest's bytes, then the footer.
    Fixed,
    /// Blocks placed by a table.
    Dynamic,
    /// Blocks over those of a parent.
    Differencing,
}

impl DiskType {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Dynamic => "dynamic",
            Self::Differencing => "differencing",
        }
    }
}

/// A footer whose checksum is right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Footer {
    pub(super) disk_type: DiskType,
    /// Byte of the dynamic header.
    pub(super) data_offset: u64,
    pub(super) creator_application: [u8; 4],
    pub(super) creator_host_os: [u8; 4],
    /// Bytes by the size field.
    pub(super) current_size: u64,
    /// Cylinders, heads, sectors per track.
    pub(super) geometry: (u16, u8, u8),
    pub(super) unique_id: [u8; 16],
    pub(super) saved_state: bool,
}

pub(super) fn malformed(place: &'static str, message: impl Into<String>) -> Error {
    Error::malformed(Format::Vhd, place, message)
}

/// The ones' complement of the sum of all bytes but those of the checksum at `at`.
pub(super) fn checksum(bytes: &[u8], at: usize) -> u32 {
    let sum = bytes
        .iter()
        .enumerate()
        .filter(|(n, _)| !(at..at + 4).contains(n))
        .fold(0u32, |sum, (_, b)| sum.wrapping_add(u32::from(*b)));
    !sum
}

/// Makes the checksum at `at` right.
pub(super) fn seal(bytes: &mut [u8], at: usize) {
    let sum = checksum(bytes, at);
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
}

/// Sectors of a geometry.
fn sectors((cylinders, heads, sectors): (u16, u8, u8)) -> u64 {
    u64::from(cylinders) * u64::from(heads) * u64::from(sectors)
}

/// The smallest geometry of the specification's appendix ("CHS Calculation") that holds
/// `wanted` sectors, and how many it holds; `None` when the disk is too large for any.
pub(super) fn geometry(wanted: u64) -> Option<(u64, (u16, u8, u8))> {
    // The calculation rounds down: ask for more until it is enough. A cylinder is 16 × 255
    // sectors at most, so that is soon.
    (wanted..wanted.saturating_add(2 * 16 * 255))
        .map_while(fitted)
        .map(|geometry| (sectors(geometry), geometry))
        .find(|(held, _)| *held >= wanted)
}

/// The geometry the specification calculates for a disk, which may hold a little less.
fn fitted(total: u64) -> Option<(u16, u8, u8)> {
    if total >= sectors(MAX_GEOMETRY) {
        return None;
    }
    let (heads, per_track) = if total >= 65535 * 16 * 63 {
        (16, 255)
    } else {
        let tracks = total / 17;
        let heads = tracks.div_ceil(1024).max(4);
        if heads <= 16 && tracks < heads * 1024 {
            (heads, 17)
        } else if total / 31 < 16 * 1024 {
            (16, 31)
        } else {
            (16, 63)
        }
    };
    let cylinders = u16::try_from(total / per_track / heads).ok()?;
    Some((cylinders, heads as u8, per_track as u8))
}

impl Footer {
    /// Parses a footer of 512 bytes, or 511 of the first Virtual PC.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        Self::fields(bytes)
            .ok_or_else(|| malformed("footer", format!("has {} bytes of 512", bytes.len())))?
    }

    fn fields(bytes: &[u8]) -> Option<Result<Self>> {
        if bytes.len() < SHORT_FOOTER_LEN {
            return None;
        }
        if !bytes.starts_with(COOKIE) {
            return Some(Err(malformed("footer", "does not begin with \"conectix\"")));
        }
        let stored = be32(bytes, 64)?;
        let computed = checksum(bytes, 64);
        if stored != computed {
            return Some(Err(malformed(
                "footer",
                format!("checksum is {stored:#010x} at byte 64, its bytes sum to {computed:#010x}"),
            )));
        }
        let version = be32(bytes, 12)?;
        if version >> 16 != 1 {
            return Some(Err(Error::unsupported(
                Format::Vhd,
                "footer",
                format!("file format version is {version:#010x} at byte 12, known is 0x00010000"),
            )));
        }
        let disk_type = match be32(bytes, 60)? {
            2 => DiskType::Fixed,
            3 => DiskType::Dynamic,
            4 => DiskType::Differencing,
            other => {
                return Some(Err(malformed(
                    "footer",
                    format!("disk type is {other} at byte 60, allowed 2 to 4"),
                )));
            }
        };
        Some(Ok(Self {
            disk_type,
            data_offset: be64(bytes, 16)?,
            creator_application: *bytes.get(28..)?.first_chunk()?,
            creator_host_os: *bytes.get(36..)?.first_chunk()?,
            current_size: be64(bytes, 48)?,
            geometry: (be16(bytes, 56)?, *bytes.get(58)?, *bytes.get(59)?),
            unique_id: *bytes.get(68..)?.first_chunk()?,
            saved_state: *bytes.get(84)? != 0,
        }))
    }

    /// Bytes by the geometry.
    pub(super) fn geometry_size(&self) -> u64 {
        sectors(self.geometry) * SECTOR
    }

    /// Whether its creator cuts disks to their geometry. Virtual PC does, and so does qemu
    /// unless told otherwise (it then signs as `qem2`); everybody else goes by the size field.
    /// A geometry at its maximum says nothing but "large".
    pub(super) fn is_sized_by_geometry(&self) -> bool {
        matches!(&self.creator_application, b"vpc " | b"qemu")
            && self.geometry_size() != sectors(MAX_GEOMETRY) * SECTOR
    }

    /// Bytes the guest sees: whole sectors.
    pub(super) fn virtual_size(&self) -> Result<u64> {
        let size = if self.is_sized_by_geometry() {
            self.geometry_size()
        } else {
            self.current_size / SECTOR * SECTOR
        };
        if size / SECTOR > MAX_SECTORS {
            return Err(malformed(
                "footer",
                format!("current size is {size} at byte 48, allowed up to 2040 GiB"),
            ));
        }
        Ok(size)
    }

    /// Whether both say the same of where and how large the disk is.
    fn agrees(&self, other: &Self) -> bool {
        let of = |f: &Self| {
            (
                f.disk_type,
                f.data_offset,
                f.current_size,
                f.geometry,
                f.creator_application,
            )
        };
        of(self) == of(other)
    }
}

/// The footer of a file, and what is odd about its copies.
#[derive(Debug)]
pub(super) struct Footers {
    pub(super) footer: Footer,
    /// Bytes the footer takes at the end of the file; zero when it is not there.
    pub(super) at_end: u64,
    /// Why only one of the copies counts.
    pub(super) doubt: Option<String>,
}

impl Footers {
    /// Finds the footer, given the first and the last 512 bytes of the file; `None` when
    /// neither holds one.
    ///
    /// The footer stands at the end, dynamic disks have a copy of it at byte 0. Where one is
    /// damaged the other counts; where both are whole and contradict each other neither does.
    pub(super) fn find(head: &[u8], tail: &[u8]) -> Result<Option<Self>> {
        let copy = head.starts_with(COOKIE).then(|| Footer::parse(head));
        let short = tail.len().saturating_sub(SHORT_FOOTER_LEN);
        let ends = [tail, tail.get(short..).unwrap_or_default()];
        let end = ends
            .into_iter()
            .find(|bytes| bytes.starts_with(COOKIE))
            .map(|bytes| (bytes.len() as u64, Footer::parse(bytes)));
        let found = match (copy, end) {
            (None, None) => return Ok(None),
            (Some(Ok(copy)), Some((at_end, Ok(end)))) => {
                if !copy.agrees(&end) {
                    return Err(malformed(
                        "footer",
                        "contradicts its copy at byte 0 in type, size or place of the header",
                    ));
                }
                Self {
                    footer: end,
                    at_end,
                    doubt: None,
                }
            }
            (Some(Ok(copy)), other) => {
                if copy.disk_type == DiskType::Fixed {
                    return Err(malformed("footer", "is missing at the end of a fixed disk"));
                }
                let doubt = match other {
                    Some((_, Err(e))) => format!("the footer at the end: {}", e.message()),
                    _ => "there is no footer at the end: the file may be cut short".to_owned(),
                };
                Self {
                    footer: copy,
                    at_end: 0,
                    doubt: Some(doubt),
                }
            }
            (copy, Some((at_end, Ok(end)))) => {
                let doubt = match copy {
                    Some(Err(e)) => Some(format!("the footer copy at byte 0: {}", e.message())),
                    _ if end.disk_type == DiskType::Fixed => None,
                    _ => Some("there is no footer copy at byte 0".to_owned()),
                };
                Self {
                    footer: end,
                    at_end,
                    doubt,
                }
            }
            (Some(Err(e)), _) | (None, Some((_, Err(e)))) => return Err(e),
        };
        Ok(Some(found))
    }
}

/// A unique id as people write it.
pub(super) fn uuid(id: &[u8; 16]) -> String {
    let hex = |part: &[u8]| part.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let parts = [&id[..4], &id[4..6], &id[6..8], &id[8..10], &id[10..]];
    parts.map(hex).join("-")
}

/// Text of a fixed field, for people.
pub(super) fn printable(field: &[u8]) -> String {
    field
        .iter()
        .filter(|b| **b != 0)
        .map(|b| {
            if b.is_ascii_graphic() || *b == b' ' {
                *b as char
            } else {
                '?'
            }
        })
        .collect::<String>()
        .trim_end()
        .to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A footer as the specification draws it.
    pub(crate) fn footer(disk_type: u32, creator: &[u8; 4], size: u64) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..8].copy_from_slice(COOKIE);
        bytes[12..16].copy_from_slice(&0x0001_0000u32.to_be_bytes());
        bytes[16..24].copy_from_slice(&512u64.to_be_bytes());
        bytes[28..32].copy_from_slice(creator);
        bytes[48..56].copy_from_slice(&size.to_be_bytes());
        bytes[56..60].copy_from_slice(&[0, 100, 4, 17]);
        bytes[60..64].copy_from_slice(&disk_type.to_be_bytes());
        seal(&mut bytes, 64);
        bytes
    }

    #[test]
    fn the_creator_decides_which_size_counts() {
        let size = |creator| {
            let footer = Footer::parse(&footer(3, creator, 4 << 20)).unwrap();
            footer.virtual_size().unwrap()
        };
        for creator in [b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0"] {
            assert_eq!(size(creator), 4 << 20);
        }
        for creator in [b"vpc ", b"qemu"] {
            assert_eq!(size(creator), 100 * 4 * 17 * 512);
        }
    }

    #[test]
    fn geometry_holds_what_is_asked_for_and_little_more() {
        for wanted in (0..40).map(|n| (1u64 << n) - 1).chain([65535 * 16 * 63]) {
            match geometry(wanted) {
                Some((held, _)) => assert!((wanted..=wanted + 16 * 255).contains(&held)),
                None => assert!(wanted > 65534 * 16 * 255),
            }
        }
        assert_eq!(geometry(4 * 17 * 100), Some((4 * 17 * 100, (100, 4, 17))));
    }

    #[test]
    fn a_damaged_copy_gives_way_to_the_other() {
        let whole = footer(3, b"win ", 4 << 20);
        let mut broken = whole.clone();
        broken[50] ^= 1;
        let zeros = vec![0; 512];
        for (head, tail, doubtful) in [
            (&whole, &whole, false),
            (&whole, &broken, true),
            (&whole, &zeros, true),
            (&broken, &whole, true),
            (&zeros, &whole, true),
        ] {
            let found = Footers::find(head, tail).unwrap().unwrap();
            assert_eq!(found.doubt.is_some(), doubtful);
        }
        assert!(Footers::find(&broken, &broken).is_err());
        assert!(Footers::find(&zeros, &zeros).unwrap().is_none());
        let other = footer(3, b"win ", 8 << 20);
        assert!(Footers::find(&whole, &other).is_err());
    }

    #[test]
    fn the_footer_of_the_first_virtual_pc_has_511_bytes() {
        let mut tail = vec![0xaa];
        tail.extend_from_slice(&footer(2, b"vpc ", 4 << 20)[..511]);
        let found = Footers::find(&[0; 512], &tail).unwrap().unwrap();
        assert_eq!(found.at_end, 511);
    }
}
