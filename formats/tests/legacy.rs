//! Old formats as qemu-img writes them, read here: qcow version 1 and Parallels.

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use formats::inspect::{Verdict, inspect};
use formats::{ErrorKind, FileSource, Format, GuestOffset, Limits, OpenOptions, Source, open};
use support::Random;

fn qemu_img(args: &[&str]) {
    let done = Command::new("qemu-img")
        .args(args)
        .output()
        .expect("qemu-img is installed");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "qemu-img {args:?}: {said}");
}

/// `len` bytes of noise, text and holes.
fn guest(len: usize) -> Vec<u8> {
    let mut random = Random(5);
    let mut bytes = vec![0; len];
    for _ in 0..40 {
        let at = random.below(bytes.len() as u64) as usize;
        let end = bytes.len().min(at + random.below(70_000) as usize);
        let is_noise = random.below(2) == 0;
        for byte in &mut bytes[at..end] {
            *byte = if is_noise { random.next() as u8 } else { b'a' };
        }
    }
    bytes
}

fn source(path: &Path) -> Arc<dyn Source> {
    Arc::new(FileSource::new(File::open(path).unwrap()).unwrap())
}

#[test]
fn reads_what_qemu_img_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    let guest = guest((5 << 20) + 512);
    fs::write(&raw, &guest).unwrap();
    for (name, format, args) in [
        ("plain", Format::Qcow1, &["-O", "qcow"][..]),
        ("parallels", Format::Parallels, &["-O", "parallels"]),
        (
            "small",
            Format::Parallels,
            &["-O", "parallels", "-o", "cluster_size=65536"],
        ),
    ] {
        let path = folder.path().join(name);
        let mut all = vec!["convert", "-f", "raw"];
        all.extend(args);
        all.extend([raw.to_str().unwrap(), path.to_str().unwrap()]);
        qemu_img(&all);
        let source = source(&path);
        let judged = inspect(source.as_ref(), &Limits::default()).unwrap();
        assert_eq!(
            (judged.format, judged.verdict()),
            (format, Verdict::Safe),
            "{name}"
        );
        assert_eq!(judged.virtual_size, Some(guest.len() as u64), "{name}");
        let mut cut = fs::read(&path).unwrap();
        cut.truncate(cut.len() / 2);
        let refused = inspect(&cut, &Limits::default()).unwrap();
        let rule = refused.unsafe_finding().map(|f| f.rule);
        assert_eq!(rule, Some("truncated"), "{name}");
        let disk = open(source, &OpenOptions::default()).unwrap();
        let mut bytes = vec![1; guest.len()];
        disk.read_at(&mut bytes, GuestOffset(0)).unwrap();
        assert!(bytes == guest, "{name}");
        let mut extents = Vec::new();
        disk.extents(
            GuestOffset(0)..GuestOffset(guest.len() as u64),
            &mut extents,
        )
        .unwrap();
        assert!(extents.iter().any(|e| e.kind.is_hole()), "{name}: no hole");
    }
}

/// A qcow of version 1 whose clusters are compressed where that helps: qemu-img 10.0 reads such
/// images but fails to write one.
fn packed(guest: &[u8]) -> Vec<u8> {
    const CLUSTER: usize = 4096;
    const TABLE: usize = 512;
    let clusters: Vec<_> = guest.chunks(CLUSTER).collect();
    let tables = clusters.len().div_ceil(TABLE);
    let mut file = vec![0; CLUSTER * (1 + tables)];
    file[..8].copy_from_slice(b"QFI\xfb\0\0\0\x01");
    file[24..32].copy_from_slice(&(guest.len() as u64).to_be_bytes());
    (file[32], file[33], file[47]) = (12, 9, 64);
    for n in 0..tables {
        let at = (CLUSTER * (1 + n)) as u64;
        file[64 + 8 * n..][..8].copy_from_slice(&at.to_be_bytes());
    }
    for (n, cluster) in clusters.iter().enumerate() {
        if formats::bytes::is_zero(cluster) {
            continue;
        }
        let mut whole = cluster.to_vec();
        whole.resize(CLUSTER, 0);
        let mut deflated = flate2::read::DeflateEncoder::new(&whole[..], Default::default());
        let mut short = Vec::new();
        deflated.read_to_end(&mut short).unwrap();
        let mut entry = file.len() as u64;
        if short.len() < CLUSTER {
            entry |= 1 << 63 | (short.len() as u64) << 51;
            file.extend_from_slice(&short);
        } else {
            file.resize(file.len().next_multiple_of(CLUSTER), 0);
            entry = file.len() as u64;
            file.extend_from_slice(&whole);
        }
        file[CLUSTER + 8 * n..][..8].copy_from_slice(&entry.to_be_bytes());
    }
    file
}

#[test]
fn compressed_clusters_read_as_qemu_img_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let guest = guest((5 << 20) + 512);
    let image = packed(&guest);
    fs::write(file("packed"), &image).unwrap();
    qemu_img(&[
        "convert",
        "-f",
        "qcow",
        "-O",
        "raw",
        &file("packed"),
        &file("raw"),
    ]);
    assert!(
        fs::read(file("raw")).unwrap() == guest,
        "qemu-img disagrees"
    );
    let disk = open(Arc::new(image), &OpenOptions::default()).unwrap();
    let mut bytes = vec![1; guest.len()];
    disk.read_at(&mut bytes, GuestOffset(0)).unwrap();
    assert!(bytes == guest);
}

#[test]
fn a_backing_file_and_encryption_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    qemu_img(&["create", "-f", "raw", &file("base"), "1M"]);
    qemu_img(&[
        "create",
        "-f",
        "qcow",
        "-b",
        &file("base"),
        "-F",
        "raw",
        &file("overlay"),
    ]);
    qemu_img(&[
        "create",
        "-f",
        "qcow",
        "--object",
        "secret,id=s,data=word",
        "-o",
        "encrypt.format=aes,encrypt.key-secret=s",
        &file("sealed"),
        "1M",
    ]);
    for (name, rule) in [("overlay", "backing_file"), ("sealed", "encrypted")] {
        let source = source(&folder.path().join(name));
        let judged = inspect(source.as_ref(), &Limits::default()).unwrap();
        assert_eq!(judged.unsafe_finding().map(|f| f.rule), Some(rule));
        let error = open(source, &OpenOptions::default())
            .err()
            .expect("a refusal");
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    }
}
