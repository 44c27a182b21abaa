//! Every job on the largest disks, in 256 MiB of memory: a kernel that gives no more ends it.

use std::os::unix::fs::FileExt;

use super::*;

/// Bytes of the largest disk; vhd holds less.
const LARGE: u64 = 8 << 40;
const VHD: u64 = 2000 << 30;

/// KiB of memory that a process may write to, the program's own and its stacks among them.
const MEMORY: &str = "262144";

/// Runs glint in so much memory; what it printed.
fn bounded(room: &Room, args: &str) -> String {
    let script = format!("ulimit -d {MEMORY} && exec {GLINT} {args}");
    let out = room.run("sh", &["-c", &script]);
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "glint {args}: {}: {err}", out.status);
    String::from_utf8(out.stdout).unwrap()
}

/// A disk with data at its start, in its middle and at its end, 70,000 bytes each.
fn sparse(room: &Room, name: &str, size: u64) {
    let file = fs::File::create(room.path(name)).unwrap();
    file.set_len(size).unwrap();
    let noise = noise(70_000);
    for at in [0, size / 2, size - noise.len() as u64] {
        file.write_all_at(&noise, at).unwrap();
    }
}

/// Does all verbs on an image of the same content as `raw`.
fn look(room: &Room, image: &str, raw: &str, is_checked: bool) {
    let permit = "--allow-backing .";
    let stored = bounded(room, &format!("map --output json {permit} {image}"));
    let stored: Value = serde_json::from_str(&stored).unwrap();
    let data = stored.as_array().unwrap().iter();
    let data = data.filter(|e| e["data"] == true || e["compressed"] == true);
    assert!(data.count() >= 3, "{image}");
    bounded(room, &format!("inspect {permit} {image}"));
    bounded(room, &format!("compare {permit} {image} {raw}"));
    bounded(room, &format!("measure {permit} -O vhdx {image}"));
    if is_checked {
        bounded(room, &format!("check {permit} {image}"));
    }
}

#[test]
fn every_format_is_written_and_read_in_bounded_memory() {
    let room = Room::new();
    sparse(&room, "large", LARGE);
    sparse(&room, "vhd", VHD);
    look(&room, "large", "large", false);
    for (raw, options, is_checked) in [
        ("large", "-O raw", false),
        ("large", "-O qcow2", true),
        (
            "large",
            "-O qcow2 -o cluster_size=2M,preallocation=metadata",
            true,
        ),
        ("large", "-O qcow2 -o extended_l2=on,refcount_bits=64", true),
        (
            "large",
            "-m 64 -c -O qcow2 -o compression_type=zstd,compression_level=19,cluster_size=2M",
            true,
        ),
        ("vhd", "-O vhd", true),
        ("vhd", "-O vhd -o subformat=fixed", true),
        ("large", "-O vhdx", true),
        ("large", "-O vhdx -o block_size=1M", true),
        ("large", "-O vhdx -o subformat=fixed", true),
        ("large", "-O vdi", true),
        ("large", "-O vdi -o static=on", true),
        ("large", "-O vmdk", true),
        ("large", "-O vmdk -o subformat=streamOptimized", true),
        ("large", "-O vmdk -o subformat=monolithicFlat", true),
        ("vhd", "-O vmdk -o subformat=twoGbMaxExtentSparse", true),
        ("vhd", "-O vmdk -o subformat=twoGbMaxExtentFlat", true),
    ] {
        bounded(&room, &format!("convert {options} {raw} image"));
        look(&room, "image", raw, is_checked);
        bounded(&room, "convert --allow-backing . -O qcow2 image back");
        bounded(&room, &format!("compare back {raw}"));
        fs::remove_file(room.path("image")).unwrap();
    }
}

#[test]
fn compressing_takes_fewer_threads_than_asked_for_where_they_take_much_memory() {
    let room = Room::new();
    let file = fs::File::create(room.path("a.raw")).unwrap();
    for n in 0..10 {
        file.write_all_at(&noise(1 << 18), n << 22).unwrap();
    }
    for wrap in ["zst:19", "gz:12"] {
        let options = format!("-m 64 --wrap {wrap}");
        bounded(&room, &format!("convert {options} -O raw a.raw a.packed"));
        bounded(&room, "compare a.packed a.raw");
    }
}
