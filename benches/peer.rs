//! Two programs in turn, A B A B …, and the ratio of their medians: what the benchmarks share.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Counted runs of each program; one more comes first and is not counted.
const RUNS: usize = 5;

/// One run of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Seconds from start to end.
    pub(crate) wall: f64,
    /// Seconds of processor time.
    pub(crate) cpu: f64,
    /// Peak memory in MiB.
    pub(crate) memory: f64,
}

/// The folder for images: memory where there is some, so that no disk is measured.
pub(crate) fn scratch() -> PathBuf {
    let base = std::env::var_os("BENCH_DIR").map_or_else(|| "/dev/shm".into(), PathBuf::from);
    let dir = base.join("glint-bench");
    std::fs::create_dir_all(&dir).expect("BENCH_DIR can be written");
    dir
}

/// A file system of `mib` MiB filled with this machine's programs and documents.
pub(crate) fn file_system(dir: &Path, mib: u64) -> PathBuf {
    let image = dir.join("fs.raw");
    if image.exists() {
        return image;
    }
    let tree = dir.join("tree");
    let script = format!(
        "mkdir -p {tree} && budget={budget}; \
         for d in /usr/share/doc /usr/bin /usr/share/perl* /usr/lib/python3* /usr/lib/git-core \
                  /usr/lib/gcc /usr/lib/*-linux-gnu /usr/share /usr/lib /usr/local/lib /opt; do \
           [ -d $d ] || continue; \
           size=$(du -smx $d | cut -f1); \
           [ $size -le $budget ] || continue; \
           mkdir -p {tree}/$d && cp -a $d/. {tree}/$d/ 2>/dev/null; budget=$((budget - size)); \
         done; \
         mke2fs -q -t ext4 -d {tree} {image} {mib}M && rm -rf {tree}",
        tree = tree.display(),
        image = image.display(),
        budget = mib * 8 / 10,
    );
    sh(&script);
    image
}

/// Runs a shell line that must succeed.
pub(crate) fn sh(line: &str) {
    let status = Command::new("bash")
        .args(["-c", line])
        .status()
        .expect("bash runs");
    assert!(status.success(), "{line}");
}

/// Runs a command once, under `/usr/bin/time`.
pub(crate) fn run(command: &[String]) -> Run {
    let start = Instant::now();
    let output = Command::new("/usr/bin/time")
        .args(["-f", "%U %S %M"])
        .args(command)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .expect("/usr/bin/time is installed (package time)");
    let wall = start.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    let figures: Vec<f64> = text
        .lines()
        .last()
        .into_iter()
        .flat_map(str::split_whitespace)
        .filter_map(|n| n.parse().ok())
        .collect();
    Run {
        wall,
        cpu: figures[0] + figures[1],
        memory: figures[2] / 1024.0,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs two commands in turn and prints a row: medians, and how often faster the first is.
pub(crate) fn pair(name: &str, ours: &[String], theirs: &[String], between: impl Fn()) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..=RUNS {
        between();
        a.push(run(ours));
        between();
        b.push(run(theirs));
    }
    let of = |runs: &[Run], field: fn(&Run) -> f64| median(runs[1..].iter().map(field).collect());
    let spread = |runs: &[Run]| {
        let walls: Vec<_> = runs[1..].iter().map(|r| r.wall).collect();
        let (min, max) = walls
            .iter()
            .fold((f64::MAX, 0f64), |(min, max), w| (min.min(*w), max.max(*w)));
        format!("{min:.2}-{max:.2}")
    };
    println!(
        "| {name} | {:.2} s ({}) | {:.2} s ({}) | {:.1}x | {:.2} / {:.2} s | {:.0} / {:.0} MiB |",
        of(&a, |r| r.wall),
        spread(&a),
        of(&b, |r| r.wall),
        spread(&b),
        of(&b, |r| r.wall) / of(&a, |r| r.wall),
        of(&a, |r| r.cpu),
        of(&b, |r| r.cpu),
        of(&a, |r| r.memory),
        of(&b, |r| r.memory),
    );
}

/// The head of the table `pair` fills.
pub(crate) fn head() {
    println!("| job | ours | theirs | faster | CPU ours / theirs | peak memory ours / theirs |");
    println!("| --- | --- | --- | --- | --- | --- |");
}

/// A command line in words.
pub(crate) fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
