//! Packages of disks and how far inspection looks: vagrant boxes, container archives, signed
//! OVAs, descriptors beside their files, wrappers longer than what is looked at.

use std::collections::HashMap;
use std::io::Write;
use std::process::Command;
use std::sync::{Arc, Mutex};

use formats::container::{Context, Ova, describe, examine};
use formats::inspect::{Inspection, Severity, Verdict};
use formats::resolve::{Alone, Granted, Resolver, Wanted};
use formats::{Disk, Error, ErrorKind, Format, GuestOffset, Limits, Result, Source};
use sha2::Digest;

fn source(bytes: Vec<u8>) -> Arc<dyn Source> {
    Arc::new(bytes)
}

fn look(bytes: Vec<u8>) -> Inspection {
    describe(&source(bytes), &Limits::default()).unwrap()
}

#[track_caller]
fn found(inspection: &Inspection, rule: &str, severity: Severity) {
    let mut findings = inspection.findings.iter();
    assert!(
        findings.any(|f| f.rule == rule && f.severity == severity),
        "{rule} is not among {:?}",
        inspection.findings
    );
}

#[track_caller]
fn is_safe(inspection: &Inspection) {
    assert_eq!(inspection.unsafe_finding(), None);
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, data) in members {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        let kind = if name.ends_with('/') { b'5' } else { b'0' };
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(data.len() as u64);
        header.set_cksum();
        all.extend(header.as_bytes());
        all.extend(*data);
        all.resize(all.len().next_multiple_of(512), 0);
    }
    all.resize(all.len() + 1024, 0);
    all
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn content(seed: usize) -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    for (n, byte) in (seed..).zip(&mut disk[4096..70_000]) {
        *byte = (n % 251) as u8;
    }
    disk
}

fn image(format: Format, options: &[(&str, &str)], content: &[u8]) -> Vec<u8> {
    let pairs: Vec<_> = options
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let options = formats::CreateOptions::parse(format, &pairs, false).unwrap();
    let disk = formats::raw::Reader::new(Arc::new(content.to_vec())).unwrap();
    let target = formats::create(&options, disk.virtual_size()).unwrap();
    let sink = formats::MemorySink::default();
    let progress = formats::copy::Progress::default();
    let copying = formats::copy::CopyOptions::default();
    formats::copy::copy(&disk, target, &sink, &copying, &progress).unwrap();
    sink.into_bytes()
}

fn read_all(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.virtual_size()).unwrap()];
    disk.read_at(&mut bytes, GuestOffset::ZERO).unwrap();
    bytes
}

fn opened(package: &Ova, n: usize) -> Vec<u8> {
    let limits = Limits::default();
    read_all(
        package
            .open_disk(n, &Context::new(&limits))
            .unwrap()
            .as_ref(),
    )
}

fn ovf(files: &[&str]) -> Vec<u8> {
    let each = |text: &dyn Fn(usize, &str) -> String| -> String {
        files.iter().enumerate().map(|(n, f)| text(n, f)).collect()
    };
    let refs = each(&|n, f| format!(r#"<File ovf:id="f{n}" ovf:href="{f}"/>"#));
    let disks = each(&|n, _| {
        format!(r#"<Disk ovf:diskId="d{n}" ovf:fileRef="f{n}" ovf:capacity="1048576"/>"#)
    });
    format!(
        r#"<?xml version="1.0"?><Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
        xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"><References>{refs}</References>
        <DiskSection>{disks}</DiskSection><VirtualSystem ovf:id="v"><Name>web</Name>
        </VirtualSystem></Envelope>"#
    )
    .into_bytes()
}

// Vagrant boxes.

fn libvirt() -> Vec<u8> {
    let qcow2 = image(Format::Qcow2, &[], &content(1));
    tar(&[
        ("./", b""),
        ("./box.img", &qcow2),
        ("./Vagrantfile", b"Vagrant.configure"),
        (
            "./metadata.json",
            br#"{"provider":"libvirt","format":"qcow2","virtual_size":2}"#,
        ),
    ])
}

#[test]
fn a_libvirt_box_is_one_disk() {
    for bytes in [libvirt(), gzip(&libvirt()), xz(&libvirt())] {
        let i = look(bytes.clone());
        is_safe(&i);
        assert_eq!((i.format, i.format.name()), (Format::Vagrant, "box"));
        assert_eq!(i.container_format, "box");
        assert_eq!(i.details["provider"], "libvirt");
        assert_eq!(i.virtual_size, Some(1 << 20));
        assert_eq!(i.disks.len(), 1);
        assert_eq!(
            (i.disks[0].name.as_str(), i.disks[0].format),
            ("box.img", Format::Qcow2)
        );
        found(&i, "ova_capacity", Severity::Warning);
        let limits = Limits::default();
        let (again, held) = examine(&source(bytes), &Context::new(&limits)).unwrap();
        assert_eq!(again.format, Format::Vagrant);
        assert!(opened(&Ova::open(&held).unwrap(), 0) == content(1));
    }
}

#[test]
fn a_libvirt_box_of_version_2_lists_its_disks() {
    let metadata = br#"{"provider":"libvirt","disks":[
        {"path":"b.img","name":"data","format":"raw"},{"path":"a.img","format":"qcow2"}]}"#;
    let qcow2 = image(Format::Qcow2, &[], &content(2));
    let file = tar(&[
        ("metadata.json", metadata),
        ("a.img", &qcow2),
        ("b.img", &content(3)),
        ("c.img", b"not listed"),
    ]);
    let i = look(file.clone());
    is_safe(&i);
    let names: Vec<_> = i.disks.iter().map(|d| (d.id.as_str(), d.format)).collect();
    assert_eq!(names, [("data", Format::Raw), ("a.img", Format::Qcow2)]);
    let package = Ova::open(&source(file)).unwrap();
    assert!(opened(&package, 0) == content(3));
    assert!(opened(&package, 1) == content(2));
    let missing = br#"{"provider":"libvirt","disks":[{"path":"../../etc/shadow"},{}]}"#;
    let i = look(tar(&[("metadata.json", missing)]));
    found(&i, "box_missing_disk", Severity::Unsafe);
    found(&i, "box_disk", Severity::Unsafe);
}

#[test]
fn a_virtualbox_box_is_told_by_its_descriptor() {
    let vmdk = image(
        Format::Vmdk,
        &[("subformat", "streamOptimized")],
        &content(4),
    );
    let file = gzip(&tar(&[
        ("box.ovf", &ovf(&["box-disk001.vmdk"])),
        ("include/", b""),
        ("include/_Vagrantfile", b"x"),
        ("metadata.json", br#"{"provider":"virtualbox"}"#),
        ("box-disk001.vmdk", &vmdk),
    ]));
    let i = look(file.clone());
    is_safe(&i);
    assert_eq!((i.format, i.compression), (Format::Vagrant, Some("gzip")));
    assert_eq!(i.details["name"], "web");
    assert_eq!(i.disks[0].name, "box-disk001.vmdk");
    let limits = Limits::default();
    let (_, held) = examine(&source(file), &Context::new(&limits)).unwrap();
    assert!(opened(&Ova::open(&held).unwrap(), 0) == content(4));
}

#[test]
fn other_boxes_are_told_by_names_and_judged() {
    let vhdx = image(Format::Vhdx, &[], &content(5));
    let hyperv: &[(&str, &[u8])] = &[
        ("metadata.json", br#"{"provider":"hyperv"}"#),
        ("Virtual Hard Disks/", b""),
        ("Virtual Hard Disks/disk.vhdx", &vhdx),
        ("Virtual Machines/box.xml", b"<x/>"),
    ];
    let i = look(tar(hyperv));
    is_safe(&i);
    assert_eq!(i.disks[0].name, "Virtual Hard Disks/disk.vhdx");
    assert!(opened(&Ova::open(&source(tar(hyperv))).unwrap(), 0) == content(5));

    let twice = tar(&[hyperv[0], hyperv[2], hyperv[2]]);
    found(&look(twice), "box_duplicate_member", Severity::Unsafe);
    let empty = look(tar(&hyperv[..1]));
    found(&empty, "box_no_disk", Severity::Warning);
    let mut evil = b"QED\0".to_vec();
    evil.resize(4096, 0);
    let evil = look(tar(&[hyperv[0], ("disk.img", &evil)]));
    assert_eq!(evil.verdict(), Verdict::Unsafe);
    assert!(evil.findings[0].place.starts_with("disk.img: "), "{evil:?}");
    // Without a provider it is no box.
    let i = look(tar(&[("metadata.json", br#"{"a":1}"#), ("a.img", b"x")]));
    assert_eq!(i.format, Format::Tar);
}

// Container archives.

#[test]
fn saved_container_images_are_listed() {
    let layer = tar(&[
        ("disk/", b""),
        ("disk/vm.qcow2", &content(1)),
        ("etc/x", b"y"),
    ]);
    let file = tar(&[
        (
            "manifest.json",
            br#"[{"Config":"c.json","RepoTags":["web:1"],"Layers":["a/layer.tar","b.tar.gz"]}]"#,
        ),
        ("c.json", br#"{"architecture":"amd64","os":"linux"}"#),
        ("a/layer.tar", &layer),
        ("b.tar.gz", &gzip(&layer)),
    ]);
    let i = look(file);
    is_safe(&i);
    assert_eq!(i.format, Format::Docker);
    let image = &i.details["images"][0];
    assert_eq!(image["tags"][0], "web:1");
    assert_eq!(image["architecture"], "amd64");
    assert_eq!(image["layers"][0]["size"], layer.len());
    assert_eq!(image["layers"][1]["compression"], "gzip");
    assert_eq!(i.details["disks"][0]["file"], "disk/vm.qcow2");
    assert_eq!(i.details["disks"][0]["size"], 1 << 20);
}

#[test]
fn what_is_told_of_container_images_is_bounded() {
    // An index that names one manifest many times, whose layers have long names, there or not.
    let name = "n".repeat(60 << 10);
    let digests =
        |digest: &str, n: usize| vec![format!(r#"{{"digest":"a:{digest}"}}"#); n].join(",");
    let index = format!(r#"{{"manifests":[{}]}}"#, digests("1", 64));
    let nested = format!(r#"{{"manifests":[{}]}}"#, digests("2", 64));
    let manifest = format!(r#"{{"layers":[{}]}}"#, digests(&name, 16));
    for layer in [format!("blobs/a/{name}"), "other".to_owned()] {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in [
            ("index.json", index.as_bytes()),
            ("blobs/a/1", nested.as_bytes()),
            ("blobs/a/2", manifest.as_bytes()),
            (&layer, b"layer"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, bytes).unwrap();
        }
        let i = look(builder.into_inner().unwrap());
        assert_eq!(i.format, Format::Docker);
        let said = format!("{i:?}").len();
        assert!(said < 4 << 20, "{said} bytes said");
    }
}

#[test]
fn oci_layouts_are_listed_and_loops_end() {
    let file = tar(&[
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        (
            "index.json",
            br#"{"manifests":[{"digest":"sha256:aa"},{"digest":"sha256:ee"}]}"#,
        ),
        // An index of indexes, itself among them.
        (
            "blobs/sha256/aa",
            br#"{"manifests":[{"digest":"sha256:bb"},{"digest":"sha256:aa"},{"digest":"sha256:aa"}]}"#,
        ),
        (
            "blobs/sha256/bb",
            br#"{"config":{"digest":"sha256:cc"},"layers":[{"digest":"sha256:dd"}]}"#,
        ),
        ("blobs/sha256/cc", br#"{"os":"linux","architecture":"arm64"}"#),
        ("blobs/sha256/dd", &gzip(b"layer")),
    ]);
    let i = look(file);
    is_safe(&i);
    let image = &i.details["images"][0];
    assert_eq!(image["architecture"], "arm64");
    assert_eq!(image["layers"][0]["name"], "blobs/sha256/dd");
    found(&i, "docker_manifest", Severity::Warning);
}

// Signatures.

fn signed(sign: impl Fn(&[u8]) -> Option<(String, Vec<u8>)>) -> Inspection {
    let line = |name: &str, bytes: &[u8]| {
        let digest = sha2::Sha256::digest(bytes);
        let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        format!("SHA256({name})= {hex}\n")
    };
    let ovf = ovf(&["a.img"]);
    let manifest = line("web.ovf", &ovf) + &line("a.img", &content(1));
    let (text, pem) = sign(manifest.as_bytes()).unwrap();
    let mut certificate = text.into_bytes();
    certificate.extend(pem);
    certificate.resize(100 << 10, b' ');
    look(tar(&[
        ("web.ovf", &ovf),
        ("a.img", &content(1)),
        ("web.cert", &certificate),
        ("web.mf", manifest.as_bytes()),
    ]))
}

/// Signs with a new key of openssl's, by digest `hash`.
fn openssl(key: &str, hash: &str, message: &[u8]) -> Option<(String, Vec<u8>)> {
    let room = tempfile::tempdir().unwrap();
    let run = |args: &str| {
        let out = Command::new("openssl")
            .args(args.split(' '))
            .current_dir(room.path())
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    };
    std::fs::write(room.path().join("web.mf"), message).unwrap();
    run(&format!(
        "req -x509 -newkey {key} -nodes -keyout k -out c -days 2 -subj /CN=somebody/O=Example"
    ));
    run(&format!("dgst -{hash} -sign k -out s web.mf"));
    let signature = std::fs::read(room.path().join("s")).unwrap();
    let hex: String = signature.iter().map(|b| format!("{b:02x}")).collect();
    let text = format!("{}(web.mf)= {hex}\n", hash.to_uppercase());
    Some((text, std::fs::read(room.path().join("c")).unwrap()))
}

#[test]
fn signatures_are_checked_with_their_own_certificate() {
    for (key, hash) in [
        ("rsa:2048", "sha256"),
        ("rsa:1024", "sha1"),
        ("rsa:2048", "sha384"),
        ("rsa:3072", "sha512"),
    ] {
        let i = signed(|message| openssl(key, hash, message));
        is_safe(&i);
        found(&i, "ova_signature", Severity::Warning);
        assert!(i.findings[0].message.contains("CN=somebody"), "{i:?}");
        assert!(i.findings[0].message.contains("not checked against any"));
    }
    let wrong = signed(|_| openssl("rsa:2048", "sha256", b"another manifest"));
    found(&wrong, "ova_signature_mismatch", Severity::Unsafe);
    let swapped = signed(|message| {
        let (text, _) = openssl("rsa:2048", "sha256", message)?;
        Some((text, openssl("rsa:2048", "sha256", message)?.1))
    });
    found(&swapped, "ova_signature_mismatch", Severity::Unsafe);
    for (text, why) in [
        ("garbage\n", "no line"),
        ("SHA256(other.mf)= 00\n", "it signs"),
        ("MD5(web.mf)= 00\n", "kind not known"),
    ] {
        let i = signed(|_| Some((text.to_owned(), Vec::new())));
        is_safe(&i);
        found(&i, "ova_signature", Severity::Warning);
        assert!(i.findings[0].message.contains(why), "{:?}", i.findings);
    }
    let i = signed(|message| {
        let (text, _) = openssl("rsa:1024", "sha256", message)?;
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        Some((text, pem.into()))
    });
    found(&i, "ova_signature", Severity::Warning);
}

// Descriptors beside their files.

struct Folder {
    files: HashMap<&'static str, Vec<u8>>,
    asked: Mutex<Vec<String>>,
}

impl Resolver for Folder {
    fn resolve(&self, by: Format, wanted: Wanted, name: &str) -> Result<Granted> {
        self.asked.lock().unwrap().push(name.to_owned());
        assert_eq!((by, wanted), (Format::Ovf, Wanted::Extent));
        match self.files.get(name) {
            Some(bytes) => Ok(Granted::alone(source(bytes.clone()))),
            None => Err(Error::refused(by, "file", format!("{name:?} is not there"))),
        }
    }
}

#[test]
fn a_descriptor_opens_the_files_it_is_granted() {
    let folder = Folder {
        files: HashMap::from([
            ("a b.img", image(Format::Qcow2, &[], &content(1))),
            ("b.img.gz", gzip(&content(2))),
        ]),
        asked: Mutex::default(),
    };
    let descriptor = ovf(&["a%20b.img", "b.img.gz"]);
    let package = Ova::open_descriptor(&descriptor, &folder).unwrap();
    assert_eq!(*folder.asked.lock().unwrap(), ["a b.img", "b.img.gz"]);
    assert_eq!(package.disks().len(), 2);
    assert!(opened(&package, 0) == content(1));
    assert!(opened(&package, 1) == content(2));

    let refused = |files: &[&str], resolver: &dyn Resolver| {
        let error = Ova::open_descriptor(&ovf(files), resolver)
            .map(|_| ())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    };
    refused(&["a.img"], &Alone);
    refused(&["none.img"], &folder);
    for name in [
        "../a.img",
        "/etc/passwd",
        "sub/a.img",
        "http://a/b",
        "%2e%2e/x",
        "a%2fb",
    ] {
        refused(&[name], &folder);
    }
    let asked = folder.asked.lock().unwrap();
    assert!(asked.iter().all(|name| !name.contains('/')), "{asked:?}");
}

#[test]
fn chunks_are_refused_by_name() {
    let text = String::from_utf8(ovf(&["a.img"])).unwrap();
    let text = text.replace(
        r#"ovf:href="a.img""#,
        r#"ovf:href="a.img" ovf:chunkSize="1000""#,
    );
    let file = tar(&[("web.ovf", text.as_bytes()), ("a.img.000000000", b"x")]);
    let i = look(file);
    found(&i, "ova_chunked", Severity::Unsafe);
}

// How far inspection looks.

fn tight() -> Limits {
    Limits {
        max_look: 300 << 10,
        ..Limits::default()
    }
}

#[test]
fn a_long_raw_image_is_judged_by_its_beginning() {
    type Encoder = fn(&[u8]) -> Vec<u8>;
    let size = 32 << 20;
    let disk = vec![7; size];
    let encoders: [(Encoder, bool); 3] = [(bzip2, false), (xz, true), (zstd, true)];
    for (encode, says_length) in encoders {
        let file = encode(&disk);
        assert!(256 * file.len() < size, "{}", file.len());
        let i = describe(&source(file.clone()), &tight()).unwrap();
        is_safe(&i);
        found(&i, "seen_partly", Severity::Note);
        assert_eq!(i.format, Format::Raw);
        let size = size as u64;
        assert_eq!(i.virtual_size, says_length.then_some(size));
        let limits = tight();
        let (whole, held) = examine(&source(file), &Context::new(&limits)).unwrap();
        assert_eq!((whole.virtual_size, held.len()), (Some(size), size));
    }
}

#[test]
fn formats_are_told_by_their_beginning_where_that_decides() {
    let mut disk = content(1);
    disk.resize(4 << 20, 7);
    for (format, options) in [
        (Format::Qcow2, &[][..]),
        (Format::Vdi, &[]),
        (Format::Vmdk, &[]),
        (Format::Vhdx, &[]),
    ] {
        let file = gzip(&image(format, options, &disk));
        let limits = Limits {
            max_look: 3 << 20,
            ..Limits::default()
        };
        let i = describe(&source(file), &limits).unwrap();
        assert_eq!(i.unsafe_finding(), None, "{format}");
        assert_eq!((i.format, i.virtual_size), (format, Some(4 << 20)));
    }
    // A footer tells what this is: only the whole file does.
    let vhd = bzip2(&image(
        Format::Vhd,
        &[("subformat", "fixed")],
        &vec![7; 32 << 20],
    ));
    let i = describe(&source(vhd.clone()), &tight()).unwrap();
    assert_eq!((i.format, i.virtual_size), (Format::Raw, None));
    found(&i, "seen_partly", Severity::Note);
    let limits = tight();
    let (whole, _) = examine(&source(vhd), &Context::new(&limits)).unwrap();
    assert_eq!(whole.format, Format::Vhd);
}

#[test]
fn structures_further_on_are_looked_for_in_proportion() {
    let mut disk = vec![0; 3 << 20];
    let mut state = 1_u32;
    for byte in &mut disk {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    let mut stream = image(Format::Vmdk, &[("subformat", "streamOptimized")], &disk);
    let i = describe(&source(gzip(&stream)), &tight()).unwrap();
    is_safe(&i);
    assert_eq!((i.format, i.virtual_size), (Format::Vmdk, Some(3 << 20)));
    stream.truncate(96 << 10);
    stream.resize(80 << 20, 0);
    let i = describe(&source(zstd(&stream)), &tight()).unwrap();
    assert_eq!(i.format, Format::Vmdk);
    found(&i, "not_judged", Severity::Unsafe);
}

#[test]
fn bombs_cost_a_look() {
    // 2 GiB of zeros in each; a whole pass is what this must not take.
    let zeros = vec![0; 64 << 20];
    let bomb = |encode: fn(&[u8]) -> Vec<u8>| encode(&zeros).repeat(32);
    for file in [bomb(xz), bomb(zstd), bomb(bzip2)] {
        let limits = Limits {
            max_look: 1 << 20,
            ..Limits::default()
        };
        let progress = Arc::new(formats::copy::Progress::default());
        let len = file.len() as u64;
        let cx = Context {
            progress: progress.clone(),
            ..Context::new(&limits)
        };
        let i = formats::container::describe_with(&source(file), &cx).unwrap();
        found(&i, "seen_partly", Severity::Note);
        assert!(progress.done() < len / 2, "{} of {len}", progress.done());
    }
    // An archive is gone through, in proportion to what went in.
    let archive = zstd(&tar(&[("web.ovf", &ovf(&["a.img"])), ("a.img", &zeros)]));
    let i = describe(&source(archive.clone()), &tight()).unwrap();
    found(&i, "compression_bomb", Severity::Unsafe);
    is_safe(&look(archive));
}
