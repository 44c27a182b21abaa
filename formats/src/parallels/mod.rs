//! Parallels expanding disks, which are also the images of ploop.
//!
//! ```text
//!  byte 0    header, 64 bytes, little-endian: magic, sizes, BAT entries, flags
//!      64    BAT: one u32 a block, where it lies; 0 where it is not stored
//!            blocks, from data_off; among them the format extension, where byte 56 names one
//! ```
//! QEMU `docs/interop/parallels.rst`. `WithoutFreeSpace` counts BAT entries in sectors and the disk
//! in 32 bits; `WithouFreSpacExt` counts entries in blocks. What ploop (OpenVZ, Virtuozzo) calls a
//! delta is such a file, bit for bit: nothing in it tells the two apart.
//!
//! An image is as a rule one of several in a [`bundle`], where blocks that are not stored fall
//! through to the image of the snapshot before. Alone, an image reads as zeros there.

pub mod bundle;
mod check;
mod descriptor;
mod layout;
mod reader;

use std::sync::Arc;

use crate::inspect::{Facts, MAX_SPAN, Next, Region, Severity, Span};
use crate::{Disk, Error, Format, HostOffset, Limits, OpenOptions, Result, Source, read_up_to};

pub use check::check;
use descriptor::{Descriptor, is_descriptor};
use layout::{EXTENSION_MAGIC_LEN, Header, check_extension};

/// Bytes of the head looked at: the header, or the beginning of a descriptor.
const HEAD: u64 = 1024;

/// Recognises Parallels disks and the descriptors of their bundles.
#[derive(Default)]
pub struct Inspector {
    /// Set once the header was found fit: what is wanted then are the BAT, the magic of the
    /// format extension and the length.
    header: Option<Header>,
    /// Set once the head was found to be that of a descriptor, which is wanted then.
    is_descriptor: bool,
}

/// Images of a descriptor that are listed in the details.
const MAX_LISTED: usize = 64;

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Parallels
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::head(HEAD)])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        if let (Some(header), [bat, extension, end]) = (&self.header, regions) {
            return Next::Done(judge(header, bat.bytes, extension, end));
        }
        match regions {
            [head] if layout::has_magic(head.bytes) => self.head(head.bytes),
            [descriptor, end] if self.is_descriptor => {
                Next::Done(judge_descriptor(descriptor.bytes, end.file_len))
            }
            [head] if is_descriptor(head.bytes) => {
                self.is_descriptor = true;
                Next::Want(vec![Span::head(descriptor::MAX_LEN), Span::Tail(0)])
            }
            _ => Next::NotMine,
        }
    }
}

impl Inspector {
    fn head(&mut self, head: &[u8]) -> Next {
        let mut facts = Facts::new(Format::Parallels);
        let header = match Header::parse(head) {
            Ok(header) => header,
            Err(e) => {
                facts.find_error(&e);
                return Next::Done(facts);
            }
        };
        let limits = Limits::default();
        if let Err(e) = limits.table(Format::Parallels, "bat", header.bat_len()) {
            describe(&header, &mut facts);
            facts.find("header", Severity::Unsafe, "header, byte 32", e.message());
            return Next::Done(facts);
        }
        let bat = Span::At {
            at: layout::LEN,
            len: header.bat_len().min(MAX_SPAN),
        };
        let extension = match header.extension() {
            Some(at) => Span::At {
                at: at.0,
                len: EXTENSION_MAGIC_LEN,
            },
            None => Span::head(0),
        };
        self.header = Some(header);
        Next::Want(vec![bat, extension, Span::Tail(0)])
    }
}

fn describe(header: &Header, facts: &mut Facts) {
    facts.virtual_size = Some(header.size);
    facts.detail("magic", header.magic);
    facts.detail("block_size", header.block_size);
    facts.detail("bat_entries", header.bat_entries);
    if header.is_in_use {
        facts.find(
            "in_use",
            Severity::Warning,
            "header, byte 44",
            "was not closed: its last writes may be missing",
        );
    }
}

fn judge(header: &Header, bat: &[u8], extension: &Region<'_>, end: &Region<'_>) -> Facts {
    let mut facts = Facts::new(Format::Parallels);
    describe(header, &mut facts);
    let file_len = end.file_len.unwrap_or(end.at);
    if let Some(at) = header.extension()
        && let Err(e) = check_extension(at, extension.bytes)
    {
        facts.find("extension", Severity::Unsafe, e.place(), e.message());
    }
    if header.bat_end() > file_len {
        let message = format!(
            "ends at byte {}, past the end of the file at {file_len}",
            header.bat_end()
        );
        facts.find("truncated", Severity::Unsafe, "bat", message);
        return facts;
    }
    let mut blocks = Vec::new();
    for (n, entry) in (0u64..).zip(bat.as_chunks::<4>().0) {
        match header.block(n, u32::from_le_bytes(*entry)) {
            Ok(Some(block)) if block.end.0 > file_len => {
                let message = format!(
                    "block {n} ends at {}, past the end of the file at {file_len}",
                    block.end
                );
                facts.find("truncated", Severity::Unsafe, "bat", message);
                break;
            }
            // What lies past the end of the disk is never read.
            Ok(Some(block)) if !block.is_empty() => blocks.push((block.start, block.end, n)),
            Ok(_) => {}
            Err(e) => {
                facts.find("header", Severity::Unsafe, e.place(), e.message());
                break;
            }
        }
    }
    blocks.sort_unstable();
    if let Some([(at, _, one), (_, _, other)]) = blocks
        .windows(2)
        .map(|pair| [pair[0], pair[1]])
        .find(|[one, other]| other.0 < one.1)
    {
        let message = format!("blocks {one} and {other} share bytes of the file from {at}");
        facts.find("overlap", Severity::Unsafe, "bat", message);
    }
    facts
}

fn judge_descriptor(bytes: &[u8], file_len: Option<u64>) -> Facts {
    let mut facts = Facts::new(Format::Parallels);
    if file_len.is_some_and(|len| len > descriptor::MAX_LEN) {
        let message = format!("is longer than {} bytes", descriptor::MAX_LEN);
        facts.find("limit", Severity::Unsafe, "descriptor", message);
        return facts;
    }
    let descriptor = match Descriptor::parse(bytes) {
        Ok(descriptor) => descriptor,
        Err(e) => {
            facts.find_error(&e);
            return facts;
        }
    };
    facts.virtual_size = Some(descriptor.size);
    let images = || descriptor.storages.iter().flat_map(|s| &s.images);
    let files: Vec<_> = images().map(|image| image.file.as_str()).collect();
    facts.detail("storages", descriptor.storages.len());
    facts.detail("snapshots", descriptor.shots.len());
    facts.detail("images", &files[..files.len().min(MAX_LISTED)]);
    if descriptor.is_encrypted {
        facts.find(
            "encrypted",
            Severity::Unsafe,
            "descriptor",
            "the disk is encrypted",
        );
    }
    if let Some(image) = images().find(|image| !image.is_beside()) {
        let message = format!("names {:?}, which does not lie beside it", image.file);
        facts.find("extent_path", Severity::Unsafe, "descriptor", message);
    }
    let message = match files.as_slice() {
        [] => "names no image file".to_owned(),
        [one] => format!("the disk is in another file, {one:?}: convert it to one format alone"),
        [first, ..] => format!(
            "the disk is in {} other files, {first:?} the first: convert it to one format alone",
            files.len()
        ),
    };
    facts.find("extent_file", Severity::Unsafe, "descriptor", message);
    facts
}

/// Opens the disk in `source`; where that is a descriptor, its [`bundle`].
///
/// # Errors
/// `Malformed`, `Unsupported`, `Limit`, and those of [`bundle::open`].
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, HEAD as usize)?;
    if is_descriptor(&head) {
        return bundle::open(source.as_ref(), options);
    }
    if let Some(name) = &options.snapshot {
        return Err(Error::usage(format!(
            "there is no snapshot {name:?}: the descriptor of a bundle knows them, not its images"
        )));
    }
    let header = Header::parse(&head)?;
    Ok(Arc::new(reader::Reader::new(
        source,
        &header,
        &options.limits,
    )?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::{Verdict, inspect};
    use crate::{ErrorKind, ExtentKind, GuestOffset};

    /// Four blocks of three sectors, five BAT entries; blocks 1 and 2 stored side by side, 3 apart.
    fn image(magic: &[u8; 16], entries: [u32; 5]) -> Vec<u8> {
        let mut file = vec![0; 1536 * 5];
        file[..16].copy_from_slice(magic);
        for (at, value) in [(16, 2u32), (28, 3), (32, 5), (36, 13), (48, 1)] {
            file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        for (n, entry) in entries.iter().enumerate() {
            file[64 + 4 * n..][..4].copy_from_slice(&entry.to_le_bytes());
        }
        for (n, byte) in (1..5).zip([1u8, 2, 3, 4]) {
            file[n * 1536..][..1536].fill(byte);
        }
        file
    }

    #[test]
    fn reads_blocks_by_sector_and_by_block() {
        for (magic, entries) in [
            (b"WithoutFreeSpace", [0, 3, 6, 12, 0]),
            (b"WithouFreSpacExt", [0, 1, 2, 4, 0]),
        ] {
            let file = image(magic, entries);
            let i = inspect(&file, &Limits::default()).unwrap();
            assert_eq!(
                (i.format, i.virtual_size),
                (Format::Parallels, Some(13 * 512))
            );
            assert_eq!(i.verdict(), Verdict::Safe);
            let disk = open(Arc::new(file), &OpenOptions::default()).unwrap();
            let mut bytes = vec![9; 13 * 512 - 1];
            disk.read_at(&mut bytes, GuestOffset(1)).unwrap();
            let guest = |at: usize| bytes[at - 1];
            assert_eq!(
                [1535, 1536, 3071, 3072, 4608, 6143, 6144].map(guest),
                [0, 1, 1, 2, 4, 4, 0]
            );
            let mut extents = Vec::new();
            disk.extents(GuestOffset(0)..GuestOffset(13 * 512), &mut extents)
                .unwrap();
            let data = |at| ExtentKind::Data {
                host: Some(HostOffset(at)),
            };
            assert_eq!(
                extents
                    .iter()
                    .map(|e| (e.range.start.0, e.kind))
                    .collect::<Vec<_>>(),
                [
                    (0, ExtentKind::Unallocated),
                    (1536, data(1536)),
                    (4608, data(1536 * 4)),
                    (6144, ExtentKind::Unallocated),
                ]
            );
        }
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        for (at, value, kind) in [
            (16, 3, ErrorKind::Unsupported),
            (28, 0, ErrorKind::Malformed),
            (28, u32::MAX, ErrorKind::Malformed),
            (32, 4, ErrorKind::Malformed),
            (32, u32::MAX, ErrorKind::Limit),
            (32, 100_000, ErrorKind::Malformed),
            (68, 13, ErrorKind::Malformed),
            (68, u32::MAX, ErrorKind::Malformed),
        ] {
            let mut file = image(b"WithoutFreeSpace", [0, 3, 6, 12, 0]);
            file[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
            let error = open(Arc::new(file), &OpenOptions::default())
                .err()
                .expect("an error");
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[test]
    fn judges_bat_blocks_and_extension() {
        let rule = |file: &[u8]| {
            let found = inspect(&file.to_vec(), &Limits::default()).unwrap();
            assert_eq!(found.format, Format::Parallels);
            let opened = open(Arc::new(file.to_vec()), &OpenOptions::default());
            assert_eq!(found.unsafe_finding().is_none(), opened.is_ok());
            found.unsafe_finding().map(|f| f.rule)
        };
        let good = image(b"WithoutFreeSpace", [0, 3, 6, 12, 0]);
        let with = |at: usize, bytes: &[u8]| {
            let mut file = good.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            file
        };
        assert_eq!(rule(&good), None);
        assert_eq!(rule(&good[..good.len() - 1]), Some("truncated"));
        assert_eq!(rule(&good[..83]), Some("truncated"));
        assert_eq!(rule(&with(32, &[0xff; 4])), Some("header"));
        assert_eq!(rule(&with(32, &[0, 0, 1])), Some("truncated"));
        assert_eq!(rule(&with(76, &[13])), Some("truncated"));
        let mut inside = image(b"WithoutFreeSpace", [0, 1, 0, 0, 0]);
        inside[32..36].copy_from_slice(&300u32.to_le_bytes());
        assert_eq!(rule(&inside), Some("header"));
        for sector in [9, 10, 15, u64::MAX] {
            assert_eq!(rule(&with(56, &sector.to_le_bytes())), Some("extension"));
        }
        let mut extended = with(56, &[9]);
        extended[9 * 512..][..8].copy_from_slice(&0xab23_4cef_23dc_ea87_u64.to_le_bytes());
        assert_eq!(rule(&extended), None);
    }
}
