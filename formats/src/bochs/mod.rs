//! Bochs growing disks.
//!
//! ```text
//!  byte 0     header, 512 bytes as a rule: magic, type, subtype, sizes     little-endian
//!  header     catalog: one u32 an extent, its slot number or all ones
//!  after it   slots, each the bitmap of its extent and then the extent:
//!             bitmap (whole sectors, one bit a sector) · extent
//! ```
//! Bochs user manual, "hdimage formats" and `iodev/hdimage/hdimage.h`. Of the redolog types only
//! `Growing` is a disk by itself: `Undoable` and `Volatile` are changes to another file, and are
//! refused. A sector whose bit is clear is zero.

mod reader;

use std::sync::Arc;

use crate::HostOffset;
use crate::bytes::{le32, le64};
use crate::inspect::{Facts, Next, Region, Span};
use crate::{Disk, Error, Format, Limits, OpenOptions, Result, Source, read_up_to};

const MAGIC: &[u8] = b"Bochs Virtual HD Image\0";
const SECTOR: u64 = 512;
/// Bytes of the header in use, in its longer version.
const HEADER: u64 = 96;
const MAX_EXTENT: u32 = 8 << 20;

/// Recognises Bochs disks.
#[derive(Default)]
pub struct Inspector {}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Bochs
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::head(HEADER)])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        let Some(head) = regions.first().filter(|r| r.bytes.starts_with(MAGIC)) else {
            return Next::NotMine;
        };
        let mut facts = Facts::new(Format::Bochs);
        match Header::parse(head.bytes) {
            Ok(header) => {
                facts.virtual_size = Some(header.disk_size);
                facts.detail("version", header.version);
                facts.detail("extent_size", header.extent_size);
                facts.detail("catalog_entries", header.catalog_entries);
            }
            Err(e) => facts.find_error(&e),
        }
        Next::Done(facts)
    }
}

/// Opens the disk in `source`.
///
/// # Errors
/// `Malformed`; `Refused` for changes to another file; `Limit`.
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, HEADER as usize)?;
    let header = Header::parse(&head)?;
    Ok(Arc::new(reader::Reader::new(
        source,
        &header,
        &options.limits,
    )?))
}

/// The header; every value within its bounds.
#[derive(Debug)]
struct Header {
    version: u16,
    /// Bytes of the header itself: where the catalog begins.
    size: u32,
    catalog_entries: u32,
    /// Bytes of an extent's bitmap.
    bitmap_size: u32,
    /// Bytes of an extent.
    extent_size: u32,
    disk_size: u64,
}

impl Header {
    fn parse(head: &[u8]) -> Result<Self> {
        let malformed = |message: String| Error::malformed(Format::Bochs, "header", message);
        let cut = || malformed(format!("the file ends at byte {} within it", head.len()));
        if !head.starts_with(MAGIC) {
            return Err(malformed("the magic is missing at byte 0".into()));
        }
        let kind = text(head.get(32..48).ok_or_else(cut)?);
        if kind != "Redolog" {
            return Err(malformed(format!(
                "the type is {kind:?} at byte 32, allowed \"Redolog\""
            )));
        }
        let subtype = text(head.get(48..64).ok_or_else(cut)?);
        if subtype != "Growing" {
            let message = format!("the subtype {subtype:?} is changes to another file");
            return Err(Error::refused(Format::Bochs, "header", message));
        }
        let field = |at| le32(head, at).ok_or_else(cut);
        let (version, disk_size) = match field(64)? {
            0x0001_0000 => (1, le64(head, 84)),
            0x0002_0000 => (2, le64(head, 88)),
            version => {
                let message = format!("the version is {version:#x} at byte 64");
                return Err(Error::unsupported(Format::Bochs, "header", message));
            }
        };
        let header = Self {
            version,
            size: field(68)?,
            catalog_entries: field(72)?,
            bitmap_size: field(76)?,
            extent_size: field(80)?,
            disk_size: disk_size.ok_or_else(cut)?,
        };
        header.check().map(|()| header)
    }

    fn check(&self) -> Result<()> {
        let malformed = |message| Err(Error::malformed(Format::Bochs, "header", message));
        let Self {
            size,
            catalog_entries,
            bitmap_size,
            extent_size,
            disk_size,
            ..
        } = *self;
        if !(84..=1 << 20).contains(&size) {
            return malformed(format!(
                "its size is {size} at byte 68, allowed 84 to 1048576"
            ));
        }
        if !extent_size.is_power_of_two() || !(512..=MAX_EXTENT).contains(&extent_size) {
            return malformed(format!(
                "the extent size is {extent_size} at byte 80, allowed powers of two from 512 to \
                 {MAX_EXTENT}"
            ));
        }
        let sectors = u64::from(extent_size) / SECTOR;
        if u64::from(bitmap_size) * 8 < sectors || bitmap_size > MAX_EXTENT {
            return malformed(format!(
                "the bitmap size is {bitmap_size} at byte 76, too small or large for {sectors} \
                 sectors an extent"
            ));
        }
        let room = u64::from(catalog_entries) * u64::from(extent_size);
        if disk_size % SECTOR != 0 || disk_size > room {
            return malformed(format!(
                "the disk size is {disk_size}, allowed multiples of 512 up to the {room} bytes \
                 the catalog has room for"
            ));
        }
        Ok(())
    }

    /// Bytes of the catalog.
    fn catalog_len(&self, limits: &Limits) -> Result<usize> {
        limits.table(
            Format::Bochs,
            "catalog",
            u64::from(self.catalog_entries) * 4,
        )
    }
}

/// A field of text, up to its first NUL.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::inspect::{Verdict, inspect};
    use crate::{ErrorKind, ExtentKind, GuestOffset};

    /// A disk of three extents of 4 KiB; the second is stored, its sectors 1 and 2 are set.
    fn disk() -> Vec<u8> {
        let mut file = vec![0; 512];
        file[..22].copy_from_slice(&MAGIC[..22]);
        file[32..39].copy_from_slice(b"Redolog");
        file[48..55].copy_from_slice(b"Growing");
        for (at, value) in [
            (64, 0x20000u32),
            (68, 512),
            (72, 3),
            (76, 1),
            (80, 4096),
            (88, 11776),
        ] {
            file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        file.extend_from_slice(&[255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255]);
        let mut slot = vec![0; 512 + 4096];
        slot[0] = 0b110;
        slot[512 + 512..][..1024].fill(7);
        // Stored, but its bit is clear.
        slot[512 + 3584..].fill(9);
        file.extend_from_slice(&slot);
        file
    }

    #[test]
    fn reads_what_the_bitmap_marks() {
        let source: Arc<dyn Source> = Arc::new(disk());
        let i = inspect(source.as_ref(), &Limits::default()).unwrap();
        assert_eq!((i.format, i.virtual_size), (Format::Bochs, Some(11776)));
        assert_eq!(i.verdict(), Verdict::Safe);
        let disk = open(source, &OpenOptions::default()).unwrap();
        let mut bytes = vec![1; 11776];
        disk.read_at(&mut bytes, GuestOffset(0)).unwrap();
        assert!(bytes[4608..5632].iter().all(|&b| b == 7));
        assert!(bytes[..4608].iter().chain(&bytes[5632..]).all(|&b| b == 0));
        let mut odd = [0; 3];
        disk.read_at(&mut odd, GuestOffset(5630)).unwrap();
        assert_eq!(odd, [7, 7, 0]);
        let mut extents = Vec::new();
        disk.extents(GuestOffset(100)..GuestOffset(11776), &mut extents)
            .unwrap();
        let kinds: Vec<_> = extents
            .iter()
            .map(|e| (e.range.start.0, e.kind.is_hole()))
            .collect();
        assert_eq!(kinds, [(100, true), (4608, false), (5632, true)]);
        assert_eq!(
            extents[1].kind,
            ExtentKind::Data {
                host: Some(HostOffset(524 + 1024))
            }
        );
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        for (at, value, kind) in [
            (76, 0, ErrorKind::Malformed),
            (80, 1 << 30, ErrorKind::Malformed),
            (88, 12800, ErrorKind::Malformed),
            (72, 0x7fff_ffff, ErrorKind::Limit),
            (72, 10_000, ErrorKind::Malformed),
            (516, 1, ErrorKind::Malformed),
            (512, 0, ErrorKind::Malformed),
            (64, 0x30000, ErrorKind::Unsupported),
            (48, 0x6f64_6e55, ErrorKind::Refused),
        ] {
            let mut file = disk();
            file[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
            let error = open(Arc::new(file), &OpenOptions::default())
                .err()
                .expect("an error");
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
