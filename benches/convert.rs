//! Conversions beside `qemu-img convert -m 16 -W`: `cargo bench --bench convert`.
//!
//! The image is a real file system of 2 GiB in memory (`BENCH_DIR` names another folder), the page
//! cache is warm, the outputs are removed between runs. Needs qemu-utils, e2fsprogs and time.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod peer;

use peer::{file_system, head, pair, scratch, sh, words};

fn main() {
    let dir = scratch();
    let d = dir.display();
    let raw = file_system(&dir, 2048);
    let raw = raw.display();
    sh(&format!(
        "cd {d}; [ -e zlib.qcow2 ] || qemu-img convert -m 16 -W -c -O qcow2 {raw} zlib.qcow2; \
         [ -e zstd.qcow2 ] || qemu-img convert -m 16 -W -c -O qcow2 -o compression_type=zstd {raw} zstd.qcow2; \
         [ -e plain.qcow2 ] || qemu-img convert -O qcow2 {raw} plain.qcow2; \
         [ -e stream.vmdk ] || qemu-img convert -O vmdk -o subformat=streamOptimized {raw} stream.vmdk"
    ));
    let glint = env!("CARGO_BIN_EXE_glint");
    let clean = || sh(&format!("rm -f {d}/out.*"));
    let jobs = [
        ("qcow2 zlib → raw", "-f qcow2 -O raw", "zlib.qcow2"),
        ("qcow2 zstd → raw", "-f qcow2 -O raw", "zstd.qcow2"),
        (
            "streamOptimized vmdk → raw",
            "-f vmdk -O raw",
            "stream.vmdk",
        ),
        ("qcow2 → raw", "-f qcow2 -O raw", "plain.qcow2"),
        ("raw → qcow2", "-f raw -O qcow2", "fs.raw"),
        ("raw → qcow2 zlib", "-f raw -c -O qcow2", "fs.raw"),
        (
            "raw → qcow2 zstd",
            "-f raw -c -O qcow2 -o compression_type=zstd",
            "fs.raw",
        ),
    ];
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    head();
    for (name, flags, input) in jobs {
        if !chosen.is_empty() && !chosen.iter().any(|c| name.contains(c)) {
            continue;
        }
        let ours = words(&format!("{glint} convert {flags} {d}/{input} {d}/out.ours"));
        let theirs = words(&format!(
            "qemu-img convert -m 16 -W {flags} {d}/{input} {d}/out.theirs"
        ));
        clean();
        peer::run(&ours);
        peer::run(&theirs);
        let size = |f: &str| std::fs::metadata(dir.join(f)).map_or(0, |m| m.len());
        let (a, b) = (size("out.ours"), size("out.theirs"));
        pair(name, &ours, &theirs, clean);
        if flags.contains("-c") {
            println!(
                "| … size of the file | {a} | {b} | {:.3} of theirs | | |",
                a as f64 / b as f64
            );
        }
    }
    clean();
}
