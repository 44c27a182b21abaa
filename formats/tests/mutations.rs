//! Ten thousand damaged copies of each old format: an answer or a named error, never a panic.

mod support;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use formats::container::describe;
use formats::parallels::bundle;
use formats::resolve::{Granted, Resolver, Wanted};
use formats::{
    Disk, ErrorKind, Format, GuestOffset, Limits, OpenOptions, Result, Source, guest_len, open,
};
use rayon::prelude::*;
use support::Random;

const COPIES: u64 = 10_000;
/// Bytes read of a disk at most.
const READ: u64 = 256 << 10;

/// A copy with one to eight changes: bits, bytes, fields at their limits, pieces moved or cut.
fn damaged(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut file = bytes.to_vec();
    for _ in 0..=random.below(8) {
        if file.is_empty() {
            break;
        }
        let len = file.len() as u64;
        // Structures stand at both ends; the rest is hit less often.
        let at = match random.below(4) {
            0 | 1 => random.below(len.min(700)),
            2 => len - 1 - random.below(len.min(1500)),
            _ => random.below(len),
        } as usize;
        let width = 1 << random.below(4);
        let end = file.len().min(at + width);
        match random.below(8) {
            0 | 1 => file[at] ^= 1 << random.below(8),
            2 => file[at] = random.next() as u8,
            3 => file[at..end].fill(0xff),
            4 => file[at..end].fill(0),
            5 => file[at] = file[at].wrapping_add(1),
            6 => {
                let from = random.below(len) as usize;
                let width = width.min(file.len() - from.max(at));
                file.copy_within(from..from + width, at);
            }
            _ if random.below(8) == 0 => file.truncate(at),
            _ => file[at] = file[at].wrapping_sub(1),
        }
    }
    file
}

/// Answers every request with one file.
struct One(Vec<u8>);

impl Resolver for One {
    fn resolve(&self, _: Format, _: Wanted, _: &str) -> Result<Granted> {
        Ok(Granted::alone(Arc::new(self.0.clone())))
    }
}

/// What anybody would do with the file.
fn exercise(
    file: Vec<u8>,
    format: Format,
    beside: Option<&[u8]>,
) -> std::result::Result<(), String> {
    let limits = Limits {
        max_table: 4 << 20,
        cache: 1 << 20,
        max_inflated: 4 << 20,
        ..Limits::default()
    };
    let source: Arc<dyn Source> = Arc::new(file);
    let judged = describe(&source, &limits).map_err(|e| format!("inspecting: {e}"))?;
    for finding in &judged.findings {
        if finding.place.is_empty() || finding.message.is_empty() {
            return Err(format!("a finding that says nothing: {finding:?}"));
        }
    }
    // As the format it was: what is no longer recognised must still not be believed.
    let mut options = OpenOptions {
        format: Some(format),
        limits,
        ..OpenOptions::default()
    };
    let opened = match beside {
        Some(beside) => {
            options.resolver = Arc::new(One(beside.to_vec()));
            bundle::open(source.as_ref(), &options)
        }
        None => open(source, &options),
    };
    match opened.and_then(|disk| read(disk.as_ref())) {
        Err(e) if e.kind() == ErrorKind::Io => Err(format!("blames the system: {e}")),
        _ => Ok(()),
    }
}

fn read(disk: &dyn Disk) -> Result<()> {
    let size = disk.virtual_size();
    let mut at = GuestOffset::ZERO;
    for _ in 0..8 {
        let mut extents = Vec::new();
        disk.extents(at..GuestOffset(size), &mut extents)?;
        for extent in &extents {
            assert!(
                extent.range.start == at && guest_len(&extent.range) > 0,
                "{extent:?}"
            );
            at = extent.range.end;
        }
        assert!(at.0 == size || !extents.is_empty(), "no progress at {at}");
    }
    let mut buf = vec![0; size.min(READ) as usize];
    disk.read_at(&mut buf, GuestOffset::ZERO)?;
    let last = GuestOffset(size - buf.len() as u64);
    disk.read_at(&mut buf, last)
}

fn run(name: &str, seed: &[u8], format: Format, beside: Option<&[u8]>) {
    exercise(seed.to_vec(), format, beside).unwrap_or_else(|e| panic!("{name} as it is: {e}"));
    let failures: Vec<_> = (0..COPIES)
        .into_par_iter()
        .filter_map(|n| {
            let file = damaged(seed, n);
            match catch_unwind(AssertUnwindSafe(|| exercise(file, format, beside))) {
                Ok(Ok(())) => None,
                Ok(Err(e)) => Some(format!("{name}, copy {n}: {e}")),
                Err(_) => Some(format!("{name}, copy {n}: panicked")),
            }
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// What qemu-img makes of 40 KiB, some of them zero.
fn by_qemu_img(args: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut guest = vec![0; 40 << 10];
    guest[5000..9000].fill(7);
    fs::write(path("raw"), guest).unwrap();
    let done = Command::new("qemu-img")
        .args(["convert", "-f", "raw"])
        .args(args)
        .args([path("raw"), path("image")])
        .output()
        .expect("qemu-img is installed");
    assert!(done.status.success(), "{done:?}");
    fs::read(Path::new(&path("image"))).unwrap()
}

#[test]
fn parallels() {
    let image = by_qemu_img(&["-O", "parallels", "-o", "cluster_size=4096"]);
    run("parallels", &image, Format::Parallels, None);
}

#[test]
fn qcow_of_version_1() {
    run("qcow", &by_qemu_img(&["-O", "qcow"]), Format::Qcow1, None);
}

#[test]
fn bundles() {
    let image = by_qemu_img(&["-O", "parallels", "-o", "cluster_size=4096"]);
    let guid = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
    let storage = |start: usize, file: &str| {
        format!(
            "<Storage><Start>{start}</Start><End>{}</End><Blocksize>8</Blocksize><Image>\
             <GUID>{guid}</GUID><Type>Compressed</Type><File>{file}</File></Image></Storage>",
            start + 80
        )
    };
    let xml = format!(
        "<?xml version='1.0'?><Parallels_disk_image Version=\"1.0\"><Disk_Parameters>\
         <Disk_size>160</Disk_size><Padding>0</Padding></Disk_Parameters><StorageData>{}{}\
         </StorageData><Snapshots><Shot><GUID>{guid}</GUID><ParentGUID>\
         {{00000000-0000-0000-0000-000000000000}}</ParentGUID></Shot></Snapshots>\
         </Parallels_disk_image>",
        storage(0, "a.hds"),
        storage(80, "b.hds")
    );
    run("bundle", xml.as_bytes(), Format::Parallels, Some(&image));
}

#[test]
fn bochs() {
    let mut file = vec![0; 512];
    put(&mut file, 0, b"Bochs Virtual HD Image");
    put(&mut file, 32, b"Redolog");
    put(&mut file, 48, b"Growing");
    for (at, value) in [
        (64, 0x20000u32),
        (68, 512),
        (72, 3),
        (76, 1),
        (80, 4096),
        (88, 11776),
    ] {
        put(&mut file, at, &value.to_le_bytes());
    }
    file.extend_from_slice(&[1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0]);
    for byte in [5, 6] {
        let mut slot = vec![byte; 512 + 4096];
        slot[..512].fill(0);
        slot[0] = 0b1010_0110;
        file.extend_from_slice(&slot);
    }
    run("bochs", &file, Format::Bochs, None);
}

/// A dmg of eight sectors, one of each coding that is at hand.
fn dmg() -> Vec<u8> {
    let zlib = {
        let mut packer = flate2::read::ZlibEncoder::new(&[5; 512][..], flate2::Compression::fast());
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut packer, &mut bytes).unwrap();
        bytes
    };
    let bzip2 = {
        let mut packer = bzip2::read::BzEncoder::new(&[6; 512][..], bzip2::Compression::fast());
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut packer, &mut bytes).unwrap();
        bytes
    };
    let lzma = {
        let mut packer = liblzma::read::XzEncoder::new(&[7; 512][..], 6);
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut packer, &mut bytes).unwrap();
        bytes
    };
    // One literal, and it again 511 times.
    let adc = [&[0x80, 5][..], &[0x7f, 0, 0].repeat(7), &[0x66, 0, 0]].concat();
    let lzfse = [&b"bvx-\0\x02\0\0"[..], &[8; 512], b"bvx$"].concat();
    let chunks: [(u32, &[u8]); 7] = [
        (1, &[4; 512]),
        (0x8000_0004, &adc),
        (0x8000_0005, &zlib),
        (0x8000_0006, &bzip2),
        (0x8000_0007, &lzfse),
        (0x8000_0008, &lzma),
        (2, &[]),
    ];
    let (mut data, mut table) = (Vec::new(), vec![0; 204]);
    put(&mut table, 0, b"mish\0\0\0\x01");
    table[203] = chunks.len() as u8;
    for (n, (kind, bytes)) in chunks.iter().enumerate() {
        table.extend_from_slice(&kind.to_be_bytes());
        table.extend_from_slice(&[0; 4]);
        for field in [n as u64, 1, data.len() as u64, bytes.len() as u64] {
            table.extend_from_slice(&field.to_be_bytes());
        }
        data.extend_from_slice(bytes);
    }
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    table.resize(table.len().next_multiple_of(3), 0);
    let text: String = table
        .chunks(3)
        .flat_map(|b| {
            let bits = usize::from(b[0]) << 16 | usize::from(b[1]) << 8 | usize::from(b[2]);
            [18, 12, 6, 0].map(|shift| char::from(digits[bits >> shift & 63]))
        })
        .collect();
    let xml = format!(
        "<plist><dict><key>resource-fork</key><dict><key>blkx</key><array><dict><key>Data</key>\
         <data>{text}</data></dict></array></dict></dict></plist>"
    );
    let mut trailer = vec![0; 512];
    put(&mut trailer, 0, b"koly\0\0\0\x04\0\0\x02\0");
    put(&mut trailer, 32, &(data.len() as u64).to_be_bytes());
    put(&mut trailer, 216, &(data.len() as u64).to_be_bytes());
    put(&mut trailer, 224, &(xml.len() as u64).to_be_bytes());
    trailer[499] = 8;
    [data, xml.into_bytes(), trailer].concat()
}

#[test]
fn dmg_of_every_coding() {
    let image = dmg();
    let options = OpenOptions::default();
    let disk = open(Arc::new(image.clone()), &options).unwrap();
    let mut bytes = vec![1; 8 * 512];
    disk.read_at(&mut bytes, GuestOffset::ZERO).unwrap();
    let sectors: Vec<_> = bytes
        .chunks(512)
        .map(|sector| (sector[0], sector[511]))
        .collect();
    let expected = [4, 5, 5, 6, 8, 7, 0, 0].map(|byte| (byte, byte));
    assert_eq!(sectors, expected);
    run("dmg", &image, Format::Dmg, None);
}

#[test]
fn discs() {
    let mut file = vec![0; 26 * 2048];
    put(&mut file, 16 * 2048, b"\x01CD001\x01");
    put(&mut file, 16 * 2048 + 80, &[26, 0, 0, 0, 0, 0, 0, 26]);
    put(&mut file, 16 * 2048 + 128, &[0, 8, 8, 0]);
    put(&mut file, 16 * 2048 + 156, &[34, 0, 22]);
    put(&mut file, 17 * 2048, b"\0CD001\x01EL TORITO SPECIFICATION");
    file[17 * 2048 + 71] = 23;
    put(&mut file, 18 * 2048, b"\0NSR02\x01");
    put(&mut file, 22 * 2048, &[60, 0, 22]);
    put(
        &mut file,
        22 * 2048 + 32,
        b"\x01\0SP\x07\x01\xbe\xef\0PX\x04\x01",
    );
    put(&mut file, 23 * 2048, b"\x01");
    put(
        &mut file,
        23 * 2048 + 28,
        b"\xaa\x55\x55\xaa\x88\0\0\0\0\0\x04\0\x18",
    );
    // Only what lies from the descriptors on is worth damaging.
    let head = 32768;
    let tail = file.split_off(head);
    let failures: Vec<_> = (0..COPIES)
        .into_par_iter()
        .filter_map(|n| {
            let file = [vec![0; head], damaged(&tail, n)].concat();
            exercise(file, Format::Iso, None).err()
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn kernels_ramdisks_and_file_systems() {
    let mut kernel = vec![0; 4096];
    put(&mut kernel, 0, b"MZ");
    put(&mut kernel, 60, &[0x80]);
    put(&mut kernel, 0x80, b"PE\0\0\x64\x86\x03\0");
    put(&mut kernel, 510, b"\x55\xaaxxHdrS\x0f\x02");
    let mut ext = vec![0; 4096];
    put(&mut ext, 1024 + 56, b"\x53\xef\x01\0");
    put(&mut ext, 1024 + 0x60, &[0xff; 8]);
    let mut fat = vec![0; 512];
    put(
        &mut fat,
        0,
        b"\xeb\x3c\x90mkfs.fat\0\x02\x04\x01\0\x02\0\x02\0\x04\xf8\x01\0",
    );
    put(&mut fat, 510, b"\x55\xaa");
    let mut elf = vec![0; 1024];
    put(&mut elf, 0, b"\x7fELF\x02\x01\x01");
    put(&mut elf, 16, &[2, 0, 62, 0]);
    put(&mut elf, 32, &[64, 0, 0, 0, 0, 0, 0, 0]);
    put(&mut elf, 54, &[56, 0, 3, 0]);
    let field = |n: usize| if n == 11 { "00000017" } else { "00000000" };
    let header: String = (0..13).map(field).collect();
    let cpio = format!("070701{header}kernel/x86/microcode/x\0\0\0\0070701{header}");
    let mut lvm = vec![b'a'; 1024];
    put(
        &mut lvm,
        512,
        b"LABELONE\x01\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0LVM2 001",
    );
    let table = {
        let mut disk = vec![0; 8192];
        put(&mut disk, 450, &[0x83, 0, 0, 0, 2, 0, 0, 0, 4]);
        put(&mut disk, 510, b"\x55\xaa");
        put(&mut disk, 1024 + 1080, b"\x53\xef");
        disk
    };
    let zstd = zstd::encode_all(&ext[..], 3).unwrap();
    let lzma = [&[0x5d, 0, 0, 0x80, 0][..], &[0xff; 8], &[0; 40]].concat();
    for (name, seed) in [
        ("kernel", &kernel[..]),
        ("ext", &ext),
        ("fat", &fat),
        ("elf", &elf),
        ("cpio", cpio.as_bytes()),
        ("lvm", &lvm),
        ("table", &table),
        ("zstd", &zstd),
        ("lzma", &lzma),
    ] {
        run(name, seed, Format::Raw, None);
    }
}
