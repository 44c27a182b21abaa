//! What raw images hold: kernels, ramdisks, file systems, volumes, alone and in partitions.

mod support;

use std::fs;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;

use formats::container::describe;
use formats::inspect::{Inspection, Stream, Verdict, inspect};
use formats::{Format, Limits, Source};
use serde_json::{Value, json};
use support::Corpus;

/// Judges a file both ways, which must agree, and nothing may have gone by unseen.
fn looked_at(file: &[u8]) -> Inspection {
    let limits = Limits::default();
    let found = inspect(&file.to_vec(), &limits).unwrap();
    for size in [file.len().max(1), 4109] {
        let mut stream = Stream::default();
        for chunk in file.chunks(size) {
            stream.feed(chunk);
        }
        let streamed = stream.finish(None, &limits).unwrap();
        assert_eq!(streamed.details, found.details, "chunks of {size}");
        assert_eq!(streamed.findings, found.findings, "chunks of {size}");
    }
    assert_eq!(found.format, Format::Raw);
    assert_eq!(found.virtual_size, Some(file.len() as u64));
    found
}

/// The same for a file that is fine.
fn judged(file: &[u8]) -> Inspection {
    let found = looked_at(file);
    assert_eq!(found.verdict(), Verdict::Safe);
    found
}

/// The rule by which a file is refused as a disk.
fn refused(file: &[u8]) -> Option<&'static str> {
    looked_at(file).unsafe_finding().map(|finding| finding.rule)
}

fn content(file: &[u8]) -> Value {
    let found = judged(file);
    found.details.get("content").cloned().unwrap_or_default()
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A bzImage by protocol 2.15, as a 64-bit kernel with a payload that begins with `payload`.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 40_000];
    put(&mut file, 0, b"MZ");
    file[0x1f1] = 31;
    put(&mut file, 510, b"\x55\xaa");
    put(&mut file, 0x202, b"HdrS\x0f\x02");
    put(&mut file, 0x20e, &0x3000u16.to_le_bytes());
    file[0x211] = 1;
    file[0x234] = 1;
    file[0x236] = 0x3f;
    put(&mut file, 0x248, &700u32.to_le_bytes());
    put(
        &mut file,
        0x3200,
        b"6.1.0-18-amd64 (a@b) #1 SMP Debian 6.1.76-1\0rest",
    );
    put(&mut file, 32 * 512 + 700, payload);
    file
}

#[test]
fn kernels_tell_version_and_architecture() {
    let zstd = b"\x28\xb5\x2f\xfd";
    assert_eq!(
        content(&bzimage(zstd)),
        json!({
            "kind": "kernel", "type": "bzImage", "architecture": "x86_64",
            "boot_protocol": "2.15", "relocatable": true, "efi_stub": true,
            "compression": "zstd", "version": "6.1.0-18-amd64",
            "banner": "6.1.0-18-amd64 (a@b) #1 SMP Debian 6.1.76-1",
        })
    );
    let mut old = bzimage(&[]);
    old[0x206] = 0;
    (old[0x211], old[0]) = (0, 0xea);
    put(&mut old, 0x20e, &[0, 0]);
    assert_eq!(
        content(&old),
        json!({
            "kind": "kernel", "type": "zImage", "architecture": "x86", "boot_protocol": "2.00",
            "relocatable": false, "efi_stub": false,
        })
    );

    let mut arm64 = vec![0; 4096];
    put(&mut arm64, 0, b"MZ");
    put(&mut arm64, 16, &0x1f0_0000u64.to_le_bytes());
    arm64[24] = 0b1010;
    put(&mut arm64, 56, b"ARM\x64");
    let image = json!({
        "kind": "kernel", "type": "Image", "architecture": "aarch64", "image_size": 0x1f0_0000,
        "page_size": 4096, "efi_stub": true,
    });
    assert_eq!(content(&arm64), image);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&arm64).unwrap();
    let mut expected = image;
    expected["compression"] = "gzip".into();
    assert_eq!(content(&packed.finish().unwrap()), expected);

    let mut riscv = vec![0; 4096];
    put(&mut riscv, 48, b"RISCV\0\0\0RSC\x05");
    assert_eq!(content(&riscv)["architecture"], "riscv64");
}

#[test]
fn an_elf_file_without_an_interpreter_is_a_kernel() {
    let mut elf = vec![0; 8192];
    put(&mut elf, 0, b"\x7fELF\x02\x01\x01");
    put(&mut elf, 16, &[2, 0, 62, 0]);
    put(&mut elf, 32, &64u64.to_le_bytes());
    put(&mut elf, 54, &[56, 0, 2, 0]);
    put(&mut elf, 64, &[1, 0, 0, 0]);
    put(&mut elf, 64 + 56, &[4, 0, 0, 0]);
    let kernel = content(&elf);
    assert_eq!(
        (&kernel["kind"], &kernel["type"]),
        (&json!("kernel"), &json!("ELF"))
    );
    assert_eq!(kernel["architecture"], "x86_64");
    elf[64 + 56] = 3;
    assert_eq!(content(&elf)["kind"], "program");
    // Segments that lie nowhere are looked for and not found.
    put(&mut elf, 32, &u64::MAX.to_le_bytes());
    assert_eq!(content(&elf)["kind"], "kernel");
    let program = content(&fs::read("/bin/sh").unwrap());
    assert_eq!(
        (&program["kind"], &program["type"]),
        (&json!("program"), &json!("ELF"))
    );
}

/// A PE file with these sections: name, bytes.
fn pe(machine: u16, sections: &[(&[u8; 8], &[u8])]) -> Vec<u8> {
    let mut file = vec![0; 8192];
    put(&mut file, 0, b"MZ");
    file[60] = 0x80;
    put(&mut file, 0x80, b"PE\0\0");
    put(&mut file, 0x84, &machine.to_le_bytes());
    file[0x86] = sections.len() as u8;
    file[0x80 + 20] = 0xf0;
    file[0x80 + 24 + 68] = 10;
    for (n, (name, bytes)) in sections.iter().enumerate() {
        let (header, at) = (0x80 + 24 + 0xf0 + 40 * n, 4096 + 512 * n);
        put(&mut file, header, *name);
        put(&mut file, header + 16, &(bytes.len() as u32).to_le_bytes());
        put(&mut file, header + 20, &(at as u32).to_le_bytes());
        put(&mut file, at, bytes);
    }
    file
}

#[test]
fn efi_programs_are_told_from_unified_kernels() {
    assert_eq!(
        content(&pe(0xaa64, &[(b".text\0\0\0", b"")])),
        json!({"kind": "kernel", "type": "EFI", "architecture": "aarch64"})
    );
    let unified = pe(
        0x8664,
        &[(b".uname\0\0", b"6.8.1-arch1-1"), (b".linux\0\0", b"MZ")],
    );
    assert_eq!(
        content(&unified),
        json!({
            "kind": "kernel", "type": "unified kernel image", "architecture": "x86_64",
            "version": "6.8.1-arch1-1",
        })
    );
    let mut zboot = pe(0xaa64, &[]);
    put(&mut zboot, 4, b"zimg");
    put(&mut zboot, 24, b"zstd\0");
    assert_eq!(content(&zboot)["compression"], "zstd");
    let mut windows = pe(0x14c, &[]);
    windows[0x80 + 24 + 68] = 3;
    assert_eq!(content(&windows)["kind"], "program");
}

/// A newc archive of these files.
fn cpio(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, data) in files.iter().chain(&[("TRAILER!!!", &b""[..])]) {
        archive.extend_from_slice(b"070701");
        for n in 0..13 {
            let field = match n {
                6 => data.len(),
                11 => name.len() + 1,
                _ => 0,
            };
            archive.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        archive.extend_from_slice(name.as_bytes());
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend_from_slice(data);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive.resize(archive.len().next_multiple_of(512), 0);
    archive
}

#[test]
fn ramdisks_tell_their_compression() {
    let root = cpio(&[("init", b"#!/bin/sh\n"), ("bin", b"")]);
    let plain = json!({"kind": "ramdisk", "type": "cpio", "format": "newc"});
    assert_eq!(content(&root), plain);
    for (name, packed) in [
        ("zstd", zstd::encode_all(&root[..], 3).unwrap()),
        ("xz", {
            let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
            xz.write_all(&root).unwrap();
            xz.finish().unwrap()
        }),
        ("lzma", {
            let options = liblzma::stream::LzmaOptions::new_preset(6).unwrap();
            let stream = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
            let mut lzma = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
            lzma.write_all(&root).unwrap();
            lzma.finish().unwrap()
        }),
    ] {
        let mut expected = plain.clone();
        expected["compression"] = name.into();
        assert_eq!(content(&packed), expected, "{name}");
    }
    // A block of 15 and 7 literals, as kernels have it and in a frame.
    let block = [&[0xf0, 7][..], &root[..22]].concat();
    let legacy = [&b"\x02\x21\x4c\x18\x18\0\0\0"[..], &block].concat();
    let frame = [&b"\x04\x22\x4d\x18\x60\x40\x82\x18\0\0\0"[..], &block].concat();
    for lz4 in [legacy, frame] {
        let mut expected = plain.clone();
        expected["compression"] = "lz4".into();
        assert_eq!(content(&lz4), expected);
        assert_eq!(refused(&lz4), None);
    }

    // As a file it is described by what it holds.
    let packed = zstd::encode_all(&root[..], 3).unwrap();
    let source: Arc<dyn Source> = Arc::new(packed);
    let whole = describe(&source, &Limits::default()).unwrap();
    assert_eq!(whole.compression, Some("zstd"));
    assert_eq!(whole.details["content"], plain);
}

#[test]
fn what_is_compressed_and_not_read_is_no_disk() {
    let frame = b"\x04\x22\x4d\x18\x60\x40\x82\x18\0\0\0\xf0\x07 is no ramdisk at all".to_vec();
    let lzma = [&[0x5d, 0, 0, 0x80, 0][..], &[0xff; 8], &[0; 40]].concat();
    let lzo = b"\x89LZO\0\x0d\x0a\x1a\x0a\x10\x40\x20\xa0".to_vec();
    let lzip = b"LZIP\x01\x17\0\0\0\0".to_vec();
    for mut file in [frame, lzma, lzo, lzip] {
        file.resize(4096, 7);
        let kind = &looked_at(&file).details["content"]["kind"];
        assert_eq!(kind, "compressed");
        assert_eq!(
            refused(&file),
            Some("compressed_content"),
            "{:?}",
            &file[..4]
        );
    }
    // A first byte or four are not enough.
    for head in [
        &b"\x04\x22\x4d\x18\xff"[..],
        b"\x02\x21\x4c\x18\0\0\0\x40",
        b"LZIP",
    ] {
        let mut file = head.to_vec();
        file.resize(4096, 0);
        assert_eq!(refused(&file), None, "{head:?}");
    }
}

#[test]
fn a_program_that_unpacks_itself_is_no_disk() {
    let mut file = fs::read("/proc/self/exe").unwrap();
    file.truncate(1 << 20);
    assert_eq!(refused(&file), None);
    let mut entry = b"PK\x01\x02".to_vec();
    entry.resize(46, 0);
    file.extend(entry);
    file.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0\x2e\0\0\0\0\0\x10\0\0\0");
    assert_eq!(refused(&file), Some("unsupported_format"));
}

#[test]
fn microcode_before_a_ramdisk_is_walked_over() {
    let root = zstd::encode_all(&cpio(&[("init", b"")])[..], 3).unwrap();
    for len in [5, 80_000, 500_000, 530_000, 3_000_000] {
        let microcode = vec![7; len];
        let early = cpio(&[
            ("kernel", b""),
            ("kernel/x86", b""),
            ("kernel/x86/microcode", b""),
            (
                "kernel/x86/microcode/AuthenticAMD.bin",
                &microcode[..len / 7],
            ),
            ("kernel/x86/microcode/GenuineIntel.bin", &microcode),
        ]);
        let found = content(&[early, root.clone()].concat());
        assert_eq!(
            (
                &found["kind"],
                &found["early_microcode"],
                &found["compression"]
            ),
            (&json!("ramdisk"), &json!(true), &json!("zstd")),
            "{len} bytes of microcode"
        );
    }
    // An archive that never ends, and one whose sizes lead nowhere.
    let mut endless = cpio(&[("kernel", b"")]);
    endless.truncate(100);
    assert_eq!(content(&endless)["kind"], "ramdisk");
    let mut far = cpio(&[("kernel/x86/microcode/x", b"1")]);
    put(&mut far, 6 + 8 * 6, b"ffffffff");
    assert_eq!(content(&far)["early_microcode"], true);
}

/// A GPT disk of 8 MiB whose partitions of 1 MiB begin with these bytes.
fn disk(partitions: &[Vec<u8>]) -> Vec<u8> {
    let mut disk = vec![0; 8 << 20];
    put(
        &mut disk,
        446,
        &[0, 0, 2, 0, 0xee, 255, 255, 255, 1, 0, 0, 0, 255, 63, 0, 0],
    );
    put(&mut disk, 510, b"\x55\xaa");
    let mut entries = vec![0; 128 * 128];
    for (n, bytes) in partitions.iter().enumerate() {
        let entry = &mut entries[128 * n..][..128];
        entry[..32].fill(n as u8 + 1);
        let first = 2048 * (n as u64 + 1);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&(first + 2047).to_le_bytes());
        put(&mut disk, first as usize * 512, bytes);
    }
    put(&mut disk, 1024, &entries);
    for (my, other) in [(1u64, 16383u64), (16383, 1)] {
        let mut header = vec![0; 92];
        header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
        for (at, value) in [(24, my), (32, other), (40, 34), (48, 16350), (72, 2)] {
            put(&mut header, at, &value.to_le_bytes());
        }
        put(&mut header, 80, &[128, 0, 0, 0, 128]);
        put(&mut header, 88, &crc32fast::hash(&entries).to_le_bytes());
        let crc = crc32fast::hash(&header).to_le_bytes();
        put(&mut header, 16, &crc);
        put(&mut disk, my as usize * 512, &header);
    }
    disk
}

#[test]
fn partitions_tell_what_they_hold() {
    let mut xfs = vec![0; 512];
    put(&mut xfs, 0, b"XFSB\0\0\x10\0\0\0\0\0\0\0\x01\0");
    put(&mut xfs, 101, &[5]);
    put(&mut xfs, 108, b"root\0");
    let mut btrfs = vec![0; 70_000];
    put(&mut btrfs, 65536 + 0x40, b"_BHRfS_M");
    put(&mut btrfs, 65536 + 0x70, &(1u64 << 20).to_le_bytes());
    let luks = b"LUKS\xba\xbe\0\x02".to_vec();
    let qcow2 = b"QFI\xfb\0\0\0\x03".to_vec();
    let found = judged(&disk(&[xfs, btrfs, luks, vec![], qcow2]));
    let list = found.details["partitions"].as_array().unwrap();
    assert_eq!(list[0]["content"]["type"], "xfs");
    assert_eq!(list[0]["content"]["label"], "root");
    assert_eq!(list[0]["content"]["size"], 1 << 20);
    assert_eq!(list[1]["content"]["type"], "btrfs");
    assert_eq!(list[2]["content"]["kind"], "encrypted");
    assert_eq!(list[3].get("content"), None);
    assert_eq!(
        list[4]["content"],
        json!({"kind": "image", "type": "qcow2"})
    );
    assert!(!found.details.contains_key("content"));
    let rules: Vec<_> = found
        .findings
        .iter()
        .map(|f| (f.rule, f.place.as_str()))
        .collect();
    assert_eq!(rules, [("encrypted", "partition 3")]);
}

#[test]
fn volumes_tell_what_they_are_part_of() {
    let mut lvm = vec![0; 8192];
    put(
        &mut lvm,
        512,
        b"LABELONE\x01\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0LVM2 001",
    );
    put(&mut lvm, 544, b"abcdef0123456789ABCDEFGHIJKLMNOP");
    put(&mut lvm, 576, &(1u64 << 30).to_le_bytes());
    assert_eq!(
        content(&lvm),
        json!({
            "kind": "volume", "type": "lvm2", "size": 1 << 30,
            "uuid": "abcdef-0123-4567-89AB-CDEF-GHIJ-KLMNOP",
        })
    );
    let mut raid = vec![0; 8192];
    put(&mut raid, 4096, &0xa92b_4efcu32.to_le_bytes());
    raid[4100] = 1;
    put(&mut raid, 4096 + 16, &[0xab; 16]);
    put(&mut raid, 4096 + 32, b"host:0");
    put(&mut raid, 4096 + 72, &(-1i32).to_le_bytes());
    raid[4096 + 92] = 2;
    let found = content(&raid);
    assert_eq!(
        (&found["type"], &found["version"]),
        (&json!("md_raid"), &json!("1.2"))
    );
    assert_eq!(
        (&found["level"], &found["label"]),
        (&json!(-1), &json!("host:0"))
    );
    let mut pool = vec![0; 40_000];
    pool[16384] = 1;
    put(&mut pool, 16400, b"\0\0\0\x07version\0");
    put(
        &mut pool,
        16420,
        b"\0\0\0\x04name\0\0\0\x09\0\0\0\x01\0\0\0\x05rpool",
    );
    let found = content(&pool);
    assert_eq!(
        (&found["type"], &found["label"]),
        (&json!("zfs_member"), &json!("rpool"))
    );
}

#[test]
fn what_real_tools_made_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    for program in ["/sbin/mke2fs", "/sbin/mkswap"] {
        if !fs::exists(program).unwrap() {
            eprintln!("skipped: {program} is not installed");
            return;
        }
    }
    let run = |program: &str, args: &[&str]| {
        fs::write(&path, vec![0; 4 << 20]).unwrap();
        let done = Command::new(program)
            .args(args)
            .arg(&path)
            .output()
            .unwrap();
        assert!(done.status.success(), "{program}: {done:?}");
        content(&fs::read(&path).unwrap())
    };
    let uuid = "11111111-2222-3333-4444-555555555555";
    for kind in ["ext2", "ext3", "ext4"] {
        let made = run(
            "/sbin/mke2fs",
            &["-q", "-F", "-t", kind, "-L", "some", "-U", uuid],
        );
        let expected = json!({
            "kind": "filesystem", "type": kind, "label": "some", "uuid": uuid,
            "size": 4 << 20, "block_size": 1024, "clean": true,
        });
        assert_eq!(made, expected);
    }
    let made = run("/sbin/mkswap", &["-q", "-L", "some", "-U", uuid]);
    let expected =
        json!({"kind": "swap", "type": "swap", "label": "some", "uuid": uuid, "size": 4 << 20});
    assert_eq!(made, expected);
}

#[test]
fn the_file_systems_of_the_corpus_are_described() {
    let Some(corpus) = Corpus::open() else {
        return;
    };
    // As `blkid -p` of util-linux has them; it does not tell an NTFS or HFS+ size.
    for (name, kind, label, uuid) in [
        ("r2-fat", "vfat", "-", "2519-2549"),
        (
            "ul-fs-apfs",
            "apfs",
            "-",
            "25e5f1d3-11c0-4d36-98a5-3f66953519b9",
        ),
        ("ul-fs-bitlocker-win7", "bitlocker", "-", "-"),
        (
            "ul-fs-erofs",
            "erofs",
            "-",
            "2375febf-f260-479d-ade7-952494047cb4",
        ),
        ("ul-fs-fat", "vfat", "TEST-FAT", "DEAD-BEEF"),
        ("ul-fs-hfsplus", "hfsplus", "-", "-"),
        (
            "ul-fs-jfs",
            "jfs",
            "test-jfs",
            "9bf7b82e-7583-4c74-99a4-189a691f27b5",
        ),
        ("ul-fs-ntfs", "ntfs", "-", "09CBB6DE30C87310"),
        (
            "ul-fs-reiser3",
            "reiserfs",
            "TESTREISER",
            "9efe7863-b124-46dc-ad68-8ecd04230a7b",
        ),
        ("ul-fs-romfs", "romfs", "test-romfs", "-"),
        ("ul-fs-squashfs4", "squashfs", "-", "-"),
        (
            "ul-fs-swap-luks",
            "luks",
            "-",
            "50ffda46-521f-4463-a4a8-3c85bd250a25",
        ),
        (
            "ul-fs-swap1",
            "swap",
            "SWAP-TEST",
            "8ff8e77f-8553-485e-8656-58be67a81666",
        ),
        (
            "ul-fs-xfs-v5",
            "xfs",
            "test-xfs-v5",
            "3fdcb214-0f39-466d-a81a-a1fb114fe7cd",
        ),
        (
            "ul-pt-dos+bsd",
            "ext3",
            "-",
            "47c6f88b-696d-434e-9682-370bb78c67a1",
        ),
    ] {
        let path = format!("raw/{name}.img.");
        let entry = corpus.entries.iter().find(|e| e.path.starts_with(&path));
        let source = corpus.source(entry.unwrap_or_else(|| panic!("{path} is in the corpus")));
        let found = inspect(source.as_ref(), &Limits::default()).unwrap();
        let content = &found.details["content"];
        let field = |key: &str| content[key].as_str().unwrap_or("-").to_owned();
        assert_eq!(
            (field("type"), field("label"), field("uuid")),
            (kind.into(), label.into(), uuid.into()),
            "{name}"
        );
    }
}
