//! vhd 0.1.1 and our reader on the same images.

mod common;

use std::io::{Read, Seek, SeekFrom};

use common::{Room, open_as, same};
use formats::Format;
use vhd::VhdReader;

fn agree(room: &Room, name: &str, what: &str) {
    let path = room.path(name);
    let ours = open_as(&path, Format::Vhd);
    let mut theirs = VhdReader::open(&path).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(theirs.virtual_disk_size(), ours.virtual_size(), "{what}");
    let read = |at, buf: &mut [u8]| {
        theirs.seek(SeekFrom::Start(at)).unwrap();
        theirs.read_exact(buf).unwrap();
    };
    same(ours.as_ref(), 0, read, what);
}

#[test]
fn agrees_on_what_qemu_img_wrote() {
    let room = Room::new();
    room.raw("a.raw", 40 << 20);
    for options in [
        "subformat=dynamic",
        "subformat=fixed",
        "subformat=dynamic,force_size=on",
        "subformat=fixed,force_size=on",
    ] {
        room.qemu_img(&[
            "convert", "-f", "raw", "-O", "vpc", "-o", options, "a.raw", "a.vhd",
        ]);
        agree(&room, "a.vhd", options);
    }
}

#[test]
fn agrees_on_what_we_wrote() {
    let room = Room::new();
    for size in [40 << 20, 700 << 20] {
        room.raw("a.raw", size);
        for subformat in ["dynamic", "fixed"] {
            let options = [("subformat", subformat)];
            room.write("a.raw", "a.vhd", Format::Vhd, &options, false);
            agree(&room, "a.vhd", &format!("{subformat}, {size}"));
        }
    }
}

/// vhd 0.1.1 does not know parents; we read such images when the parent is granted.
#[test]
fn refuses_differencing_images() {
    let room = Room::new();
    room.raw("a.raw", 4 << 20);
    room.write("a.raw", "a.vhd", Format::Vhd, &[], false);
    let mut bytes = std::fs::read(room.path("a.vhd")).unwrap();
    // Both copies of the footer: the kind of disk, and the checksum, which is a sum.
    let footers = [0, bytes.len() - 512];
    for at in footers {
        let kind = at + 63;
        let more = 4 - u32::from(bytes[kind]);
        bytes[kind] = 4;
        let sum = u32::from_be_bytes(bytes[at + 64..at + 68].try_into().unwrap());
        bytes[at + 64..at + 68].copy_from_slice(&(sum - more).to_be_bytes());
    }
    std::fs::write(room.path("a.vhd"), bytes).unwrap();
    assert!(VhdReader::open(&room.path("a.vhd")).is_err());
}
