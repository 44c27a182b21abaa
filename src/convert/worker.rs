//! The worker process: one conversion, bounded and confined, from the file that is its standard
//! input to the file that is its standard output.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use formats::copy::{CopyOptions, Progress, Target, copy};
use formats::{
    CreateOptions, Disk, FileSink, FileSource, Limits, OpenOptions, Source, container, raw,
};
use rustix::process::Signal;

use super::ordered::{self, Ascending};
use super::run::take_out;
use super::sandbox::{self, Bounds, Grants};
use super::{Error, Line, Request, Selector, Step, open};

/// How often it says how far it is.
const EVERY: Duration = Duration::from_millis(50);

/// Does what `request` (JSON) says. Tells the outcome as the last line of standard error; answers
/// the exit code.
#[must_use]
pub fn worker(request: &str) -> u8 {
    let (line, code) = match work(request) {
        Ok(virtual_size) => (Line::Done { virtual_size }, 0),
        Err(Error::Image(reason)) => (Line::Image(reason), 1),
        Err(Error::Ours(reason)) => (Line::Ours(reason), 2),
    };
    say(&line);
    code
}

fn say(line: &Line) {
    if let Ok(text) = serde_json::to_string(line) {
        // When nobody listens any more we are about to be killed anyway.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

fn ours(doing: &str, error: impl std::fmt::Display) -> Error {
    Error::Ours(format!("{doing}: {error}"))
}

/// Takes bounds and fences upon ourselves before a byte of the image is looked at. All that may
/// still be opened by name are scratch files.
fn confine(request: &Request) -> Result<(), Error> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| ours("tying our life to the service's", e))?;
    let bounds = Bounds {
        address_space: Some(request.memory),
        file_size: Some(request.max_output.max(request.max_inflated)),
        cpu_seconds: Some(request.cpu_seconds),
        open_files: Some(64),
        ..Bounds::default()
    };
    bounds.take().map_err(|e| ours("setting limits", e))?;
    let grants = Grants {
        write: Some(&std::env::temp_dir()),
        ..Grants::default()
    };
    let missing =
        sandbox::confine(request.sandbox, &grants).map_err(|e| ours("confining ourselves", e))?;
    if let Some(missing) = missing {
        say(&Line::Unfenced(missing));
    }
    Ok(())
}

/// Takes off the compression around `source`. Answers the length of what was in it.
fn unpack(source: &Arc<dyn Source>, output: File, limits: &Limits) -> Result<u64, Error> {
    let compression = container::wrapper(source, limits)?
        .ok_or_else(|| Error::Image("no compression is around it".into()))?;
    let cx = container::Context::new(limits);
    let progress = cx.progress.clone();
    let written = shared(&output)?;
    let inflated = telling(&progress, Some(&written), || {
        container::inflate_into(source, compression, output, &cx)
    })?;
    Ok(inflated.len())
}

/// Writes what `source` holds as it is, leaving out runs of zeros. Answers its length.
fn take(source: &Arc<dyn Source>, output: File) -> Result<u64, Error> {
    let disk = raw::Reader::new(source.clone())?;
    let target = formats::create(
        &CreateOptions::Raw(raw::WriteOptions::default()),
        source.len(),
    )?;
    write(&disk, target, output)?;
    Ok(source.len())
}

/// Writes the image where its parts belong: from its beginning on where that can be, for whoever reads
/// along.
fn write(disk: &dyn Disk, target: Box<dyn Target>, output: File) -> Result<(), Error> {
    let (progress, options) = (Progress::default(), CopyOptions::default());
    if target.preamble().is_some() {
        let written = shared(&output)?;
        let sink = Ascending::new(output);
        telling(&progress, Some(&written), || {
            copy(disk, target, &sink, &options, &progress)
        })?;
    } else {
        let sink = FileSink::new(output);
        telling(&progress, None, || {
            copy(disk, target, &sink, &options, &progress)
        })?;
    }
    Ok(())
}

fn shared(output: &File) -> Result<File, Error> {
    output
        .try_clone()
        .map_err(|e| ours("sharing the output", e))
}

/// Does `work` and says now and then how far it is. A file that is written from its beginning on stays
/// as far as it is long: zeros behind that are not told of before their end is.
fn telling<T>(progress: &Progress, ascending: Option<&File>, work: impl FnOnce() -> T) -> T {
    let settled = || {
        ascending
            .and_then(|file| file.metadata().ok())
            .map_or(0, |meta| meta.len())
    };
    std::thread::scope(|scope| {
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        scope.spawn(move || {
            while stopped.recv_timeout(EVERY).is_err_and(|e| e.is_timeout()) {
                say(&Line::Progress(Step {
                    done: progress.done(),
                    total: progress.total(),
                    settled: settled(),
                }));
            }
        });
        let done = work();
        drop(stop);
        done
    })
}

fn work(request: &str) -> Result<u64, Error> {
    let request: Request =
        serde_json::from_str(request).map_err(|e| ours("reading the request", e))?;
    confine(&request)?;
    let file = |fd: io::Result<std::os::fd::OwnedFd>| {
        fd.map(File::from)
            .map_err(|e| ours("taking over the files", e))
    };
    let input = file(io::stdin().as_fd().try_clone_to_owned())?;
    let output = file(io::stdout().as_fd().try_clone_to_owned())?;

    let limits = Limits {
        max_virtual_size: request.max_virtual_size,
        max_inflated: request.max_inflated,
        ..Limits::default()
    };
    let source: Arc<dyn Source> = Arc::new(FileSource::new(input)?);
    if request.unpack && request.disk.is_none() {
        return unpack(&source, output, &limits);
    }
    let mut context = container::Context::new(&limits);
    let (found, source) = match &request.disk {
        Some(disk) if request.is_judged => {
            context.scratch = &tempfile::tempfile;
            take_out(&source, disk, &context)?
        }
        _ => container::examine(&source, &context)?,
    };
    if let Some(finding) = found.unsafe_finding() {
        return Err(Error::Image(finding.message.clone()));
    }
    if request.unpack {
        return take(&source, output);
    }
    let selector = request.disk.map_or(Selector::Only, Selector::Named);
    if let Some(claimed) = &request.input
        && claimed != found.format.name()
    {
        return Err(Error::Image(format!(
            "it is {} and not {claimed}",
            found.format
        )));
    }
    let options = OpenOptions {
        limits,
        ..OpenOptions::default()
    };
    let opened = open(source, &found, &selector, &options, &tempfile::tempfile)?;
    let format = request.output.parse()?;
    let create = CreateOptions::parse(format, &request.options, request.compress)?;
    if create.is_split() {
        return Err(Error::Ours(
            "the output would be several files, and an image is one".into(),
        ));
    }
    let disk = opened.disk.as_ref();
    let virtual_size = disk.virtual_size();
    if let Some(expected) = request.virtual_size
        && expected != virtual_size
    {
        return Err(Error::Image(format!(
            "its guest sees {virtual_size} bytes, and not {expected}"
        )));
    }
    match request.in_order {
        Some(skip) => {
            let progress = Progress::default();
            telling(&progress, None, || {
                ordered::write(disk, &create, output, skip, &progress)
            })?;
        }
        None => write(disk, formats::create(&create, virtual_size)?, output)?,
    }
    Ok(virtual_size)
}
