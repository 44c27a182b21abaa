//! One image of a batch, converted by an inner process.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;
use serde_json::Value;

use super::journal::{Record, Stamp};
use super::plan::Image;
use super::{Local, lock, output_words};
use crate::cli::convert::{Done, Single};
use crate::cli::permit::FileId;
use crate::cli::{Exit, apart, output, progress};

/// Bytes that an inner process may say: its account, or an error with findings.
const MAX_SAID: u64 = 256 << 10;
/// Bytes of one of its lines for people.
const MAX_LINE: u64 = 4096;

/// Different notes told in a batch.
const MAX_NOTES: usize = 16;

/// The inner processes that run.
#[derive(Clone, Default)]
pub(super) struct Inners(Arc<Mutex<Running>>);

#[derive(Default)]
struct Running {
    /// By the image; a descriptor means the process itself, not whoever has its number by now.
    processes: Vec<(usize, OwnedFd)>,
    /// The signal that ends the batch, once there is one.
    ended: Option<Option<Signal>>,
    next: usize,
}

impl Inners {
    /// Ends all of them, and those to come.
    pub(super) fn end(&self, signal: Option<Signal>) {
        let mut running = lock(&self.0);
        running.ended = Some(signal);
        for (_, process) in &running.processes {
            pass_on(process, signal);
        }
    }

    pub(super) fn have_ended(&self) -> bool {
        lock(&self.0).ended.is_some()
    }

    fn add(&self, pid: Pid) -> rustix::io::Result<usize> {
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let mut running = lock(&self.0);
        // A signal may have come before there was anybody to pass it on to.
        if let Some(signal) = running.ended {
            pass_on(&process, signal);
        }
        let number = running.next;
        running.next += 1;
        running.processes.push((number, process));
        Ok(number)
    }

    fn remove(&self, number: usize) {
        lock(&self.0).processes.retain(|p| p.0 != number);
    }
}

fn pass_on(process: &OwnedFd, signal: Option<Signal>) {
    if let Some(signal) = signal {
        // It may be gone already: then there is nothing to end.
        let _ = pidfd_send_signal(process, signal);
    }
}

/// An image to convert.
pub(super) struct One<'a> {
    pub(super) args: &'a Local,
    pub(super) out: &'a Path,
    pub(super) image: &'a Image,
    pub(super) inputs: &'a HashSet<FileId>,
    pub(super) notes: &'a Notes,
}

/// What an inner process that failed says.
#[derive(Deserialize)]
struct Failure {
    error: String,
    findings: Value,
}

/// An image that an inner process could not convert.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
struct Failed {
    exit: Exit,
    error: String,
    findings: Value,
}

impl Record {
    /// Notes why the image was not converted.
    pub(super) fn failed(&mut self, error: &anyhow::Error) {
        self.error = Some(format!("{error:#}"));
        self.exit = Exit::of(error) as i32;
        if let Some(failed) = error.downcast_ref::<Failed>() {
            self.exit = failed.exit as i32;
            self.findings.clone_from(&failed.findings);
        }
    }
}

impl One<'_> {
    /// Where the output goes.
    ///
    /// # Errors
    /// When there is something that must stay.
    pub(super) fn check(&self, may_replace: bool) -> anyhow::Result<PathBuf> {
        let to = self.out.join(&self.image.name);
        if let Ok(meta) = fs::metadata(&to) {
            if self.inputs.contains(&(meta.dev(), meta.ino())) {
                bail!("{} is an input too", to.display());
            }
            if !may_replace {
                bail!("{} exists, and --force is not given", to.display());
            }
        }
        Ok(to)
    }

    /// Converts the image with that many threads, in a folder below `work`. None when a signal
    /// broke it off.
    pub(super) fn convert(
        &self,
        to: &Path,
        work: &Path,
        threads: usize,
        inners: &Inners,
        reached: &dyn Fn(u64),
    ) -> Option<Record> {
        let start = Instant::now();
        let mut record = Record::new(self.image);
        let done = self.converted(to, work, threads, inners, reached);
        record.seconds = start.elapsed().as_secs_f64();
        match done {
            Ok((done, input, output)) => {
                record.stamp(input, output);
                record.source_format = Some(done.source_format);
                record.virtual_size = Some(done.virtual_size);
                record.file_size = Some(done.file_size);
                record.allocated_size = Some(done.allocated_size);
            }
            Err(_) if inners.have_ended() => return None,
            Err(e) => record.failed(&e),
        }
        Some(record)
    }

    fn converted(
        &self,
        to: &Path,
        work: &Path,
        threads: usize,
        inners: &Inners,
        reached: &dyn Fn(u64),
    ) -> anyhow::Result<(Done, Stamp, Stamp)> {
        let path = &self.image.path;
        let stamp = || Stamp::of(path).with_context(|| format!("opening {}", path.display()));
        let before = stamp()?;
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let words = self.words(to, threads);
        let single = Single::parse(&words)?;
        let folder = apart::make_folder(work)?;
        let mut said = tempfile::tempfile_in(work).context("making a scratch file")?;
        let mut child = apart::command(folder.path())
            .arg("convert")
            .args(&words)
            .stdin(Stdio::null())
            .stdout(said.try_clone().context("sharing the scratch file")?)
            .stderr(Stdio::piped())
            .spawn()
            .context("starting a process of its own for the image")?;
        let number = inners.add(Pid::from_child(&child));
        if number.is_err() {
            let _ = child.kill();
        }
        let mut last = String::new();
        if let Some(stderr) = child.stderr.take() {
            each_line(stderr, |line| match progress::percent(line) {
                Some(percent) => reached(percent),
                None if line.starts_with("note: ") => self.notes.tell(line),
                None => line.clone_into(&mut last),
            });
        }
        let status = child.wait().context("waiting for the inner process");
        inners.remove(number.context("watching the inner process")?);
        let status = status?;
        let said = hear(&mut said)?;
        match status.code().and_then(Exit::from_code) {
            Some(Exit::Fine) => {}
            Some(exit) => {
                let failure: Option<Failure> = serde_json::from_str(&said).ok();
                let failure = failure.unwrap_or(Failure {
                    error: last,
                    findings: Value::Array(Vec::new()),
                });
                bail!(Failed {
                    exit,
                    error: failure.error,
                    findings: failure.findings,
                });
            }
            None if last.is_empty() => return Err(apart::died(status)),
            None => return Err(apart::died(status).context(last)),
        }
        if stamp()? != before {
            return Err(anyhow!("{} changed while it was read", path.display()));
        }
        let done = single.publish(folder, &said)?;
        let output = Stamp::of(to).with_context(|| format!("looking at {}", to.display()))?;
        Ok((done, before, output))
    }

    /// The conversion, as it is typed.
    fn words(&self, to: &Path, threads: usize) -> Vec<OsString> {
        let mut words = output_words(self.args);
        words.extend(self.args.permit.arguments());
        words.push(self.args.fence.argument());
        words.extend(["-p", "--output=json", "-m"].map(OsString::from));
        words.push(threads.to_string().into());
        words.push("--".into());
        // A lone dash would be standard input.
        words.push(match self.image.path.as_os_str() == "-" {
            true => "./-".into(),
            false => OsString::from(&self.image.path),
        });
        words.push(to.into());
        words
    }
}

/// Lines as they come, each cut short where it is too long.
fn each_line(stream: impl Read, mut each: impl FnMut(&str)) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) {
            return;
        }
        each(String::from_utf8_lossy(&line).trim_end());
    }
}

/// What was written to `file`.
fn hear(file: &mut File) -> anyhow::Result<String> {
    let mut said = String::new();
    file.rewind()
        .and_then(|()| file.take(MAX_SAID).read_to_string(&mut said))
        .context("hearing the inner process")?;
    Ok(said)
}

/// Notes of inner processes, each told once, whichever image it came with.
#[derive(Default)]
pub(super) struct Notes(Mutex<HashSet<String>>);

impl Notes {
    pub(super) fn tell(&self, line: &str) {
        let mut told = lock(&self.0);
        if told.len() < MAX_NOTES && told.insert(line.to_owned()) {
            output::talk(output::Plain(line));
        }
    }
}
