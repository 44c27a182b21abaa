//! Work in a process of its own, whose memory and time the kernel bounds. What asks for too much
//! ends that process, as an overflow of its stack would; the test then says where it was.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Bytes of address space, the program itself and its stacks among them.
const MEMORY: u64 = 256 << 20;
/// Processor time that one piece of work may take.
const TIME: Duration = Duration::from_secs(2);
/// Failures told; more are of the same kind, mostly.
const TOLD: usize = 10;
/// Where the child writes which piece it is at. Not set: this is the parent.
const PLACE: &str = "GLINT_LIMITED";

/// Does pieces `0..count` of the work that `prepare` gives, in a child that runs the test `name`
/// again. `prepare` itself is not bounded.
pub(crate) fn run<W: Fn(u64)>(name: &str, count: u64, prepare: impl FnOnce() -> W) {
    match std::env::var_os(PLACE) {
        Some(place) => work(&PathBuf::from(place), count, &prepare()),
        None => supervise(name),
    }
}

fn supervise(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("at");
    let out = Command::new(std::env::current_exe().unwrap())
        // Two threads, so that the test is not on the main one with its larger stack.
        .args([name, "--exact", "--nocapture", "--test-threads=2"])
        .env(PLACE, &place)
        // Each arena of malloc's takes 64 MiB of address space, used or not.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        said.contains("1 passed") || !out.status.success(),
        "no such test: {name}: {said}"
    );
    let at = fs::read_to_string(&place).unwrap_or_default();
    let end = match out.status.signal() {
        Some(signal) => format!("ended by signal {signal} at {at}"),
        None => "failed".to_owned(),
    };
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{name}: {end}\n{told}{said}");
}

fn work(place: &PathBuf, count: u64, piece: &dyn Fn(u64)) {
    limit(Resource::As, MEMORY);
    limit(Resource::Core, 0);
    let place = fs::File::create(place).unwrap();
    let mut failures = Vec::new();
    for n in 0..count {
        // It only gets longer.
        place.write_all_at(n.to_string().as_bytes(), 0).unwrap();
        let start = used();
        // Whole seconds, one of which has begun.
        limit(Resource::Cpu, start.as_secs() + TIME.as_secs() + 2);
        let done = catch_unwind(AssertUnwindSafe(|| piece(n)));
        let took = used().saturating_sub(start);
        if done.is_err() {
            failures.push(format!("{n} panicked"));
        } else if took > TIME {
            failures.push(format!("{n} took {took:?} of processor time"));
        }
        if failures.len() == TOLD {
            break;
        }
    }
    limit(Resource::Cpu, u64::from(u32::MAX));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn limit(what: Resource, most: u64) {
    let limit = Rlimit {
        current: Some(most),
        maximum: None,
    };
    setrlimit(what, limit).expect("limits can be lowered");
}

/// Processor time of all threads so far.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}
