//! `glint convert`: one image into another. Judged first, written beside the output under a
//! temporary name, renamed into place when complete.

mod open;
mod outer;
mod place;
mod single;
mod spool;
mod stdout;
mod write;

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use formats::copy::{CopyOptions, Progress};
use formats::inspect::Finding;
use formats::{Disk, ErrorKind, FileSource, Format};
use indicatif::HumanBytes;
use serde::{Deserialize, Serialize};

use super::fence::Fence;
use super::output::{self, Output, Paint, Plain};
use super::permit::{FileId, Means, Permit};
use super::progress;
use super::{Exit, Told, apart, input, signals, target, work};
pub(super) use open::Refusal;
use open::open_disk;
use place::Written;
pub(super) use place::{Place, without_path};
pub(super) use single::Single;
use stdout::Stdout;
use write::{What, Work};

/// Convert a disk image into another format
///
/// The input is judged first: an unsafe image is refused and nothing is written. The output
/// appears under its name only when it is complete, and replaces a file of that name. `-` is
/// standard input or output: a pipe takes raw, streamOptimized vmdk and what --wrap compresses.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Format the input must have; `raw` reads the bytes of any file as they are
    #[arg(short, value_name = "FMT")]
    format: Option<Format>,

    /// Format of the output
    #[arg(short = 'O', value_name = "FMT")]
    output_format: Format,

    #[command(flatten)]
    written: target::Written,

    /// Threads to work with, as many as there are cores unless told; fewer do where a dense
    /// compression would take more than 256 MiB of memory
    #[arg(short = 'm', value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: Option<u8>,

    /// Show progress, also where standard error is no terminal
    #[arg(short)]
    progress: bool,

    /// Say nothing but errors
    #[arg(short)]
    quiet: bool,

    /// Accepted for qemu-img's sake: nothing is locked here
    #[arg(short = 'U', long, hide = true)]
    force_share: bool,

    /// Accepted for qemu-img's sake: threads write as they finish, and the file is the same
    #[arg(short = 'W', hide = true)]
    out_of_order: bool,

    /// Which disk of an archive: its name, or its number counted from 0
    #[arg(long, value_name = "N|NAME")]
    disk: Option<String>,

    /// Read an internal snapshot instead of the present state: its name or id
    #[arg(short = 'l', long, value_name = "NAME")]
    snapshot: Option<String>,

    #[command(flatten)]
    permit: Permit,

    #[command(flatten)]
    fence: Fence,

    /// How to sum up: `json` prints an object to standard output, `human` a line to a terminal
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,

    /// Image to read; several are the disks of an OVA
    #[arg(value_name = "IN", required = true)]
    from: Vec<PathBuf>,

    /// Image to write
    #[arg(value_name = "OUT", required = true)]
    to: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let start = Instant::now();
    let apart = apart::folder();
    let is_inner = apart.is_some();
    let done = match is_inner || args.fence.is_off() {
        true => confined(args, apart).map(Some),
        false => outer::run(args),
    };
    let done = match done {
        Ok(Some(done)) => done,
        Ok(None) => return Ok(Exit::Fine),
        Err(e) => return fail(args, &e),
    };
    if is_inner && args.to.as_os_str() != DASH {
        // The outer process gives it a name, and then sums up.
        output::json(&done)?;
        return Ok(Exit::Fine);
    }
    let seconds = start.elapsed();
    let rate = progress::rate(done.virtual_size, seconds);
    match args.output {
        Output::Json => output::json(&Summary {
            filename: args.to.to_string_lossy().into_owned(),
            format: args.output_format,
            source_filename: args.from[0].to_string_lossy().into_owned(),
            source_format: &done.source_format,
            virtual_size: done.virtual_size,
            file_size: done.file_size,
            allocated_size: done.allocated_size,
            seconds: seconds.as_secs_f64(),
            bytes_per_second: rate,
        })?,
        Output::Human if !args.quiet && io::IsTerminal::is_terminal(&io::stderr()) => {
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
    if let Some(Told(exit)) = error.downcast_ref() {
        return Ok(*exit);
    }
    output::complain(error);
    let refusal = error.downcast_ref::<Refusal>();
    let paint = Paint::for_stream(&io::stderr());
    for finding in refusal.iter().flat_map(|r| &r.findings) {
        output::talk(paint.finding(finding));
    }
    if args.output == Output::Json {
        output::json(&Failure {
            filename: args.from[0].to_string_lossy().into_owned(),
            error: format!("{error:#}"),
            findings: refusal.map_or_else(Vec::new, |r| r.findings.clone()),
        })?;
    }
    Ok(Exit::of(error))
}

/// What `--output json` prints of a conversion.
#[derive(Serialize)]
struct Summary<'a> {
    filename: String,
    format: Format,
    source_filename: String,
    source_format: &'a str,
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

/// What was done; an inner process tells it to the outer.
#[derive(Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) source_format: String,
    pub(super) virtual_size: u64,
    pub(super) file_size: u64,
    pub(super) allocated_size: u64,
}

/// What stands for standard input and output.
const DASH: &str = "-";

/// Converts, confined in an inner process to the images and `apart`, its folder.
fn confined(args: &Args, apart: Option<PathBuf>) -> anyhow::Result<Done> {
    if let Some(folder) = &apart {
        apart::die_with_outer()?;
        let mut named = args
            .permit
            .named(args.from.iter().map(AsRef::as_ref).collect());
        if let Some(file) = &args.written.output_passphrase_file {
            named
                .files
                .extend([file.as_path(), target::CHANCE.as_ref()]);
        }
        args.fence.enter(&named, Some(folder))?;
    }
    convert(args, apart)
}

fn convert(args: &Args, apart: Option<PathBuf>) -> anyhow::Result<Done> {
    // Usage first: whatever is wrong with the request should not cost a look at the image.
    let mut what = What::parse(args)?;
    let mut options = CopyOptions::default();
    if let Some(threads) = args.threads.and_then(|n| NonZero::new(usize::from(n))) {
        options.threads = threads;
    }
    let mut out = match args.to.as_os_str() == DASH {
        true => Out::Stdout(Stdout::new(args, &what)?),
        false => {
            let place = Place::new(&args.to, apart)?;
            what.named(&place.name());
            Out::Place(Box::new(place))
        }
    };
    let progress = Arc::new(Progress::default());
    let ended = signals::cancel(progress.clone())?;
    let cancelled = |e: anyhow::Error| match (e.downcast_ref::<formats::Error>(), ended.get()) {
        (Some(ours), Some(ended)) if ours.kind() == ErrorKind::Cancelled => {
            anyhow::Error::new(*ended)
        }
        _ => e,
    };

    let means = args.permit.means()?;
    let mut disks = Vec::new();
    let mut source_format = None;
    for path in &args.from {
        let opened = open_input(args, path, &means, &mut out, &progress).map_err(cancelled)?;
        disks.push(opened.0);
        source_format.get_or_insert(opened.1);
    }
    out.check_keeps(means.granted())?;
    let virtual_size = disks.iter().map(|disk| disk.virtual_size()).sum();
    let work = Work {
        what: &what,
        disks: disks.iter().map(AsRef::as_ref).collect(),
        scratch: out.dir(),
        options,
        progress: &progress,
    };
    let show = work::show(args.progress, args.quiet);
    let (copied, allocated_size) = match &out {
        Out::Place(place) => {
            let draft = place.begin(what.parts(virtual_size)?)?;
            let sink = Written::new(draft.sink()?);
            let copied = progress::shown(&progress, show, || work.run(&sink));
            // A failed copy drops the draft, and that removes it.
            let copied = copied
                .map_err(|e| blame(e, args, sink.has_failed()))
                .map_err(cancelled)?;
            drop(sink);
            (copied, place.commit(&draft)?)
        }
        Out::Stdout(stdout) => {
            let copied = progress::shown(&progress, show, || stdout.take(&work));
            let copied = copied
                .map_err(|e| blame(e, args, stdout.has_failed()))
                .map_err(cancelled)?;
            (copied, copied.file_size)
        }
    };
    Ok(Done {
        source_format: source_format.unwrap_or(Format::Raw).to_string(),
        virtual_size,
        file_size: copied.file_size,
        allocated_size,
    })
}

/// Names the file at fault.
fn blame(e: formats::Error, args: &Args, is_output: bool) -> anyhow::Error {
    let path = match (e.kind(), args.from.as_slice()) {
        (ErrorKind::Io, _) if is_output => Some(&args.to),
        (_, [one]) => Some(one),
        _ => None,
    };
    let error = anyhow::Error::new(e);
    match path {
        Some(path) => error.context(path.display().to_string()),
        None => error,
    }
}

/// Opens an input, or spools what comes by a pipe.
fn open_input(
    args: &Args,
    path: &Path,
    means: &Means,
    out: &mut Out,
    progress: &Arc<Progress>,
) -> anyhow::Result<(Arc<dyn Disk>, Format)> {
    let (file, place): (FileSource, _) = match path.as_os_str() == DASH {
        true => (spool::stdin(out.dir(), progress)?, None),
        false => (input::open(path)?, Some(path)),
    };
    out.check_differs(file.file())?;
    open_disk(args, Arc::new(file), place, means, out.dir(), progress)
        .with_context(|| path.display().to_string())
}

/// Where the output goes.
enum Out {
    Place(Box<Place>),
    Stdout(Stdout),
}

impl Out {
    /// The folder for files that nobody else sees.
    fn dir(&self) -> &Path {
        match self {
            Self::Place(place) => place.scratch(),
            Self::Stdout(stdout) => stdout.dir(),
        }
    }

    fn check_differs(&mut self, input: &File) -> anyhow::Result<()> {
        let meta = input.metadata().context("reading file attributes")?;
        self.check_keeps(vec![(meta.dev(), meta.ino())])
    }

    /// Checks that none of `files` is overwritten: they are read, and others may need them.
    fn check_keeps(&mut self, files: Vec<FileId>) -> anyhow::Result<()> {
        match self {
            Self::Place(place) => place.check_keeps(files),
            Self::Stdout(stdout) => stdout.check_keeps(&files),
        }
    }
}
