//! This program once more, as a process of its own for what reads an image: the inner one may be
//! confined and may die of its limits, the outer one owns the files and cleans up.
//!
//! The inner process is told one thing, the folder that is its own: the environment names it, and
//! as the folder for temporary files too.

use std::env;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, anyhow};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::Exit;
use super::signals::{self, Ended};

/// Names the folder of an inner process.
const FOLDER: &str = "GLINT_APART";

/// Bytes an inner process may say on a standard output that is kept.
const MAX_SAID: u64 = 16 << 20;

/// The folder of this process, where it is an inner one.
pub(super) fn folder() -> Option<PathBuf> {
    env::var_os(FOLDER).map(PathBuf::from)
}

/// A folder in `dir` for what is not complete; dropped, it is removed with all that is in it.
pub(super) fn make_folder(dir: &Path) -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(".glint-")
        .suffix(".part")
        .tempdir_in(dir)
        .map_err(super::convert::without_path)
        .with_context(|| format!("making a folder in {}", dir.display()))
}

/// This program once more, as an inner process whose folder is `folder`; its arguments and
/// streams are still to be said.
pub(super) fn command(folder: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env(FOLDER, folder).env("TMPDIR", folder);
    command
}

/// An inner process to be started.
pub(super) struct Inner {
    folder: TempDir,
    pid: Arc<OnceLock<Pid>>,
    ended: Arc<OnceLock<Ended>>,
}

/// What came of an inner process.
pub(super) struct Outcome {
    pub(super) exit: Exit,
    /// What it wrote to its standard output, where that was kept.
    pub(super) said: String,
    /// Its folder, with what it made there.
    pub(super) folder: TempDir,
}

impl Inner {
    /// One with a folder in `dir`. From here on a signal that would end us ends both processes
    /// in an orderly way.
    pub(super) fn new(dir: &Path) -> anyhow::Result<Self> {
        let pid = Arc::new(OnceLock::new());
        let inner = Arc::clone(&pid);
        let ended = signals::when_ended(move |signal| pass_on(inner.get(), signal))?;
        Ok(Self {
            folder: make_folder(dir)?,
            pid,
            ended,
        })
    }

    /// Runs this program again with the same arguments. Its standard output is ours or, with
    /// `keep`, kept.
    ///
    /// # Errors
    /// When it cannot be started, or died of a signal.
    pub(super) fn run(self, keep: bool) -> anyhow::Result<Outcome> {
        let mut child = command(self.folder.path())
            .args(env::args_os().skip(1))
            .stdout(if keep {
                Stdio::piped()
            } else {
                Stdio::inherit()
            })
            .spawn()
            .context("starting a process of its own for the image")?;
        let _ = self.pid.set(Pid::from_child(&child));
        // A signal may have come before there was anybody to pass it on to.
        if let Some(ended) = self.ended.get() {
            pass_on(self.pid.get(), ended.signal());
        }
        let mut said = String::new();
        let read = match child.stdout.take() {
            Some(out) => out.take(MAX_SAID).read_to_string(&mut said).map(drop),
            None => Ok(()),
        };
        let status = child.wait().context("waiting for the inner process")?;
        read.context("hearing the inner process")?;
        match status.code().and_then(Exit::from_code) {
            Some(exit) => Ok(Outcome {
                exit,
                said,
                folder: self.folder,
            }),
            None => Err(died(status)),
        }
    }
}

fn pass_on(inner: Option<&Pid>, signal: Option<Signal>) {
    if let (Some(&inner), Some(signal)) = (inner, signal) {
        // It may be gone already: then there is nothing to end.
        let _ = rustix::process::kill_process(inner, signal);
    }
}

/// What `status` says of a process that did not end by one of our exit codes.
pub(super) fn died(status: ExitStatus) -> anyhow::Error {
    if let Some(ended) = status.signal().and_then(Ended::by) {
        return ended.into();
    }
    let why = match status.signal().and_then(Signal::from_named_raw) {
        Some(Signal::XCPU) => "it took more processor time than it is allowed",
        Some(Signal::XFSZ) => "it wrote a larger file than it is allowed",
        Some(Signal::KILL) => "it was killed, as by a machine that runs out of memory",
        Some(Signal::ABORT) => "it aborted, as when its memory is used up",
        _ => return anyhow!("the process that read the image ended with {status}"),
    };
    anyhow!("the process that read the image ended: {why}")
}

/// Ties the life of an inner process to that of the outer.
pub(super) fn die_with_outer() -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("tying our life to the outer process's")
}

/// The folder for temporary files of an outer process.
pub(super) fn temp_dir() -> PathBuf {
    match env::temp_dir() {
        dir if dir.as_os_str() == OsStr::new("") => PathBuf::from("."),
        dir => dir,
    }
}
