//! Files that are two things at once: refused, except where everybody sees the same bytes.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use formats::inspect::{Inspection, Stream, Verdict, inspect};
use formats::{Format, Limits};

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures")
        .join(name);
    let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if !name.ends_with(".gz") {
        return bytes;
    }
    let mut inflated = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..])
        .read_to_end(&mut inflated)
        .unwrap();
    inflated
}

/// Judges a file both ways, which must agree.
fn judged(file: &[u8]) -> Inspection {
    let limits = Limits::default();
    let found = inspect(&file.to_vec(), &limits).unwrap();
    let mut stream = Stream::default();
    file.chunks(10_007).for_each(|chunk| stream.feed(chunk));
    let streamed = stream.finish(Some(&file.to_vec()), &limits).unwrap();
    assert_eq!(format!("{found:?}"), format!("{streamed:?}"));
    for finding in &found.findings {
        assert!(
            !finding.place.is_empty() && !finding.message.is_empty(),
            "{finding:?}"
        );
    }
    found
}

fn rules(found: &Inspection) -> Vec<&'static str> {
    let findings = found.findings.iter();
    let unsafe_ones = findings.filter(|f| f.severity == formats::inspect::Severity::Unsafe);
    unsafe_ones.map(|f| f.rule).collect()
}

fn put(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    file.resize(file.len().max(at + bytes.len()), 0);
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn zip() -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("a", zip::write::SimpleFileOptions::default())
        .unwrap();
    zip.write_all(b"other content").unwrap();
    zip.set_comment("made of two").unwrap();
    zip.finish().unwrap().into_inner()
}

const CLEAN: [(&str, Format); 5] = [
    ("clean.qcow2", Format::Qcow2),
    ("clean.vmdk", Format::Vmdk),
    ("clean.vdi", Format::Vdi),
    ("clean.vhd", Format::Vhd),
    ("clean.vhdx.gz", Format::Vhdx),
];

#[test]
fn marks_of_others_make_an_image_a_polyglot() {
    let append = |file: &[u8], bytes: &[u8]| [file, bytes].concat();
    for (name, format) in CLEAN {
        let clean = fixture(name);
        let found = judged(&clean);
        assert_eq!(
            (found.format, found.verdict()),
            (format, Verdict::Safe),
            "{name}"
        );
        for (what, file) in [
            ("a boot sector", put(&clean, 510, b"\x55\xaa")),
            ("a tar archive", put(&clean, 257, b"ustar")),
            ("a zip archive", append(&clean, &zip())),
        ] {
            let found = judged(&file);
            let finding = found.findings.iter().find(|f| f.rule == "polyglot");
            let finding = finding.unwrap_or_else(|| panic!("{name} with {what}: {found:?}"));
            assert!(
                finding.place.starts_with("byte "),
                "{name} with {what}: {finding:?}"
            );
            assert_eq!((found.format, found.verdict()), (format, Verdict::Unsafe));
        }
    }
}

#[test]
fn two_formats_in_one_file_are_refused() {
    let iso = fixture("clean.iso");
    let vhd = fixture("clean.vhd");
    let mbr = fixture("clean-mbr.raw");
    let table = &mbr[440..512];
    for (name, format) in CLEAN {
        let clean = fixture(name);
        for (what, file) in [
            ("a disc", put(&clean, 32768, &iso[32768..])),
            ("a partition table", put(&clean, 440, table)),
            ("a vhd footer", [&clean, &vhd[vhd.len() - 512..]].concat()),
        ] {
            if format == Format::Vhd && what == "a vhd footer" {
                continue;
            }
            let found = judged(&file);
            assert!(
                rules(&found).contains(&"polyglot"),
                "{name} with {what}: {found:?}"
            );
        }
    }
    let disc_and_zip = judged(&[iso, zip()].concat());
    assert_eq!(rules(&disc_and_zip), ["polyglot"]);
    assert_eq!(disc_and_zip.format, Format::Iso);
}

#[test]
fn what_all_see_alike_is_no_polyglot() {
    let mbr = fixture("clean-mbr.raw");
    let iso = fixture("clean.iso");
    let dynamic = fixture("clean.vhd");
    // A fixed vhd over a partitioned disk: the footer of another kind, over so many bytes.
    let mut footer = dynamic[dynamic.len() - 512..].to_vec();
    let disk = put(&mbr, (4 << 20) - 1, &[0]);
    footer[16..24].fill(0xff);
    footer[63] = 2;
    footer[64..68].fill(0);
    let sum = !footer.iter().fold(0u32, |sum, b| sum + u32::from(*b));
    footer[64..68].copy_from_slice(&sum.to_be_bytes());

    for (what, format, file) in [
        ("a hybrid disc", Format::Iso, put(&iso, 440, &mbr[440..512])),
        (
            "a disc with an unused table",
            Format::Iso,
            put(&iso, 510, b"\x55\xaa"),
        ),
        ("a fixed vhd", Format::Vhd, [disk.clone(), footer].concat()),
        (
            "a disk with a zip archive",
            Format::Raw,
            [mbr.clone(), zip()].concat(),
        ),
        (
            "a disk with an image inside",
            Format::Raw,
            put(&disk, 1 << 20, b"QFI\xfb\0\0\0\x03"),
        ),
        ("a disk of text", Format::Raw, put(&disk, 257, b"ustar")),
    ] {
        let found = judged(&file);
        assert_eq!(
            (found.format, rules(&found)),
            (format, vec![]),
            "{what}: {found:?}"
        );
    }
}

#[test]
fn bytes_that_may_be_anything_are_no_mark() {
    // The salt of a key slot lies where a boot sector has its signature.
    let mut luks = vec![0; 4096 * 512 + 8192];
    luks[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
    luks[104..108].copy_from_slice(&4096u32.to_be_bytes());
    luks[108..112].copy_from_slice(&32u32.to_be_bytes());
    for n in 0..8 {
        let at = 208 + 48 * n;
        luks[at..at + 4].copy_from_slice(&[0, 0, 0xde, 0xad]);
        luks[at + 40..at + 44].copy_from_slice(&(8 + n as u32 * 256).to_be_bytes());
        luks[at + 44..at + 48].copy_from_slice(&4000u32.to_be_bytes());
    }
    luks[510..512].copy_from_slice(b"\x55\xaa");
    let found = judged(&luks);
    assert_eq!(
        (found.format, rules(&found)),
        (Format::Luks, vec![]),
        "{found:?}"
    );

    // The table of an expanding disk: block 111 lies in the file's block 0xaa55.
    let mut disk = vec![0; 1024];
    disk[..16].copy_from_slice(b"WithouFreSpacExt");
    for (at, value) in [
        (16, 2u32),
        (28, 1),
        (32, 112),
        (36, 112),
        (508, 0xaa55_0000),
    ] {
        disk[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let found = judged(&disk);
    assert!(!rules(&found).contains(&"polyglot"), "{found:?}");
}
