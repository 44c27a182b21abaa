//! `glint convert`: one image into another. Judged first, written beside the output under a
//! temporary name, renamed into place when complete.

use std::fs::{self, File, Permissions};
use std::io;
use std::num::NonZero;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};
use formats::copy::{CopyOptions, Progress, copy};
use formats::inspect::{Finding, Inspection, Verdict};
use formats::{
    CreateOptions, Disk, ErrorKind, FileSink, Format, HostOffset, OpenOptions, Sink, Source,
};
use indicatif::HumanBytes;
use serde::Serialize;
use tempfile::NamedTempFile;

use super::output::{self, Output, Paint, Plain};
use super::progress::{self, Show};
use super::{Exit, input, signals};
use crate::convert::Selector;

/// Convert a disk image into another format
///
/// The input is judged first: an unsafe image is refused and nothing is written. The output
/// appears under its name only when it is complete, and replaces a file of that name.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Format the input must have; `raw` reads the bytes of any file as they are
    #[arg(short, value_name = "FMT")]
    format: Option<Format>,

    /// Format of the output
    #[arg(short = 'O', value_name = "FMT")]
    output_format: Format,

    /// Options of the output's format; may be repeated
    #[arg(short, value_name = "KEY=VALUE,…", value_delimiter = ',', value_parser = pair)]
    options: Vec<(String, String)>,

    /// Compress the output
    #[arg(short)]
    compress: bool,

    /// Threads to work with, as many as there are cores unless told
    #[arg(short = 'm', value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: Option<u8>,

    /// Show progress, also where standard error is no terminal
    #[arg(short)]
    progress: bool,

    /// Which disk of an archive: its name, or its number counted from 0
    #[arg(long, value_name = "N|NAME")]
    disk: Option<String>,

    /// How to sum up: `json` prints an object to standard output, `human` a line to a terminal
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,

    /// Image to read
    #[arg(value_name = "IN")]
    from: PathBuf,

    /// Image to write
    #[arg(value_name = "OUT")]
    to: PathBuf,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected key=value".into()),
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let start = Instant::now();
    let done = match convert(args) {
        Ok(done) => done,
        Err(e) => return fail(args, &e),
    };
    let seconds = start.elapsed();
    let rate = progress::rate(done.virtual_size, seconds);
    match args.output {
        Output::Json => output::json(&Summary {
            filename: args.to.to_string_lossy().into_owned(),
            format: args.output_format,
            source_filename: args.from.to_string_lossy().into_owned(),
            source_format: done.source_format,
            virtual_size: done.virtual_size,
            file_size: done.file_size,
            allocated_size: done.allocated_size,
            seconds: seconds.as_secs_f64(),
            bytes_per_second: rate,
        })?,
        Output::Human if io::IsTerminal::is_terminal(&io::stderr()) => {
            output::talk(format_args!(
                "{}: {}, {} virtual, {} on disk, {:.1} s, {}/s",
                Plain(&args.to.to_string_lossy()),
                args.output_format,
                HumanBytes(done.virtual_size),
                HumanBytes(done.allocated_size),
                seconds.as_secs_f64(),
                HumanBytes(rate)
            ));
        }
        Output::Human => {}
    }
    Ok(Exit::Fine)
}

/// Reports a failed conversion, findings included.
fn fail(args: &Args, error: &anyhow::Error) -> anyhow::Result<Exit> {
    output::complain(error);
    let refusal = error.downcast_ref::<Refusal>();
    let paint = Paint::for_stream(&io::stderr());
    for finding in refusal.iter().flat_map(|r| &r.findings) {
        output::talk(paint.finding(finding));
    }
    if args.output == Output::Json {
        output::json(&Failure {
            filename: args.from.to_string_lossy().into_owned(),
            error: format!("{error:#}"),
            findings: refusal.map_or_else(Vec::new, |r| r.findings.clone()),
        })?;
    }
    Ok(Exit::of(error))
}

/// What `--output json` prints of a conversion.
#[derive(Serialize)]
struct Summary {
    filename: String,
    format: Format,
    source_filename: String,
    source_format: Format,
    virtual_size: u64,
    file_size: u64,
    allocated_size: u64,
    seconds: f64,
    bytes_per_second: u64,
}

/// What `--output json` prints of a conversion that failed.
#[derive(Serialize)]
struct Failure {
    filename: String,
    error: String,
    findings: Vec<Finding>,
}

/// An image that is not to be converted.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Refusal {
    reason: String,
    findings: Vec<Finding>,
}

impl Refusal {
    fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            findings: Vec::new(),
        }
    }
}

struct Done {
    source_format: Format,
    virtual_size: u64,
    file_size: u64,
    allocated_size: u64,
}

fn convert(args: &Args) -> anyhow::Result<Done> {
    // Usage first: whatever is wrong with the request should not cost a look at the image.
    let create = CreateOptions::parse(args.output_format, &args.options, args.compress)?;
    let mut options = CopyOptions::default();
    if let Some(threads) = args.threads.and_then(|n| NonZero::new(usize::from(n))) {
        options.threads = threads;
    }
    let place = Place::new(&args.to)?;

    let file = input::open(&args.from)?;
    place.check_differs(file.file())?;
    let from = || args.from.display().to_string();
    let (disk, source_format) = open_disk(args, Arc::new(file), &place).with_context(from)?;

    let virtual_size = disk.virtual_size();
    let target = formats::create(&create, virtual_size)?;
    let progress = Arc::new(Progress::default());
    let ended = signals::cancel(progress.clone())?;
    let file = place.begin()?;
    let handle = file.as_file().try_clone().context("sharing the output")?;
    let sink = Written::new(FileSink::new(handle));
    let show = Show::on_stderr(args.progress);
    let copied = progress::shown(&progress, show, || {
        copy(disk.as_ref(), target, &sink, &options, &progress)
    });
    // A failed copy drops `file`, and that removes it.
    let summary = copied.map_err(|e| match (e.kind(), ended.get()) {
        (ErrorKind::Cancelled, Some(ended)) => anyhow::Error::new(*ended),
        (ErrorKind::Io, _) if sink.has_failed() => {
            anyhow::Error::new(e).context(args.to.display().to_string())
        }
        _ => anyhow::Error::new(e).context(from()),
    })?;
    let allocated_size = place.commit(file)?;
    Ok(Done {
        source_format,
        virtual_size,
        file_size: summary.file_size,
        allocated_size,
    })
}

/// Judges the input and opens the disk to copy.
fn open_disk(
    args: &Args,
    source: Arc<dyn Source>,
    place: &Place,
) -> anyhow::Result<(Arc<dyn Disk>, Format)> {
    let options = OpenOptions::default();
    let found = input::judge(&source, &options.limits)?;
    if args.format == Some(Format::Raw) {
        // Said by whoever asks, never guessed: the bytes are then just bytes, and safe.
        if found.format != Format::Raw || found.compression.is_some() {
            output::talk(format_args!(
                "note: copying the bytes of this {} file as they are, because of -f raw",
                found.compression.unwrap_or(found.format.name())
            ));
        }
        let options = OpenOptions {
            format: Some(Format::Raw),
            ..options
        };
        return Ok((formats::open(source, &options)?, Format::Raw));
    }
    check(args.format, &found)?;
    let selector = match &args.disk {
        Some(_) if found.format != Format::Ova => {
            bail!("--disk chooses among the disks of an archive: this is none")
        }
        Some(name) => Selector::Named(name.clone()),
        None => Selector::Only,
    };
    let scratch = || tempfile::tempfile_in(&place.dir).map_err(without_path);
    let opened = crate::convert::open(source, &found, &selector, &options, &scratch)?;
    Ok((opened.disk, opened.format))
}

/// Refuses what is unsafe or not what it is said to be.
fn check(claimed: Option<Format>, found: &Inspection) -> Result<(), Refusal> {
    if found.verdict() == Verdict::Unsafe {
        let what = match found.compression {
            Some(compression) => format!("{compression}-compressed file"),
            None => format!("{} image", found.format),
        };
        return Err(Refusal {
            reason: format!("refused: this {what} is unsafe"),
            findings: found.findings.clone(),
        });
    }
    match claimed {
        Some(claimed) if claimed != found.format => Err(Refusal::new(format!(
            "is {}, not {claimed} as -f says",
            found.format
        ))),
        _ => Ok(()),
    }
}

/// Where the output goes.
struct Place {
    path: PathBuf,
    dir: PathBuf,
    /// The file there now.
    existing: Option<fs::Metadata>,
}

impl Place {
    fn new(path: &Path) -> anyhow::Result<Self> {
        // Through a link: the file it leads to is replaced, not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let existing = fs::metadata(&path).ok();
        if existing.as_ref().is_some_and(|m| !m.is_file()) {
            bail!("{} is not a regular file", path.display());
        }
        if path.file_name().is_none() {
            bail!("{} names no file to write", path.display());
        }
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        let is_dir = fs::metadata(&dir)
            .with_context(|| format!("opening {}", dir.display()))?
            .is_dir();
        if !is_dir {
            bail!("{} is not a directory", dir.display());
        }
        Ok(Self {
            path,
            dir,
            existing,
        })
    }

    fn check_differs(&self, input: &File) -> anyhow::Result<()> {
        let input = input.metadata().context("reading file attributes")?;
        match &self.existing {
            Some(output) if (output.dev(), output.ino()) == (input.dev(), input.ino()) => {
                bail!("{} is the input too", self.path.display())
            }
            _ => Ok(()),
        }
    }

    /// A file beside the output, removed again unless committed.
    fn begin(&self) -> anyhow::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(".glint-")
            .suffix(".part")
            // What the umask leaves of this, as for any new file.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&self.dir)
            .map_err(without_path)
            .with_context(|| format!("making a file in {}", self.dir.display()))
    }

    /// Renames a complete file into place; answers the bytes it takes up. Like `cp` and qemu-img
    /// it leaves it to the kernel when they reach the disk.
    fn commit(&self, file: NamedTempFile) -> anyhow::Result<u64> {
        let wrote = || format!("writing {}", self.path.display());
        if let Some(existing) = &self.existing {
            // A private image stays private.
            file.as_file()
                .set_permissions(existing.permissions())
                .with_context(wrote)?;
        }
        let file = file
            .persist(&self.path)
            .map_err(|e| e.error)
            .with_context(wrote)?;
        Ok(file.metadata().with_context(wrote)?.blocks() * 512)
    }
}

/// What went wrong, without the temporary name it went wrong with: that means nothing to whoever
/// reads it.
fn without_path(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|e| e.source());
    cause
        .and_then(|e| e.downcast_ref::<io::Error>()?.raw_os_error())
        .map_or(error, io::Error::from_raw_os_error)
}

/// The output, which remembers whether it was at fault: an error is to name the right file.
struct Written {
    sink: FileSink,
    failed: AtomicBool,
}

impl Written {
    fn new(sink: FileSink) -> Self {
        Self {
            sink,
            failed: AtomicBool::new(false),
        }
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn noted(&self, done: formats::Result<()>) -> formats::Result<()> {
        if done.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        done
    }
}

impl Sink for Written {
    fn write_all_at(&self, bytes: &[u8], at: HostOffset) -> formats::Result<()> {
        self.noted(self.sink.write_all_at(bytes, at))
    }

    fn set_len(&self, len: u64) -> formats::Result<()> {
        self.noted(self.sink.set_len(len))
    }

    fn sync(&self) -> formats::Result<()> {
        self.noted(self.sink.sync())
    }
}
