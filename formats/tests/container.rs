//! Containers: compressed files, OVAs, descriptors. Handmade hostile ones, and the corpus.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::codec::stream::Compression;
use formats::container::{Context, Ova, describe};
use formats::inspect::{Inspection, Severity, Verdict};
use formats::{FileSource, Format, HostOffset, Limits, Source};
use sha2::Digest;

fn source(bytes: Vec<u8>) -> Arc<dyn Source> {
    Arc::new(bytes)
}

fn look(bytes: Vec<u8>) -> Inspection {
    describe(&source(bytes), &Limits::default()).unwrap()
}

fn rules(inspection: &Inspection) -> Vec<&'static str> {
    inspection.findings.iter().map(|f| f.rule).collect()
}

#[track_caller]
fn refused_for(inspection: &Inspection, rule: &str) {
    let mut findings = inspection.findings.iter();
    assert!(
        findings.any(|f| f.rule == rule && f.severity == Severity::Unsafe),
        "{rule} is not among {:?}",
        inspection.findings
    );
}

#[track_caller]
fn is_safe(inspection: &Inspection) {
    let refused = inspection.unsafe_finding();
    assert!(refused.is_none(), "{refused:?}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

type Encoder = fn(&[u8]) -> Vec<u8>;
const ENCODERS: [(&str, Encoder); 4] =
    [("gzip", gzip), ("bzip2", bzip2), ("xz", xz), ("zstd", zstd)];

/// A reproducible source of numbers (splitmix64).
struct Seed(u64);

impl Seed {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// A tar archive; the header's size may lie.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    /// A member whose name is written as it is, `..` and all.
    fn add_as(mut self, name: &str, kind: u8, claimed: u64, data: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(0o644);
        header.set_size(claimed);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn add(self, name: &str, data: &[u8]) -> Self {
        self.add_as(name, b'0', data.len() as u64, data)
    }

    fn pax(self, key: &str, value: &str) -> Self {
        let rest = format!(" {key}={value}\n");
        let len = (rest.len()..)
            .find(|len| len.to_string().len() + rest.len() == *len)
            .unwrap();
        self.pax_record(format!("{len}{rest}").as_bytes())
    }

    fn pax_record(self, record: &[u8]) -> Self {
        self.add_as("pax", b'x', record.len() as u64, record)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A descriptor of one disk of 1 MiB in `href`.
fn ovf(href: &str) -> Vec<u8> {
    format!(
        r#"<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References><File ovf:id="f" ovf:href="{href}"/></References>
<DiskSection><Disk ovf:diskId="d" ovf:fileRef="f" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^20"/></DiskSection>
<VirtualSystem ovf:id="v"><Name>web</Name>
<VirtualHardwareSection><Item><ResourceType>3</ResourceType><VirtualQuantity>2</VirtualQuantity></Item></VirtualHardwareSection>
</VirtualSystem></Envelope>"#
    )
    .into_bytes()
}

fn disk() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    for (n, byte) in (0..).zip(&mut disk[4096..70_000]) {
        *byte = u8::try_from(n % 251).unwrap();
    }
    disk
}

fn sha256(name: &str, bytes: &[u8]) -> String {
    let digest: String = sha2::Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("SHA256({name})= {digest}\n")
}

/// A good OVA with a manifest.
fn ova() -> Vec<u8> {
    let manifest = sha256("web.ovf", &ovf("web.img")) + &sha256("web.img", &disk());
    Tar::default()
        .add("web.ovf", &ovf("web.img"))
        .add("web.mf", manifest.as_bytes())
        .add("web.img", &disk())
        .end()
}

fn read_all(disk: &dyn formats::Disk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.virtual_size()).unwrap()];
    disk.read_at(&mut bytes, formats::GuestOffset::ZERO)
        .unwrap();
    bytes
}

#[test]
fn a_good_ova_is_told_whole() {
    let i = look(ova());
    is_safe(&i);
    assert_eq!((i.format, i.container_format), (Format::Ova, "ova"));
    assert_eq!(i.virtual_size, Some(1 << 20));
    assert_eq!(i.details["manifest"], "verified");
    assert_eq!(i.details["name"], "web");
    assert_eq!(i.details["vcpus"], 2);
    assert_eq!(i.disks.len(), 1);
    assert_eq!(i.disks[0].name, "web.img");
    assert_eq!(i.disks[0].format, Format::Raw);
    assert_eq!(rules(&i), [""; 0]);

    let limits = Limits::default();
    let opened = Ova::open(&source(ova())).unwrap();
    let found = opened.open_disk(0, &Context::new(&limits)).unwrap();
    assert!(read_all(found.as_ref()) == disk());
    assert!(opened.open_disk(1, &Context::new(&limits)).is_err());
}

#[test]
fn compressed_disks_are_inflated() {
    for (name, encode) in ENCODERS {
        let file = Tar::default()
            .add("web.ovf", &ovf("web.img.z"))
            .add("web.img.z", &encode(&disk()))
            .end();
        let i = look(file.clone());
        is_safe(&i);
        assert_eq!(i.disks[0].compression, Some(name));
        assert_eq!(i.virtual_size, Some(1 << 20));
        let limits = Limits::default();
        let ova = Ova::open(&source(file)).unwrap();
        let found = ova.open_disk(0, &Context::new(&limits)).unwrap();
        assert!(read_all(found.as_ref()) == disk(), "{name}");
    }
}

#[test]
fn a_compressed_ova_is_an_ova() {
    for (name, encode) in ENCODERS {
        let i = look(encode(&ova()));
        is_safe(&i);
        assert_eq!((i.format, i.compression), (Format::Ova, Some(name)));
        assert_eq!(i.virtual_size, Some(1 << 20));
        assert_eq!(i.file_size, encode(&ova()).len() as u64);
    }
}

#[test]
fn names_must_be_plain() {
    for name in [
        "../web.img",
        "/web.img",
        "a/web.img",
        "a\\web.img",
        "C:web.img",
        "web\n.img",
    ] {
        let file = Tar::default()
            .add("web.ovf", &ovf("web.img"))
            .add("web.img", &disk())
            .add(name, b"x")
            .end();
        refused_for(&look(file), "ova_member_name");
    }
    let leading_dot = Tar::default()
        .add_as("./", b'5', 0, b"")
        .add("./web.ovf", &ovf("web.img"))
        .add("./web.img", &disk())
        .end();
    is_safe(&look(leading_dot));
}

#[test]
fn an_archive_may_lie_in_one_folder() {
    let manifest = sha256("web.ovf", &ovf("web.img")) + &sha256("web.img", &disk());
    for at in ["", "./"] {
        let name = |name: &str| format!("{at}vm/{name}");
        let packed = || {
            let packed = match at {
                "" => Tar::default(),
                here => Tar::default().add_as(here, b'5', 0, b""),
            };
            packed
                .add_as(&name(""), b'5', 0, b"")
                .add(&name("web.ovf"), &ovf("web.img"))
                .add(&name("web.mf"), manifest.as_bytes())
        };
        let file = packed().add(&name("web.img"), &disk()).end();
        let i = look(file.clone());
        is_safe(&i);
        assert_eq!(i.disks[0].name, "web.img");
        assert_eq!(rules(&i), ["ova_folder"]);
        let package = Ova::open(&source(file)).unwrap();
        let limits = Limits::default();
        let disk_file = package.disk_file(0, &Context::new(&limits)).unwrap();
        assert_eq!(disk_file.len(), disk().len() as u64);
        // A folder in it, another beside it, and one that leads out are none the better for it.
        for (other, rule) in [
            (name("in/web.img"), "ova_member_name"),
            (name("../web.img"), "ova_member_name"),
            ("wm/web.img".to_owned(), "ova_member_name"),
            ("web.img".to_owned(), "ova_member_name"),
        ] {
            let file = packed().add(&other, &disk()).end();
            refused_for(&look(file), rule);
        }
        let file = packed().add_as(&name("sub/"), b'5', 0, b"").end();
        refused_for(&look(file), "ova_member_kind");
    }
    let outside = Tar::default()
        .add("../web.ovf", &ovf("web.img"))
        .add("../web.img", &disk())
        .end();
    refused_for(&look(outside), "ova_member_name");
}

#[test]
fn what_macos_adds_to_a_zip_archive_is_passed_over() {
    let zip = |others: &[&str], method| {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        for name in others {
            writer.start_file(*name, options).unwrap();
            writer.write_all(b"attributes").unwrap();
        }
        writer.start_file("disk.img", options).unwrap();
        writer.write_all(&disk()).unwrap();
        writer.finish().unwrap().into_inner()
    };
    let stored = zip::CompressionMethod::Stored;
    let litter = ["__MACOSX/._disk.img", ".DS_Store", "a/.DS_Store"];
    let i = look(zip(&litter, stored));
    is_safe(&i);
    assert_eq!(i.virtual_size, Some(disk().len() as u64));
    refused_for(&look(zip(&["a.DS_Store"], stored)), "zip_members");
    refused_for(&look(zip(&["MACOSX/._disk.img"], stored)), "zip_members");
    // The method of the only file, in both its headers: LZMA.
    let mut file = zip(&[], stored);
    let directory = file.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    (file[8], file[directory + 10]) = (14, 14);
    let i = look(file);
    refused_for(&i, "compressed_stream");
    assert!(i.findings[0].message.contains("LZMA"), "{i:?}");
}

#[test]
fn only_plain_files_are_members() {
    for kind in *b"123456SA" {
        let file = Tar::default()
            .add("web.ovf", &ovf("web.img"))
            .add_as("web.img", kind, 0, b"")
            .end();
        refused_for(&look(file), "ova_member_kind");
    }
    let sparse = Tar::default()
        .add("web.ovf", &ovf("web.img"))
        .pax("GNU.sparse.major", "1")
        .add("web.img", &disk())
        .end();
    refused_for(&look(sparse), "ova_member_kind");
}

#[test]
fn two_readings_of_an_archive_are_refused() {
    let start = || Tar::default().add("web.ovf", &ovf("web.img"));
    let two = start().add("evil.ovf", &ovf("web.img")).add("web.img", b"");
    refused_for(&look(two.end()), "ova_two_descriptors");
    let twice = start().add("web.img", &disk()).add("web.img", b"other");
    refused_for(&look(twice.end()), "ova_duplicate_member");
    let mut hidden = start().add("web.img", &disk()).end();
    hidden.extend(Tar::default().add("evil.ovf", &ovf("web.img")).end());
    refused_for(&look(hidden), "tar_trailing_data");
    let sizes = start().pax("size", "512").add("web.img", &disk());
    refused_for(&look(sizes.end()), "tar_two_sizes");
    let names = start()
        .pax("path", "a")
        .pax("path", "b")
        .add("web.img", &disk());
    refused_for(&look(names.end()), "tar_header");
    let manifests = start()
        .add("web.img", &disk())
        .add("a.mf", b"")
        .add("b.mf", b"");
    refused_for(&look(manifests.end()), "ova_two_manifests");
}

#[test]
fn sizes_that_lie_are_refused() {
    let start = || Tar::default().add("web.ovf", &ovf("web.img"));
    let truncated = start().add_as("web.img", b'0', 1 << 30, &disk()).end();
    refused_for(&look(truncated), "tar_truncated");
    let lie = start()
        .pax("size", &u64::MAX.to_string())
        .add("web.img", b"")
        .end();
    refused_for(&look(lie), "tar_truncated");
    for size in ["-1", "18446744073709551616", "1e3", ""] {
        let file = start().pax("size", size).add("web.img", b"").end();
        refused_for(&look(file), "tar_header");
    }
    let long = start()
        .add_as("pax", b'x', 1 << 40, b"")
        .add("web.img", b"")
        .end();
    refused_for(&look(long), "tar_truncated");
    let large = start().pax_record(&vec![b'9'; 1 << 20]).end();
    refused_for(&look(large), "tar_header");
    let whole = ova();
    for len in [600, 2048, 5000, whole.len() - 1025 - 512] {
        let i = look(whole[..len].to_vec());
        assert_eq!(i.verdict(), Verdict::Unsafe, "{len}: {:?}", i.findings);
    }
}

#[test]
fn very_many_members_are_refused() {
    let one = Tar::default().add("x", b"").0;
    let mut file = Tar::default().add("web.ovf", &ovf("web.img")).0;
    file.extend(one.repeat(100_000));
    refused_for(&look(file), "tar_too_many_members");
}

#[test]
fn the_manifest_is_verified() {
    let with = |manifest: &str| {
        let file = Tar::default()
            .add("web.ovf", &ovf("web.img"))
            .add("web.mf", manifest.as_bytes())
            .add("web.img", &disk());
        look(file.end())
    };
    let wrong = with(&sha256("web.img", b"something else"));
    refused_for(&wrong, "manifest_mismatch");
    assert_eq!(wrong.details["manifest"], "mismatch");
    // One right digest does not make up for a wrong one.
    let both = sha256("web.img", &disk()) + &sha256("web.img", b"something else");
    refused_for(&with(&both), "manifest_mismatch");
    let missing = sha256("../other.img", b"");
    refused_for(&with(&missing), "manifest_missing_file");
    refused_for(&with("garbage"), "manifest_syntax");
    let partial = with(&sha256("web.img", &disk()));
    is_safe(&partial);
    assert_eq!(rules(&partial), ["manifest_unlisted"]);
    let unknown = with("MD5(web.img)= 00\n");
    is_safe(&unknown);
    assert!(rules(&unknown).contains(&"manifest_algorithm"));
}

#[test]
fn a_changed_byte_of_a_disk_is_found() {
    let mut file = ova();
    let at = file.len() - 1024 - (1 << 19);
    file[at] ^= 1;
    refused_for(&look(file), "manifest_mismatch");
}

#[test]
fn references_stay_inside() {
    for href in [
        "../web.img",
        "/etc/passwd",
        "http://a/web.img",
        "file:web.img",
        "a/b",
    ] {
        let file = Tar::default()
            .add("web.ovf", &ovf(href))
            .add("web.img", &disk())
            .end();
        refused_for(&look(file.clone()), "ova_external_reference");
        assert!(Ova::open(&source(file)).is_err());
        refused_for(&look(ovf(href)), "ova_external_reference");
    }
    let missing = Tar::default().add("web.ovf", &ovf("web.img")).end();
    refused_for(&look(missing), "ova_missing_disk");
    let encoded = Tar::default()
        .add("web.ovf", &ovf("my%20web.img"))
        .add("my web.img", &disk())
        .end();
    is_safe(&look(encoded));
}

#[test]
fn an_unsafe_disk_makes_the_ova_unsafe() {
    let mut qed = b"QED\0".to_vec();
    qed.resize(4096, 0);
    let luks = {
        let mut luks = b"LUKS\xba\xbe\0\x01".to_vec();
        luks.resize(4096, 0);
        luks
    };
    for (bad, rule) in [
        (gzip(&gzip(&disk())), "nested_compression"),
        (gzip(&disk())[..100].to_vec(), "compressed_stream"),
    ] {
        let file = Tar::default()
            .add("web.ovf", &ovf("web.img"))
            .add("web.img", &bad)
            .end();
        let i = look(file);
        refused_for(&i, rule);
        assert!(i.findings[0].place.starts_with("web.img: "), "{i:?}");
    }
    // Whatever the inspectors say of a disk is said of the archive.
    for image in [qed, luks, disk()] {
        let alone = look(image.clone());
        let file = Tar::default()
            .add("web.ovf", &ovf("web.img"))
            .add("web.img", &image)
            .end();
        assert_eq!(look(file).verdict(), alone.verdict());
    }
}

#[test]
fn descriptors_are_bounded() {
    let bomb =
        br#"<!DOCTYPE Envelope [<!ENTITY a "ovf"><!ENTITY b "&a;&a;">]><Envelope>&b;</Envelope>"#;
    let deep = format!("<Envelope ovf='1'>{}", "<a>".repeat(100_000)).into_bytes();
    let wide = format!("<Envelope ovf='1'>{}</Envelope>", "<a/>".repeat(400_000)).into_bytes();
    let long = format!("<Envelope ovf='1'>{}</Envelope>", "a".repeat(5 << 20)).into_bytes();
    for xml in [bomb.to_vec(), deep, wide, long, ovf("a")[..200].to_vec()] {
        let alone = look(xml.clone());
        assert_eq!(alone.format, Format::Ovf);
        refused_for(&alone, "ovf_xml");
        let file = Tar::default().add("web.ovf", &xml).end();
        refused_for(&look(file), "ovf_xml");
    }
}

#[test]
fn wrong_values_in_a_descriptor_are_findings() {
    let text = String::from_utf8(ovf("web.img")).unwrap();
    for (from, to, rule) in [
        (r#"capacity="1""#, r#"capacity="0""#, "ovf_capacity"),
        (r#"capacity="1""#, r#"capacity="-5""#, "ovf_capacity"),
        ("2^20", "2^64", "ovf_capacity"),
        (
            r#"ovf:fileRef="f""#,
            r#"ovf:fileRef="g""#,
            "ova_missing_disk",
        ),
        (
            r#"ovf:fileRef="f""#,
            r#"ovf:fileRef="f" ovf:parentRef="p""#,
            "ova_parent_disk",
        ),
        (r#"ovf:href="web.img""#, "", "ovf_reference"),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        let file = Tar::default()
            .add("web.ovf", changed.as_bytes())
            .add("web.img", &disk())
            .end();
        refused_for(&look(file), rule);
    }
    let blank = text.replace(r#"ovf:fileRef="f""#, "");
    let i = look(Tar::default().add("web.ovf", blank.as_bytes()).end());
    is_safe(&i);
    assert!(rules(&i).contains(&"ova_blank_disk"));
}

#[test]
fn a_descriptor_alone_is_safe_and_says_what_it_needs() {
    let i = look(ovf("web.img"));
    is_safe(&i);
    assert_eq!((i.format, i.container_format), (Format::Ovf, "ovf"));
    assert_eq!(rules(&i), ["ovf_references"]);
    assert_eq!(i.details["disks"][0]["capacity"], 1 << 20);
}

#[test]
fn other_archives_are_told_apart() {
    let i = look(Tar::default().add("notes.txt", b"hello").end());
    is_safe(&i);
    assert_eq!((i.format, i.container_format), (Format::Tar, "bare"));
    assert_eq!(i.virtual_size, None);
    assert_eq!(rules(&i), ["archive"]);
    let docker = Tar::default().add("manifest.json", b"[]").end();
    let i = look(docker.clone());
    is_safe(&i);
    assert_eq!((i.format, i.container_format), (Format::Docker, "docker"));
    let i = look(gzip(&docker));
    assert_eq!((i.format, i.compression), (Format::Docker, Some("gzip")));
}

#[test]
fn a_compressed_image_is_told_by_what_it_holds() {
    for (name, encode) in ENCODERS {
        let i = look(encode(&disk()));
        is_safe(&i);
        assert_eq!((i.format, i.compression), (Format::Raw, Some(name)));
        assert_eq!(i.virtual_size, Some(1 << 20));
        assert_eq!(i.file_size, encode(&disk()).len() as u64);
        assert_eq!(i.container_format, "bare");
    }
}

#[test]
fn broken_streams_are_refused() {
    for (_, encode) in ENCODERS {
        let file = encode(&disk());
        for keep in [file.len() - 1, file.len() / 2, 20] {
            refused_for(&look(file[..keep].to_vec()), "compressed_stream");
        }
        refused_for(
            &look([file, b"garbage".to_vec()].concat()),
            "compressed_stream",
        );
    }
}

#[test]
fn bombs_are_refused() {
    let tight = Limits {
        max_inflated: 1 << 20,
        ..Limits::default()
    };
    for (_, encode) in ENCODERS {
        let fits = describe(&source(encode(&disk())), &tight).unwrap();
        is_safe(&fits);
        let bomb = encode(&vec![0; (1 << 20) + 1]);
        refused_for(
            &describe(&source(bomb), &tight).unwrap(),
            "compression_bomb",
        );
    }
    // Together, the disks of an archive may not be more than one.
    let text = String::from_utf8(ovf("a.gz")).unwrap();
    let text = text
        .replace(
            "</References>",
            r#"<File ovf:id="g" ovf:href="b.gz"/></References>"#,
        )
        .replace(
            "</DiskSection>",
            r#"<Disk ovf:diskId="e" ovf:fileRef="g" ovf:capacity="1"/></DiskSection>"#,
        );
    let file = Tar::default()
        .add("web.ovf", text.as_bytes())
        .add("a.gz", &gzip(&disk()))
        .add("b.gz", &gzip(&disk()))
        .end();
    is_safe(&look(file.clone()));
    let i = describe(&source(file), &tight).unwrap();
    refused_for(&i, "compression_bomb");
}

#[test]
fn compression_inside_compression_is_refused() {
    for (_, outer) in ENCODERS {
        for (_, inner) in ENCODERS {
            let file = outer(&inner(&disk()));
            refused_for(&look(file.clone()), "nested_compression");
            let limits = Limits::default();
            let compression = Compression::detect(&file).unwrap();
            let scratch = tempfile::tempfile().unwrap();
            let file = source(file);
            let cx = Context::new(&limits);
            assert!(formats::container::inflate_into(&file, compression, scratch, &cx).is_err());
        }
    }
}

#[test]
fn cancelling_ends_it() {
    let limits = Limits::default();
    let cx = Context::new(&limits);
    cx.progress.cancel();
    for file in [gzip(&disk()), ova()] {
        let e = formats::container::describe_with(&source(file), &cx).unwrap_err();
        assert_eq!(e.kind(), formats::ErrorKind::Cancelled);
    }
}

#[test]
fn flipped_bytes_never_panic() {
    let seed = std::env::var("GLINT_SEED").ok();
    let mut seed = Seed(seed.map_or(1, |s| s.parse().unwrap()));
    // Small, so that flips hit structure.
    let small = Tar::default()
        .add("web.ovf", &ovf("web.img"))
        .add("web.mf", sha256("web.img", b"disk").as_bytes())
        .pax("path", "web.img")
        .add("x", b"disk")
        .end();
    let zip = {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default();
        writer.start_file("disk.img", options).unwrap();
        writer.write_all(&disk()).unwrap();
        writer.finish().unwrap().into_inner()
    };
    let mut files = vec![small.clone(), ovf("web.img"), zip];
    files.extend(ENCODERS.map(|(_, encode)| encode(&small)));
    for file in files {
        for _ in 0..400 {
            let mut file = file.clone();
            for _ in 0..=seed.below(4) {
                let at = seed.below(file.len());
                file[at] = u8::try_from(seed.next() & 0xff).unwrap();
            }
            if seed.below(4) == 0 {
                file.truncate(seed.below(file.len()));
            }
            let found = look(file.clone());
            let is_plain = found.format == Format::Ova && found.compression.is_none();
            if is_plain && found.verdict() == Verdict::Safe {
                Ova::open(&source(file)).unwrap();
            }
        }
    }
}

// The corpus.

struct Row {
    path: String,
    is_stored: bool,
    virtual_size: Option<u64>,
    content: Option<String>,
    expect: String,
}

fn corpus() -> Option<(PathBuf, Vec<Row>)> {
    let Some(root) = std::env::var_os("GLINT_CORPUS").map(PathBuf::from) else {
        eprintln!("skipped: GLINT_CORPUS names no corpus");
        return None;
    };
    let manifest = std::fs::read_to_string(root.join("MANIFEST.tsv")).unwrap();
    let mut lines = manifest.lines();
    let names: Vec<_> = lines.next().unwrap().split('\t').collect();
    let column = |name| names.iter().position(|n| *n == name).unwrap();
    let rows = lines.map(|line| {
        let fields: Vec<_> = line.split('\t').collect();
        let field = |name| Some(fields[column(name)].to_owned()).filter(|f| f != "-");
        Row {
            path: field("path").unwrap(),
            is_stored: field("feed").as_deref() == Some("stored"),
            virtual_size: field("virtual_size").map(|n| n.parse().unwrap()),
            content: field("content_sha256"),
            expect: field("expect").unwrap_or_default(),
        }
    });
    let folders = ["ova/", "ovf/", "compressed/", "docker/", "other/"];
    let rows = rows.filter(|row| folders.iter().any(|f| row.path.starts_with(f)));
    let rows: Vec<_> = rows.collect();
    Some((root, rows))
}

fn open_row(root: &Path, row: &Row) -> Arc<dyn Source> {
    let file = std::fs::File::open(root.join(&row.path)).unwrap();
    let stored: Arc<dyn Source> = Arc::new(FileSource::new(file).unwrap());
    let head = formats::read_up_to(stored.as_ref(), HostOffset::ZERO, 512).unwrap();
    match Compression::detect(&head).filter(|_| !row.is_stored) {
        Some(compression) => {
            let limits = Limits::default();
            let scratch = tempfile::tempfile().unwrap();
            let cx = Context::new(&limits);
            let file = formats::container::inflate_into(&stored, compression, scratch, &cx);
            Arc::new(file.unwrap())
        }
        None => stored,
    }
}

/// Compressed raw images and OVAs with a disk: their guest's bytes.
fn content(source: &Arc<dyn Source>, i: &Inspection) -> Option<Arc<dyn formats::Disk>> {
    let limits = Limits::default();
    let cx = Context::new(&limits);
    if i.format == Format::Ova {
        let ova = Ova::open(source).unwrap();
        let disk = ova.open_disk(0, &cx);
        return disk.map_err(|e| eprintln!("{e}")).ok();
    }
    let head = formats::read_up_to(source.as_ref(), HostOffset::ZERO, 512).unwrap();
    let compression = Compression::detect(&head)?;
    let scratch = tempfile::tempfile().unwrap();
    let file = formats::container::inflate_into(source, compression, scratch, &cx).unwrap();
    formats::open(Arc::new(file), &formats::OpenOptions::default()).ok()
}

/// SHA-256 of all the guest sees; holes cost hashing only.
fn hash(disk: &dyn formats::Disk) -> String {
    let mut hasher = sha2::Sha256::new();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < disk.virtual_size() {
        let len = usize::try_from((disk.virtual_size() - at).min(1 << 20)).unwrap();
        disk.read_at(&mut buf[..len], formats::GuestOffset(at))
            .unwrap();
        hasher.update(&buf[..len]);
        at += len as u64;
    }
    hasher
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[test]
fn the_corpus_is_judged_as_expected() {
    let Some((root, rows)) = corpus() else { return };
    assert!(rows.len() > 250, "{} rows", rows.len());
    let mut wrong = Vec::new();
    let mut compared = 0;
    for row in rows {
        let source = open_row(&root, &row);
        let i = describe(&source, &Limits::default()).unwrap();
        let verdict = i.verdict();
        let is_wrong = match row.expect.as_str() {
            "ok" => {
                verdict == Verdict::Unsafe
                    || (row.virtual_size.is_some() && i.virtual_size != row.virtual_size)
            }
            "inspect" => verdict == Verdict::Unsafe,
            "reject" => verdict == Verdict::Safe,
            "reject-or-raw" => verdict == Verdict::Safe && i.format != Format::Raw,
            _ => false,
        };
        // Disks and images by themselves are the matter of their formats.
        let is_ours = i.compression.is_some()
            || !matches!(row.path.as_str(), p if p.ends_with(".vmdk") || p.contains("bochs"));
        if is_wrong && is_ours {
            wrong.push(format!(
                "{} ({}): {verdict:?} {:?} {:?} {:?}",
                row.path, row.expect, i.format, i.virtual_size, i.findings
            ));
        }
        if row.path.starts_with("ovf/") && row.path.contains(".ovf") {
            assert_eq!(i.format, Format::Ovf, "{}", row.path);
        }
        if let Some(expected) = row.content
            && row.expect == "ok"
            && row.virtual_size.is_some_and(|size| size <= 2 << 30)
            && verdict == Verdict::Safe
            && let Some(disk) = content(&source, &i)
        {
            assert_eq!(hash(disk.as_ref()), expected, "{}", row.path);
            compared += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared >= 7, "only {compared} contents were compared");
}
