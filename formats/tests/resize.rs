//! Resizing qcow2 in place. qemu-img makes the images and judges what becomes of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use formats::copy::Progress;
use formats::qcow2::resize;
use formats::{ErrorKind, FileSink, FileSource, HostOffset, OpenOptions, Result, Sink, Source};
use tempfile::TempDir;

struct Room(TempDir);

impl Room {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn qemu(&self, args: &str) {
        let out = Command::new("qemu-img")
            .args(args.split_whitespace())
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "qemu-img {args}: {err}");
    }

    /// A qcow2 image of a raw disk of `len` bytes with data at both ends.
    fn image(&self, len: usize, options: &str) {
        let mut bytes = vec![0; len];
        let edge = len.min(100_000);
        bytes[..edge].fill(0x11);
        bytes[len - edge..].fill(0x22);
        fs::write(self.path("a.raw"), bytes).unwrap();
        self.qemu(&format!("convert -f raw -O qcow2 {options} a.raw a.qcow2"));
    }

    fn resize(&self, size: u64, may_shrink: bool) -> Result<u64> {
        let (source, sink) = open(&self.path("a.qcow2"));
        resize(&source, &sink, size, may_shrink, &Progress::default())
    }

    /// The image is sound and its disk is `a.raw`, cut or filled up to `size`.
    fn check(&self, size: u64) {
        let raw = File::options()
            .write(true)
            .open(self.path("a.raw"))
            .unwrap();
        raw.set_len(size).unwrap();
        self.qemu("check -q -f qcow2 a.qcow2");
        self.qemu("compare -q -s -f qcow2 -F qcow2 a.qcow2 a.qcow2");
        self.qemu("compare -q -f qcow2 -F raw a.qcow2 a.raw");
        let source: Arc<dyn Source> =
            Arc::new(FileSource::new(File::open(self.path("a.qcow2")).unwrap()).unwrap());
        let disk = formats::open(source, &OpenOptions::default()).unwrap();
        assert_eq!(disk.virtual_size(), size);
    }
}

fn open(path: &Path) -> (Arc<dyn Source>, FileSink) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let sink = FileSink::new(file.try_clone().unwrap());
    (Arc::new(FileSource::new(file).unwrap()), sink)
}

#[test]
fn grows_and_shrinks_as_qemu_sees_it() {
    for options in [
        "-o cluster_size=64k",
        "-o compat=0.10",
        "-c",
        "-c -o compression_type=zstd,cluster_size=4k",
        "-o cluster_size=2M",
        "-o extended_l2=on",
        "-o cluster_size=512",
        "-o cluster_size=1k,refcount_bits=1",
        "-o refcount_bits=2",
        "-o refcount_bits=64,cluster_size=4k",
        "-o preallocation=metadata,cluster_size=4k",
    ] {
        let room = Room::new();
        room.image(700_416, options);
        // A size within a cluster, then one that takes many more L2 tables.
        for size in [700_416 + 512, 3 << 20, 900 << 20] {
            assert_eq!(room.resize(size, false).unwrap(), size, "{options}");
            room.check(size);
        }
        for size in [20 << 20, 650_240, 512, 0] {
            let e = room.resize(size, false).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Usage);
            assert_eq!(room.resize(size, true).unwrap(), size, "{options}");
            room.check(size);
        }
        // What was cut off does not come back.
        room.resize(5 << 20, false).unwrap();
        room.check(5 << 20);
    }
}

#[test]
fn the_tables_move_when_they_have_no_room() {
    let room = Room::new();
    room.image(1 << 20, "-o cluster_size=512");
    // 2 Mi L1 entries of 16 MiB: more clusters than the refcount table can count.
    room.resize(60 << 30, false).unwrap();
    room.qemu("check -q -f qcow2 a.qcow2");
    room.resize(1 << 20, true).unwrap();
    room.check(1 << 20);
}

#[test]
fn snapshots_stay_whole() {
    let room = Room::new();
    room.image(1 << 20, "-o cluster_size=1k");
    room.qemu("snapshot -c one a.qcow2");
    room.resize(1 << 30, false).unwrap();
    room.check(1 << 30);
    assert_eq!(
        room.resize(1 << 20, true).unwrap_err().kind(),
        ErrorKind::Refused
    );
    room.qemu("snapshot -a one a.qcow2");
    room.check(1 << 20);
}

#[test]
fn what_cannot_be_kept_right_is_refused() {
    let room = Room::new();
    room.image(1 << 20, "");
    room.qemu("bitmap --add a.qcow2 b");
    let e = room.resize(2 << 20, false).unwrap_err();
    assert!(e.to_string().contains("bitmaps"), "{e}");
    room.qemu("create -q -f qcow2 -b a.raw -F raw a.qcow2");
    let e = room.resize(2 << 20, false).unwrap_err();
    assert!(e.to_string().contains("flatten"), "{e}");
    room.image(1 << 20, "-o cluster_size=512");
    let e = room.resize(1 << 60, false).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Usage, "{e}");
    assert!(room.resize(u64::MAX, false).is_err());
    room.check(1 << 20);
}

/// What is done to a file.
#[derive(Clone)]
enum Act {
    Write(HostOffset, Vec<u8>),
    Len(u64),
}

/// Writes through, and remembers.
struct Journal(FileSink, Mutex<Vec<Act>>);

impl Sink for Journal {
    fn write_all_at(&self, bytes: &[u8], at: HostOffset) -> Result<()> {
        self.1.lock().unwrap().push(Act::Write(at, bytes.to_vec()));
        self.0.write_all_at(bytes, at)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.1.lock().unwrap().push(Act::Len(len));
        self.0.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        self.0.sync()
    }
}

#[test]
fn a_crash_between_any_two_writes_leaves_a_sound_image() {
    for (options, size, kept) in [
        ("-o cluster_size=512", 40 << 20, 1 << 20),
        ("-o cluster_size=512,refcount_bits=64", 200 << 20, 1 << 20),
        ("-o cluster_size=512", 100_352, 100_352),
        ("-c -o cluster_size=4k", 600_064, 600_064),
    ] {
        let room = Room::new();
        room.image(1 << 20, options);
        let before = fs::read(room.path("a.qcow2")).unwrap();
        let (source, sink) = open(&room.path("a.qcow2"));
        let journal = Journal(sink, Mutex::default());
        resize(&source, &journal, size, true, &Progress::default()).unwrap();
        let acts = journal.1.into_inner().unwrap();
        assert!(acts.len() > 2, "{options}: {}", acts.len());
        let raw = File::options()
            .write(true)
            .open(room.path("a.raw"))
            .unwrap();
        raw.set_len(kept).unwrap();
        for end in 0..=acts.len() {
            fs::write(room.path("b.qcow2"), &before).unwrap();
            let (_, sink) = open(&room.path("b.qcow2"));
            for act in &acts[..end] {
                match act {
                    Act::Write(at, bytes) => sink.write_all_at(bytes, *at).unwrap(),
                    Act::Len(len) => sink.set_len(*len).unwrap(),
                }
            }
            let out = Command::new("qemu-img")
                .args(["check", "-f", "qcow2", "b.qcow2"])
                .current_dir(room.0.path())
                .output()
                .unwrap();
            // 3 is leaks only.
            let code = out.status.code().unwrap();
            let text = String::from_utf8_lossy(&out.stdout);
            assert!(
                matches!(code, 0 | 3),
                "{options}, {end} writes: {code} {text}"
            );
            // The old disk or the new one: where both reach they are the same.
            let source = FileSource::new(File::open(room.path("b.qcow2")).unwrap()).unwrap();
            let disk = formats::open(Arc::new(source), &OpenOptions::default()).unwrap();
            assert!([1 << 20, size].contains(&disk.virtual_size()));
            let mut bytes = vec![0; kept as usize];
            disk.read_at(&mut bytes, formats::GuestOffset(0)).unwrap();
            assert!(bytes == fs::read(room.path("a.raw")).unwrap(), "{options}");
        }
    }
}
