//! LUKS against qemu-img and cryptsetup, which make volumes of every kind they know.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use formats::copy::{CopyOptions, Progress, copy};
use formats::inspect::{Stream, Verdict, inspect};
use formats::{
    CreateOptions, Disk, Error, ErrorKind, ExtentKind, FileSource, Format, GuestOffset, Limits,
    MemorySink, OpenOptions, Passphrase, Result, Source, create, open, qcow2,
};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use support::Random;

/// A temporary folder, and programs that run in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        std::fs::write(folder.path("key"), "open sesame").unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, program: &str, args: &[&str]) -> std::result::Result<(), String> {
        let out = Command::new(program)
            .args(args)
            .current_dir(self.0.path())
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        match out.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        }
    }

    /// Writes `len` pseudo-random bytes.
    fn random(&self, name: &str, len: usize) -> Vec<u8> {
        let bytes = random(len);
        std::fs::write(self.path(name), &bytes).unwrap();
        bytes
    }
}

const SECRET: &str = "secret,id=s,file=key";

fn random(len: usize) -> Vec<u8> {
    let mut random = Random(len as u64);
    std::iter::repeat_with(|| random.next() as u8)
        .take(len)
        .collect()
}

fn source(path: &Path) -> Arc<dyn Source> {
    Arc::new(FileSource::new(std::fs::File::open(path).unwrap()).unwrap())
}

fn with(passphrase: &str) -> OpenOptions {
    OpenOptions {
        passphrase: Some(Passphrase::new(passphrase.as_bytes()).unwrap()),
        ..OpenOptions::default()
    }
}

fn refusal(disk: Result<Arc<dyn Disk>>) -> Error {
    disk.err().expect("an error")
}

/// Reads all of a disk in odd pieces, and some of it again.
fn content(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0; disk.virtual_size() as usize];
    let mut at = 0;
    for (n, piece) in bytes.chunks_mut(77_777).enumerate() {
        let piece_at = at;
        at += piece.len();
        match n % 2 {
            0 => disk.read_at(piece, GuestOffset(piece_at as u64)).unwrap(),
            _ => {
                let (a, b) = piece.split_at_mut(piece.len() / 2 / 512 * 512);
                disk.read_at(a, GuestOffset(piece_at as u64)).unwrap();
                let middle = GuestOffset((piece_at + a.len()) as u64);
                disk.read_at(b, middle).unwrap();
            }
        }
    }
    bytes
}

/// Both drivers agree; the answer.
fn inspected(source: &Arc<dyn Source>) -> formats::inspect::Inspection {
    let inspection = inspect(source.as_ref(), &Limits::default()).unwrap();
    let bytes =
        formats::read_up_to(source.as_ref(), formats::HostOffset::ZERO, usize::MAX).unwrap();
    let mut stream = Stream::default();
    for chunk in bytes.chunks(100_000) {
        stream.feed(chunk);
    }
    let streamed = stream.finish(Some(&bytes), &Limits::default()).unwrap();
    assert_eq!(streamed.findings, inspection.findings);
    assert_eq!(streamed.details, inspection.details);
    assert_eq!(streamed.virtual_size, inspection.virtual_size);
    inspection
}

#[test]
fn opens_what_qemu_img_encrypts() {
    let folder = Folder::new();
    let plain = folder.random("plain", 300 << 10);
    let variants = [
        ("aes-256", "xts", "plain64", "sha256", None),
        ("aes-128", "xts", "plain", "sha1", None),
        ("aes-128", "cbc", "plain64", "sha512", None),
        ("aes-256", "ecb", "plain", "sha384", None),
        ("aes-256", "cbc", "essiv", "ripemd160", Some("sha256")),
        ("serpent-128", "xts", "plain64", "sha256", None),
        ("serpent-128", "cbc", "plain", "md5", None),
        ("twofish-128", "cbc", "essiv", "sha1", Some("md5")),
        ("twofish-256", "xts", "plain64", "sha512", None),
    ];
    for (cipher, mode, iv, hash, iv_hash) in variants {
        let mut options = format!(
            "key-secret=s,iter-time=10,cipher-alg={cipher},cipher-mode={mode},ivgen-alg={iv},\
             hash-alg={hash}"
        );
        if let Some(iv_hash) = iv_hash {
            options += &format!(",ivgen-hash-alg={iv_hash}");
        }
        folder
            .run(
                "qemu-img",
                &[
                    "convert", "-f", "raw", "-O", "luks", "--object", SECRET, "-o", &options,
                    "plain", "image",
                ],
            )
            .unwrap_or_else(|e| panic!("{options}: {e}"));
        let image = source(&folder.path("image"));
        let disk = open(image.clone(), &with("open sesame")).unwrap();
        assert_eq!(disk.virtual_size(), plain.len() as u64);
        assert!(content(disk.as_ref()) == plain, "{options}");

        let e = refusal(open(image.clone(), &with("open sesame\n")));
        assert_eq!(e.kind(), ErrorKind::Refused);
        assert_eq!(
            e.to_string(),
            "luks key slots: the passphrase opens no key slot"
        );
        let inspection = inspected(&image);
        assert_eq!(inspection.format, Format::Luks);
        assert_eq!(inspection.virtual_size, Some(plain.len() as u64));
        assert_eq!(inspection.verdict(), Verdict::Safe);
        assert_eq!(inspection.details["hash"], hash);
        assert_eq!(inspection.details["active_key_slots"], 1);
    }
}

#[test]
fn without_a_passphrase_nothing_is_handed_out() {
    let folder = Folder::new();
    let args = "create -q -f luks --object";
    let mut args: Vec<_> = args.split(' ').collect();
    args.extend([SECRET, "-o", "key-secret=s,iter-time=10", "image", "1M"]);
    folder.run("qemu-img", &args).unwrap();
    let e = refusal(open(source(&folder.path("image")), &OpenOptions::default()));
    assert_eq!(e.kind(), ErrorKind::Refused);
    assert!(e.to_string().contains("a passphrase is needed"), "{e}");
}

#[test]
fn any_key_slot_opens() {
    let folder = Folder::new();
    let plain = folder.random("plain", 64 << 10);
    let convert = [
        "convert",
        "-f",
        "raw",
        "-O",
        "luks",
        "--object",
        SECRET,
        "-o",
        "key-secret=s,iter-time=10",
        "plain",
        "image",
    ];
    folder.run("qemu-img", &convert).unwrap();
    std::fs::write(folder.path("second"), "swordfish").unwrap();
    let amend = [
        "amend",
        "--object",
        SECRET,
        "--object",
        "secret,id=t,file=second",
        "-o",
        "state=active,new-secret=t,keyslot=5,iter-time=10",
        "--image-opts",
        "driver=luks,file.filename=image,key-secret=s",
    ];
    folder.run("qemu-img", &amend).unwrap();
    let image = source(&folder.path("image"));
    for secret in ["open sesame", "swordfish"] {
        let disk = open(image.clone(), &with(secret)).unwrap();
        assert!(content(disk.as_ref()) == plain, "{secret}");
    }
    assert_eq!(inspected(&image).details["active_key_slots"], 2);
    assert_eq!(
        refusal(open(image, &with("shazam"))).kind(),
        ErrorKind::Refused
    );
}

#[test]
fn all_of_it_is_data_and_ranges_are_checked() {
    let folder = Folder::new();
    folder.random("plain", 64 << 10);
    let convert = [
        "convert",
        "-f",
        "raw",
        "-O",
        "luks",
        "--object",
        SECRET,
        "-o",
        "key-secret=s,iter-time=10",
        "plain",
        "image",
    ];
    folder.run("qemu-img", &convert).unwrap();
    let disk = open(source(&folder.path("image")), &with("open sesame")).unwrap();
    let size = disk.virtual_size();
    let mut extents = Vec::new();
    disk.extents(GuestOffset(100)..GuestOffset(size), &mut extents)
        .unwrap();
    assert_eq!(extents.len(), 1);
    assert_eq!(extents[0].range, GuestOffset(100)..GuestOffset(size));
    assert_eq!(extents[0].kind, ExtentKind::Data { host: None });
    let past = GuestOffset(size - 1);
    assert_eq!(
        disk.read_at(&mut [0; 2], past).unwrap_err().kind(),
        ErrorKind::Usage
    );
    let past = past..GuestOffset(size + 1);
    assert!(disk.extents(past, &mut extents).is_err());
}

/// cryptsetup cannot map a volume without the kernel's help, but it encrypts files in place.
#[test]
fn opens_what_cryptsetup_encrypts() {
    if Command::new("cryptsetup")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("skipped: there is no cryptsetup here");
        return;
    }
    let argon2 = "--pbkdf-memory 64 --pbkdf-parallel 2 --pbkdf-force-iterations 4";
    let variants = [
        format!("--type luks2 --pbkdf argon2id {argon2}"),
        format!(
            "--type luks2 --pbkdf argon2i {argon2} --cipher aes-cbc-essiv:sha256 --key-size 256"
        ),
        format!("--type luks2 --pbkdf argon2id {argon2} --sector-size 4096 --hash sha512"),
        "--type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --sector-size 2048 \
         --cipher aes-xts-plain64 --key-size 256 --luks2-metadata-size 64k"
            .to_owned(),
    ];
    for variant in variants {
        let folder = Folder::new();
        // The last part of the device makes room for the header.
        let plain = random(256 << 10);
        let file = std::fs::File::create(folder.path("image")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &plain, 0).unwrap();
        file.set_len((256 << 10) + (32 << 20)).unwrap();
        drop(file);
        let mut args: Vec<_> = "reencrypt --encrypt --force-offline-reencrypt -q --key-file key \
             --reduce-device-size 32M"
            .split_whitespace()
            .collect();
        args.extend(variant.split_whitespace());
        args.push("image");
        folder
            .run("cryptsetup", &args)
            .unwrap_or_else(|e| panic!("{variant}: {e}"));

        let image = source(&folder.path("image"));
        let disk =
            open(image.clone(), &with("open sesame")).unwrap_or_else(|e| panic!("{variant}: {e}"));
        let mut bytes = vec![0; plain.len()];
        disk.read_at(&mut bytes, GuestOffset::ZERO).unwrap();
        assert!(bytes == plain, "{variant}");
        let inspection = inspected(&image);
        assert_eq!(inspection.virtual_size, Some(disk.virtual_size()));
        assert_eq!(inspection.details["active_key_slots"], 1);
        let rules: Vec<_> = inspection.findings.iter().map(|f| f.rule).collect();
        assert_eq!(rules, ["encrypted"], "{variant}");
        assert_eq!(
            refusal(open(image, &with("shazam"))).to_string(),
            "luks key slots: the passphrase opens no key slot"
        );
    }
}

#[test]
fn a_volume_that_is_being_encrypted_anew_is_refused_by_name() {
    if Command::new("cryptsetup")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("skipped: there is no cryptsetup here");
        return;
    }
    let folder = Folder::new();
    let file = std::fs::File::create(folder.path("image")).unwrap();
    file.set_len(20 << 20).unwrap();
    for step in [
        "luksFormat --type luks2",
        "reencrypt --init-only --force-offline-reencrypt",
    ] {
        let cheap = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000 -q --key-file key image";
        let args: Vec<_> = step.split(' ').chain(cheap.split(' ')).collect();
        folder
            .run("cryptsetup", &args)
            .unwrap_or_else(|e| panic!("{step}: {e}"));
    }
    let image = source(&folder.path("image"));
    let inspection = inspected(&image);
    assert_eq!(inspection.verdict(), Verdict::Safe);
    let rules: Vec<_> = inspection.findings.iter().map(|f| f.rule).collect();
    assert_eq!(rules, ["not_read", "encrypted"]);
    let e = refusal(open(image, &with("open sesame")));
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("anew"), "{e}");
}

/// Bytes with runs of zeros: some clusters are holes.
fn patchy(len: usize) -> Vec<u8> {
    let mut bytes = random(len);
    for (n, piece) in bytes.chunks_mut(200_000).enumerate() {
        if n % 3 == 1 {
            piece.fill(0);
        }
    }
    bytes
}

const AS_QCOW2: &str = "driver=qcow2,file.filename=image,encrypt.format=luks,encrypt.key-secret=s";

#[test]
fn opens_qcow2_that_qemu_img_encrypts() {
    let folder = Folder::new();
    let plain = patchy(700 << 10);
    std::fs::write(folder.path("plain"), &plain).unwrap();
    for variant in [
        "cluster_size=65536",
        "cluster_size=512,compat=0.10,encrypt.cipher-alg=aes-128",
        "cluster_size=2M,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256",
        "cluster_size=32k,extended_l2=on,encrypt.cipher-alg=twofish-256",
        "data_file=data",
    ] {
        let options =
            format!("encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,{variant}");
        let convert = [
            "convert", "-f", "raw", "-O", "qcow2", "--object", SECRET, "-o", &options, "plain",
            "image",
        ];
        folder
            .run("qemu-img", &convert)
            .unwrap_or_else(|e| panic!("{variant}: {e}"));
        let image = source(&folder.path("image"));
        let mut options = with("open sesame");
        options.resolver = Arc::new(Beside(folder.path("data")));
        let disk = open(image.clone(), &options).unwrap_or_else(|e| panic!("{variant}: {e}"));
        assert!(content(disk.as_ref()) == plain, "{variant}");
        let mut extents = Vec::new();
        let all = GuestOffset::ZERO..GuestOffset(disk.virtual_size());
        disk.extents(all, &mut extents).unwrap();
        assert!(extents.iter().any(|e| e.kind.is_hole()) || variant.contains("2M"));
        assert!(
            extents
                .iter()
                .all(|e| e.kind.is_hole() || e.kind == ExtentKind::Data { host: None })
        );

        options.passphrase = None;
        let e = refusal(open(image.clone(), &options));
        assert_eq!(e.kind(), ErrorKind::Refused);
        assert!(e.to_string().contains("passphrase"), "{e}");
        options.passphrase = with("shazam").passphrase;
        let e = refusal(open(image.clone(), &options));
        assert!(e.to_string().contains("opens no key slot"), "{e}");
        let inspection = inspected(&image);
        assert_eq!(inspection.details["encryption"], "luks");
        assert!(inspection.findings.iter().any(|f| f.rule == "encrypted"));
    }
}

/// Grants one file.
struct Beside(PathBuf);

impl formats::resolve::Resolver for Beside {
    fn resolve(
        &self,
        _: Format,
        _: formats::resolve::Wanted,
        _: &str,
    ) -> Result<formats::resolve::Granted> {
        Ok(formats::resolve::Granted::alone(source(&self.0)))
    }
}

fn encrypted(passphrase: &str, seed: u8) -> qcow2::WriteOptions {
    qcow2::WriteOptions {
        encryption: Some(qcow2::Encryption {
            passphrase: Passphrase::new(passphrase.as_bytes()).unwrap(),
            seed: [seed; 32],
            iterations: 1000,
        }),
        ..qcow2::WriteOptions::default()
    }
}

fn write(plain: &[u8], options: &qcow2::WriteOptions, threads: usize) -> Vec<u8> {
    let disk = open(
        Arc::new(plain.to_vec()),
        &OpenOptions {
            format: Some(Format::Raw),
            ..OpenOptions::default()
        },
    )
    .unwrap();
    let options = CreateOptions::Qcow2(options.clone());
    let target = create(&options, disk.virtual_size()).unwrap();
    let sink = MemorySink::default();
    let threads = CopyOptions {
        threads: threads.try_into().unwrap(),
    };
    copy(disk.as_ref(), target, &sink, &threads, &Progress::default()).unwrap();
    sink.into_bytes()
}

#[test]
fn qemu_img_reads_the_qcow2_encrypted_here() {
    let folder = Folder::new();
    let variants = [
        (64 << 10, qcow2::Version::V3, false, 3 << 20),
        (512, qcow2::Version::V2, false, 200_000),
        (2 << 20, qcow2::Version::V3, true, 5_000_001),
        (4096, qcow2::Version::V3, false, 12_345 * 512),
    ];
    for (cluster_size, compat, extended_l2, len) in variants {
        let plain = patchy(len);
        let options = qcow2::WriteOptions {
            cluster_size,
            compat,
            extended_l2,
            ..encrypted("open sesame", 1)
        };
        let image = write(&plain, &options, 1);
        assert!(image == write(&plain, &options, 5), "{options:?}");
        assert!(!format!("{options:?}").contains("sesame"));
        // The guest's bytes are not in it.
        assert!(!image.windows(16).any(|w| w == &plain[..16]));

        std::fs::write(folder.path("image"), &image).unwrap();
        let check = ["check", "-q", "--object", SECRET, "--image-opts", AS_QCOW2];
        folder.run("qemu-img", &check).unwrap();
        let convert = [
            "convert",
            "--object",
            SECRET,
            "--image-opts",
            AS_QCOW2,
            "-O",
            "raw",
            "back",
        ];
        folder.run("qemu-img", &convert).unwrap();
        let mut whole = plain.clone();
        whole.resize(len.next_multiple_of(512), 0);
        assert!(
            std::fs::read(folder.path("back")).unwrap() == whole,
            "{options:?}"
        );

        let image: Arc<dyn Source> = Arc::new(image);
        let disk = open(image.clone(), &with("open sesame")).unwrap();
        assert!(content(disk.as_ref()) == whole, "{options:?}");
        assert_eq!(
            refusal(open(image.clone(), &with("shazam"))).kind(),
            ErrorKind::Refused
        );
        let rules: Vec<_> = inspected(&image).findings.iter().map(|f| f.rule).collect();
        assert_eq!(rules, ["encrypted"]);
    }
}

#[test]
fn keys_and_salts_come_from_the_seed() {
    let plain = random(100_000);
    let first = write(&plain, &encrypted("open sesame", 1), 2);
    assert!(first == write(&plain, &encrypted("open sesame", 1), 2));
    assert!(first != write(&plain, &encrypted("open sesame", 2), 2));
    assert!(first != write(&plain, &encrypted("shazam", 1), 2));
}

#[test]
fn encryption_goes_without_compression_and_preallocation() {
    let compressed = qcow2::WriteOptions {
        compress: true,
        ..encrypted("open sesame", 1)
    };
    let preallocated = qcow2::WriteOptions {
        preallocation: qcow2::Preallocation::Metadata,
        ..encrypted("open sesame", 1)
    };
    let mut endless = encrypted("open sesame", 1);
    let mut none = endless.clone();
    endless.encryption.as_mut().unwrap().iterations = u32::MAX;
    none.encryption.as_mut().unwrap().iterations = 0;
    for options in [compressed, preallocated, endless, none] {
        let e = create(&CreateOptions::Qcow2(options), 1 << 20)
            .err()
            .unwrap();
        assert_eq!(e.kind(), ErrorKind::Usage, "{e}");
    }
}

/// A volume that cryptsetup encrypted once (see `data/luks2.py`).
fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    let packed = std::fs::File::open(path).unwrap();
    let mut bytes = Vec::new();
    let mut unpacked = flate2::read::GzDecoder::new(packed);
    std::io::Read::read_to_end(&mut unpacked, &mut bytes).unwrap();
    bytes
}

const FIXTURES: [&str; 2] = ["luks2-argon2id.img.gz", "luks2-pbkdf2.img.gz"];

#[test]
fn volumes_of_version_2_are_opened_without_cryptsetup() {
    let plain: Vec<u8> = (0..8192u32).map(|i| (i * 7 + i / 256) as u8).collect();
    for name in FIXTURES {
        let image: Arc<dyn Source> = Arc::new(fixture(name));
        let disk = open(image.clone(), &with("open sesame")).unwrap();
        assert!(content(disk.as_ref()) == plain, "{name}");
        let e = refusal(open(image.clone(), &with("shazam")));
        assert!(e.to_string().contains("opens no key slot"), "{e}");
        let inspection = inspected(&image);
        assert_eq!(inspection.virtual_size, Some(8192));
        assert_eq!(inspection.details["cipher"], "aes-xts-plain64");
        assert_eq!(inspection.details["active_key_slots"], 1);
        assert_eq!(inspection.details["payload_offset"], 524_288);
    }
}

/// Bytes with others put over them, and perhaps cut short.
struct Patched {
    base: Arc<Vec<u8>>,
    len: usize,
    patches: Vec<(usize, Vec<u8>)>,
}

impl Patched {
    fn new(base: &Arc<Vec<u8>>) -> Self {
        Self {
            base: base.clone(),
            len: base.as_slice().len(),
            patches: Vec::new(),
        }
    }

    fn get(&self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = self.base[at..at + len].to_vec();
        for (start, patch) in &self.patches {
            for (n, byte) in (*start..).zip(patch) {
                if (at..at + len).contains(&n) {
                    bytes[n - at] = *byte;
                }
            }
        }
        bytes
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let room = self.base.as_slice().len() - at;
        self.patches
            .push((at, bytes[..bytes.len().min(room)].to_vec()));
    }

    /// Changes a few bytes or a number in `len` bytes from `at`.
    fn damage(&mut self, random: &mut Random, at: usize, len: usize) {
        for _ in 0..=random.below(3) {
            let place = at + random.below(len as u64 - 8) as usize;
            let bytes = match random.below(4) {
                0 => vec![0; 4],
                1 => vec![0xff; 1 + random.below(8) as usize],
                2 => random.next().to_be_bytes()[..4].to_vec(),
                _ => vec![random.next() as u8],
            };
            let place = if bytes.len() > 3 {
                place - place % 4
            } else {
                place
            };
            self.put(place, &bytes);
        }
    }

    /// Iterations that are allowed, but take minutes, become endless: those take no time.
    fn spare_iterations(&mut self, luks: usize) {
        for at in [164].into_iter().chain((0..8).map(|n| 212 + 48 * n)) {
            let field = self.get(luks + at, 4);
            if u32::from_be_bytes(field.try_into().unwrap()) > 2000 {
                self.put(luks + at, &[0xff; 4]);
            }
        }
    }
}

impl Source for Patched {
    fn len(&self) -> u64 {
        self.len as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], at: formats::HostOffset) -> Result<()> {
        let at = at.0 as usize;
        if at.saturating_add(buf.len()) > self.len {
            return Err(Error::io(
                "reading",
                std::io::ErrorKind::UnexpectedEof.into(),
            ));
        }
        buf.copy_from_slice(&self.get(at, buf.len()));
        Ok(())
    }
}

/// Inspects and opens; a panic or a surprising error fails the test.
fn exercise(source: Patched) -> bool {
    let source: Arc<dyn Source> = Arc::new(source);
    inspect(source.as_ref(), &Limits::default()).unwrap();
    let format = match source.as_ref().len() % 2 {
        0 => None,
        _ => Some(Format::Luks),
    };
    let options = OpenOptions {
        format,
        ..with("open sesame")
    };
    match open(source, &options) {
        Ok(disk) => {
            let size = disk.virtual_size();
            let mut buf = vec![0; size.min(9000) as usize];
            let at = GuestOffset(size - buf.len() as u64);
            let _ = disk.read_at(&mut buf, at);
            true
        }
        Err(e) => {
            assert_ne!(e.kind(), ErrorKind::Usage, "{e}");
            false
        }
    }
}

const MUTATIONS: u64 = 3400;

/// An encrypted qcow2 image whose header takes no time to open, and where that header is.
fn cheap() -> (Vec<u8>, usize) {
    let mut options = encrypted("open sesame", 1);
    options.encryption.as_mut().unwrap().iterations = 1;
    let image = write(&random(70_000), &options, 1);
    let luks = image.windows(6).position(|w| w == b"LUKS\xba\xbe").unwrap();
    (image, luks)
}

#[test]
fn damaged_headers_of_version_1_are_answered() {
    let (image, luks) = cheap();
    let mut volume = image[luks..luks + 4040 * 512].to_vec();
    volume.extend(random(20 * 512));
    let volume = Arc::new(volume);
    assert!(exercise(Patched::new(&volume)));
    let opened: u64 = (0..MUTATIONS)
        .into_par_iter()
        .map(|seed| {
            let mut random = Random(seed);
            let mut source = Patched::new(&volume);
            source.damage(&mut random, 0, 592);
            source.spare_iterations(0);
            if random.below(8) == 0 {
                source.len = random.below(source.len as u64) as usize;
            }
            u64::from(exercise(source))
        })
        .sum();
    // Some harm nothing, such as those in slots that are not used.
    assert!((1..MUTATIONS / 2).contains(&opened), "{opened}");
}

#[test]
fn damaged_headers_of_version_2_are_answered() {
    for name in FIXTURES {
        let volume = Arc::new(fixture(name));
        assert!(exercise(Patched::new(&volume)));
        let opened: u64 = (0..MUTATIONS / 2)
            .into_par_iter()
            .map(|seed| {
                let mut random = Random(seed);
                let mut source = Patched::new(&volume);
                match random.below(8) {
                    0 => source.len = random.below(source.len as u64) as usize,
                    1 => source.damage(&mut random, 0, 4096),
                    _ => damage_json(&mut source, &mut random),
                }
                u64::from(exercise(source))
            })
            .sum();
        assert!((1..MUTATIONS / 2).contains(&opened), "{opened}");
    }
}

/// Changes the JSON of both copies, with checksums that fit.
fn damage_json(source: &mut Patched, random: &mut Random) {
    let area = source.get(4096, 12 << 10);
    let end = area.iter().position(|&b| b == 0).unwrap();
    let mut json = area[..end].to_vec();
    for _ in 0..=random.below(2) {
        let at = random.below(json.len() as u64) as usize;
        if random.below(3) == 0 {
            json[at] = b' ' + random.below(95) as u8;
            continue;
        }
        // The next number becomes another.
        let Some(start) = json[at..].iter().position(u8::is_ascii_digit) else {
            continue;
        };
        let start = at + start;
        let digits = json[start..].iter().take_while(|b| b.is_ascii_digit());
        let stop = start + digits.count();
        let numbers = [
            "",
            "0",
            "1",
            "513",
            "-1",
            "4294967295",
            "18446744073709551615",
            "1e9",
            "9".repeat(40).as_str(),
        ]
        .map(str::to_owned);
        let number = &numbers[random.below(numbers.len() as u64) as usize];
        json.splice(start..stop, number.bytes());
    }
    json.resize(12 << 10, 0);
    for at in [0, 16 << 10] {
        let mut copy = source.get(at, 16 << 10);
        copy[4096..].copy_from_slice(&json);
        copy[448..512].fill(0);
        let digest = Sha256::digest(&copy);
        copy[448..480].copy_from_slice(&digest);
        source.put(at, &copy);
    }
}

#[test]
fn damaged_headers_in_qcow2_are_answered() {
    let (image, luks) = cheap();
    let image = Arc::new(image);
    assert!(exercise(Patched::new(&image)));
    let opened: u64 = (0..MUTATIONS)
        .into_par_iter()
        .map(|seed| {
            let mut random = Random(seed);
            let mut source = Patched::new(&image);
            match random.below(8) {
                0 => source.len = random.below(source.len as u64) as usize,
                1..5 => source.damage(&mut random, luks, 592),
                _ => source.damage(&mut random, 0, 144),
            }
            source.spare_iterations(luks);
            u64::from(exercise(source))
        })
        .sum();
    assert!((1..MUTATIONS / 2).contains(&opened), "{opened}");
}
