//! QED as qemu-img writes it.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use formats::inspect::{Verdict, inspect};
use formats::resolve::{Granted, Resolver, Wanted};
use formats::{
    Disk, Error, ErrorKind, ExtentKind, Format, GuestOffset, Limits, OpenOptions, Result,
};
use support::Random;

/// Grants the files of one folder by their bare names.
struct Folder(std::path::PathBuf);

impl Resolver for Folder {
    fn resolve(&self, by: Format, wanted: Wanted, name: &str) -> Result<Granted> {
        assert_eq!(wanted, Wanted::Backing);
        let bytes = fs::read(self.0.join(name)).map_err(|e| Error::io("opening", e))?;
        assert!(matches!(by, Format::Qed | Format::Qcow2));
        Ok(Granted {
            source: Arc::new(bytes),
            resolver: Arc::new(Self(self.0.clone())),
        })
    }
}

fn run(program: &str, folder: &Path, args: &[&str]) {
    let done = Command::new(program)
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|e| panic!("{program}, which these tests need: {e}"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {args:?}: {said}");
}

fn open(folder: &Path, name: &str) -> Result<Arc<dyn Disk>> {
    let bytes = fs::read(folder.join(name)).unwrap();
    let format = match bytes.starts_with(b"QED") {
        true => Format::Qed,
        false => Format::Qcow2,
    };
    let options = OpenOptions {
        format: Some(format),
        resolver: Arc::new(Folder(folder.into())),
        ..OpenOptions::default()
    };
    formats::open(Arc::new(bytes), &options)
}

fn content(disk: &dyn Disk, step: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0xa5; disk.virtual_size() as usize];
    for (n, piece) in bytes.chunks_mut(step).enumerate() {
        disk.read_at(piece, GuestOffset((n * step) as u64))?;
    }
    Ok(bytes)
}

/// `name` reads as qemu-img reads it, and its holes are zeros.
#[track_caller]
fn reads_as_qemu_reads(folder: &Path, name: &str, what: &str) -> Vec<u8> {
    run(
        "qemu-img",
        folder,
        &["convert", "-O", "raw", name, "read.raw"],
    );
    let guest = fs::read(folder.join("read.raw")).unwrap();
    let disk = open(folder, name).unwrap_or_else(|e| panic!("{what}: {e}"));
    for step in [1 << 20, 65536, 10_007] {
        assert!(
            content(disk.as_ref(), step).unwrap() == guest,
            "{what}, {step}"
        );
    }
    let (mut at, end) = (GuestOffset(0), GuestOffset(disk.virtual_size()));
    while at < end {
        let mut some = Vec::new();
        disk.extents(at..end, &mut some).unwrap();
        for extent in some {
            assert_eq!(extent.range.start, at, "{what}");
            at = extent.range.end;
            let part = &guest[extent.range.start.0 as usize..at.0 as usize];
            let is_zero = formats::bytes::is_zero(part);
            assert!(!extent.kind.is_hole() || is_zero, "{what}: {extent:?}");
        }
    }
    guest
}

/// Noise, text and holes.
fn guest(len: usize) -> Vec<u8> {
    let mut random = Random(9);
    let mut bytes = vec![0; len];
    for _ in 0..40 {
        let at = random.below(bytes.len() as u64) as usize;
        let end = bytes.len().min(at + random.below(90_000) as usize);
        bytes[at..end].fill_with(|| random.next() as u8);
    }
    bytes
}

#[test]
fn reads_what_qemu_img_writes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("guest.raw"), guest((5 << 20) + 512)).unwrap();
    for options in [
        // With tables of one cluster qemu-img fails to open what it has just made.
        "cluster_size=4k,table_size=2",
        "cluster_size=4k,table_size=16",
        "cluster_size=64k,table_size=2",
        "cluster_size=64k,table_size=4",
        "cluster_size=1M,table_size=8",
        "cluster_size=1M,table_size=16",
    ] {
        let convert = [
            "convert",
            "-f",
            "raw",
            "-O",
            "qed",
            "-o",
            options,
            "guest.raw",
            "image",
        ];
        run("qemu-img", at, &convert);
        let read = reads_as_qemu_reads(at, "image", options);
        assert!(read == fs::read(at.join("guest.raw")).unwrap());
        let bytes = fs::read(at.join("image")).unwrap();
        let judged = inspect(&bytes, &Limits::default()).unwrap();
        assert_eq!(
            (judged.format, judged.verdict()),
            (Format::Qed, Verdict::Unsafe)
        );
        assert_eq!(judged.unsafe_finding().map(|f| f.rule), Some("banned"));
        assert_eq!(judged.virtual_size, Some(read.len() as u64));
    }
}

#[test]
fn zeros_hide_what_is_beneath() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("base"), guest(3 << 20)).unwrap();
    let create = [
        "create",
        "-f",
        "qed",
        "-o",
        "cluster_size=4k",
        "-b",
        "base",
        "-F",
        "raw",
        "image",
        "6M",
    ];
    run("qemu-img", at, &create);
    for command in [
        "write -z 64k 512k",
        "write -P 7 1000k 100k",
        "write -P 8 2999k 5k",
        "write -P 9 5M 100k",
        "write -z 1040k 8k",
    ] {
        run("qemu-io", at, &["-f", "qed", "-c", command, "image"]);
    }
    let read = reads_as_qemu_reads(at, "image", "over raw");
    assert_eq!(
        (read[100 << 10], read[1001 << 10], read[1041 << 10]),
        (0, 7, 0)
    );
    assert!(read[..64 << 10] == guest(3 << 20)[..64 << 10]);
    let disk = open(at, "image").unwrap();
    let mut extents = Vec::new();
    let whole = GuestOffset(0)..GuestOffset(disk.virtual_size());
    disk.extents(whole, &mut extents).unwrap();
    assert!(extents.iter().any(|e| e.kind == ExtentKind::Zero));

    // And beneath a qcow2 image.
    let create = [
        "create", "-f", "qcow2", "-b", "image", "-F", "qed", "top", "7M",
    ];
    run("qemu-img", at, &create);
    run(
        "qemu-io",
        at,
        &["-f", "qcow2", "-c", "write -P 3 1M 1M", "top"],
    );
    let read = reads_as_qemu_reads(at, "top", "under qcow2");
    assert_eq!((read[1001 << 10], read[1 << 20], read[5 << 20]), (7, 3, 9));
}

#[test]
fn a_backing_file_is_granted_and_never_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    run("qemu-img", at, &["create", "-f", "qed", "base", "1M"]);
    let create = ["create", "-f", "qed", "-b", "base", "-F", "qed", "image"];
    run("qemu-img", at, &create);
    let e = open(at, "image").err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Refused);
    assert!(e.to_string().contains("not guessed"), "{e}");
    // Said to be raw, it is raw; but who grants nothing refuses that, too.
    let mut image = fs::read(at.join("image")).unwrap();
    image[16] |= 4;
    let e = formats::open(Arc::new(image.clone()), &OpenOptions::default());
    assert_eq!(e.err().map(|e| e.kind()), Some(ErrorKind::Refused));
    fs::write(at.join("image"), image).unwrap();
    let mut beneath = fs::read(at.join("base")).unwrap();
    beneath.resize(1 << 20, 0);
    assert!(content(open(at, "image").unwrap().as_ref(), 1 << 20).unwrap() == beneath);
}

#[test]
fn an_image_that_was_not_closed_is_read_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("guest.raw"), guest(1 << 20)).unwrap();
    run(
        "qemu-img",
        at,
        &["convert", "-f", "raw", "-O", "qed", "guest.raw", "image"],
    );
    let mut image = fs::read(at.join("image")).unwrap();
    image[16] |= 2;
    let judged = inspect(&image, &Limits::default()).unwrap();
    assert!(judged.findings.iter().any(|f| f.rule == "dirty"));
    fs::write(at.join("image"), image).unwrap();
    let disk = open(at, "image").unwrap();
    assert!(content(disk.as_ref(), 1 << 20).unwrap() == guest(1 << 20));
}
