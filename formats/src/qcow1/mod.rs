//! QEMU copy-on-write, version 1: read, because old images are still about; never written.
//!
//! ```text
//!  byte 0    header, 48 bytes, big-endian: version, backing file, size, cluster and L2 bits,
//!            encryption, L1 table offset
//!  L1        one u64 an L2 table: its offset, 0 where there is none
//!  L2        one u64 a cluster: 0 nothing · offset · bit 63 set: compressed, below it the length
//!            in cluster_bits bits and then the offset; raw deflate
//! ```
//! QEMU `block/qcow.c`. Other versions are [`qcow2`](crate::qcow2)'s. The header does not say what
//! format a backing file is, and to guess it from bytes that a guest may have written is how a raw
//! disk comes to name files of the host: a backing file is read, where it is granted, if it looks
//! like no image at all. Encryption is refused.

mod check;
mod layout;
mod reader;

use std::sync::Arc;

use crate::chain::{self, Overlay};
use crate::inspect::{Facts, MAX_SPAN, Next, Region, Severity, Span, inspect};
use crate::resolve::Wanted;
use crate::{Disk, Error, Format, HostOffset, Limits, OpenOptions, Result, Source, read_up_to};

use layout::{Header, MAGIC};

/// Bytes the header and, as a rule, the backing file's name are in.
const HEAD: u64 = 2048;

/// Recognises version 1.
#[derive(Default)]
pub struct Inspector {
    /// Set once the header was found fit: what is wanted then are the tables and the length.
    judged: Option<(Header, Facts)>,
}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Qcow1
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::head(HEAD)])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        if let (Some((header, mut facts)), [tables, end]) = (self.judged.take(), regions) {
            let file_len = end.file_len.unwrap_or(end.at);
            check::tables(&header, tables, file_len, &mut facts);
            return Next::Done(facts);
        }
        match regions {
            [head] if head.bytes.starts_with(MAGIC) => self.head(head.bytes),
            _ => Next::NotMine,
        }
    }
}

impl Inspector {
    fn head(&mut self, head: &[u8]) -> Next {
        let mut facts = Facts::new(Format::Qcow1);
        let header = match Header::parse(head) {
            Ok(header) => header,
            Err(e) => {
                facts.find_error(&e);
                return Next::Done(facts);
            }
        };
        facts.virtual_size = Some(header.size);
        facts.detail("cluster_size", header.cluster_size());
        if let Some(name) = header.backing_name(head) {
            facts.detail("backing_filename", name.as_str());
            facts.find(
                "backing_file",
                Severity::Unsafe,
                "header, byte 8",
                format!("names the backing file {name:?}; flatten it with qemu-img convert"),
            );
        }
        if header.is_encrypted {
            facts.find(
                "encrypted",
                Severity::Unsafe,
                "header, byte 36",
                "is encrypted with AES-CBC",
            );
        }
        if let Err(e) = Limits::default().table(Format::Qcow1, "l1 table", header.l1_len()) {
            facts.find("header", Severity::Unsafe, "l1 table", e.message());
        }
        if facts.is_lost() {
            return Next::Done(facts);
        }
        let at = header.l1_offset.0;
        let len = header.l1_len().max(check::TABLES_END.saturating_sub(at));
        self.judged = Some((header, facts));
        let len = len.min(MAX_SPAN);
        Next::Want(vec![Span::At { at, len }, Span::Tail(0)])
    }
}

/// Opens the disk in `source`.
///
/// # Errors
/// `Malformed`; `Refused` with encryption, and with a backing file that is not granted or not raw;
/// `Limit`.
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, HEAD as usize)?;
    let header = Header::parse(&head)?;
    if header.is_encrypted {
        return Err(Error::refused(
            Format::Qcow1,
            "header",
            "is encrypted with AES-CBC",
        ));
    }
    let backing = match header.backing_file {
        Some((at, len)) => Some(open_backing(source.as_ref(), at, len, options)?),
        None => None,
    };
    let reader = Arc::new(reader::Reader::new(source, &header, &options.limits)?);
    Ok(match backing {
        Some(backing) => Arc::new(Overlay::new(reader, backing)),
        None => reader,
    })
}

fn open_backing(
    source: &dyn Source,
    at: u64,
    len: u32,
    options: &OpenOptions,
) -> Result<Arc<dyn Disk>> {
    let name = read_up_to(source, HostOffset(at), len as usize)?;
    let name = String::from_utf8_lossy(&name);
    let granted = options
        .resolver
        .resolve(Format::Qcow1, Wanted::Backing, &name)?;
    let found = inspect(granted.source.as_ref(), &options.limits)?.format;
    if found != Format::Raw {
        return Err(Error::refused(
            Format::Qcow1,
            "backing file",
            format!("{name:?} looks like {found}, no format is recorded, and it is not guessed"),
        ));
    }
    let options = chain::beneath(Format::Qcow1, Format::Raw, &granted, options)?;
    crate::open(granted.source, &options)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::inspect::Verdict;
    use crate::{ErrorKind, ExtentKind, GuestOffset};

    /// 20 clusters of 512 bytes and a bit: cluster 2 stored, 3 compressed, 64 bytes L2 tables.
    fn image() -> Vec<u8> {
        let mut file = vec![0; 4096];
        file[..8].copy_from_slice(b"QFI\xfb\0\0\0\x01");
        file[24..32].copy_from_slice(&10_300u64.to_be_bytes());
        (file[32], file[33]) = (9, 6);
        file[40..48].copy_from_slice(&512u64.to_be_bytes());
        file[512..520].copy_from_slice(&1024u64.to_be_bytes());
        let mut packed = flate2::write::DeflateEncoder::new(vec![], flate2::Compression::best());
        packed.write_all(&[5; 512]).unwrap();
        let packed = packed.finish().unwrap();
        file[1024 + 16..1024 + 24].copy_from_slice(&2048u64.to_be_bytes());
        let entry = 1 << 63 | (packed.len() as u64) << 54 | 3000;
        file[1024 + 24..1024 + 32].copy_from_slice(&entry.to_be_bytes());
        file[2048..2560].fill(4);
        file[3000..3000 + packed.len()].copy_from_slice(&packed);
        file
    }

    fn error(file: Vec<u8>) -> ErrorKind {
        let disk = match open(Arc::new(file), &OpenOptions::default()) {
            Ok(disk) => disk,
            Err(e) => return e.kind(),
        };
        let mut all = vec![0; disk.virtual_size() as usize];
        disk.read_at(&mut all, GuestOffset(0)).unwrap_err().kind()
    }

    #[test]
    fn reads_holes_plain_and_compressed_clusters() {
        let file = image();
        let i = inspect(&file, &Limits::default()).unwrap();
        assert_eq!((i.format, i.virtual_size), (Format::Qcow1, Some(10_300)));
        assert_eq!(i.verdict(), Verdict::Safe);
        let disk = open(Arc::new(file), &OpenOptions::default()).unwrap();
        let mut bytes = vec![1; 10_300 - 7];
        disk.read_at(&mut bytes, GuestOffset(7)).unwrap();
        let guest = |at: u64| bytes[at as usize - 7];
        assert_eq!(
            [1023, 1024, 1535, 1536, 2047, 2048].map(guest),
            [0, 4, 4, 5, 5, 0]
        );
        let mut extents = Vec::new();
        disk.extents(GuestOffset(0)..GuestOffset(10_300), &mut extents)
            .unwrap();
        let kinds: Vec<_> = extents.iter().map(|e| e.kind).collect();
        assert_eq!(
            kinds,
            [
                ExtentKind::Unallocated,
                ExtentKind::Data {
                    host: Some(HostOffset(2048))
                },
                ExtentKind::Encoded,
                ExtentKind::Unallocated,
            ]
        );
    }

    #[test]
    fn refuses_what_leaves_the_image_or_lies() {
        let with = |at: usize, bytes: &[u8]| {
            let mut file = image();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            file
        };
        assert_eq!(error(with(32, &[31])), ErrorKind::Malformed);
        assert_eq!(error(with(33, &[0])), ErrorKind::Malformed);
        assert_eq!(error(with(39, &[2])), ErrorKind::Malformed);
        assert_eq!(error(with(39, &[1])), ErrorKind::Refused);
        assert_eq!(error(with(15, &[0x40, 0, 0, 0, 4])), ErrorKind::Refused);
        assert_eq!(
            error(with(15, &[0x40, 0xff, 0, 0, 4])),
            ErrorKind::Malformed
        );
        assert_eq!(error(with(24, &[0, 0, 0x20])), ErrorKind::Limit);
        assert_eq!(error(with(40, &[0x80])), ErrorKind::Malformed);
        assert_eq!(error(with(512, &[0x80])), ErrorKind::Malformed);
        assert_eq!(error(with(1040, &[0x10])), ErrorKind::Malformed);
        assert_eq!(error(with(3000, &[0xff])), ErrorKind::Malformed);
        assert_eq!(error(image()[..47].to_vec()), ErrorKind::Malformed);
        let i = inspect(&with(15, &[0x40, 0, 0, 0, 4]), &Limits::default()).unwrap();
        assert_eq!(i.unsafe_finding().unwrap().rule, "backing_file");
    }

    #[test]
    fn judges_tables_and_clusters_by_the_length_of_the_file() {
        let rule = |file: &[u8]| {
            let found = inspect(&file.to_vec(), &Limits::default()).unwrap();
            assert_eq!(found.format, Format::Qcow1);
            found.unsafe_finding().map(|f| f.rule)
        };
        let good = image();
        let with = |at: usize, bytes: &[u8]| {
            let mut file = good.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            file
        };
        assert_eq!(rule(&good), None);
        for len in [100, 512, 1030, 1535, 2100, 3001] {
            assert_eq!(rule(&good[..len]), Some("truncated"), "{len}");
        }
        for (at, bytes) in [
            (40, &[0x80][..]),
            (40, &[0x10]),
            (44, &[1]),
            (512, &[0x80]),
            (512, &[0xff; 8]),
            (516, &[1]),
            (1040, &[0x10]),
            (1048, &[0xff; 8]),
        ] {
            assert_eq!(rule(&with(at, bytes)), Some("truncated"), "{at}: {bytes:?}");
        }
        assert_eq!(rule(&with(26, &[1])), Some("header"));
    }
}
