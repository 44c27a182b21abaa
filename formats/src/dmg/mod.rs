//! Apple disk images (UDIF).
//!
//! ```text
//!  data fork    chunks: raw, or packed with ADC, zlib, bzip2, LZFSE or LZMA
//!  XML          property list: resource-fork → blkx → one table ("mish") a partition,
//!               base64, whose entries say which sectors a chunk holds and where it lies
//!  last 512     trailer "koly": where data fork and XML lie, sectors; big-endian
//! ```
//! There is no public specification; the layout is that of QEMU `block/dmg.c`, dmg2img and
//! libmodi's documentation. What is encrypted (`encrcdsa`, or `cdsaencr` at the end), split into
//! segments, or described by a binary resource fork instead of XML is recognised and refused.

mod adc;
mod layout;
mod lzfse;
mod lzvn;
mod plist;
mod reader;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::inspect::{Facts, MAX_SPAN, Next, Region, Severity, Span};
use crate::{Disk, Error, Format, HostOffset, Limits, OpenOptions, Result, Source, read_up_to};

use layout::Trailer;

/// Begins an encrypted image, version 2.
const ENCRYPTED: &[u8; 8] = b"encrcdsa";
/// Ends an encrypted image, version 1.
const ENCRYPTED_END: &[u8; 8] = b"cdsaencr";

/// Recognises UDIF.
#[derive(Default)]
pub struct Inspector {
    /// Set once the trailer was found fit: what is wanted then is the property list.
    trailer: Option<Trailer>,
}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Dmg
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::head(8), Span::Tail(Trailer::LEN)])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        let (head, tail) = match (&self.trailer, regions) {
            (Some(trailer), [xml]) => return Next::Done(judge(trailer, Some(xml.bytes))),
            (None, [head, tail]) => (head, tail),
            _ => return Next::NotMine,
        };
        let mut facts = Facts::new(Format::Dmg);
        if head.bytes == ENCRYPTED || tail.bytes.ends_with(ENCRYPTED_END) {
            facts.find("encrypted", Severity::Unsafe, "header", "is encrypted");
            return Next::Done(facts);
        }
        if !Trailer::has_magic(tail.bytes) {
            return Next::NotMine;
        }
        match Trailer::parse(tail.bytes, tail.at) {
            Ok(trailer) => {
                let (at, len) = (trailer.xml.start, trailer.xml.end - trailer.xml.start);
                if len > MAX_SPAN {
                    return Next::Done(judge(&trailer, None));
                }
                self.trailer = Some(trailer);
                Next::Want(vec![Span::At { at, len }])
            }
            Err(e) => {
                facts.guest_at_zero = true;
                facts.find_error(&e);
                Next::Done(facts)
            }
        }
    }
}

/// Judges by the trailer, and by the property list unless that is too long for a look.
fn judge(trailer: &Trailer, xml: Option<&[u8]>) -> Facts {
    let mut facts = Facts::new(Format::Dmg);
    // Uncompressed images begin with the guest's first bytes.
    facts.guest_at_zero = true;
    facts.virtual_size = Some(trailer.size);
    let fork = &trailer.data_fork;
    facts.detail("data_fork_length", fork.end - fork.start);
    facts.detail("image_variant", trailer.variant);
    let chunks = xml.map(|xml| layout::chunks(xml, trailer, &Limits::default()));
    match chunks {
        Some(Ok(chunks)) => {
            let codings: BTreeSet<_> = chunks.iter().map(|chunk| chunk.coding).collect();
            let names: Vec<_> = codings.into_iter().map(layout::Coding::name).collect();
            facts.detail("chunks", chunks.len());
            facts.detail("codings", names);
        }
        Some(Err(e)) => facts.find_error(&e),
        None => {}
    }
    facts
}

/// Opens the disk in `source`.
///
/// # Errors
/// `Malformed`, `Unsupported`, `Limit`; `Refused` when it is encrypted.
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, ENCRYPTED.len())?;
    let end = source.len().saturating_sub(Trailer::LEN);
    let tail = read_up_to(source.as_ref(), HostOffset(end), Trailer::LEN as usize)?;
    if head == ENCRYPTED || tail.ends_with(ENCRYPTED_END) {
        return Err(Error::refused(Format::Dmg, "header", "is encrypted"));
    }
    let trailer = Trailer::parse(&tail, end)?;
    Ok(Arc::new(reader::Reader::new(
        source,
        &trailer,
        &options.limits,
    )?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::{Verdict, inspect};
    use crate::{ErrorKind, ExtentKind, GuestOffset, Limits};

    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let bits = group.iter().fold(0, |bits, b| bits << 8 | usize::from(*b))
                << (8 * (3 - group.len()));
            for n in 0..4 {
                let digit = DIGITS[bits >> (18 - 6 * n) & 63];
                text.push(if n <= group.len() { digit.into() } else { '=' });
            }
        }
        text
    }

    /// An image of 12 sectors with these chunks: type, first sector, sectors, offset, length.
    fn image(data: &[u8], chunks: &[[u64; 5]]) -> Vec<u8> {
        image_of(data, &[chunks])
    }

    /// The same with several tables.
    fn image_of(data: &[u8], tables: &[&[[u64; 5]]]) -> Vec<u8> {
        let entries: String = tables
            .iter()
            .map(|chunks| {
                format!(
                    "<dict><key>Data</key><data>\n{}\n</data></dict>",
                    table(chunks)
                )
            })
            .collect();
        let xml = format!(
            "<?xml version=\"1.0\"?><plist><dict><key>resource-fork</key><dict><key>blkx</key>\
             <array>{entries}</array></dict></dict></plist>"
        );
        let mut file = data.to_vec();
        file.extend_from_slice(xml.as_bytes());
        let mut koly = vec![0; 512];
        koly[..12].copy_from_slice(b"koly\0\0\0\x04\0\0\x02\0");
        koly[32..40].copy_from_slice(&(data.len() as u64).to_be_bytes());
        koly[216..224].copy_from_slice(&(data.len() as u64).to_be_bytes());
        koly[224..232].copy_from_slice(&(xml.len() as u64).to_be_bytes());
        koly[499] = 12;
        file.extend_from_slice(&koly);
        file
    }

    fn table(chunks: &[[u64; 5]]) -> String {
        let mut table = vec![0; 204];
        table[..8].copy_from_slice(b"mish\0\0\0\x01");
        table[15] = 1;
        table[200..204].copy_from_slice(&(chunks.len() as u32).to_be_bytes());
        for [kind, sector, count, offset, len] in chunks {
            table.extend_from_slice(&(*kind as u32).to_be_bytes());
            table.extend_from_slice(&[0; 4]);
            for field in [sector, count, offset, len] {
                table.extend_from_slice(&field.to_be_bytes());
            }
        }
        base64(&table)
    }

    const RAW: u64 = 1;
    const ADC: u64 = 0x8000_0004;
    const ZLIB: u64 = 0x8000_0005;
    const END: [u64; 5] = [0xffff_ffff, 12, 0, 0, 0];

    fn data() -> Vec<u8> {
        let mut data = vec![7; 512];
        // ADC: one literal 5, and it again 511 times.
        data.extend_from_slice(&[0x80, 5]);
        for _ in 0..7 {
            data.extend_from_slice(&[0x7f, 0, 0]);
        }
        data.extend_from_slice(&[0x40 | 38, 0, 0]);
        data
    }

    #[test]
    fn reads_raw_packed_and_missing_chunks() {
        let chunks = [
            [RAW, 1, 1, 0, 512],
            [2, 2, 2, 0, 0],
            [ADC, 5, 1, 512, 26],
            END,
        ];
        let file = image(&data(), &chunks);
        let i = inspect(&file, &Limits::default()).unwrap();
        assert_eq!((i.format, i.virtual_size), (Format::Dmg, Some(6144)));
        assert_eq!(i.verdict(), Verdict::Safe);
        assert_eq!(
            i.details["codings"],
            serde_json::json!(["zero", "raw", "adc"])
        );
        let disk = open(Arc::new(file), &OpenOptions::default()).unwrap();
        let mut bytes = vec![1; 6144];
        disk.read_at(&mut bytes, GuestOffset(0)).unwrap();
        let at = [1023, 1024, 1535, 1536, 3071, 3072, 3583, 3584, 6143].map(|n| bytes[n]);
        // The table's first sector is 1: everything moves by 512 bytes.
        assert_eq!(at, [0, 7, 7, 0, 0, 5, 5, 0, 0]);
        let mut extents = Vec::new();
        disk.extents(GuestOffset(0)..GuestOffset(6144), &mut extents)
            .unwrap();
        let kinds: Vec<_> = extents.iter().map(|e| (e.range.start.0, e.kind)).collect();
        assert_eq!(
            kinds,
            [
                (0, ExtentKind::Unallocated),
                (
                    1024,
                    ExtentKind::Data {
                        host: Some(HostOffset(0))
                    }
                ),
                (1536, ExtentKind::Zero),
                (2560, ExtentKind::Unallocated),
                (3072, ExtentKind::Encoded),
                (3584, ExtentKind::Unallocated),
            ]
        );
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        for (chunk, kind) in [
            ([RAW, 0, 2, 0, 512], ErrorKind::Malformed),
            ([RAW, 0, 1, 1 << 20, 512], ErrorKind::Malformed),
            ([RAW, 0, 1, u64::MAX, 512], ErrorKind::Malformed),
            ([RAW, 11, 1, 0, 512], ErrorKind::Malformed),
            ([2, u64::MAX, 1, 0, 0], ErrorKind::Malformed),
            ([2, 3, u64::MAX, 0, 0], ErrorKind::Malformed),
            ([ZLIB, 0, 1, 0, 512], ErrorKind::Malformed),
            ([ADC, 0, 2, 512, 26], ErrorKind::Malformed),
            ([0x8000_0009, 0, 1, 0, 512], ErrorKind::Unsupported),
        ] {
            let file = image(&data(), &[chunk, END]);
            let error = match open(Arc::new(file), &OpenOptions::default()) {
                Err(e) => e,
                Ok(disk) => disk
                    .read_at(&mut [0; 600], GuestOffset(512))
                    .expect_err("an error"),
            };
            assert_eq!(error.kind(), kind, "{chunk:?}: {error}");
        }
        let end: &[[u64; 5]] = &[END];
        for (tables, what) in [
            (
                [&[[RAW, 1, 1, 0, 512], [2, 1, 1, 0, 0], END][..], end],
                "bytes of the disk",
            ),
            (
                [&[[2, 1, 3, 0, 0], END], &[[RAW, 3, 1, 0, 512], END]],
                "bytes of the disk",
            ),
            (
                [&[[RAW, 1, 1, 0, 512], END], &[[RAW, 5, 1, 0, 512], END]],
                "bytes of the file",
            ),
            (
                [&[[RAW, 1, 1, 0, 512], END], &[[ADC, 5, 1, 500, 30], END]],
                "bytes of the file",
            ),
        ] {
            let twice = image_of(&data(), &tables);
            let found = inspect(&twice, &Limits::default()).unwrap();
            assert_eq!(found.unsafe_finding().map(|f| f.rule), Some("malformed"));
            let error = open(Arc::new(twice), &OpenOptions::default())
                .err()
                .expect("an error");
            assert!(error.message().contains(what), "{error}");
        }
    }

    #[test]
    fn encrypted_and_split_images_are_refused() {
        let mut split = image(&data(), &[END]);
        let at = split.len() - 512 + 63;
        split[at] = 2;
        let i = inspect(&split, &Limits::default()).unwrap();
        assert_eq!((i.format, i.verdict()), (Format::Dmg, Verdict::Unsafe));
        let mut sealed = ENCRYPTED.to_vec();
        sealed.resize(9000, 3);
        let i = inspect(&sealed, &Limits::default()).unwrap();
        assert_eq!(i.unsafe_finding().unwrap().rule, "encrypted");
        let error = open(Arc::new(sealed), &OpenOptions::default())
            .err()
            .expect("an error");
        assert_eq!(error.kind(), ErrorKind::Refused);
    }
}
