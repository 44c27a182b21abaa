//! vhd, vhdx and vdi against qemu-img, the corpus, and damage.

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
use sha2::{Digest, Sha256};

/// A small generator of numbers, the same in every run (SplitMix64).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn qemu_img(args: &[&str], files: &[&Path]) {
    let out = Command::new("qemu-img")
        .args(args)
        .args(files)
        .output()
        .expect("qemu-img is installed");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "qemu-img {args:?} {files:?}: {said}");
}

fn put(file: &mut File, at: u64, bytes: &[u8]) {
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

/// A raw file of `len` bytes with some runs of random bytes.
fn random_raw(path: &Path, len: u64, seed: u64) {
    let mut random = Seeded(seed);
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

fn source(path: &Path) -> Arc<dyn Source> {
    Arc::new(FileSource::new(File::open(path).unwrap()).unwrap())
}

fn options(format: Format) -> OpenOptions {
    OpenOptions {
        format: Some(format),
        ..OpenOptions::default()
    }
}

fn opened(path: &Path, format: Format) -> formats::Result<Arc<dyn Disk>> {
    open(source(path), &options(format))
}

/// All extents; checks that they are gapless and bounded.
fn extents(disk: &dyn Disk) -> Vec<Extent> {
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
fn same_as_raw(disk: &dyn Disk, image: &Path, raw: &Path) {
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
fn inspected(path: &Path) -> Inspection {
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

/// Converts random bytes with qemu-img, then reads them back both there and here.
fn witness(driver: &str, format: Format, option: &str, len: u64) {
    let dir = tempfile::tempdir().unwrap();
    let [raw, image, back] = ["in.raw", "image", "back.raw"].map(|name| dir.path().join(name));
    random_raw(&raw, len, len ^ option.len() as u64);
    qemu_img(
        &["convert", "-f", "raw", "-O", driver, "-o", option],
        &[&raw, &image],
    );
    qemu_img(&["convert", "-f", driver, "-O", "raw"], &[&image, &back]);
    let found = inspected(&image);
    assert_eq!(found.format, format, "{option}");
    assert!(found.findings.is_empty(), "{option}: {:?}", found.findings);
    let disk = opened(&image, format).unwrap();
    assert_eq!(found.virtual_size, Some(disk.virtual_size()));
    same_as_raw(disk.as_ref(), &image, &back);
}

#[test]
fn reads_vhd_as_qemu_img_does() {
    for option in [
        "subformat=dynamic",
        "subformat=dynamic,force_size=on",
        "subformat=fixed",
        "subformat=fixed,force_size=on",
    ] {
        witness("vpc", Format::Vhd, option, 9 << 20);
        witness("vpc", Format::Vhd, option, (23 << 20) + 512);
    }
}

#[test]
fn reads_vhdx_as_qemu_img_does() {
    for option in [
        "subformat=dynamic",
        "subformat=dynamic,block_size=1M",
        "subformat=dynamic,block_size=2M,log_size=4M",
        "subformat=dynamic,block_size=256M",
        "subformat=fixed",
        "subformat=fixed,block_size=1M",
    ] {
        witness("vhdx", Format::Vhdx, option, 9 << 20);
        witness("vhdx", Format::Vhdx, option, (23 << 20) + 512);
    }
}

#[test]
fn reads_vdi_as_qemu_img_does() {
    for option in ["static=off", "static=on"] {
        witness("vdi", Format::Vdi, option, 9 << 20);
        witness("vdi", Format::Vdi, option, (23 << 20) + 512);
    }
}

/// After 4096 blocks of 1 MiB the BAT holds the entry of a sector bitmap.
#[test]
fn steps_over_sector_bitmaps_of_vhdx() {
    let dir = tempfile::tempdir().unwrap();
    let [raw, image] = ["raw", "vhdx"].map(|name| dir.path().join(name));
    let at = (4097u64 << 20) + 5;
    let mut file = File::create(&raw).unwrap();
    file.set_len(9 << 30).unwrap();
    put(&mut file, at, b"behind the bitmap");
    let args = ["convert", "-f", "raw", "-O", "vhdx", "-o", "block_size=1M"];
    qemu_img(&args, &[&raw, &image]);
    let disk = opened(&image, Format::Vhdx).unwrap();
    let mut buf = [0; 17];
    disk.read_at(&mut buf, GuestOffset(at)).unwrap();
    assert_eq!(&buf, b"behind the bitmap");
    let mut data = extents(disk.as_ref());
    data.retain(|e| !e.kind.is_hole());
    assert!(data.iter().any(|e| e.range.contains(&GuestOffset(at))));
    assert!(data.iter().map(|e| guest_len(&e.range)).sum::<u64>() <= 1 << 20);
}

#[test]
fn an_empty_disk_of_64_tib_is_one_extent() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("empty.vhdx");
    qemu_img(
        &["create", "-q", "-f", "vhdx", "-o", "block_size=1M"],
        &[&image, Path::new("64T")],
    );
    let disk = opened(&image, Format::Vhdx).unwrap();
    let found = extents(disk.as_ref());
    assert_eq!(found.len(), 1);
    assert!(found[0].kind.is_hole());
    let mut buf = [1; 512];
    let last = GuestOffset((64 << 40) - 512);
    disk.read_at(&mut buf, last).unwrap();
    assert!(bytes::is_zero(&buf));
}

/// Copies `raw` into a new image.
fn written(raw: &Path, image: &Path, options: &CreateOptions, threads: usize) {
    let disk = opened(raw, Format::Raw).unwrap();
    let target = create(options, disk.virtual_size()).unwrap();
    let sink = FileSink::new(File::create(image).unwrap());
    let copying = CopyOptions {
        threads: threads.try_into().unwrap(),
    };
    copy(disk.as_ref(), target, &sink, &copying, &Progress::default()).unwrap();
}

/// Writes random bytes, which must come back both here and from qemu-img.
fn write_witness(driver: &str, format: Format, option: &str, len: u64) {
    let dir = tempfile::tempdir().unwrap();
    let names = ["in.raw", "image", "again", "back.raw"];
    let [raw, image, again, back] = names.map(|name| dir.path().join(name));
    random_raw(&raw, len, len + option.len() as u64);
    let pairs: Vec<(String, String)> = option
        .split(',')
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let options = CreateOptions::parse(format, &pairs, false).unwrap();
    written(&raw, &image, &options, 1);
    written(&raw, &again, &options, 7);
    let bytes = std::fs::read(&image).unwrap();
    assert!(
        bytes == std::fs::read(&again).unwrap(),
        "{option}: threads change the output"
    );
    qemu_img(&["convert", "-f", driver, "-O", "raw"], &[&image, &back]);
    qemu_img(&["compare", "-f", "raw", "-F", driver], &[&raw, &image]);
    if format != Format::Vhd {
        // qemu-img checks the other two.
        qemu_img(&["check", "-q", "-f", driver], &[&image]);
    }
    let found = inspected(&image);
    assert_eq!(found.format, format);
    assert!(found.findings.is_empty(), "{option}: {:?}", found.findings);
    let disk = opened(&image, format).unwrap();
    same_as_raw(disk.as_ref(), &image, &back);
    let exact = len.next_multiple_of(512);
    if option.contains("force_size=on") || format != Format::Vhd {
        assert_eq!(disk.virtual_size(), exact, "{option}");
    } else {
        assert!((exact..exact + (1 << 20)).contains(&disk.virtual_size()));
    }
}

#[test]
fn qemu_img_reads_what_is_written() {
    for (driver, format, option) in [
        ("vpc", Format::Vhd, "subformat=dynamic"),
        ("vpc", Format::Vhd, "subformat=dynamic,force_size=on"),
        ("vpc", Format::Vhd, "subformat=fixed"),
        ("vpc", Format::Vhd, "subformat=fixed,force_size=on"),
        ("vhdx", Format::Vhdx, "subformat=dynamic"),
        ("vhdx", Format::Vhdx, "block_size=1M,log_size=3M"),
        ("vhdx", Format::Vhdx, "block_size=32M"),
        ("vhdx", Format::Vhdx, "subformat=fixed,block_size=4M"),
        ("vdi", Format::Vdi, "static=off"),
        ("vdi", Format::Vdi, "static=on"),
    ] {
        write_witness(driver, format, option, 9 << 20);
        write_witness(driver, format, option, (17 << 20) + 5000);
    }
}

#[test]
fn writers_refuse_what_they_cannot_hold() {
    let refused = |format, pairs: &[(&str, &str)], size| {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        let made = CreateOptions::parse(format, &pairs, false).and_then(|o| create(&o, size));
        made.err().map(|e| e.kind()) == Some(ErrorKind::Usage)
    };
    assert!(refused(Format::Vhd, &[], (2040 << 30) + 512));
    assert!(!refused(Format::Vhd, &[], 2040 << 30));
    assert!(refused(Format::Vhdx, &[], (64 << 40) + 512));
    assert!(!refused(Format::Vhdx, &[], 64 << 40));
    assert!(refused(Format::Vdi, &[], u64::MAX));
    for format in [Format::Vhd, Format::Vhdx, Format::Vdi] {
        assert_eq!(refused(format, &[], 0), format == Format::Vhdx);
        assert!(refused(format, &[("colour", "red")], 1 << 20));
        assert!(refused(format, &[("uuid", "red")], 1 << 20));
        assert!(CreateOptions::parse(format, &[], true).is_err());
    }
    assert!(refused(Format::Vhd, &[("subformat", "fixed")], 0));
    assert!(refused(Format::Vhd, &[("subformat", "thin")], 1 << 20));
    assert!(refused(Format::Vhdx, &[("block_size", "3M")], 1 << 20));
    assert!(refused(Format::Vhdx, &[("log_size", "0")], 1 << 20));
    assert!(refused(Format::Vdi, &[("static", "maybe")], 1 << 20));
}

fn corpus() -> Option<PathBuf> {
    let dir = std::env::var_os("GLINT_CORPUS").map(PathBuf::from);
    if dir.is_none() {
        eprintln!("skipped: GLINT_CORPUS does not name the corpus");
    }
    dir
}

/// Unpacks a corpus file into `dir`, leaving holes where it has zeros.
fn unpack(path: &Path, dir: &Path) -> PathBuf {
    let file = File::open(path).unwrap();
    let mut input: Box<dyn Read> = match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some("bz2") => Box::new(bzip2::read::BzDecoder::new(file)),
        Some("zst") => Box::new(zstd::Decoder::new(file).unwrap()),
        _ => Box::new(file),
    };
    let out = dir.join(path.file_name().unwrap());
    let mut file = File::create(&out).unwrap();
    let mut buf = vec![0; 1 << 20];
    let mut len = 0;
    loop {
        let n = input.read(&mut buf).unwrap();
        if n == 0 {
            break;
        }
        if !bytes::is_zero(&buf[..n]) {
            put(&mut file, len, &buf[..n]);
        }
        len += n as u64;
    }
    file.set_len(len).unwrap();
    out
}

/// SHA-256 of the whole content, or the sparse one of the corpus for large disks: index and
/// bytes of each 64 KiB block that is not zero.
fn content_hash(disk: &dyn Disk, is_sparse: bool) -> String {
    const STEP: u64 = 1 << 20;
    let mut hash = Sha256::new();
    let mut buf = vec![0; STEP as usize];
    let mut at = 0;
    let mut holes = extents(disk).into_iter().filter(|e| e.kind.is_hole());
    let mut hole = holes.next();
    while at < disk.virtual_size() {
        let buf = &mut buf[..STEP.min(disk.virtual_size() - at) as usize];
        let end = GuestOffset(at + buf.len() as u64);
        while hole.as_ref().is_some_and(|h| h.range.end < end) {
            hole = holes.next();
        }
        let is_hole = hole.as_ref().is_some_and(|h| h.range.start.0 <= at);
        if !(is_sparse && is_hole) {
            disk.read_at(buf, GuestOffset(at)).unwrap();
            if is_sparse {
                for (n, block) in (at / 65536..).zip(buf.chunks(65536)) {
                    if !bytes::is_zero(block) {
                        hash.update(n.to_le_bytes());
                        hash.update(block);
                    }
                }
            } else {
                hash.update(&*buf);
            }
        }
        at = end.0;
    }
    let hash: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if is_sparse {
        format!("sparse64k:{hash}")
    } else {
        hash
    }
}

#[test]
fn reads_the_corpus_rightly() {
    let Some(corpus) = corpus() else { return };
    let manifest = std::fs::read_to_string(corpus.join("MANIFEST.tsv")).unwrap();
    let mut lines = manifest.lines();
    let names: Vec<_> = lines.next().unwrap().split('\t').collect();
    let mut seen = 0;
    for line in lines {
        let fields: Vec<_> = line.split('\t').collect();
        let field = |name| fields[names.iter().position(|n| *n == name).unwrap()];
        let path = field("path");
        let format = match path.split('/').next() {
            Some("vhd") => Format::Vhd,
            Some("vhdx") => Format::Vhdx,
            Some("vdi") => Format::Vdi,
            _ => continue,
        };
        seen += 1;
        let dir = tempfile::tempdir().unwrap();
        let image = unpack(&corpus.join(path), dir.path());
        let found = inspected(&image);
        assert_eq!(found.format, format, "{path}");
        eprintln!("{path}: {:?}", found.findings);
        if field("expect") == "reject" {
            let rule = found.unsafe_finding().map(|f| f.rule);
            assert_eq!(rule, Some("parent"), "{path}");
            let refused = opened(&image, format).err().expect("differencing");
            assert_eq!(refused.kind(), ErrorKind::Refused, "{path}");
            continue;
        }
        assert_eq!(found.verdict(), Verdict::Safe, "{path}");
        let disk = opened(&image, format).unwrap();
        let size = disk.virtual_size();
        assert_eq!(size.to_string(), field("virtual_size"), "{path}");
        assert_eq!(found.virtual_size, Some(size), "{path}");
        let (sparse, whole) = (field("content_sparse64k"), field("content_sha256"));
        let is_sparse = sparse != "-";
        let expected = if is_sparse { sparse } else { whole };
        assert_eq!(content_hash(disk.as_ref(), is_sparse), expected, "{path}");
        if path.contains("log-replay") {
            assert!(found.findings.iter().any(|f| f.rule == "dirty_log"));
        }
    }
    assert!(seen >= 12, "the corpus has {seen} such files");
}

#[test]
fn refuses_lone_headers_of_the_corpus() {
    let Some(corpus) = corpus() else { return };
    for (name, format) in [
        ("libvhdi-file_footer.1", Format::Vhd),
        ("libvhdi-file_identifier.1", Format::Vhdx),
    ] {
        let path = corpus.join("hostile").join(name);
        let found = inspected(&path);
        assert_eq!((found.format, found.verdict()), (format, Verdict::Unsafe));
        assert!(opened(&path, format).is_err());
    }
}

/// Does everything one can do with a file that may be damaged. Errors are fine; panics, loops
/// and answers that contradict each other are not.
fn torture(file: Vec<u8>, format: Format) {
    let limits = Limits::default();
    let found = inspect(&file, &limits).unwrap();
    let mut stream = Stream::default();
    file.chunks(100_000).for_each(|chunk| stream.feed(chunk));
    let streamed = stream.finish(Some(&file), &limits).unwrap();
    assert_eq!(streamed.findings, found.findings);
    let Ok(disk) = open(Arc::new(file), &options(format)) else {
        if found.format == format {
            assert_eq!(found.verdict(), Verdict::Unsafe);
        }
        return;
    };
    let end = GuestOffset(disk.virtual_size());
    let mut some = Vec::new();
    if disk.extents(GuestOffset::ZERO..end, &mut some).is_ok() && end.0 > 0 {
        assert_eq!(some[0].range.start, GuestOffset::ZERO);
        assert!(some.len() <= formats::MAX_EXTENTS);
    }
    let mut buf = vec![0; 4096.min(end.0 as usize)];
    for extent in some.iter().take(64) {
        let at = extent.range.start.0.min(end.0 - buf.len() as u64);
        disk.read_at(&mut buf, GuestOffset(at)).unwrap();
    }
}

/// A small image of each kind.
fn small_images() -> Vec<(Vec<u8>, Format)> {
    let dir = tempfile::tempdir().unwrap();
    let [raw, image] = ["raw", "image"].map(|name| dir.path().join(name));
    let mut file = File::create(&raw).unwrap();
    file.set_len(3 << 20).unwrap();
    put(&mut file, 0, b"some data");
    let kinds = [
        ("vpc", Format::Vhd, "subformat=dynamic"),
        ("vpc", Format::Vhd, "subformat=fixed"),
        ("vhdx", Format::Vhdx, "block_size=1M"),
        ("vdi", Format::Vdi, "static=off"),
    ];
    let convert = |(driver, format, option)| {
        let args = ["convert", "-f", "raw", "-O", driver, "-o", option];
        qemu_img(&args, &[&raw, &image]);
        (std::fs::read(&image).unwrap(), format)
    };
    kinds.map(convert).into()
}

#[test]
fn survives_truncation() {
    for (image, format) in small_images() {
        let mut random = Seeded(1);
        let mut lengths: Vec<usize> = (0..30)
            .map(|_| random.below(image.len() as u64) as usize)
            .collect();
        lengths.extend([0, 1, 64, 68, 511, 512, 513, 1023, 1024, 1536, 2048, 65536]);
        lengths.extend((0..6).map(|n| image.len() - 1 - n * 100));
        for len in lengths {
            torture(image[..len.min(image.len())].to_vec(), format);
        }
    }
}

#[test]
fn survives_flipped_bits() {
    for (image, format) in small_images() {
        // Where the structures are: flips elsewhere change what the guest reads, at most.
        let spots: Vec<usize> = image
            .chunks(512)
            .enumerate()
            .filter(|(_, sector)| !bytes::is_zero(sector))
            .map(|(n, _)| n * 512)
            .collect();
        let mut random = Seeded(2);
        for _ in 0..100 {
            let mut bad = image.clone();
            for _ in 0..=random.below(3) {
                let spot = spots[random.below(spots.len() as u64) as usize];
                let at = (spot + random.below(512) as usize).min(bad.len() - 1);
                bad[at] ^= 1 << random.below(8);
            }
            torture(bad, format);
        }
    }
}

/// Damage that no checksum catches, for the checksums are made right again.
#[test]
fn survives_fields_at_their_extremes() {
    for (image, format) in small_images() {
        let end = image.len() - 512;
        let fields: Vec<usize> = match format {
            Format::Vhd if image.starts_with(b"conectix") => {
                let mut fields = vec![16, 20, 48, 52, 56, 60, 1536, 1540];
                fields.extend([16, 20, 24, 28, 32].map(|at| 512 + at));
                fields
            }
            Format::Vhd => [48, 52, 56, 60].map(|at| end + at).into(),
            Format::Vhdx => {
                let mut fields = [48, 64, 68, 72, 76].map(|at| 65536 + at).to_vec();
                fields.extend([8, 32, 36, 40, 64, 68, 72].map(|at| 196_608 + at));
                let metadata = image.windows(8).position(|w| w == b"metadata").unwrap();
                fields.extend([10, 48, 52, 80, 84].map(|at| metadata + at));
                fields.extend((0..48).step_by(4).map(|at| metadata + 65536 + at));
                fields
            }
            _ => (0x40..0x88)
                .chain(0x154..0x188)
                .step_by(4)
                .chain([0x1b8, 512, 516])
                .collect(),
        };
        for at in fields {
            for value in [0, 1, 6, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, u32::MAX] {
                for value in [value.to_le_bytes(), value.to_be_bytes()] {
                    let mut bad = image.clone();
                    bad[at..at + 4].copy_from_slice(&value);
                    reseal(&mut bad, format);
                    torture(bad, format);
                }
            }
        }
    }
}

/// Makes copies and checksums right again.
fn reseal(image: &mut [u8], format: Format) {
    fn sum(bytes: &mut [u8], at: usize) {
        bytes[at..at + 4].fill(0);
        let sum = !bytes.iter().fold(0, |sum, b| sum + u32::from(*b));
        bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    }
    let end = image.len() - 512;
    match format {
        Format::Vhd if image.starts_with(b"conectix") => {
            sum(&mut image[..512], 64);
            sum(&mut image[512..1536], 36);
            image.copy_within(..512, end);
        }
        Format::Vhd => sum(&mut image[end..], 64),
        Format::Vhdx => {
            image.copy_within(65536..65536 + 4096, 131_072);
            image.copy_within(196_608..262_144, 262_144);
            for (at, len) in [65536, 131_072, 196_608, 262_144]
                .into_iter()
                .zip([4096, 4096, 65536, 65536])
            {
                image[at + 4..at + 8].fill(0);
                let crc = crc32c::crc32c(&image[at..at + len]).to_le_bytes();
                image[at + 4..at + 8].copy_from_slice(&crc);
            }
        }
        _ => {}
    }
}
