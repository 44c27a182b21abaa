//! Sound inputs of each target, to be damaged: the same bytes in every run, but for what qemu-img
//! puts in them by chance.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use formats::copy::{CopyOptions, Progress, copy};
use formats::{CreateOptions, Format, MemorySink, create, raw};

use super::sparse::Sparse;
use super::{build, targets};

/// What a guest sees: some bytes, and zeros around them.
fn guest() -> Vec<u8> {
    let mut guest = vec![0; 40 << 10];
    guest[5000..9000].fill(7);
    for (n, byte) in guest[20_480..22_000].iter_mut().enumerate() {
        *byte = n as u8;
    }
    guest
}

/// An image of the guest by our own writer, options as `key=value`.
fn written(format: Format, options: &[&str]) -> Vec<u8> {
    let is_compressed = options.contains(&"-c");
    let pairs: Vec<_> = options
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let options = CreateOptions::parse(format, &pairs, is_compressed).unwrap();
    let disk = raw::Reader::new(Arc::new(guest())).unwrap();
    let target = create(&options.named("a.vmdk"), 40 << 10).unwrap();
    let sink = MemorySink::default();
    copy(
        &disk,
        target,
        &sink,
        &CopyOptions::default(),
        &Progress::default(),
    )
    .unwrap();
    sink.into_bytes()
}

/// What qemu-img makes by its commands, one a line, of the guest in `raw`; the file is `image`.
fn by_qemu_img(commands: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("raw"), guest()).unwrap();
    fs::write(folder.path().join("key"), "open sesame").unwrap();
    for line in commands.lines() {
        let done = Command::new("qemu-img")
            .args(line.split_whitespace())
            .current_dir(folder.path())
            .output()
            .expect("qemu-img is installed");
        assert!(done.status.success(), "{line}: {done:?}");
    }
    fs::read(folder.path().join("image")).unwrap()
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The file as targets take it that know files with sectors left out.
fn packed(file: &[u8]) -> Vec<u8> {
    Sparse::pack(file)
}

/// Parts as targets take them that know several.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&b"\n%%\n"[..])
}

/// The seeds of a target.
pub(crate) fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "qcow2" => qcow2(),
        "qcow1" => vec![by_qemu_img("convert -f raw -O qcow raw image")],
        "qed" => vec![by_qemu_img(
            "convert -f raw -O qed -o cluster_size=4k,table_size=2 raw image",
        )],
        "vhd" => vec![
            written(Format::Vhd, &["force_size=on"]),
            written(Format::Vhd, &["subformat=fixed", "force_size=on"]),
        ],
        "vhdx" => {
            let clean = written(Format::Vhdx, &["block_size=1M"]);
            vec![packed(&clean), packed(&dirty(clean))]
        }
        "vdi" => vec![vdi()],
        "vmdk" => vmdk(),
        "parallels" => vec![parallels()],
        "bundle" => bundles(),
        "bochs" => vec![bochs()],
        "dmg" => dmgs(),
        "luks" => luks(),
        "iso" => vec![packed(&disc())],
        "gpt" => vec![packed(&gpt())],
        "content" => contents(),
        "archive" => packages().iter().map(|p| targets::packed(p)).collect(),
        "package" => packages(),
        "wrap" => wrappers(),
        "drivers" => drivers(),
        _ => panic!("no seeds of {target}"),
    }
}

fn qcow2() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = [
        &["cluster_size=512"][..],
        &["cluster_size=512", "compat=0.10"],
        &["cluster_size=512", "refcount_bits=1"],
        &["cluster_size=1k", "refcount_bits=64", "lazy_refcounts=on"],
        &["cluster_size=16k", "extended_l2=on"],
        &["cluster_size=4k", "-c"],
        &["cluster_size=4k", "-c", "compression_type=zstd"],
    ]
    .map(|options| written(Format::Qcow2, options))
    .to_vec();
    seeds.push(by_qemu_img(
        "create -f qcow2 -o cluster_size=512 image 32k
        snapshot -c one image
        snapshot -c two image
        bitmap --add -g 512 image dirty",
    ));
    seeds.push(by_qemu_img(
        "create -f qcow2 -F raw -b raw -o cluster_size=512 image",
    ));
    seeds
}

/// Two blocks, one of them stored, of 4 KiB each.
fn vdi() -> Vec<u8> {
    let mut file = vec![0; 1024];
    put(&mut file, 0, b"<<< a disk >>>\n");
    for (at, value) in [
        (64, 0xbeda_107f_u32),
        (68, 0x1_0001),
        (72, 400),
        (76, 1),
        (340, 512),
        (344, 1024),
        (360, 512),
        (368, 8192),
        (376, 4096),
        (384, 2),
        (388, 1),
        (516, u32::MAX),
    ] {
        put(&mut file, at, &value.to_le_bytes());
    }
    put(&mut file, 392, &[3; 16]);
    file.resize(1024 + 4096, 9);
    file
}

/// The image with its BAT in the log, where nobody has played it back yet.
fn dirty(mut file: Vec<u8>) -> Vec<u8> {
    let (sector, bat, number) = (4096, 3 << 20, 0x1_0000_0007_u64);
    let old = file[bat..bat + sector].to_vec();
    let len = file.len() as u64;
    file[bat..bat + sector].fill(0xee);
    let mut entry = vec![0; 2 * sector];
    put(&mut entry, 0, b"loge");
    put(&mut entry, 8, &(2 * sector as u32).to_le_bytes());
    put(&mut entry, 16, &number.to_le_bytes());
    entry[24] = 1;
    entry[32..48].fill(9);
    put(&mut entry, 48, &len.to_le_bytes());
    put(&mut entry, 56, &len.to_le_bytes());
    put(&mut entry, 64, b"desc");
    put(&mut entry, 68, &old[sector - 4..]);
    put(&mut entry, 72, &old[..8]);
    put(&mut entry, 80, &(bat as u64).to_le_bytes());
    put(&mut entry, 88, &number.to_le_bytes());
    put(&mut entry, sector, &old);
    put(&mut entry, sector, b"data");
    put(
        &mut entry,
        sector + 4,
        &((number >> 32) as u32).to_le_bytes(),
    );
    put(&mut entry, 2 * sector - 4, &(number as u32).to_le_bytes());
    put(&mut file, 1 << 20, &entry);
    for at in [64 << 10, 128 << 10] {
        file[at + 48..at + 64].fill(9);
    }
    // The checksums are the target's to make.
    file
}

fn vmdk() -> Vec<Vec<u8>> {
    let text = |kind: &str, lines: &str| {
        format!(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
             createType=\"{kind}\"\n{lines}\n#DDB\nddb.adapterType = \"ide\"\n"
        )
    };
    let cowd = {
        let mut extent = b"COWD".to_vec();
        for field in [1u32, 3, 8192, 1, 4, 2, 0] {
            extent.extend(field.to_le_bytes());
        }
        extent.resize(512 * 5 + 4096 * 4, 0);
        put(&mut extent, 2048, &5u32.to_le_bytes());
        for (grain, sector) in [(3, 37u32), (4, 38), (7, 39)] {
            put(&mut extent, 2560 + grain * 4, &sector.to_le_bytes());
        }
        extent.resize(extent.len() + 3 * 512, 5);
        extent
    };
    let flat = text(
        "twoGbMaxExtentFlat",
        "RW 3 FLAT \"a\" 1\nRW 2 ZERO\nRW 4 FLAT \"b\" 0",
    );
    let delta = text(
        "monolithicSparse",
        "RW 80 SPARSE \"a\"\nparentFileNameHint=\"b\"",
    )
    .replace("parentCID=ffffffff", "parentCID=fffffffe");
    let sparse = written(Format::Vmdk, &[]);
    vec![
        packed(&sparse),
        packed(&written(Format::Vmdk, &["subformat=streamOptimized"])),
        joined(&[flat.as_bytes(), &packed(&[7; 4096])]),
        joined(&[
            text("vmfsSparse", "RW 8192 VMFSSPARSE \"a\"").as_bytes(),
            &packed(&cowd),
        ]),
        joined(&[
            text("seSparse", "RW 32768 SESPARSE \"a\"").as_bytes(),
            &packed(&sesparse()),
        ]),
        joined(&[delta.as_bytes(), &packed(&sparse)]),
    ]
}

/// One grain table, whose first entries are a grain each way.
fn sesparse() -> Vec<u8> {
    let mut image = vec![0; (16 + 64) * 512 + 4096];
    for (at, value) in [
        (0, 0xcafe_babe),
        (8, 0x0002_0000_0001),
        (16, 32768),
        (24, 8),
        (32, 64),
        (80, 1),
        (88, 1),
        (96, 2),
        (104, 1),
        (112, 3),
        (120, 1),
        (128, 8),
        (136, 8),
        (144, 16),
        (152, 64),
        (192, 80),
        (200, 32768),
        (512, 0xcafe_cafe),
        (8 * 512, 1 << 60),
        (16 * 512, 3 << 60),
        (16 * 512 + 8, 2 << 60),
        (16 * 512 + 16, 1_u64 << 60),
    ] {
        put(&mut image, at, &value.to_le_bytes());
    }
    image[80 * 512..].fill(6);
    image
}

fn parallels() -> Vec<u8> {
    by_qemu_img("convert -f raw -O parallels -o cluster_size=4096 raw image")
}

fn bundles() -> Vec<Vec<u8>> {
    let top = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
    let base = "{11111111-1111-1111-1111-111111111111}";
    let none = "{00000000-0000-0000-0000-000000000000}";
    let bundle = |images: &str, shots: &str| {
        let storage = |start: usize| {
            format!(
                "<Storage><Start>{start}</Start><End>{}</End><Blocksize>8</Blocksize>{images}\
                 </Storage>",
                start + 80
            )
        };
        let xml = format!(
            "<?xml version='1.0'?><Parallels_disk_image Version=\"1.0\"><Disk_Parameters>\
             <Disk_size>160</Disk_size><Padding>0</Padding></Disk_Parameters><StorageData>{}{}\
             </StorageData><Snapshots>{shots}</Snapshots></Parallels_disk_image>",
            storage(0),
            storage(80)
        );
        joined(&[xml.as_bytes(), &parallels()])
    };
    let image = |guid: &str, kind: &str| {
        format!("<Image><GUID>{guid}</GUID><Type>{kind}</Type><File>a.hds</File></Image>")
    };
    let shot = |guid: &str, parent: &str| {
        format!("<Shot><GUID>{guid}</GUID><ParentGUID>{parent}</ParentGUID></Shot>")
    };
    let two = [image(base, "Plain"), image(top, "Compressed")].concat();
    vec![
        bundle(&image(top, "Compressed"), &shot(top, none)),
        bundle(&two, &[shot(base, none), shot(top, base)].concat()),
    ]
}

fn bochs() -> Vec<u8> {
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
    file
}

/// A sector of `byte` in each coding of Apple images, and none at all.
pub(crate) fn dmg_chunks() -> [(u32, Vec<u8>); 7] {
    let all = |reader: &mut dyn std::io::Read| {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let level = flate2::Compression::fast();
    // One literal, and it again 511 times.
    let adc = [&[0x80, 5][..], &[0x7f, 0, 0].repeat(7), &[0x66, 0, 0]].concat();
    [
        (1, vec![4; 512]),
        (0x8000_0004, adc),
        (
            0x8000_0005,
            all(&mut flate2::read::ZlibEncoder::new(&[5; 512][..], level)),
        ),
        (
            0x8000_0006,
            all(&mut bzip2::read::BzEncoder::new(
                &[6; 512][..],
                bzip2::Compression::fast(),
            )),
        ),
        (
            0x8000_0007,
            [&b"bvx-\0\x02\0\0"[..], &[8; 512], b"bvx$"].concat(),
        ),
        (
            0x8000_0008,
            all(&mut liblzma::read::XzEncoder::new(&[7; 512][..], 6)),
        ),
        (2, Vec::new()),
    ]
}

fn dmgs() -> Vec<Vec<u8>> {
    let chunks = dmg_chunks();
    let all: Vec<_> = chunks
        .iter()
        .map(|(kind, bytes)| (*kind, 1, &bytes[..]))
        .collect();
    let mut seeds = vec![build::dmg(&all)];
    for (kind, bytes) in &chunks {
        let coding = match kind >> 31 {
            0 => *kind as u8,
            _ => (kind - 0x8000_0001) as u8,
        };
        seeds.push([&[coding, 1][..], bytes].concat());
    }
    seeds
}

fn luks() -> Vec<Vec<u8>> {
    let inflated = |packed: &[u8]| {
        let mut file = Vec::new();
        std::io::copy(&mut flate2::read::GzDecoder::new(packed), &mut file).unwrap();
        file
    };
    let mut seeds: Vec<_> = [
        &include_bytes!("../data/luks2-argon2id.img.gz")[..],
        include_bytes!("../data/luks2-pbkdf2.img.gz"),
    ]
    .map(|packed_file| packed(&inflated(packed_file)))
    .to_vec();
    seeds.push(packed(&by_qemu_img(
        "convert -f raw raw --object secret,id=s,file=key -O luks -o key-secret=s,iter-time=10 image",
    )));
    seeds
}

/// ISO 9660 with El Torito, Rock Ridge, and UDF beside it.
fn disc() -> Vec<u8> {
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
    file
}

/// A disk of 1 MiB with one partition in a GPT, whose checksums are the target's to make.
fn gpt() -> Vec<u8> {
    let sectors = 2048_u64;
    let mut file = vec![0; 1 << 20];
    put(
        &mut file,
        446,
        &[
            0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 7, 0, 0,
        ],
    );
    put(&mut file, 510, b"\x55\xaa");
    for (here, there, entries) in [(1, sectors - 1, 2), (sectors - 1, 1, sectors - 33)] {
        let at = here as usize * 512;
        put(&mut file, at, b"EFI PART\0\0\x01\0\x5c\0\0\0");
        for (field, value) in [
            (24, here),
            (32, there),
            (40, 34),
            (48, sectors - 34),
            (72, entries),
        ] {
            put(&mut file, at + field, &value.to_le_bytes());
        }
        put(&mut file, at + 56, &[5; 16]);
        put(&mut file, at + 80, &[128, 0, 0, 0, 128, 0, 0, 0]);
        let at = entries as usize * 512;
        put(&mut file, at, &[6; 16]);
        put(&mut file, at + 16, &[7; 16]);
        put(&mut file, at + 32, &64_u64.to_le_bytes());
        put(&mut file, at + 40, &1000_u64.to_le_bytes());
        put(&mut file, at + 56, b"a\0b\0");
    }
    // An ext file system in it.
    put(&mut file, 64 * 512 + 1080, b"\x53\xef");
    file
}

fn contents() -> Vec<Vec<u8>> {
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
    let mut table = vec![0; 8192];
    put(&mut table, 450, &[0x83, 0, 0, 0, 2, 0, 0, 0, 4]);
    put(&mut table, 510, b"\x55\xaa");
    put(&mut table, 1024 + 1080, b"\x53\xef");
    let zstd = zstd::encode_all(&ext[..], 3).unwrap();
    let lzma = [&[0x5d, 0, 0, 0x80, 0][..], &[0xff; 8], &[0; 40]].concat();
    vec![
        kernel,
        ext,
        fat,
        elf,
        cpio.into_bytes(),
        lvm,
        table,
        zstd,
        lzma,
    ]
}

fn ovf() -> Vec<u8> {
    br#"<?xml version="1.0"?><Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"><References>
    <File ovf:id="f0" ovf:href="a.vmdk" ovf:size="600"/></References><DiskSection>
    <Disk ovf:diskId="d0" ovf:fileRef="f0" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^20"/>
    </DiskSection><VirtualSystem ovf:id="v"><Name>web</Name></VirtualSystem></Envelope>"#
        .to_vec()
}

/// A choice of the target, and the members of it.
fn packages() -> Vec<Vec<u8>> {
    let disk = [7; 600];
    let clean = written(Format::Qcow2, &["cluster_size=512"]);
    let layer = build::tar(&[("disk/a", b"x")]);
    let certificate = &include_bytes!("../data/signed.cert")[..];
    let package = |choice: &str, parts: &[&[u8]]| [choice.as_bytes(), &joined(parts)].concat();
    vec![
        package("o", &[&ovf(), b"SHA1(a.vmdk)= 00", certificate, &disk]),
        package("x", &[&ovf()]),
        package(
            "d",
            &[
                br#"[{"Config":"c.json","RepoTags":["a:b"],"Layers":["l"]}]"#,
                br#"{"architecture":"amd64","os":"linux"}"#,
                &layer,
                br#"{"imageLayoutVersion":"1.0.0"}"#,
            ],
        ),
        package(
            "i",
            &[
                br#"{"manifests":[{"digest":"a:1"}]}"#,
                br#"{"config":{"digest":"a:2"},"layers":[{"digest":"a:3","size":5}]}"#,
                br#"{"architecture":"amd64","os":"linux"}"#,
                &layer,
            ],
        ),
        package(
            "v",
            &[br#"{"provider":"libvirt","format":"qcow2","virtual_size":1}"#, &clean],
        ),
        package(
            "v",
            &[
                br#"{"provider":"libvirt","disks":[{"path":"box.img","name":"a","format":"qcow2"}]}"#,
                &clean,
            ],
        ),
    ]
}

fn wrappers() -> Vec<Vec<u8>> {
    let disk = written(Format::Qcow2, &["cluster_size=512"]);
    let all = |reader: &mut dyn std::io::Read| {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let gzip = all(&mut flate2::read::GzEncoder::new(
        &disk[..],
        flate2::Compression::fast(),
    ));
    let xz = all(&mut liblzma::read::XzEncoder::new(&disk[..], 6));
    let zip = {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default();
        writer.start_file("disk.img", options).unwrap();
        std::io::Write::write_all(&mut writer, &disk).unwrap();
        writer.finish().unwrap().into_inner()
    };
    vec![
        gzip.repeat(2),
        gzip,
        xz.repeat(2),
        xz,
        all(&mut bzip2::read::BzEncoder::new(
            &disk[..],
            bzip2::Compression::fast(),
        )),
        zstd::encode_all(&disk[..], 3).unwrap(),
        zip,
        [b"g", &disk[..]].concat(),
        [
            b"g",
            &build::tar(&[("a.ovf", &ovf()), ("a.vmdk", &[7; 600])])[..],
        ]
        .concat(),
    ]
}

fn drivers() -> Vec<Vec<u8>> {
    let whole = |file: Vec<u8>| [&[0; 4][..], &file].concat();
    vec![
        packed(&written(Format::Vhdx, &["block_size=1M"])),
        packed(&written(Format::Vmdk, &["subformat=streamOptimized"])),
        packed(&disc()),
        packed(&gpt()),
        whole(written(Format::Vhd, &["force_size=on"])),
        whole(build::dmg(&[(1, 1, &[4; 512])])),
        whole(contents().swap_remove(0)),
    ]
}
