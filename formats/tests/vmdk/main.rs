//! vmdk against qemu-img, the corpus, and hostile changes of both.

mod chain;
mod check;
mod sesparse;
mod write;

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use formats::copy::{CopyOptions, Progress, copy};
use formats::inspect::{Inspection, Severity, Verdict};
use formats::resolve::{Granted, Resolver, Wanted};
use formats::{
    CreateOptions, Disk, Error, ErrorKind, Extent, ExtentKind, FileSource, Format, GuestOffset,
    Limits, MemorySink, OpenOptions, Result, Source,
};
use sha2::{Digest, Sha256};

/// Grants the files of one folder by their plain names.
struct Folder(PathBuf);

impl Resolver for Folder {
    fn resolve(&self, by: Format, wanted: Wanted, name: &str) -> Result<Granted> {
        assert_eq!(by, Format::Vmdk);
        assert!(matches!(wanted, Wanted::Extent | Wanted::Parent));
        assert!(!name.contains(['/', '\\']), "{name:?} left the folder");
        let plain = self.0.join(name);
        let path = if plain.exists() {
            plain
        } else {
            self.0.join(format!("{name}.zst"))
        };
        if !path.exists() {
            return Err(Error::io(
                format!("opening {name:?}"),
                std::io::ErrorKind::NotFound.into(),
            ));
        }
        Ok(Granted {
            source: Arc::new(load(&path)),
            resolver: Arc::new(Self(self.0.clone())),
        })
    }
}

/// A file's bytes, decompressed by its suffix.
fn load(path: &Path) -> Vec<u8> {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    let read = match path.extension().and_then(|e| e.to_str()) {
        Some("zst") => zstd::Decoder::new(file).unwrap().read_to_end(&mut bytes),
        Some("bz2") => bzip2::read::BzDecoder::new(file).read_to_end(&mut bytes),
        _ => { file }.read_to_end(&mut bytes),
    };
    read.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    bytes
}

fn corpus() -> Option<PathBuf> {
    let corpus = std::env::var_os("GLINT_CORPUS").map(PathBuf::from);
    if corpus.is_none() {
        eprintln!("skipped: GLINT_CORPUS is not set");
    }
    corpus
}

fn alone() -> OpenOptions {
    OpenOptions {
        format: Some(Format::Vmdk),
        ..OpenOptions::default()
    }
}

fn within(folder: &Path) -> OpenOptions {
    OpenOptions {
        resolver: Arc::new(Folder(folder.to_owned())),
        ..alone()
    }
}

fn open(bytes: &[u8]) -> Result<Arc<dyn Disk>> {
    formats::open(Arc::new(bytes.to_vec()), &alone())
}

fn inspect(bytes: &[u8]) -> Inspection {
    formats::inspect::inspect(&bytes.to_vec(), &Limits::default()).unwrap()
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
        assert!(!some.is_empty() && some.len() <= formats::MAX_EXTENTS);
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

/// SHA-256 over index and bytes of each 64 KiB block that is not zero.
fn sparse64k(disk: &dyn Disk) -> String {
    let mut hash = Sha256::new();
    let mut next = 0;
    for extent in extents(disk).unwrap() {
        if extent.kind.is_hole() {
            continue;
        }
        let first = (extent.range.start.0 >> 16).max(next);
        next = extent.range.end.0.div_ceil(1 << 16);
        for block in first..next {
            let len = (disk.virtual_size() - (block << 16)).min(1 << 16) as usize;
            let mut data = vec![0; len];
            disk.read_at(&mut data, GuestOffset(block << 16)).unwrap();
            if data.iter().any(|&b| b != 0) {
                hash.update(block.to_le_bytes());
                hash.update(&data);
            }
        }
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A small deterministic generator, so that failures repeat.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A guest with holes, text that compresses, noise that does not, at odd places.
fn guest(len: usize, seed: u64) -> Vec<u8> {
    let mut chance = Chance(seed);
    let mut bytes = vec![0; len];
    for _ in 0..len / (200 << 10) + 4 {
        let at = chance.below(len as u64) as usize;
        let end = (at + chance.below(150 << 10) as usize).min(len);
        let is_noise = chance.below(2) == 0;
        for byte in &mut bytes[at..end] {
            *byte = if is_noise { chance.next() as u8 } else { b'a' };
        }
    }
    // The last sector, so that the last grain is there.
    bytes[len - 1] = 1;
    bytes
}

fn qemu_img(args: &[&str], folder: &Path) -> std::process::Output {
    Command::new("qemu-img")
        .args(args)
        .current_dir(folder)
        .output()
        .expect("qemu-img is needed by these tests")
}

fn qemu_convert(args: &[&str], folder: &Path) {
    let out = qemu_img(&[&["convert"], args].concat(), folder);
    assert!(
        out.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

#[test]
fn reads_what_qemu_img_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // Whole grains, a last grain cut short, more than one grain table, less than a grain.
    for (n, size) in [8 << 20, (5 << 20) + 51_200, (70 << 20) + 512, 50 << 10]
        .into_iter()
        .enumerate()
    {
        let guest = guest(size, n as u64);
        std::fs::write(path.join("guest.raw"), &guest).unwrap();
        for (subformat, split) in [
            ("monolithicSparse", false),
            ("streamOptimized", false),
            ("twoGbMaxExtentSparse", true),
            ("monolithicFlat", true),
            ("twoGbMaxExtentFlat", true),
        ] {
            let name = format!("{subformat}{n}.vmdk");
            let subformat = format!("subformat={subformat}");
            qemu_convert(
                &[
                    "-f",
                    "raw",
                    "-O",
                    "vmdk",
                    "-o",
                    &subformat,
                    "guest.raw",
                    &name,
                ],
                path,
            );
            let file = FileSource::new(std::fs::File::open(path.join(&name)).unwrap()).unwrap();
            let source: Arc<dyn Source> = Arc::new(file);
            let inspection =
                formats::inspect::inspect(source.as_ref(), &Limits::default()).unwrap();
            assert_eq!(inspection.format, Format::Vmdk);
            assert_eq!(inspection.virtual_size, Some(size as u64), "{name}");
            if split {
                assert_eq!(refused_by(&inspection), Some("extent_file"), "{name}");
                let error = formats::open(source.clone(), &alone()).err().unwrap();
                assert_eq!(error.kind(), ErrorKind::Refused, "{name}: {error}");
            } else {
                assert_eq!(inspection.findings, [], "{name}");
            }
            let disk = formats::open(source, &within(path)).unwrap();
            assert_eq!(disk.virtual_size(), size as u64, "{name}");
            // Small pieces of a large disk tell nothing new.
            let steps: &[usize] = &[1 << 20, 100_000, 4096 + 512];
            for &step in &steps[..if size > 16 << 20 { 1 } else { 3 }] {
                assert!(
                    content(disk.as_ref(), step).unwrap() == guest,
                    "{name} in pieces of {step}"
                );
            }
            for extent in extents(disk.as_ref()).unwrap() {
                let part = &guest[extent.range.start.0 as usize..extent.range.end.0 as usize];
                if extent.kind.is_hole() {
                    assert!(part.iter().all(|&b| b == 0), "{name}: {extent:?}");
                }
                if let ExtentKind::Data { host: Some(host) } = extent.kind {
                    let bytes = load(&path.join(&name));
                    let from = host.0 as usize;
                    assert!(
                        bytes[from..from + part.len()] == *part,
                        "{name}: {extent:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn reads_zeroed_grains() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let options = "subformat=monolithicSparse,zeroed_grain=on";
    let out = qemu_img(
        &["create", "-f", "vmdk", "-o", options, "z.vmdk", "1M"],
        path,
    );
    assert!(out.status.success());
    let mut bytes = load(&path.join("z.vmdk"));
    let disk = open(&bytes).unwrap();
    assert_eq!(content(disk.as_ref(), 1 << 20).unwrap(), vec![0; 1 << 20]);
    // The table behind the first entry of the directory: grain 2 becomes a zeroed one.
    let sector = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let table = sector(sector(56) * 512) * 512;
    bytes[table + 8] = 1;
    let disk = open(&bytes).unwrap();
    let kinds: Vec<_> = extents(disk.as_ref())
        .unwrap()
        .iter()
        .map(|e| (e.range.start.0, e.kind))
        .collect();
    assert_eq!(
        kinds,
        [
            (0, ExtentKind::Unallocated),
            (128 << 10, ExtentKind::Zero),
            (192 << 10, ExtentKind::Unallocated)
        ]
    );
    bytes[8] &= !4;
    let error = extents(open(&bytes).unwrap().as_ref()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
}

/// The rows of the manifest that are about vmdk, by path.
fn manifest(corpus: &Path) -> HashMap<String, HashMap<String, String>> {
    let text = std::fs::read_to_string(corpus.join("MANIFEST.tsv")).unwrap();
    let mut lines = text.lines();
    let names: Vec<_> = lines.next().unwrap().split('\t').collect();
    lines
        .map(|line| {
            let row: HashMap<_, _> = names
                .iter()
                .zip(line.split('\t'))
                .map(|(name, value)| ((*name).to_owned(), value.to_owned()))
                .collect();
            (row["path"].clone(), row)
        })
        .filter(|(path, row)| row["format"] == "vmdk" || path.contains("vmdk"))
        .filter(|(path, _)| !path.ends_with(".ovf"))
        .collect()
}

#[test]
fn the_corpus_reads_as_others_read_it() {
    let Some(corpus) = corpus() else { return };
    let mut count = 0;
    for (name, row) in manifest(&corpus) {
        let path = corpus.join(&name);
        let bytes = load(&path);
        let inspection = inspect(&bytes);
        let is_split = row["group"] != "-" && !name.contains("ganeti");
        match row["expect"].as_str() {
            "reject" => {
                let rules: Vec<_> = inspection.findings.iter().map(|f| f.rule).collect();
                eprintln!("{name}: {rules:?}");
                assert_eq!(inspection.verdict(), Verdict::Unsafe, "{name}");
                let error = open(&bytes)
                    .err()
                    .unwrap_or_else(|| panic!("{name} opened"));
                eprintln!("{name}: {error}");
            }
            "ok" => {
                assert_eq!(inspection.format, Format::Vmdk, "{name}");
                let size: u64 = row["virtual_size"].parse().unwrap();
                assert_eq!(inspection.virtual_size, Some(size), "{name}");
                let disk = if is_split {
                    assert_eq!(refused_by(&inspection), Some("extent_file"), "{name}");
                    let source = Arc::new(bytes);
                    formats::open(source, &within(path.parent().unwrap())).unwrap()
                } else {
                    assert_eq!(inspection.findings, [], "{name}");
                    open(&bytes).unwrap()
                };
                assert_eq!(disk.virtual_size(), size, "{name}");
                if let Some(wanted) = row["content_sparse64k"].strip_prefix("sparse64k:") {
                    assert_eq!(sparse64k(disk.as_ref()), wanted, "{name}");
                } else if size <= 64 << 20 {
                    let hash = Sha256::digest(content(disk.as_ref(), 1 << 20).unwrap());
                    assert_eq!(hex(&hash), row["content_sha256"], "{name}");
                } else {
                    // Holes are hashed from one block of zeros.
                    let (zeros, mut hash) = (vec![0; 1 << 20], Sha256::new());
                    for extent in extents(disk.as_ref()).unwrap() {
                        let (mut at, end) = (extent.range.start.0, extent.range.end.0);
                        while at < end {
                            let len = (end - at).min(1 << 20) as usize;
                            if extent.kind.is_hole() {
                                hash.update(&zeros[..len]);
                            } else {
                                let mut buf = vec![0; len];
                                disk.read_at(&mut buf, GuestOffset(at)).unwrap();
                                hash.update(&buf);
                            }
                            at += len as u64;
                        }
                    }
                    assert_eq!(hex(&hash.finalize()), row["content_sha256"], "{name}");
                }
            }
            "part" => {
                if bytes.starts_with(b"KDMV") {
                    assert_eq!(inspection.verdict(), Verdict::Unsafe, "{name}");
                    assert!(open(&bytes).is_err(), "{name}");
                }
            }
            other => panic!("{name}: {other}"),
        }
        count += 1;
    }
    eprintln!("{count} files");
    assert!(count >= 20);
}

#[test]
fn the_crash_of_a_fuzzer_is_refused() {
    let Some(corpus) = corpus() else { return };
    let bytes = load(&corpus.join("hostile/afl5.img.bz2"));
    // It begins as a vhd; as a vmdk it is none.
    assert!(open(&bytes).is_err());
}

/// The judgement of the stream driver, in chunks of `step`, without anything to read back from.
fn inspect_stream(bytes: &[u8], step: usize) -> Inspection {
    let mut stream = formats::inspect::Stream::default();
    for chunk in bytes.chunks(step) {
        stream.feed(chunk);
    }
    stream.finish(None, &Limits::default()).unwrap()
}

#[test]
fn a_stream_is_judged_as_the_file_is() {
    let mut images = fixtures();
    images.push(write(
        &guest(9 << 20, 3),
        &[("subformat", "streamOptimized")],
        2,
    ));
    images.push(write(&guest(9 << 20, 3), &[], 2));
    for image in images {
        for len in [image.len(), image.len() / 2, 3000, 100] {
            let image = &image[..len.min(image.len())];
            let wanted = inspect(image);
            for step in [1 << 20, 65536, 777] {
                let got = inspect_stream(image, step);
                assert_eq!(got.findings, wanted.findings);
                assert_eq!(got.virtual_size, wanted.virtual_size);
                assert_eq!(got.details, wanted.details);
            }
        }
    }
}

/// Where the sector ends that the last compressed grain ends in, by the only table of a stream
/// of qemu-img.
fn end_of_last_grain(image: &[u8]) -> usize {
    let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize;
    let table = word(word(56) * 512) * 512;
    let last = (0..512).map(|n| word(table + n * 4)).max().unwrap() * 512;
    (last + 12 + word(last + 8)).next_multiple_of(512)
}

#[test]
fn a_file_without_its_last_grain_is_refused() {
    for subformat in ["monolithicSparse", "streamOptimized"] {
        let folder = tempfile::tempdir().unwrap();
        let guest = guest(2 << 20, 8);
        std::fs::write(folder.path().join("guest.raw"), &guest).unwrap();
        let option = format!("subformat={subformat}");
        qemu_convert(
            &[
                "-f",
                "raw",
                "-O",
                "vmdk",
                "-o",
                &option,
                "guest.raw",
                "x.vmdk",
            ],
            folder.path(),
        );
        let image = load(&folder.path().join("x.vmdk"));
        let cut = &image[..image.len() - (200 << 10)];
        assert_eq!(refused_by(&inspect(cut)), Some("truncated"), "{subformat}");
        // qemu-img fills a stream up to 64 KiB: what lies behind the last grain is not missed.
        let end = match subformat {
            "streamOptimized" => end_of_last_grain(&image),
            _ => image.len(),
        };
        assert_eq!(inspect(&image[..end]).findings, []);
        let cut_by_a_sector = &image[..end - 512];
        assert_eq!(refused_by(&inspect(cut_by_a_sector)), Some("truncated"));
        let streamed = inspect_stream(cut_by_a_sector, 4096);
        assert_eq!(refused_by(&streamed), Some("truncated"));
        let error = content(open(cut).unwrap().as_ref(), 1 << 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    }
}

/// Inspects, checks, opens, maps and reads as far as it goes: no panic, no answer beyond its
/// bounds.
fn try_all(bytes: &[u8]) -> Option<u64> {
    try_with(bytes, alone())
}

fn try_with(bytes: &[u8], options: OpenOptions) -> Option<u64> {
    let inspection = inspect(bytes);
    assert!(inspection.findings.len() < 64);
    let limits = Limits {
        max_virtual_size: 1 << 40,
        ..Limits::default()
    };
    let options = OpenOptions { limits, ..options };
    let source: Arc<dyn Source> = Arc::new(bytes.to_vec());
    if let Ok(found) = formats::check::check(&source, &options, &Progress::default()) {
        assert!(found.problems.len() <= formats::check::MAX_PROBLEMS);
    }
    let disk = formats::open(source, &options).ok()?;
    let mut out = Vec::new();
    let _ = disk.extents(
        GuestOffset::ZERO..GuestOffset(disk.virtual_size()),
        &mut out,
    );
    assert!(out.len() <= formats::MAX_EXTENTS);
    let mut buf = vec![0; (256 << 10).min(disk.virtual_size() as usize)];
    for extent in out.iter().filter(|e| !e.kind.is_hole()).take(8) {
        let len = (buf.len() as u64).min(disk.virtual_size() - extent.range.start.0);
        let _ = disk.read_at(&mut buf[..len as usize], extent.range.start);
    }
    Some(disk.virtual_size())
}

/// Files in memory, granted by name.
struct Files(HashMap<&'static str, Vec<u8>>);

impl Resolver for Files {
    fn resolve(&self, by: Format, wanted: Wanted, name: &str) -> Result<Granted> {
        match self.0.get(name) {
            Some(bytes) => Ok(Granted::alone(Arc::new(bytes.clone()))),
            None => formats::resolve::Alone.resolve(by, wanted, name),
        }
    }
}

#[test]
fn damaged_extent_files_and_descriptors_are_refused_in_bounds() {
    let small = guest(200 << 10, 12);
    let whole = write(&small, &[], 1);
    let stream = write(&small, &[("subformat", "streamOptimized")], 1);
    let (sesparse, sesparse_guest) = sesparse::emit(1, 3);
    let text = |kind: &str, parent: &str, line: &str| {
        format!(
            "# Disk DescriptorFile\nversion=1\nCID=00000002\n{parent}\ncreateType=\"{kind}\"\n\
             # Extents\n{line}\n"
        )
    };
    let none = "parentCID=ffffffff";
    let delta = "parentCID=676c696e\nparentFileNameHint=\"parent.vmdk\"";
    let sectors = sesparse_guest.len() / 512;
    let cases = [
        (
            text(
                "twoGbMaxExtentSparse",
                none,
                "RW 400 SPARSE \"a.vmdk\"\nRW 9 ZERO",
            ),
            whole.clone(),
        ),
        (text("custom", delta, "RW 400 SPARSE \"a.vmdk\""), stream),
        (
            text(
                "seSparse",
                none,
                &format!("RW {sectors} SESPARSE \"a.vmdk\""),
            ),
            sesparse,
        ),
        (text("vmfs", delta, "RW 400 VMFS \"a.vmdk\""), small),
    ];
    let mut chance = Chance(99);
    for (text, extent) in cases {
        let options = |extent: Vec<u8>| OpenOptions {
            resolver: Arc::new(Files(HashMap::from([
                ("a.vmdk", extent),
                ("parent.vmdk", whole.clone()),
            ]))),
            ..alone()
        };
        assert!(
            try_with(text.as_bytes(), options(extent.clone())).is_some(),
            "{text}"
        );
        for n in 0..400 {
            let (mut text, mut extent) = (text.clone().into_bytes(), extent.clone());
            for _ in 0..=chance.below(3) {
                let (bytes, most) = match n % 4 {
                    0 => (&mut text, u64::MAX),
                    1 => (&mut extent, 240),
                    2 => (&mut extent, 32 << 10),
                    _ => (&mut extent, u64::MAX),
                };
                let at = chance.below(most.min(bytes.len() as u64));
                bytes[at as usize] ^= 1 << chance.below(8);
            }
            if n % 7 == 0 {
                let len = chance.below(extent.len() as u64);
                extent.truncate(len as usize);
            }
            try_with(&text, options(extent));
        }
    }
}

/// Small images of every kind that opens.
fn fixtures() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("guest.raw"), guest(300 << 10, 5)).unwrap();
    let mut all = Vec::new();
    for subformat in ["monolithicSparse", "streamOptimized"] {
        let subformat = format!("subformat={subformat}");
        qemu_convert(
            &[
                "-f",
                "raw",
                "-O",
                "vmdk",
                "-o",
                &subformat,
                "guest.raw",
                "x.vmdk",
            ],
            path,
        );
        all.push(load(&path.join("x.vmdk")));
    }
    if let Some(corpus) = corpus() {
        for name in [
            "vmdk/minimal.vmdk",
            "vmdk/iotest-version3.vmdk.bz2",
            "vmdk/image_t4.vmdk",
            "hostile/trivy-monolithicSparse-truncated.vmdk",
            "hostile/vmdk-invalid.img",
        ] {
            all.push(load(&corpus.join(name)));
        }
    }
    all
}

#[test]
fn cut_and_damaged_images_are_refused_in_bounds() {
    let mut chance = Chance(42);
    for image in fixtures() {
        for n in 0..200 {
            let len = match n {
                0..40 => chance.below(2048.min(image.len() as u64)),
                _ => chance.below(image.len() as u64),
            };
            try_all(&image[..len as usize]);
        }
        // Where the structures are: the head, the tables, the tail.
        // With the cuts some ten thousand in all.
        for n in 0..1300 {
            let mut damaged = image.clone();
            for _ in 0..=chance.below(3) {
                let len = damaged.len() as u64;
                let at = match n % 4 {
                    0 => chance.below(80),
                    1 => chance.below(len.min(32 << 10)),
                    2 => len - 1 - chance.below(len.min(2048)),
                    _ => chance.below(len),
                };
                damaged[at as usize] ^= 1 << chance.below(8);
            }
            try_all(&damaged);
        }
        // Every field of the header at its largest.
        for at in (4..80).step_by(4) {
            let mut damaged = image.clone();
            damaged[at..at + 4].fill(0xff);
            try_all(&damaged);
        }
    }
}

#[test]
fn a_stream_cut_anywhere_is_refused() {
    let Some(corpus) = corpus() else { return };
    let image = load(&corpus.join("vmdk/iotest-version3.vmdk.bz2"));
    for cut in [1, 511, 512, 1024, 1536, 100_000, image.len() - 600] {
        let image = &image[..image.len() - cut];
        assert_eq!(inspect(image).verdict(), Verdict::Unsafe, "{cut}");
        assert!(open(image).is_err(), "{cut}");
    }
    let mut longer = image;
    longer.extend([0; 512]);
    assert_eq!(refused_by(&inspect(&longer)), Some("footer"));
}

/// A monolithicSparse image with its descriptor changed, in place.
fn with_descriptor(change: impl Fn(&str) -> String) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let out = qemu_img(&["create", "-f", "vmdk", "x.vmdk", "1M"], folder.path());
    assert!(out.status.success());
    let mut bytes = load(&folder.path().join("x.vmdk"));
    let old = String::from_utf8(bytes[512..512 * 21].to_vec()).unwrap();
    let new = change(old.trim_end_matches('\0'));
    bytes[512..512 * 21].fill(0);
    bytes[512..512 + new.len()].copy_from_slice(new.as_bytes());
    bytes
}

#[test]
fn each_rule_refuses_by_its_name() {
    let cases: &[(&str, &str, &str)] = &[
        ("create_type", "monolithicSparse", "monolithicFlat"),
        ("create_type", "monolithicSparse", "vmfsRawDeviceMap"),
        ("create_type", "monolithicSparse", "madeUp"),
        ("create_type", "# Extent", "# createType=\"vmfs\"\n# Extent"),
        ("parent", "parentCID=ffffffff", "parentCID=12345678"),
        ("parent_link", "parentCID=ffffffff", "parentCID=-2"),
        (
            "parent",
            "# Extent",
            "parentFileNameHint=\"base.vmdk\"\n# Extent",
        ),
        ("extent_path", "x.vmdk", "/dev/sda"),
        ("extent_path", "x.vmdk", "..\\x.vmdk"),
        ("extent_path", "x.vmdk", "nbd:localhost:10809"),
        ("extent_type", "SPARSE", "FLAT"),
        (
            "extent_count",
            "RW 2048",
            "RW 1024 SPARSE \"y.vmdk\"\nRW 1024",
        ),
        ("extent_count", "RW 2048", "# RW 2048"),
        ("capacity", "RW 2048", "RW 1024"),
        ("capacity", "RW 2048", "RW 4096"),
        ("descriptor", "RW 2048", "RW many"),
        ("descriptor", "# Extent", "what is this\n# Extent"),
        ("descriptor", "# Extent", "é=1\n# Extent"),
    ];
    for (rule, old, new) in cases {
        let image = with_descriptor(|text| {
            assert!(text.contains(old), "{old:?} is not in {text}");
            text.replace(old, new)
        });
        let inspection = inspect(&image);
        assert_eq!(
            refused_by(&inspection),
            Some(*rule),
            "{new:?}: {:?}",
            inspection.findings
        );
        let error = open(&image)
            .err()
            .unwrap_or_else(|| panic!("{new:?} opened"));
        assert_ne!(error.kind(), ErrorKind::Io, "{error}");
    }
    let good = with_descriptor(str::to_owned);
    assert_eq!(inspect(&good).findings, []);
    for (rule, at, value) in [
        ("version", 4, 4u8),
        ("header", 20, 3),
        ("header", 77, 9),
        ("descriptor", 28, 0),
        ("descriptor", 28, 2),
        ("truncated", 63, 9),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(refused_by(&inspect(&bad)), Some(rule), "byte {at}");
    }
    assert_eq!(refused_by(&inspect(&good[..100])), Some("truncated"));
    assert_eq!(refused_by(&inspect(&good[..2000])), Some("truncated"));
    assert_eq!(refused_by(&inspect(&good[..20000])), Some("truncated"));
    for (at, value, rule) in [(72, 1, "unclean_shutdown"), (74, 0, "newlines")] {
        let mut odd = good.clone();
        odd[at] = value;
        let findings = inspect(&odd).findings;
        assert_eq!(findings.len(), 1);
        assert_eq!(
            (findings[0].rule, findings[0].severity),
            (rule, Severity::Warning)
        );
    }
}

#[test]
fn one_fault_is_one_finding() {
    let rules = |image: &[u8]| {
        let findings = inspect(image).findings;
        findings.iter().map(|f| f.rule).collect::<Vec<_>>()
    };
    let without = with_descriptor(|text| text.replace("createType=\"monolithicSparse\"\n", ""));
    assert_eq!(rules(&without), ["create_type"]);
    let unquoted = with_descriptor(|text| text.replace("\"monolithicSparse\"", "vmfs"));
    assert_eq!(rules(&unquoted), ["create_type"]);
    let none = with_descriptor(|text| text.replace("RW 2048", "# RW 2048"));
    assert_eq!(rules(&none), ["extent_count"]);
    let text = "# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\nRW 8 FLAT \"a.raw\" 0\n";
    assert_eq!(rules(text.as_bytes()), ["create_type"]);
}

#[test]
fn a_descriptor_behind_a_damaged_header_is_no_raw_disk() {
    let mut image = with_descriptor(str::to_owned);
    for damage in [0..1, 0..4, 0..512] {
        image[damage].fill(0xd5);
        let inspection = inspect(&image);
        assert_eq!(inspection.format, Format::Vmdk);
        assert_eq!(refused_by(&inspection), Some("header"));
        assert_eq!(open(&image).err().unwrap().kind(), ErrorKind::Malformed);
    }
}

#[test]
fn a_stream_that_came_back_to_its_header_still_needs_its_end() {
    // As if the writer had put the true place of the directory into the header.
    let mut image = write(&guest(2 << 20, 8), &[("subformat", "streamOptimized")], 1);
    let footer = image.len() - 1024;
    image.copy_within(footer + 56..footer + 64, 56);
    assert_eq!(inspect(&image).findings, []);
    for cut in [512, 1024, 1536] {
        let cut = &image[..image.len() - cut];
        assert_eq!(inspect(cut).verdict(), Verdict::Unsafe);
    }
}

#[test]
fn facts_are_in_the_words_of_the_specification() {
    let details = inspect(&with_descriptor(str::to_owned)).details;
    assert_eq!(details["create_type"], "monolithicSparse");
    assert_eq!(details["parent_cid"], "ffffffff");
    assert_eq!(details["grain_size"], 65536);
    assert_eq!(details["capacity"], 1 << 20);
    assert_eq!(details["compressed"], false);
    assert_eq!(details["adapter_type"], "ide");
    assert_eq!(details["extents"][0]["type"], "SPARSE");
    assert_eq!(details["extents"][0]["file"], "x.vmdk");
}

#[test]
fn split_disks_ask_for_plain_names_only() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.raw"), guest(64 << 10, 1)).unwrap();
    let text = |create_type: &str, lines: &str| {
        format!(
            "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
             createType=\"{create_type}\"\n{lines}\n"
        )
    };
    let open = |text: &str| {
        let source = Arc::new(text.as_bytes().to_vec());
        formats::open(source, &within(folder.path()))
    };
    let good = text(
        "custom",
        "RW 64 FLAT \"a.raw\" 32\nRW 10 ZERO\nRW 32 VMFS \"a.raw\"",
    );
    let disk = open(&good).unwrap();
    let mut wanted = guest(64 << 10, 1)[16 << 10..48 << 10].to_vec();
    wanted.extend(vec![0; 5120]);
    wanted.extend(&guest(64 << 10, 1)[..16 << 10]);
    for step in [512, 5000, 1 << 20] {
        assert!(content(disk.as_ref(), step).unwrap() == wanted);
    }
    extents(disk.as_ref()).unwrap();

    for (create_type, lines, says) in [
        (
            "monolithicFlat",
            "RW 64 FLAT \"../a.raw\" 0",
            "plain file name",
        ),
        (
            "monolithicFlat",
            "RW 64 FLAT \"/etc/shadow\" 0",
            "plain file name",
        ),
        ("vmfsRDM", "RW 64 VMFSRDM \"a.raw\"", "device of the host"),
        ("vmfs", "RW 64 VMFSRAW \"a.raw\"", "VMFSRAW"),
        ("vmfs", "RW 64 VMFSRDM \"a.raw\"", "VMFSRDM"),
        (
            "vmfsRawDeviceMap",
            "RW 64 VMFS \"a.raw\"",
            "device of the host",
        ),
        (
            "vmfsPassthroughRawDeviceMap",
            "RW 64 VMFS \"a.raw\"",
            "device of the host",
        ),
        (
            "partitionedDevice",
            "RW 64 FLAT \"a.raw\" 0",
            "device of the host",
        ),
        ("fullDevice", "RW 64 FLAT \"a.raw\" 0", "device of the host"),
        ("seSparse", "RW 64 SESPARSE \"a.raw\"", "0xcafebabe"),
        ("monolithicSparse", "RW 64 SPARSE \"a.raw\"", "alone"),
        (
            "monolithicFlat",
            "RW 129 FLAT \"a.raw\" 0",
            "descriptor wants",
        ),
        (
            "monolithicFlat",
            "RW 128 FLAT \"a.raw\" 1",
            "descriptor wants",
        ),
        ("twoGbMaxExtentSparse", "RW 64 SPARSE \"a.raw\"", "KDMV"),
        ("vmfsSparse", "RW 64 VMFSSPARSE \"a.raw\"", "COWD"),
        ("monolithicFlat", "RW 64 FLAT \"none.raw\" 0", "none.raw"),
        ("vmfs", "RW 18446744073709551615 ZERO\nRW 2 ZERO", "64 bits"),
    ] {
        let error = open(&text(create_type, lines)).err().unwrap();
        assert!(error.to_string().contains(says), "{error}");
    }
    let delta = good.replace("parentCID=ffffffff", "parentCID=00000001");
    let error = open(&delta).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains("delta link"), "{error}");
}

#[test]
fn an_esx_sparse_extent_is_read() {
    // Two grain tables of 4096 one-sector grains: one there, one not.
    let mut extent = b"COWD".to_vec();
    for field in [1u32, 3, 8192, 1, 4, 2, 0] {
        extent.extend(field.to_le_bytes());
    }
    extent.resize(512 * 5 + 4096 * 4, 0);
    extent[2048..2052].copy_from_slice(&5u32.to_le_bytes());
    for (grain, sector) in [(3usize, 37u32), (4, 38), (7, 39)] {
        extent[2560 + grain * 4..][..4].copy_from_slice(&sector.to_le_bytes());
    }
    for fill in 1..=3 {
        extent.extend([fill; 512]);
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a-delta.vmdk"), &extent).unwrap();
    let text = "# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\ncreateType=\"vmfsSparse\"\n\
        RW 8192 VMFSSPARSE \"a-delta.vmdk\"\n";
    let disk = formats::open(Arc::new(text.as_bytes().to_vec()), &within(folder.path())).unwrap();
    let bytes = content(disk.as_ref(), 1 << 20).unwrap();
    let mut wanted = vec![0; 8192 * 512];
    wanted[3 * 512..4 * 512].fill(1);
    wanted[4 * 512..5 * 512].fill(2);
    wanted[7 * 512..8 * 512].fill(3);
    assert!(bytes == wanted);
    assert_eq!(extents(disk.as_ref()).unwrap().len(), 5);
    assert_eq!(refused_by(&inspect(&extent)), Some("create_type"));
    assert!(open(&extent).is_err());
}

/// `guest` written as a vmdk.
fn write(guest: &[u8], options: &[(&str, &str)], threads: usize) -> Vec<u8> {
    let pairs: Vec<_> = options
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let options = CreateOptions::parse(Format::Vmdk, &pairs, false).unwrap();
    let raw = OpenOptions {
        format: Some(Format::Raw),
        ..OpenOptions::default()
    };
    let disk = formats::open(Arc::new(guest.to_vec()), &raw).unwrap();
    let target = formats::create(&options, disk.virtual_size()).unwrap();
    let sink = MemorySink::default();
    let options = CopyOptions {
        threads: threads.try_into().unwrap(),
    };
    let summary = copy(disk.as_ref(), target, &sink, &options, &Progress::default()).unwrap();
    let bytes = sink.into_bytes();
    assert_eq!(bytes.len() as u64, summary.file_size);
    bytes
}

#[test]
fn writes_what_we_and_qemu_img_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (n, size) in [(70 << 20) + 512, (3 << 20) + 100, 512, 40 << 20]
        .into_iter()
        .enumerate()
    {
        let mut guest = guest(size, n as u64 + 70);
        if n == 3 {
            // Nothing behind the second table's first grain: tables end early.
            guest[32 << 20..].fill(0);
        }
        for subformat in ["monolithicSparse", "streamOptimized"] {
            let options = [
                ("subformat", subformat),
                ("adapter_type", "lsilogic"),
                ("cid", "0badcafe"),
                ("compression_level", "1"),
            ];
            let image = write(&guest, &options, 1);
            assert!(
                image == write(&guest, &options, 7),
                "threads changed the bytes"
            );
            let inspection = inspect(&image);
            assert_eq!(inspection.findings, [], "{subformat}");
            let size = size.next_multiple_of(512);
            assert_eq!(inspection.virtual_size, Some(size as u64));
            assert_eq!(inspection.details["create_type"], subformat);
            assert_eq!(inspection.details["cid"], "0badcafe");
            assert_eq!(inspection.details["adapter_type"], "lsilogic");
            let mut padded = guest.clone();
            padded.resize(size, 0);
            assert!(content(open(&image).unwrap().as_ref(), 1 << 20).unwrap() == padded);

            std::fs::write(path.join("ours.vmdk"), &image).unwrap();
            let info = qemu_img(&["info", "--output=json", "ours.vmdk"], path);
            assert!(info.status.success() && info.stderr.is_empty());
            let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
            assert_eq!(info["format"], "vmdk");
            assert_eq!(info["virtual-size"], size as u64);
            assert_eq!(info["format-specific"]["data"]["create-type"], subformat);
            qemu_convert(&["-f", "vmdk", "-O", "raw", "ours.vmdk", "back.raw"], path);
            assert!(load(&path.join("back.raw")) == padded, "{subformat}");
            if subformat == "monolithicSparse" {
                let check = qemu_img(&["check", "-f", "vmdk", "ours.vmdk"], path);
                let said = String::from_utf8_lossy(&check.stdout).into_owned();
                assert!(check.status.success(), "{said}");
            }
        }
    }
}

#[test]
fn a_disk_of_zeros_is_written_and_one_without_a_byte_is_refused() {
    for subformat in ["monolithicSparse", "streamOptimized"] {
        let pairs = [("subformat".to_owned(), subformat.to_owned())];
        let options = CreateOptions::parse(Format::Vmdk, &pairs, false).unwrap();
        let error = formats::create(&options, 0).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");

        let image = write(&vec![0; 1 << 20], &[("subformat", subformat)], 2);
        assert_eq!(inspect(&image).findings, [], "{subformat}");
        let disk = open(&image).unwrap();
        assert_eq!(disk.virtual_size(), 1 << 20);
        assert!(
            extents(disk.as_ref())
                .unwrap()
                .iter()
                .all(|e| e.kind.is_hole())
        );
    }
}
