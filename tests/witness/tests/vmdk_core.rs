//! vmdk-core 0.8.4 and our reader on the same images.

mod common;

use std::io::{Read, Seek, SeekFrom};

use common::{Room, open_beside, same};
use formats::Format;
use vmdk::VmdkReader;

fn agree(room: &Room, name: &str, what: &str) {
    agree_from(0, room, name, what);
}

fn agree_from(at: u64, room: &Room, name: &str, what: &str) {
    let path = room.path(name);
    let ours = open_beside(&path);
    let mut theirs = VmdkReader::open_path(&path).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(theirs.virtual_disk_size(), ours.virtual_size(), "{what}");
    let read = |at, buf: &mut [u8]| {
        theirs.seek(SeekFrom::Start(at)).unwrap();
        theirs.read_exact(buf).unwrap();
    };
    same(ours.as_ref(), at, read, what);
}

#[test]
fn agrees_on_what_qemu_img_wrote() {
    let room = Room::new();
    room.raw("a.raw", (40 << 20) + 512);
    for subformat in [
        "monolithicSparse",
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "streamOptimized",
    ] {
        let option = format!("subformat={subformat}");
        room.qemu_img(&[
            "convert", "-f", "raw", "-O", "vmdk", "-o", &option, "a.raw", "a.vmdk",
        ]);
        agree(&room, "a.vmdk", subformat);
    }
}

#[test]
fn agrees_on_what_we_wrote() {
    let room = Room::new();
    room.raw("a.raw", (40 << 20) + 512);
    for subformat in ["monolithicSparse", "streamOptimized"] {
        let options = [("subformat", subformat)];
        room.write("a.raw", "a.vmdk", Format::Vmdk, &options, false);
        agree(&room, "a.vmdk", subformat);
    }
    for subformat in [
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
    ] {
        room.write_split("a.raw", "b.vmdk", &[("subformat", subformat)]);
        agree(&room, "b.vmdk", subformat);
    }
}

#[test]
fn agrees_on_images_of_several_extents() {
    let room = Room::new();
    room.raw("a.raw", (2 << 30) + (30 << 20));
    for subformat in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        room.write_split("a.raw", "b.vmdk", &[("subformat", subformat)]);
        // Around the border of the first and the second.
        agree_from((2 << 30) - (64 << 20), &room, "b.vmdk", subformat);
    }
}
