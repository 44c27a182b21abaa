//! vhdx 0.1.0 and our reader on the same images. It opens files for writing, so it gets a copy.

mod common;

use std::io::{Read, Seek, SeekFrom};
use std::panic;

use common::{Room, open, same};
use vhdx::Vhdx;

fn make(room: &Room, size: u64, subformat: &str) {
    room.raw("a.raw", size);
    let options = format!("subformat={subformat}");
    room.qemu_img(&[
        "convert", "-f", "raw", "-O", "vhdx", "-o", &options, "a.raw", "a.vhdx",
    ]);
}

#[test]
fn agrees_on_fixed_and_dynamic_disks() {
    let room = Room::new();
    for (size, subformat) in [
        (20 << 20, "dynamic"),
        (20 << 20, "fixed"),
        (700 << 20, "dynamic"),
    ] {
        make(&room, size, subformat);
        let disk = open(&room.path("a.vhdx"));
        assert_eq!(disk.virtual_size(), size);
        let mut theirs = Vhdx::load(room.copy_of("a.vhdx"));
        let mut reader = theirs.reader();
        let read = |at, buf: &mut [u8]| {
            reader.seek(SeekFrom::Start(at)).unwrap();
            reader.read_exact(buf).unwrap();
        };
        same(disk.as_ref(), 0, read, subformat);
    }
}

/// vhdx 0.1.0 takes the chunk ratio twice too large: above 4 GiB it reads the wrong blocks, and
/// above 8 GiB it gives up. We read both.
#[test]
fn gives_up_on_large_disks_where_we_do_not() {
    let room = Room::new();
    make(&room, 9 << 30, "dynamic");
    let copy = room.copy_of("a.vhdx");
    let outcome = panic::catch_unwind(|| {
        let mut theirs = Vhdx::load(copy);
        let mut last = [0; 512];
        let mut reader = theirs.reader();
        reader.seek(SeekFrom::Start((9 << 30) - 512)).unwrap();
        reader.read_exact(&mut last).unwrap();
    });
    assert!(
        outcome.is_err(),
        "vhdx has learnt it: compare above 8 GiB too"
    );

    let (disk, raw) = (open(&room.path("a.vhdx")), open(&room.path("a.raw")));
    let read = |at, buf: &mut [u8]| raw.read_at(buf, formats::GuestOffset(at)).unwrap();
    // Where it would be wrong; the rest is compared in the tests of `formats`.
    same(
        disk.as_ref(),
        (9 << 30) - (400 << 20),
        read,
        "ours beside the source",
    );
}
