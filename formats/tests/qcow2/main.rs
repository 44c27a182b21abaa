//! qcow2 against qemu-img, the corpus, and hostile changes of both.

mod chain;
mod check;
mod snapshots;
mod write;

use std::io::Read;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use formats::copy::{CopyOptions, Progress, copy};
use formats::inspect::{Inspection, Severity, Stream, Verdict};
use formats::resolve::{Granted, Resolver, Wanted};
use formats::{
    CreateOptions, Disk, Error, ErrorKind, Extent, ExtentKind, FileSource, Format, GuestOffset,
    Limits, MAX_EXTENTS, MemorySink, OpenOptions, Result, Source,
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

const MIB: usize = 1 << 20;

/// Grants the files of one folder, and counts nothing else as a name.
struct Folder(PathBuf);

impl Resolver for Folder {
    fn resolve(&self, by: Format, wanted: Wanted, name: &str) -> Result<Granted> {
        if name.contains('/') {
            return Err(Error::refused(
                by,
                wanted.name(),
                format!("{name:?} leaves the folder"),
            ));
        }
        Ok(Granted {
            source: source(&self.0.join(name))?,
            resolver: Arc::new(Self(self.0.clone())),
        })
    }
}

/// Fails the test when it is asked for anything.
struct Never;

impl Resolver for Never {
    fn resolve(&self, _: Format, _: Wanted, name: &str) -> Result<Granted> {
        panic!("{name:?} was asked for")
    }
}

fn source(path: &Path) -> Result<Arc<dyn Source>> {
    let file = std::fs::File::open(path).map_err(|e| Error::io("opening", e))?;
    Ok(Arc::new(FileSource::new(file)?))
}

fn options(resolver: impl Resolver + 'static) -> OpenOptions {
    OpenOptions {
        format: Some(Format::Qcow2),
        resolver: Arc::new(resolver),
        ..OpenOptions::default()
    }
}

fn open(bytes: &[u8]) -> Result<Arc<dyn Disk>> {
    formats::open(Arc::new(bytes.to_vec()), &options(Never))
}

fn open_file(path: &Path) -> Arc<dyn Disk> {
    formats::open(source(path).unwrap(), &options(Never)).unwrap()
}

fn inspect(bytes: &[u8]) -> Inspection {
    formats::inspect::inspect(&bytes.to_vec(), &Limits::default()).unwrap()
}

fn inspect_stream(bytes: &[u8], step: usize) -> Inspection {
    let mut stream = Stream::default();
    for chunk in bytes.chunks(step) {
        stream.feed(chunk);
    }
    let staged = bytes.to_vec();
    stream.finish(Some(&staged), &Limits::default()).unwrap()
}

/// The rule of the first finding that refuses the image.
fn refused_by(inspection: &Inspection) -> Option<&'static str> {
    inspection.unsafe_finding().map(|f| f.rule)
}

/// All extents, checked to be gapless.
fn extents(disk: &dyn Disk) -> Result<Vec<Extent>> {
    let (mut at, end) = (GuestOffset::ZERO, GuestOffset(disk.virtual_size()));
    let mut all = Vec::new();
    while at < end {
        let mut some = Vec::new();
        disk.extents(at..end, &mut some)?;
        assert!(!some.is_empty() && some.len() <= MAX_EXTENTS);
        for extent in &some {
            assert_eq!(extent.range.start, at);
            assert!(extent.range.end > at && extent.range.end <= end);
            at = extent.range.end;
        }
        all.extend(some);
    }
    Ok(all)
}

/// Everything a guest would read, in pieces of `step` bytes.
fn content(disk: &dyn Disk, step: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0xa5; usize::try_from(disk.virtual_size()).unwrap()];
    for (n, piece) in bytes.chunks_mut(step).enumerate() {
        disk.read_at(piece, GuestOffset((n * step) as u64))?;
    }
    Ok(bytes)
}

/// The disk reads as `guest` in pieces of any size, and its holes are zeros of `guest`.
#[track_caller]
fn reads_as(disk: &dyn Disk, guest: &[u8], what: &str) {
    assert_eq!(disk.virtual_size(), guest.len() as u64, "{what}");
    for step in [MIB, 65536, 10_007] {
        assert!(
            content(disk, step).unwrap() == guest,
            "{what}, in steps of {step}"
        );
    }
    for extent in extents(disk).unwrap() {
        let part = &guest[extent.range.start.0 as usize..extent.range.end.0 as usize];
        assert!(
            !extent.kind.is_hole() || part.iter().all(|&b| b == 0),
            "{what}: {extent:?} is no hole"
        );
    }
}

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// A disk of text, noise, noise that repeats only after 30 000 bytes, and holes; some of them
/// small, and on no border of anything.
fn guest(len: usize, seed: u64) -> Vec<u8> {
    let mut noise = Noise(seed | 1);
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let run = [700, 4096, 65536, 200_000][noise.below(4)] + noise.below(999);
        match noise.below(5) {
            0 => bytes.extend(std::iter::repeat_with(|| noise.next() as u8).take(run)),
            1 => bytes.extend((0..run).map(|n| b"a line of text, "[n % 16] ^ (n / 3001) as u8)),
            2 => {
                let block: Vec<u8> = (0..30_000).map(|_| noise.next() as u8).collect();
                bytes.extend(block.iter().cycle().take(run));
            }
            _ => bytes.resize(bytes.len() + run, 0),
        }
    }
    bytes.truncate(len);
    bytes
}

fn run(program: &str, folder: &Path, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|e| panic!("{program}, which these tests need: {e}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn qemu_img(folder: &Path, args: &[&str]) -> String {
    run("qemu-img", folder, args)
}

/// What qemu reads in `name`.
fn as_qemu_reads(folder: &Path, name: &str) -> Vec<u8> {
    qemu_img(
        folder,
        &["convert", "-f", "qcow2", "-O", "raw", name, "read.raw"],
    );
    std::fs::read(folder.join("read.raw")).unwrap()
}

#[test]
fn reads_what_qemu_img_writes() {
    let folder = tempfile::tempdir().unwrap();
    let guest = guest(3 * MIB + 512 * 77, 1);
    std::fs::write(folder.path().join("guest.raw"), &guest).unwrap();
    for (options, is_compressed) in [
        ("", false),
        ("compat=0.10", false),
        ("compat=0.10", true),
        ("cluster_size=512", false),
        ("cluster_size=512", true),
        ("cluster_size=4k", true),
        ("cluster_size=2M", false),
        ("cluster_size=2M", true),
        ("", true),
        ("compression_type=zstd", true),
        ("compression_type=zstd,cluster_size=512", true),
        ("compression_type=zstd,cluster_size=2M", true),
        ("extended_l2=on", false),
        ("extended_l2=on", true),
        (
            "extended_l2=on,cluster_size=16k,compression_type=zstd",
            true,
        ),
        ("extended_l2=on,cluster_size=2M", false),
        ("refcount_bits=1", false),
        ("refcount_bits=8", true),
        ("refcount_bits=64", true),
        ("lazy_refcounts=on", false),
        ("preallocation=metadata", false),
        ("preallocation=falloc", false),
        ("preallocation=full,cluster_size=4k", false),
    ] {
        let what = format!("{options} {is_compressed}");
        let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "guest.raw", "image"];
        if is_compressed {
            args.push("-c");
        }
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        qemu_img(folder.path(), &args);
        let disk = open_file(&folder.path().join("image"));
        reads_as(disk.as_ref(), &guest, &what);
        let has_encoded = extents(disk.as_ref())
            .unwrap()
            .iter()
            .any(|e| e.kind == ExtentKind::Encoded);
        assert_eq!(has_encoded, is_compressed, "{what}");

        let bytes = std::fs::read(folder.path().join("image")).unwrap();
        let inspection = inspect(&bytes);
        assert_eq!(inspection.format, Format::Qcow2, "{what}");
        assert_eq!(inspection.virtual_size, Some(guest.len() as u64), "{what}");
        assert_eq!(inspection.findings, [], "{what}");
        for step in [4096, 300_000, bytes.len()] {
            assert_eq!(inspect_stream(&bytes, step).findings, [], "{what}, {step}");
        }
        for cut in [1, 1000, 65536, 70_000, bytes.len() / 2] {
            is_missed(
                &bytes[..bytes.len() - cut.min(bytes.len() / 2)],
                &guest,
                &what,
            );
        }
    }
}

/// An image that was cut short is unsafe, unless the guest sees nothing of what is gone.
#[track_caller]
fn is_missed(cut: &[u8], guest: &[u8], what: &str) {
    let inspection = inspect(cut);
    if inspection.verdict() == Verdict::Unsafe {
        assert_eq!(refused_by(&inspection), Some("truncated"));
        return;
    }
    let seen = open(cut).and_then(|disk| content(disk.as_ref(), MIB));
    let is_whole = seen.is_ok_and(|seen| seen == guest);
    assert!(is_whole, "{what}: {} bytes are left", cut.len());
}

#[test]
fn facts_are_in_the_words_of_the_specification() {
    let folder = tempfile::tempdir().unwrap();
    let create = |options: &str| {
        qemu_img(
            folder.path(),
            &["create", "-f", "qcow2", "-o", options, "image", "10M"],
        );
        inspect(&std::fs::read(folder.path().join("image")).unwrap())
    };
    let details = create("compression_type=zstd,extended_l2=on,lazy_refcounts=on").details;
    for (key, value) in [
        ("version", serde_json::json!(3)),
        ("cluster_size", serde_json::json!(65536)),
        ("compression_type", serde_json::json!("zstd")),
        ("extended_l2", serde_json::json!(true)),
        ("refcount_bits", serde_json::json!(16)),
        ("lazy_refcounts", serde_json::json!(true)),
        ("dirty", serde_json::json!(false)),
        ("corrupt", serde_json::json!(false)),
        ("snapshots", serde_json::json!(0)),
    ] {
        assert_eq!(details[key], value, "{key}");
    }
    let details = create("compat=0.10,cluster_size=4k").details;
    assert_eq!(
        (&details["version"], &details["cluster_size"]),
        (&2.into(), &4096.into())
    );
}

#[test]
fn zeros_discards_and_subclusters_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let commands = [
        "write -P 1 0 1M",
        "write -z 100k 200k",
        "discard 400k 100k",
        "write -P 2 3M 512",
        "write -P 3 3080k 3k",
        "write -z -u 3200k 70k",
        "write -P 4 5M 130k",
        "discard 5200k 64k",
        "write -c -P 5 6M 64k",
        "write -P 6 6208k 1k",
        "write -c -P 7 6400k 64k",
        "write -P 8 6402k 2k",
        "write -P 9 10239k 1k",
    ];
    for options in [
        "compat=v3",
        "extended_l2=on",
        "cluster_size=4k",
        "compat=0.10",
    ] {
        qemu_img(
            folder.path(),
            &["create", "-f", "qcow2", "-o", options, "image", "10M"],
        );
        for command in commands {
            // Compressed writes want whole clusters, and some options no write of zeros.
            let mut io = Command::new("qemu-io");
            io.args(["-f", "qcow2", "-c", command, "image"]);
            io.current_dir(folder.path()).output().unwrap();
        }
        let disk = open_file(&folder.path().join("image"));
        let expected = as_qemu_reads(folder.path(), "image");
        assert!(expected.contains(&9));
        reads_as(disk.as_ref(), &expected, options);
        let found = inspect(&std::fs::read(folder.path().join("image")).unwrap());
        assert_eq!(
            found.verdict(),
            Verdict::Safe,
            "{options}: {:?}",
            found.findings
        );
    }
}

/// `guest` written with `pairs`.
fn write(guest: &[u8], pairs: &[(&str, &str)], compress: bool, threads: usize) -> Vec<u8> {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let create = CreateOptions::parse(Format::Qcow2, &pairs, compress).unwrap();
    let target = formats::create(&create, guest.len() as u64).unwrap();
    let raw = formats::raw::Reader::new(Arc::new(guest.to_vec())).unwrap();
    let sink = MemorySink::default();
    let options = CopyOptions {
        threads: NonZero::new(threads).unwrap(),
    };
    let summary = copy(&raw, target, &sink, &options, &Progress::default()).unwrap();
    let bytes = sink.into_bytes();
    assert_eq!(summary.file_size, bytes.len() as u64);
    bytes
}

/// Changes that must be refused, with the rule that does.
#[test]
fn each_rule_refuses_by_its_name() {
    let image = write(&guest(MIB, 10), &[], true, 1);
    let l1 = usize::try_from(u64::from_be_bytes(image[40..48].try_into().unwrap())).unwrap();
    let l2 = u64::from_be_bytes(image[l1..l1 + 8].try_into().unwrap()) & !(1 << 63);
    let l2_at = usize::try_from(l2).unwrap();
    assert_eq!(inspect(&image).findings, []);
    for (at, bytes, rule, opens) in [
        (7, &[4][..], "header", false),
        (23, &[31], "header", false),
        (24, &[0xff; 8], "header", false),
        (35, &[1], "encrypted", false),
        (35, &[2], "encrypted", false),
        (36, &[0xff; 4], "header", false),
        (40, &[0, 0, 0x7f], "truncated", false),
        (40, &[0xff; 6], "truncated", false),
        (48, &[0, 0, 0x7f], "refcount_table", true),
        (59, &[0], "refcount_table", true),
        (48, &image[40..48], "overlap", true),
        (79, &[2], "corrupt", false),
        (79, &[32], "unknown_features", false),
        (72, &[0x80], "unknown_features", false),
        (79, &[4], "data_file", false),
        (99, &[7], "header", false),
        (104, &[9], "header", false),
        (
            112,
            &[1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff],
            "header_extension",
            true,
        ),
        (l1 + 6, &[2], "l1_table", false),
        (l1 + 2, &[9], "truncated", false),
        (l1, &image[40..48], "l1_table", true),
        (l2_at, &image[l1..l1 + 8], "overlap", true),
        (l2_at, &[0, 0, 9, 9, 0, 0, 0, 0], "truncated", false),
        (l2_at, &[0, 0, 0, 0, 0, 0, 2, 0], "l2_entry", false),
    ] {
        let mut broken = image.clone();
        broken[at..at + bytes.len()].copy_from_slice(bytes);
        let inspection = inspect(&broken);
        let what = format!("{bytes:x?} at {at}: {:?}", inspection.findings);
        assert_eq!(inspection.format, Format::Qcow2, "{what}");
        let mut refusals = inspection
            .findings
            .iter()
            .filter(|f| f.severity == Severity::Unsafe);
        assert!(refusals.any(|f| f.rule == rule), "{rule}: {what}");
        assert_eq!(
            inspect_stream(&broken, 5000).findings,
            inspection.findings,
            "{what}"
        );
        let alone = formats::open(Arc::new(broken), &OpenOptions::default());
        let read = alone.and_then(|disk| extents(disk.as_ref()).and(content(disk.as_ref(), MIB)));
        assert_eq!(read.is_ok(), opens, "{what}");
    }
}

#[test]
fn dirty_images_are_read_with_a_warning() {
    let guest = guest(MIB, 11);
    let mut image = write(&guest, &[], false, 1);
    image[79] = 1;
    reads_as(open(&image).unwrap().as_ref(), &guest, "dirty");
    let inspection = inspect(&image);
    assert_eq!(inspection.verdict(), Verdict::Safe);
    assert_eq!(inspection.findings[0].rule, "dirty");
    image.extend([7; 100_000]);
    image[79] = 0;
    assert_eq!(inspect(&image).findings[0].rule, "trailing_data");
}

#[test]
fn short_files_are_named_and_refused() {
    let image = write(&[], &[], false, 1);
    for len in [4, 71, 72, 104, 112, 511, 512, 600] {
        let inspection = inspect(&image[..len]);
        assert_eq!(inspection.format, Format::Qcow2, "{len}");
        assert!(refused_by(&inspection).is_some(), "{len}");
        assert_eq!(
            inspect_stream(&image[..len], 100).findings,
            inspection.findings
        );
    }
}

#[test]
fn a_cluster_inflates_to_a_cluster_or_fails() {
    for pairs in [&[][..], &[("compression_type", "zstd")]] {
        let guest = vec![b'x'; 3 * 65536];
        let mut image = write(&guest, pairs, true, 1);
        // The same streams, in an image whose clusters are said to be half as large: too long.
        image[20..24].copy_from_slice(&15u32.to_be_bytes());
        // With 32 KiB clusters an L1 entry speaks of 128 MiB, and descriptors split elsewhere.
        if let Ok(disk) = open(&image) {
            let e = content(disk.as_ref(), MIB).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Malformed, "{e}");
        }
    }
}

/// Inspects, walks and reads a little of whatever `bytes` are. Gives the number of steps.
fn try_all(bytes: &[u8]) -> Option<()> {
    let inspection = inspect(bytes);
    assert_eq!(inspect_stream(bytes, 7000).findings, inspection.findings);
    let disk = formats::open(Arc::new(bytes.to_vec()), &options(formats::resolve::Alone)).ok()?;
    let (mut at, end) = (GuestOffset::ZERO, GuestOffset(disk.virtual_size()));
    for _ in 0..32 {
        let mut some = Vec::new();
        if at >= end || disk.extents(at..end, &mut some).is_err() {
            break;
        }
        at = some.last().expect("extents are never none").range.end;
    }
    let mut buf = vec![0; 300_000];
    for at in [
        0,
        12_345,
        1 << 20,
        2 << 20,
        end.0 / 2,
        end.0.saturating_sub(300_000),
    ] {
        let len = end.0.saturating_sub(at).min(buf.len() as u64) as usize;
        let _ = disk.read_at(&mut buf[..len], GuestOffset(at));
    }
    Some(())
}

fn fixtures(guest: &[u8]) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("guest.raw"), guest).unwrap();
    let mut all = vec![
        write(guest, &[("cluster_size", "4k")], false, 1),
        write(guest, &[("cluster_size", "512")], true, 1),
        write(guest, &[("compression_type", "zstd")], true, 1),
    ];
    for options in [
        "extended_l2=on,cluster_size=16k",
        "compat=0.10",
        "refcount_bits=1",
    ] {
        qemu_img(
            folder.path(),
            &[
                "convert",
                "-f",
                "raw",
                "-O",
                "qcow2",
                "-o",
                options,
                "guest.raw",
                "image",
            ],
        );
        all.push(std::fs::read(folder.path().join("image")).unwrap());
    }
    all
}

#[test]
fn cut_and_damaged_images_are_refused_in_bounds() {
    let mut noise = Noise(99);
    let guest = guest(MIB, 12);
    for image in fixtures(&guest) {
        assert!(try_all(&image).is_some());
        for _ in 0..60 {
            let len = noise.below(image.len());
            try_all(&image[..len]);
            assert_eq!(
                inspect(&image[..len.max(512)]).verdict(),
                Verdict::Unsafe,
                "{len}"
            );
        }
        // Where the tables are: header, L1, L2 and refcounts.
        let l1 = u64::from_be_bytes(image[40..48].try_into().unwrap()) as usize;
        let l2 = (u64::from_be_bytes(image[l1..l1 + 8].try_into().unwrap()) << 8 >> 8) as usize;
        for _ in 0..250 {
            let mut broken = image.clone();
            for _ in 0..=noise.below(3) {
                let at = match noise.below(4) {
                    0 => noise.below(120),
                    1 => l1 + noise.below(64),
                    2 => l2 + noise.below(2000),
                    _ => noise.below(image.len()),
                };
                broken[at] = match noise.below(3) {
                    0 => 0xff,
                    1 => broken[at] ^ (1 << noise.below(8)),
                    _ => noise.next() as u8,
                };
            }
            try_all(&broken);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any pieces of data, written with any options, are read back by any reads.
    #[test]
    fn random_extents_round_trip(
        size in 1usize..600_000,
        pieces in proptest::collection::vec((any::<u16>(), 1usize..70_000, any::<u8>()), 0..12),
        cluster_bits in 9u32..=18,
        compress: bool,
        zstd: bool,
        threads in 1usize..5,
        reads in proptest::collection::vec((any::<u16>(), 1usize..100_000), 1..8),
    ) {
        let mut guest = vec![0; size.next_multiple_of(512)];
        let scale = |at: u16| usize::from(at) * guest.len() / 65536;
        let pieces: Vec<_> = pieces.iter().map(|(at, len, byte)| (scale(*at), *len, *byte)).collect();
        let reads: Vec<_> = reads.iter().map(|(at, len)| (scale(*at), *len)).collect();
        for (at, len, byte) in pieces {
            let end = guest.len().min(at + len);
            for (n, b) in guest[at..end].iter_mut().enumerate() {
                *b = byte.wrapping_mul((n >> 8) as u8 | 1);
            }
        }
        let cluster_size = (1 << cluster_bits).to_string();
        let kind = if zstd { "zstd" } else { "zlib" };
        let pairs = [("cluster_size", cluster_size.as_str()), ("compression_type", kind)];
        let image = write(&guest, &pairs, compress, threads);
        let disk = open(&image).unwrap();
        reads_as(disk.as_ref(), &guest, "random");
        for (at, len) in reads {
            let end = guest.len().min(at + len);
            let mut buf = vec![0xa5; end - at];
            disk.read_at(&mut buf, GuestOffset(at as u64)).unwrap();
            prop_assert!(buf == guest[at..end]);
        }
        prop_assert_eq!(inspect(&image).findings, []);
    }
}

fn load(path: &Path) -> Vec<u8> {
    let mut file = std::fs::File::open(path).unwrap();
    if path.extension().is_some_and(|e| e == "zst") {
        return zstd::decode_all(file).unwrap();
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The SHA-256 of a whole disk.
fn hash(disk: &dyn Disk) -> String {
    let mut hash = Sha256::new();
    let mut buf = vec![0; MIB];
    let mut at = 0;
    while at < disk.virtual_size() {
        let len = (disk.virtual_size() - at).min(MIB as u64) as usize;
        disk.read_at(&mut buf[..len], GuestOffset(at)).unwrap();
        hash.update(&buf[..len]);
        at += len as u64;
    }
    hex(&hash.finalize())
}

#[test]
fn the_corpus_reads_as_others_read_it() {
    let Some(corpus) = std::env::var_os("GLINT_CORPUS").map(PathBuf::from) else {
        eprintln!("skipped: GLINT_CORPUS is not set");
        return;
    };
    let manifest = std::fs::read_to_string(corpus.join("MANIFEST.tsv")).unwrap();
    let mut lines = manifest.lines().map(|l| l.split('\t').collect::<Vec<_>>());
    let names = lines.next().unwrap();
    let column = |name: &str| names.iter().position(|n| *n == name).unwrap();
    let (path, format) = (column("path"), column("format"));
    let (size, sha, expect) = (
        column("virtual_size"),
        column("content_sha256"),
        column("expect"),
    );
    let mut checked = 0;
    for row in lines.filter(|row| row[format] == "qcow2") {
        let bytes = load(&corpus.join(row[path]));
        let inspection = inspect(&bytes);
        assert_eq!(inspection.format, Format::Qcow2, "{}", row[path]);
        assert_eq!(
            inspect_stream(&bytes, 65536).findings,
            inspection.findings,
            "{}",
            row[path]
        );
        if row[size] != "-" {
            let size = row[size].parse().unwrap();
            assert_eq!(inspection.virtual_size, Some(size), "{}", row[path]);
        }
        let disk = formats::open(Arc::new(bytes), &options(formats::resolve::Alone));
        if row[expect] == "ok" {
            assert_eq!(inspection.findings, [], "{}", row[path]);
            let disk = disk.unwrap_or_else(|e| panic!("{}: {e}", row[path]));
            assert_eq!(hash(disk.as_ref()), row[sha], "{}", row[path]);
        } else {
            assert_eq!(inspection.verdict(), Verdict::Unsafe, "{}", row[path]);
            assert!(disk.is_err(), "{}", row[path]);
        }
        checked += 1;
    }
    assert!(checked >= 15, "{checked}");

    // The overlays that name their base in words we take.
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "raw",
        "datafile.qcow2.zst",
        "qcow2_raw-raw-relative.qcow2.zst",
    ] {
        let bytes = load(&corpus.join("qcow2/libvirt").join(name));
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let base = std::fs::read(folder.path().join("raw")).unwrap();
    for name in ["datafile.qcow2.zst", "qcow2_raw-raw-relative.qcow2.zst"] {
        let image = source(&folder.path().join(name)).unwrap();
        let disk = formats::open(image, &options(Folder(folder.path().into()))).unwrap();
        assert!(content(disk.as_ref(), 512).unwrap() == base, "{name}");
    }
}
