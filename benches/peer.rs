//! Programs in turn, A B A B …, and the ratio of their medians: what the benchmarks share.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// One run of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Seconds from start to end.
    wall: f64,
    /// Seconds of processor time.
    cpu: f64,
}

/// The counted runs of a program.
pub(crate) struct Runs(Vec<Run>);

impl Runs {
    /// Median of the seconds from start to end.
    pub(crate) fn wall(&self) -> f64 {
        self.median(|run| run.wall)
    }

    /// Median of the seconds of processor time.
    pub(crate) fn cpu(&self) -> f64 {
        self.median(|run| run.cpu)
    }

    fn median(&self, field: impl Fn(&Run) -> f64) -> f64 {
        let mut values: Vec<_> = self.0.iter().map(field).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    /// The median, and in brackets the fastest and the slowest run.
    pub(crate) fn spread(&self) -> String {
        let walls = || self.0.iter().map(|run| run.wall);
        let (median, min, max) = (
            self.wall(),
            walls().fold(f64::MAX, f64::min),
            walls().fold(0.0, f64::max),
        );
        if median < 0.1 {
            let [median, min, max] = [median, min, max].map(|s| s * 1000.0);
            return format!("{median:.1} ms ({min:.1}-{max:.1})");
        }
        format!("{median:.2} s ({min:.2}-{max:.2})")
    }
}

/// The folder for images: memory where there is some, so that no disk is measured.
pub(crate) fn scratch() -> PathBuf {
    let base = std::env::var_os("BENCH_DIR").map_or_else(|| "/dev/shm".into(), PathBuf::from);
    let dir = base.join("glint-bench");
    std::fs::create_dir_all(&dir).expect("BENCH_DIR can be written");
    dir
}

/// Whether a row was asked for: any word of the command line is in its name, or there is none.
pub(crate) fn is_chosen(row: &str) -> bool {
    let mut words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .peekable();
    words.peek().is_none() || words.any(|word| row.contains(&word))
}

/// A file system of `mib` MiB filled with this machine's programs and documents.
pub(crate) fn file_system(dir: &Path, mib: u64) -> PathBuf {
    let image = dir.join("fs.raw");
    if image.exists() {
        return image;
    }
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
        tree = dir.join("tree").display(),
        image = image.display(),
        budget = mib * 8 / 10,
    );
    sh(&script);
    image
}

/// Makes the image `name` out of `raw` with qemu-img, unless it is there.
pub(crate) fn image(dir: &Path, raw: &Path, name: &str, flags: &str) -> String {
    let path = dir.join(name);
    if !path.exists() {
        let (raw, path) = (raw.display(), path.display());
        sh(&format!("qemu-img convert {flags} {raw} {path}"));
    }
    path.display().to_string()
}

/// Runs a shell line that must succeed; answers what it printed.
pub(crate) fn sh(line: &str) -> String {
    let output = Command::new("bash")
        .args(["-c", line])
        .stderr(Stdio::inherit())
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{line}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Seconds that the cores were busy since the machine started.
fn busy() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("proc is there");
    let line = stat.lines().next().unwrap_or("").split_whitespace();
    let ticks: Vec<f64> = line.skip(1).filter_map(|n| n.parse().ok()).collect();
    // User, nice, system; interrupts behind idle and waiting. Hundredths of a second.
    ticks
        .iter()
        .take(3)
        .chain(ticks.iter().skip(5).take(2))
        .sum::<f64>()
        / 100.0
}

/// Seconds of processor time of all programs that ran under this one so far.
fn children() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc is there");
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    // User and system time of those waited for, in hundredths of a second.
    let ticks = fields
        .skip(13)
        .take(2)
        .filter_map(|n| n.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// Runs a command `often` times, again where other programs took the processor meanwhile.
fn run_alone(command: &str, often: u32, between: &impl Fn()) -> Run {
    let mut tries = 0;
    loop {
        between();
        let before = (busy(), children());
        let run = run(command, often);
        let others = busy() - before.0 - (children() - before.1);
        tries += 1;
        if others < 0.05 + 0.05 * run.wall * f64::from(often) || tries == 2 {
            return run;
        }
    }
}

/// Runs a command `often` times; what it takes once.
fn run(command: &str, often: u32) -> Run {
    let mut words = command.split_whitespace();
    let mut once = Command::new(words.next().expect("a program"));
    once.args(words).stdout(Stdio::null());
    let (start, before) = (Instant::now(), children());
    for _ in 0..often {
        let status = once.status().expect("the program is installed");
        assert!(status.success(), "{command}: {status}");
    }
    let wall = start.elapsed().as_secs_f64() / f64::from(often);
    Run {
        wall,
        cpu: (children() - before) / f64::from(often),
    }
}

/// Peak memory of a command in MiB.
pub(crate) fn memory(command: &str) -> f64 {
    let output = Command::new("/usr/bin/time")
        .args(["-f", "%M"])
        .args(command.split_whitespace())
        .stdout(Stdio::null())
        .output()
        .expect("/usr/bin/time is installed (package time)");
    let text = String::from_utf8_lossy(&output.stderr);
    let kib = text
        .lines()
        .last()
        .and_then(|line| line.parse::<f64>().ok());
    kib.expect("its figure") / 1024.0
}

/// Runs commands in turn, `runs` times each after one that does not count, `often` times a run;
/// `between` comes before every run.
pub(crate) fn in_turn<const N: usize>(
    runs: usize,
    often: u32,
    commands: [&str; N],
    between: impl Fn(),
) -> [Runs; N] {
    let mut all = commands.map(|_| Runs(Vec::new()));
    for n in 0..=runs {
        for (command, series) in commands.iter().zip(&mut all) {
            let run = run_alone(command, often, &between);
            if n > 0 {
                series.0.push(run);
            }
        }
    }
    between();
    all
}

/// The head of the table that [`pair`] fills.
pub(crate) const HEAD: &str = "| job | ours | theirs | faster | CPU ours / theirs | peak memory ours / theirs |\n\
     | --- | --- | --- | --- | --- | --- |";

/// Prints a row of two commands: medians, and how often faster the first is.
pub(crate) fn pair(
    name: &str,
    (runs, often): (usize, u32),
    [ours, theirs]: [&str; 2],
    between: impl Fn(),
) {
    let [a, b] = in_turn(runs, often, [ours, theirs], &between);
    println!(
        "| {name} | {} | {} | {:.2}x | {:.3} / {:.3} s | {:.0} / {:.0} MiB |",
        a.spread(),
        b.spread(),
        b.wall() / a.wall(),
        a.cpu(),
        b.cpu(),
        memory(ours),
        memory(theirs),
    );
}
