//! Conversions beside `qemu-img convert -m 16 -W`: `cargo bench --bench convert [-- WORD…]`, the
//! rows whose names have one of these words in them.
//!
//! The image is a real file system of 2 GiB in memory (`BENCH_DIR` names another folder), the page
//! cache is warm, the outputs are removed between runs. Needs qemu-utils, e2fsprogs and time, and
//! 12 GB of memory for all rows together.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod peer;

use std::path::Path;

use peer::{HEAD, file_system, image, in_turn, is_chosen, memory, pair, scratch, sh};

const GLINT: &str = env!("CARGO_BIN_EXE_glint");

/// Decoding and encoding: name, image to read, how qemu-img makes that, flags.
const CODED: &[(&str, &str, &str, &str)] = &[
    (
        "qcow2 zlib → raw",
        "zlib.qcow2",
        "-m 16 -W -c -O qcow2",
        "-f qcow2 -O raw",
    ),
    (
        "qcow2 zstd → raw",
        "zstd.qcow2",
        "-m 16 -W -c -O qcow2 -o compression_type=zstd",
        "-f qcow2 -O raw",
    ),
    (
        "streamOptimized vmdk → raw",
        "stream.vmdk",
        "-O vmdk -o subformat=streamOptimized",
        "-f vmdk -O raw",
    ),
    ("raw → qcow2 zlib", "fs.raw", "", "-f raw -c -O qcow2"),
    (
        "raw → qcow2 zstd",
        "fs.raw",
        "",
        "-f raw -c -O qcow2 -o compression_type=zstd",
    ),
    (
        "raw → streamOptimized vmdk",
        "fs.raw",
        "",
        "-f raw -O vmdk -o subformat=streamOptimized",
    ),
];

/// Formats without compression: ours and qemu-img's name, and the image.
const PLAIN: &[(&str, &str, &str)] = &[
    ("raw", "raw", "fs.raw"),
    ("qcow2", "qcow2", "plain.qcow2"),
    ("vhd", "vpc", "plain.vhd"),
    ("vhdx", "vhdx", "plain.vhdx"),
    ("vdi", "vdi", "plain.vdi"),
    ("vmdk", "vmdk", "plain.vmdk"),
];

fn main() {
    let dir = scratch();
    let raw = file_system(&dir, 2048);
    coded(&dir, &raw);
    plain(&dir, &raw);
    empty(&dir);
}

fn clean(dir: &Path) {
    // A disk in several files has them beside it.
    sh(&format!("rm -f {0}/out.* {0}/out-*", dir.display()));
}

fn coded(dir: &Path, raw: &Path) {
    let chosen: Vec<_> = CODED.iter().filter(|row| is_chosen(row.0)).collect();
    if chosen.is_empty() {
        return;
    }
    println!("{HEAD}");
    for (name, from, made, flags) in chosen {
        let from = image(dir, raw, from, made);
        let (a, b) = (dir.join("out.ours"), dir.join("out.theirs"));
        let (ours, theirs) = (
            format!("{GLINT} convert {flags} {from} {}", a.display()),
            format!("qemu-img convert -m 16 -W {flags} {from} {}", b.display()),
        );
        // Theirs take up to 25 s.
        let runs = if flags.contains("-c") || flags.contains("stream") {
            3
        } else {
            5
        };
        pair(name, (runs, 1), [&ours, &theirs], || clean(dir));
        if !flags.ends_with("raw") {
            let size = |path: &Path| path.metadata().map_or(0, |meta| meta.len());
            println!(
                "| … bytes of the file | {} | {} | {:.3} of theirs | | |",
                size(&a),
                size(&b),
                size(&a) as f64 / size(&b) as f64
            );
        }
    }
    clean(dir);
}

fn plain(dir: &Path, raw: &Path) {
    let mut has_head = false;
    for (from, _, file) in PLAIN {
        for (to, theirs, _) in PLAIN.iter().filter(|to| to.0 != *from) {
            let name = format!("plain {from} → {to}");
            if !is_chosen(&name) {
                continue;
            }
            if !has_head {
                println!("| job | ours | theirs | faster | CPU ours / theirs / cp | of cp's |");
                println!("| --- | --- | --- | --- | --- | --- |");
                has_head = true;
            }
            let made = PLAIN.iter().find(|f| f.0 == *from).map_or("", |f| f.1);
            let input = image(dir, raw, file, &format!("-O {made}"));
            let out = dir.display();
            let commands = [
                format!("{GLINT} convert -f {from} -O {to} {input} {out}/out.ours"),
                format!("qemu-img convert -m 16 -W -f {made} -O {theirs} {input} {out}/out.theirs"),
                format!("cp --sparse=always {input} {out}/out.copy"),
            ];
            let [ours, theirs, cp] =
                in_turn(5, 1, commands.each_ref().map(String::as_str), || clean(dir));
            println!(
                "| {name} | {} | {} | {:.2}x | {:.2} / {:.2} / {:.2} s | {:.2} |",
                ours.spread(),
                theirs.spread(),
                theirs.wall() / ours.wall(),
                ours.cpu(),
                theirs.cpu(),
                cp.cpu(),
                ours.cpu() / cp.cpu(),
            );
        }
    }
    clean(dir);
}

/// An image of 8 TiB without data; what does not hold as much gets as much as it holds.
fn empty(dir: &Path) {
    let mut has_head = false;
    let (small, large) = (dir.join("empty.2040G"), dir.join("empty.8T"));
    for (to, flags, is_small) in [
        ("raw", "-O raw", false),
        ("qcow2", "-O qcow2", false),
        ("vhdx", "-O vhdx", false),
        ("vdi", "-O vdi", false),
        ("vmdk", "-O vmdk", false),
        (
            "streamOptimized vmdk",
            "-O vmdk -o subformat=streamOptimized",
            false,
        ),
        ("vhd", "-O vhd", true),
        ("fixed vhdx", "-O vhdx -o subformat=fixed", false),
        ("static vdi", "-O vdi -o static=on", false),
        (
            "preallocated qcow2 of 2 MiB clusters",
            "-O qcow2 -o cluster_size=2M,preallocation=metadata",
            false,
        ),
        (
            "monolithicFlat vmdk",
            "-O vmdk -o subformat=monolithicFlat",
            false,
        ),
        (
            "twoGbMaxExtentFlat vmdk",
            "-O vmdk -o subformat=twoGbMaxExtentFlat",
            false,
        ),
        (
            "twoGbMaxExtentSparse vmdk",
            "-O vmdk -o subformat=twoGbMaxExtentSparse",
            false,
        ),
    ] {
        let name = format!("empty → {to}");
        if !is_chosen(&name) {
            continue;
        }
        if !has_head {
            println!("| job | ours | CPU | peak memory |\n| --- | --- | --- | --- |");
            has_head = true;
        }
        let (from, size) = if is_small {
            (&small, "2040G")
        } else {
            (&large, "8T")
        };
        sh(&format!("truncate -s {size} {}", from.display()));
        let (from, out) = (from.display(), dir.display());
        let command = format!("{GLINT} convert -f raw {flags} {from} {out}/out.ours");
        let [ours] = in_turn(5, 1, [&command], || clean(dir));
        println!(
            "| {name}, {size} | {} | {:.2} s | {:.0} MiB |",
            ours.spread(),
            ours.cpu(),
            memory(&command)
        );
        clean(dir);
    }
    sh(&format!("rm -f {} {}", small.display(), large.display()));
    clean(dir);
}
