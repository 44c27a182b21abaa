//! imago 0.2.6 and our reader on the same images: qcow2, alone and in chains, and flat vmdk.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use common::{Room, open, open_beside, same};
use formats::{Disk, ErrorKind, FileSource, Format, OpenOptions};
use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::vmdk::Vmdk;
use imago::{FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate};

type Theirs = FormatAccess<Storage>;

fn qcow2(path: &Path) -> std::io::Result<Theirs> {
    let gate = PermissiveImplicitOpenGate::default();
    Ok(FormatAccess::new(
        Qcow2::<Storage>::builder_path(path).open(gate)?,
    ))
}

fn agree(ours: &dyn Disk, theirs: &Theirs, what: &str) {
    assert_eq!(theirs.size(), ours.virtual_size(), "{what}");
    let read = |at, buf: &mut [u8]| {
        let mut piece = vec![0; buf.len()];
        theirs.read(&mut piece, at).unwrap();
        buf.copy_from_slice(&piece);
    };
    same(ours, 0, read, what);
}

fn agree_on(room: &Room, name: &str, what: &str) {
    let path = room.path(name);
    agree(
        open_beside(&path).as_ref(),
        &qcow2(&path).unwrap_or_else(|e| panic!("{what}: {e}")),
        what,
    );
}

#[test]
fn agrees_on_what_qemu_img_wrote() {
    let room = Room::new();
    room.raw("a.raw", (9 << 20) + 512);
    for options in [
        "compat=0.10",
        "compat=1.1,lazy_refcounts=on",
        "cluster_size=512",
        "cluster_size=2k",
        "cluster_size=2M",
        "refcount_bits=1",
        "refcount_bits=64",
        "preallocation=metadata",
        "preallocation=full",
    ] {
        for compress in [false, true] {
            if compress && options.starts_with("preallocation") {
                continue;
            }
            let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
            args.extend(compress.then_some("-c"));
            args.extend(["a.raw", "a.qcow2"]);
            room.qemu_img(&args);
            agree_on(
                &room,
                "a.qcow2",
                &format!("{options}, compressed: {compress}"),
            );
        }
    }
}

#[test]
fn agrees_on_what_we_wrote() {
    let room = Room::new();
    room.raw("a.raw", (9 << 20) + 512);
    for options in [
        &[("cluster_size", "512")][..],
        &[("cluster_size", "4096"), ("refcount_bits", "1")],
        &[("compat", "0.10")],
        &[("cluster_size", "2097152"), ("refcount_bits", "64")],
        &[("preallocation", "metadata"), ("lazy_refcounts", "on")],
        &[("preallocation", "full")],
    ] {
        for compress in [false, true] {
            if compress && options[0].0 == "preallocation" {
                continue;
            }
            room.write("a.raw", "a.qcow2", Format::Qcow2, options, compress);
            agree_on(
                &room,
                "a.qcow2",
                &format!("{options:?}, compressed: {compress}"),
            );
        }
    }
}

#[test]
fn agrees_on_chains_whose_layers_hold_data() {
    let room = Room::new();
    room.raw("base.raw", (3 << 20) + 512);
    for (format, base) in [("raw", "base.raw"), ("qcow2", "base.qcow2")] {
        if format == "qcow2" {
            room.qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "base.raw", base]);
        }
        // Larger than what lies beneath; the layer between is written to here and there.
        room.qemu_img(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-F",
            format,
            "-b",
            base,
            "middle.qcow2",
            "5M",
        ]);
        room.qemu_io(
            "middle.qcow2",
            &[
                "write -P 0x5a 70000 100000",
                "write -z 1M 128k",
                "write -P 7 4M 4096",
            ],
        );
        room.qemu_img(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-F",
            "qcow2",
            "-b",
            "middle.qcow2",
            "top.qcow2",
        ]);
        room.qemu_io("top.qcow2", &["write -P 0xa5 2M 65536", "write -P 1 0 512"]);
        agree_on(&room, "top.qcow2", format);
    }
}

#[test]
fn agrees_on_external_data_files() {
    let room = Room::new();
    room.raw("a.raw", 5 << 20);
    room.qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "-o",
        "data_file=a.data",
        "a.raw",
        "a.qcow2",
    ]);
    agree_on(&room, "a.qcow2", "external data file");
}

#[test]
fn agrees_on_flat_vmdk_of_both_makers() {
    let room = Room::new();
    room.raw("a.raw", 5 << 20);
    for subformat in ["monolithicFlat", "twoGbMaxExtentFlat"] {
        let option = format!("subformat={subformat}");
        room.qemu_img(&[
            "convert", "-f", "raw", "-O", "vmdk", "-o", &option, "a.raw", "a.vmdk",
        ]);
        room.write_split("a.raw", "b.vmdk", &[("subformat", subformat)]);
        for name in ["a.vmdk", "b.vmdk"] {
            let path = room.path(name);
            let gate = PermissiveImplicitOpenGate::default();
            let theirs = Vmdk::<Storage>::builder_path(&path).open(gate).unwrap();
            let what = format!("{subformat} {name}");
            agree(
                open_beside(&path).as_ref(),
                &FormatAccess::new(theirs),
                &what,
            );
        }
    }
}

/// What imago 0.2.6 cannot read; `agrees_on_what_qemu_img_wrote` is the place for what it learns.
#[test]
fn does_not_read_zstd_and_extended_l2_where_we_do() {
    let room = Room::new();
    room.raw("a.raw", 2 << 20);
    for options in ["compression_type=zstd", "extended_l2=on"] {
        let args = ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options];
        room.qemu_img(&[&args[..], &["a.raw", "a.qcow2"]].concat());
        assert!(
            qcow2(&room.path("a.qcow2")).is_err(),
            "imago has learnt {options}"
        );
        let raw = open(&room.path("a.raw"));
        let read = |at, buf: &mut [u8]| raw.read_at(buf, formats::GuestOffset(at)).unwrap();
        same(
            open(&room.path("a.qcow2")).as_ref(),
            0,
            read,
            "ours beside the source",
        );
    }
}

/// imago 0.2.6 does not look at the encryption method and hands out what lies in the file.
#[test]
fn is_wrong_on_encrypted_images_where_we_refuse() {
    let room = Room::new();
    room.raw("a.raw", 2 << 20);
    room.qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "a.raw", "a.qcow2"]);
    let path = room.path("a.qcow2");
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&1_u32.to_be_bytes(), 32).unwrap();
    let mut piece = vec![0; 4096];
    qcow2(&path).unwrap().read(&mut piece, 0).unwrap();
    assert_eq!(ours(&path), ErrorKind::Refused);
}

/// imago 0.2.6 takes what is cut off the end of a file for zeros; to us the image is damaged.
#[test]
fn is_wrong_on_files_cut_short_where_we_fail() {
    let room = Room::new();
    room.raw("a.raw", 2 << 20);
    let args = [
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "-o",
        "preallocation=full",
    ];
    room.qemu_img(&[&args[..], &["a.raw", "a.qcow2"]].concat());
    let path = room.path("a.qcow2");
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() - (1 << 20))
        .unwrap();
    let theirs = qcow2(&path).unwrap();
    let mut piece = vec![1; 4096];
    theirs.read(&mut piece, (2 << 20) - 4096).unwrap();
    assert_eq!(piece, [0; 4096]);

    let disk = open(&path);
    let at = formats::GuestOffset((2 << 20) - 4096);
    assert!(disk.read_at(&mut piece, at).is_err());
}

/// How our reader refuses the image.
fn ours(path: &Path) -> ErrorKind {
    let source = FileSource::new(File::open(path).unwrap()).unwrap();
    let error = formats::open(Arc::new(source), &OpenOptions::default()).err();
    error.expect("refused").kind()
}
