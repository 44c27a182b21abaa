//! `glint convert`: one image into another. Judged first, written beside the output under a
//! temporary name, renamed into place when complete.

mod open;
mod place;

use std::io;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use formats::copy::{CopyOptions, Progress, copy};
use formats::inspect::Finding;
use formats::{CreateOptions, ErrorKind, Format};
use indicatif::HumanBytes;
use serde::Serialize;

use super::output::{self, Output, Paint, Plain};
use super::progress::{self, Show};
use super::{Exit, input, signals};
pub(super) use open::Refusal;
use open::open_disk;
use place::{Place, Written};

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
    let mut place = Place::new(&args.to)?;

    let file = input::open(&args.from)?;
    place.check_differs(file.file())?;
    let from = || args.from.display().to_string();
    let (disk, source_format) = open_disk(args, Arc::new(file), &place).with_context(from)?;

    let virtual_size = disk.virtual_size();
    let target = formats::create(&create.named(&place.name()), virtual_size)?;
    let progress = Arc::new(Progress::default());
    let ended = signals::cancel(progress.clone())?;
    let draft = place.begin(target.parts())?;
    let sink = Written::new(draft.sink()?);
    let show = Show::on_stderr(args.progress);
    let copied = progress::shown(&progress, show, || {
        copy(disk.as_ref(), target, &sink, &options, &progress)
    });
    // A failed copy drops the draft, and that removes it.
    let summary = copied.map_err(|e| match (e.kind(), ended.get()) {
        (ErrorKind::Cancelled, Some(ended)) => anyhow::Error::new(*ended),
        (ErrorKind::Io, _) if sink.has_failed() => {
            anyhow::Error::new(e).context(args.to.display().to_string())
        }
        _ => anyhow::Error::new(e).context(from()),
    })?;
    drop(sink);
    let allocated_size = place.commit(draft)?;
    Ok(Done {
        source_format,
        virtual_size,
        file_size: summary.file_size,
        allocated_size,
    })
}
