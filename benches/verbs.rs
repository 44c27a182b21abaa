//! Looking at images, beside qemu-img: `cargo bench --bench verbs [-- WORD…]`, the rows whose names
//! have one of these words in them. The images are those of the benchmark `convert`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod peer;

use std::path::Path;

use peer::{HEAD, file_system, image, is_chosen, pair, scratch, sh};

const GLINT: &str = env!("CARGO_BIN_EXE_glint");

/// Images: name, file, how qemu-img makes it.
const IMAGES: &[(&str, &str, &str)] = &[
    ("raw", "fs.raw", ""),
    ("qcow2", "plain.qcow2", "-O qcow2"),
    ("scattered qcow2", "scattered.qcow2", "-m 16 -W -O qcow2"),
    ("qcow2 zlib", "zlib.qcow2", "-m 16 -W -c -O qcow2"),
    (
        "qcow2 zstd",
        "zstd.qcow2",
        "-m 16 -W -c -O qcow2 -o compression_type=zstd",
    ),
    ("vhd", "plain.vhd", "-O vpc"),
    ("vhdx", "plain.vhdx", "-O vhdx"),
    ("vdi", "plain.vdi", "-O vdi"),
    ("vmdk", "plain.vmdk", "-O vmdk"),
    (
        "streamOptimized vmdk",
        "stream.vmdk",
        "-O vmdk -o subformat=streamOptimized",
    ),
];

/// What takes milliseconds is done so often a run; the figures are of once.
const OFTEN: u32 = 50;

fn main() {
    let dir = scratch();
    let raw = file_system(&dir, 2048);
    println!("{HEAD}");
    let raw = raw.as_path();
    for (name, file, flags) in IMAGES {
        let path = || image(&dir, raw, file, flags);
        inspect(name, &path);
        let json = "map --output=json";
        often(&format!("map {name}"), &path, [json, json]);
        check(name, &path);
        compare(name, &path, raw);
    }
    corpus();
}

/// A row of what takes milliseconds.
fn often(name: &str, path: &dyn Fn() -> String, [ours, theirs]: [&str; 2]) {
    if !is_chosen(name) {
        return;
    }
    let path = path();
    let (ours, theirs) = (
        format!("{GLINT} {ours} {path}"),
        format!("qemu-img {theirs} {path}"),
    );
    pair(name, (5, OFTEN), [&ours, &theirs], || ());
}

fn inspect(image: &str, path: &dyn Fn() -> String) {
    let name = format!("inspect {image}");
    often(&name, path, ["inspect", "info"]);
    if is_chosen(&name) {
        println!("| … bytes read | {} | | | | |", bytes_read(&path()));
    }
}

/// Bytes that `inspect` reads, those of the program's own start among them.
fn bytes_read(path: &str) -> u64 {
    let count = "read _ n < /proc/$$/io; echo $n";
    let looked = format!("{GLINT} inspect '{path}' >/dev/null 2>&1 || true; {count}");
    let figure = |line: &str| sh(line).trim().parse::<u64>().expect("bytes read so far");
    figure(&looked) - figure(count)
}

fn check(image: &str, path: &dyn Fn() -> String) {
    // qemu-img has nothing to check in these.
    if !matches!(image, "raw" | "vhd") {
        often(&format!("check {image}"), path, ["check", "check"]);
    }
}

fn compare(image: &str, path: &dyn Fn() -> String, raw: &Path) {
    let name = format!("compare {image} with raw");
    if !is_chosen(&name) || image == "raw" {
        return;
    }
    let (path, raw) = (path(), raw.display());
    let (ours, theirs) = (
        format!("{GLINT} compare {path} {raw}"),
        format!("qemu-img compare {path} {raw}"),
    );
    pair(&name, (5, 1), [&ours, &theirs], || ());
}

/// All of a folder of images, one after the other, and what is read of the one that takes most.
fn corpus() {
    let name = "inspect each file of the corpus";
    let Ok(dir) = std::env::var("GLINT_CORPUS") else {
        return;
    };
    if !is_chosen(name) {
        return;
    }
    let all = |command: &str| {
        // Some are no images: what they answer is not at issue.
        let script = scratch().join(format!("{}.sh", command.replace(['/', ' '], "_")));
        let line = format!("find {dir} -type f -exec {command} {{}} ';' >/dev/null 2>&1; true");
        std::fs::write(&script, line).expect("the folder can be written");
        format!("bash {}", script.display())
    };
    let (ours, theirs) = (all(&format!("{GLINT} inspect")), all("qemu-img info"));
    pair(name, (3, 1), [&ours, &theirs], || ());
    let files = sh(&format!("find {dir} -type f"));
    let most = files.lines().map(|file| (bytes_read(file), file)).max();
    if let Some((bytes, file)) = most {
        println!("| … bytes read of the one that takes most | {bytes}: {file} | | | | |");
    }
}
