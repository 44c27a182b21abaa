//! How fast the parts of a conversion are, each alone: `cargo bench --bench limits [--
//! WORD…]`. Beside these figures those of the benchmark `convert` tell where its time goes.
//!
//! The images are those of that benchmark, which makes them; run it first.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fs::File;
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use formats::copy::{CopyOptions, Progress, copy};
use formats::{
    CreateOptions, FileSink, FileSource, Format, HostOffset, OpenOptions, Result, Sink, create,
    open,
};

const RUNS: usize = 5;
const MIB: usize = 1 << 20;

/// Takes everything and keeps nothing.
struct Nowhere;

impl Sink for Nowhere {
    fn write_all_at(&self, _: &[u8], _: HostOffset) -> Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> Result<()> {
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

fn main() {
    let base = std::env::var_os("BENCH_DIR").map_or_else(|| "/dev/shm".into(), PathBuf::from);
    let dir = base.join("glint-bench");
    println!("| alone | seconds | CPU seconds | bytes a second |\n| --- | --- | --- | --- |");
    memory();
    kernel(&dir);
    for (from, file, to, pairs) in [
        (Format::Raw, "fs.raw", Format::Raw, &[][..]),
        (Format::Qcow2, "plain.qcow2", Format::Raw, &[]),
        (Format::Qcow2, "zlib.qcow2", Format::Raw, &[]),
        (Format::Qcow2, "zstd.qcow2", Format::Raw, &[]),
        (Format::Vmdk, "stream.vmdk", Format::Raw, &[]),
        (
            Format::Raw,
            "fs.raw",
            Format::Qcow2,
            &[("compression_type", "zlib")],
        ),
        (
            Format::Raw,
            "fs.raw",
            Format::Qcow2,
            &[("compression_type", "zstd")],
        ),
        (
            Format::Raw,
            "fs.raw",
            Format::Vmdk,
            &[("subformat", "streamOptimized")],
        ),
    ] {
        let kind = pairs.first().map_or("", |(_, value)| value);
        let name = format!("{file} to {to} {kind}");
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        let path = dir.join(file);
        let convert = |sink: &dyn Sink, threads: usize| {
            let source = FileSource::new(File::open(&path).expect("the image is there"));
            let options = OpenOptions {
                format: Some(from),
                ..OpenOptions::default()
            };
            let disk = open(Arc::new(source.expect("a file")), &options).expect("an image");
            let target = CreateOptions::parse(to, &pairs, kind.starts_with('z'))
                .and_then(|options| create(&options, disk.virtual_size()))
                .expect("these options exist");
            let threads = NonZero::new(threads).expect("threads");
            let progress = Progress::default();
            copy(
                disk.as_ref(),
                target,
                sink,
                &CopyOptions { threads },
                &progress,
            )
            .expect("the image is whole");
            progress.written()
        };
        for threads in [1, 2] {
            row(
                &format!("{name}, nothing written, {threads} threads"),
                || convert(&Nowhere, threads),
            );
            let out = dir.join("out.limits");
            row(&format!("{name}, {threads} threads"), || {
                convert(&FileSink::new(fresh(&out)), threads)
            });
        }
    }
    let _ = std::fs::remove_file(dir.join("out.limits"));
}

/// A new file, instead of the one that is there.
fn fresh(path: &Path) -> File {
    let _ = std::fs::remove_file(path);
    File::create_new(path).expect("the folder can be written")
}

fn memory() {
    let from = vec![7u8; 64 * MIB];
    let mut to = vec![1u8; 64 * MIB];
    row("memory to memory, 1 thread", || {
        for _ in 0..16 {
            std::hint::black_box(&mut to).copy_from_slice(std::hint::black_box(&from));
        }
        16 * from.len() as u64
    });
}

/// Reads and writes of the kernel, a MiB at a time.
fn kernel(dir: &Path) {
    let image = File::open(dir.join("plain.qcow2")).expect("made by the benchmark `convert`");
    let len = image.metadata().expect("a file").len() as usize / MIB * MIB;
    let mut piece = vec![1; MIB];
    row("file to memory, 1 thread", || {
        for at in (0..len).step_by(MIB) {
            let read = image.read_exact_at(&mut piece, at as u64);
            read.expect("the file is that long");
        }
        len as u64
    });
    let out = dir.join("out.limits");
    for threads in [1, 2] {
        row(&format!("memory to file, {threads} threads"), || {
            let file = fresh(&out);
            std::thread::scope(|scope| {
                for first in 0..threads {
                    let (file, piece) = (&file, vec![7; MIB]);
                    scope.spawn(move || {
                        for at in (first * MIB..len).step_by(threads * MIB) {
                            file.write_all_at(&piece, at as u64).expect("room");
                        }
                    });
                }
            });
            len as u64
        });
    }
}

/// Seconds of processor time so far.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc is there");
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    // User and system time, in hundredths of a second.
    let ticks = fields
        .skip(11)
        .take(2)
        .filter_map(|n| n.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// Prints medians of `work`, which answers how many bytes it moved.
fn row(name: &str, mut work: impl FnMut() -> u64) {
    let mut words = std::env::args()
        .skip(1)
        .filter(|w| !w.starts_with("--"))
        .peekable();
    if words.peek().is_some() && !words.any(|word| name.contains(&word)) {
        return;
    }
    let mut runs = Vec::new();
    let mut bytes = 0;
    for n in 0..=RUNS {
        let (start, before) = (Instant::now(), cpu());
        bytes = work();
        if n > 0 {
            runs.push((start.elapsed().as_secs_f64(), cpu() - before));
        }
    }
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (wall, cpu) = runs[RUNS / 2];
    let rate = bytes as f64 / wall / 1e9;
    println!("| {name} | {wall:.3} | {cpu:.2} | {rate:.2} GB |");
}
