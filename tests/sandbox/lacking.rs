//! Processes of this test binary: confined or not, on a kernel that lacks what it is told to.

use std::collections::BTreeMap;
use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// What such a process is to do: its value is that of a verb, and what follows.
const JOB: &str = "GLINT_TEST_JOB";
/// The fences its kernel lacks.
const LACKS: &str = "GLINT_TEST_LACKS";

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fence {
    Landlock,
    Seccomp,
}

/// This test binary again, to do `job` on a kernel without `lacks`.
pub(crate) fn process(job: &str, lacks: &[Fence]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "lacking::inner", "--ignored", "--nocapture"])
        .env(JOB, job)
        .env(LACKS, format!("{lacks:?}"));
    command
}

/// `program` on a kernel without `lacks`; arguments may follow.
pub(crate) fn program(program: &str, args: &[&str], lacks: &[Fence]) -> Command {
    let mut command = process("exec", lacks);
    command.env("GLINT_TEST_PROGRAM", program);
    command.env("GLINT_TEST_ARGS", serde_json::to_string(args).unwrap());
    command
}

#[test]
#[ignore = "a process of the other tests"]
fn inner() {
    let Ok(job) = env::var(JOB) else { return };
    let lacks = env::var(LACKS).unwrap();
    let mut calls = BTreeMap::new();
    if lacks.contains("Landlock") {
        calls.insert(libc::SYS_landlock_create_ruleset, Vec::new());
    }
    if lacks.contains("Seccomp") {
        calls.insert(libc::SYS_seccomp, Vec::new());
    }
    if !calls.is_empty() {
        // As kernels answer that were built without.
        let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
        let arch = env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(calls, SeccompAction::Allow, missing, arch).unwrap();
        apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    }
    if job == "exec" {
        let args: Vec<String> =
            serde_json::from_str(&env::var("GLINT_TEST_ARGS").unwrap()).unwrap();
        let program = env::var("GLINT_TEST_PROGRAM").unwrap();
        panic!("{program}: {}", Command::new(&program).args(args).exec());
    }
    crate::fences::attempt(&job);
}
