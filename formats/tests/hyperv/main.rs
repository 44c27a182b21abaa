//! vhd, vhdx and vdi against qemu-img, the corpus, a model of differencing, and damage.

mod check;
mod corpus;
mod damage;
mod differencing;
#[path = "../support/mod.rs"]
mod support;
mod witness;
mod writers;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use formats::copy::{CopyOptions, Progress, copy};
use formats::inspect::{Inspection, Stream, Verdict, inspect};
use formats::{
    CreateOptions, Disk, ErrorKind, Extent, ExtentKind, FileSink, FileSource, Format, GuestOffset,
    Limits, OpenOptions, Source, bytes, create, guest_len, open,
};
use support::Random;

pub(crate) fn qemu_img(args: &[&str], files: &[&Path]) {
    let out = Command::new("qemu-img")
        .args(args)
        .args(files)
        .output()
        .expect("qemu-img is installed");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "qemu-img {args:?} {files:?}: {said}");
}

pub(crate) fn put(file: &mut File, at: u64, bytes: &[u8]) {
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

/// A raw file of `len` bytes with some runs of random bytes.
pub(crate) fn random_raw(path: &Path, len: u64, seed: u64) {
    let mut random = Random(seed);
    let mut file = File::create(path).unwrap();
    file.set_len(len).unwrap();
    for _ in 0..12 {
        let at = random.below(len);
        let run = (1 + random.below(300_000)).min(len - at);
        let data: Vec<u8> = (0..run).map(|_| random.next() as u8).collect();
        put(&mut file, at, &data);
    }
    // The first and the last byte, where mistakes by one show.
    put(&mut file, 0, &[0xa5]);
    put(&mut file, len - 1, &[0xa5]);
}

pub(crate) fn source(path: &Path) -> Arc<dyn Source> {
    Arc::new(FileSource::new(File::open(path).unwrap()).unwrap())
}

pub(crate) fn options(format: Format) -> OpenOptions {
    OpenOptions {
        format: Some(format),
        ..OpenOptions::default()
    }
}

pub(crate) fn opened(path: &Path, format: Format) -> formats::Result<Arc<dyn Disk>> {
    open(source(path), &options(format))
}

/// All extents; checks that they are gapless and bounded.
pub(crate) fn extents(disk: &dyn Disk) -> Vec<Extent> {
    let end = GuestOffset(disk.virtual_size());
    let mut all: Vec<Extent> = Vec::new();
    let mut at = GuestOffset::ZERO;
    while at < end {
        let mut some = Vec::new();
        disk.extents(at..end, &mut some).unwrap();
        assert!(!some.is_empty() && some.len() <= formats::MAX_EXTENTS);
        for extent in some {
            assert_eq!(extent.range.start, at);
            assert!(extent.range.end > at && extent.range.end <= end);
            at = extent.range.end;
            all.push(extent);
        }
    }
    all
}

/// Reads all of `disk` in odd pieces and compares it with `raw`, and its extents with both.
pub(crate) fn same_as_raw(disk: &dyn Disk, image: &Path, raw: &Path) {
    const PIECE: usize = 777_777;
    let expected = std::fs::read(raw).unwrap();
    assert_eq!(disk.virtual_size(), expected.len() as u64);
    let mut buf = vec![0; PIECE];
    for (n, part) in expected.chunks(PIECE).enumerate() {
        let buf = &mut buf[..part.len()];
        let at = GuestOffset((n * PIECE) as u64);
        disk.read_at(buf, at).unwrap();
        assert!(buf == part, "content differs from {at}");
    }
    let image = source(image);
    for extent in extents(disk) {
        let part = &expected[extent.range.start.0 as usize..extent.range.end.0 as usize];
        match extent.kind {
            ExtentKind::Data { host: Some(host) } => {
                let mut stored = vec![0; part.len()];
                image.read_exact_at(&mut stored, host).unwrap();
                assert!(stored == part, "{extent:?}");
            }
            kind if kind.is_hole() => assert!(bytes::is_zero(part), "{extent:?}"),
            _ => panic!("{extent:?}"),
        }
    }
}

/// The judgement of an image. Both drivers, with chunks of any size, must come to the same.
pub(crate) fn inspected(path: &Path) -> Inspection {
    let source = source(path);
    let limits = Limits::default();
    let found = inspect(source.as_ref(), &limits).unwrap();
    if source.len() < 64 << 20 {
        let bytes = std::fs::read(path).unwrap();
        for chunk in [511, 65536, 3 << 20] {
            let mut stream = Stream::default();
            bytes.chunks(chunk).for_each(|chunk| stream.feed(chunk));
            let streamed = stream.finish(None, &limits).unwrap();
            assert_eq!(streamed.findings, found.findings, "{path:?}");
            assert_eq!(
                (streamed.format, streamed.virtual_size, &streamed.details),
                (found.format, found.virtual_size, &found.details)
            );
        }
    }
    found
}

/// Copies `raw` into a new image.
pub(crate) fn written(raw: &Path, image: &Path, options: &CreateOptions, threads: usize) {
    let disk = opened(raw, Format::Raw).unwrap();
    let target = create(options, disk.virtual_size()).unwrap();
    let sink = FileSink::new(File::create(image).unwrap());
    let copying = CopyOptions {
        threads: threads.try_into().unwrap(),
    };
    copy(disk.as_ref(), target, &sink, &copying, &Progress::default()).unwrap();
}
