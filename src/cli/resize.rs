//! `glint resize`: another virtual size, in place.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use formats::inspect::Allowance;
use formats::{Error, FileSink, FileSource, Format, Limits, Sink, Source};
use rustix::fs::FlockOperation;
use serde::Serialize;

use super::output::{self, Output};
use super::{Exit, image, input, size, work};

/// Change the size of the disk in a raw or qcow2 image, in place
///
/// What is added reads as zeros. The disk gets smaller only with --shrink, and what it loses is
/// lost. An image that another program has open is left alone.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Format of the image
    #[arg(short, value_name = "FMT")]
    format: Option<Format>,

    /// Allow the disk to become smaller: all behind its new end is lost
    #[arg(long)]
    shrink: bool,

    /// Say nothing
    #[arg(short)]
    quiet: bool,

    /// How to sum up
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,

    /// Image to change
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// New size in bytes, or with k, M, G, T for powers of 1024; what it changes by with + or -
    #[arg(value_name = "[+|-]SIZE", allow_hyphen_values = true, value_parser = change)]
    size: Change,
}

/// What is typed for a size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    To(u64),
    More(u64),
    Less(u64),
}

fn change(text: &str) -> Result<Change, String> {
    match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(more), _) => size::parse(more).map(Change::More),
        (_, Some(less)) => size::parse(less).map(Change::Less),
        _ => size::parse(text).map(Change::To),
    }
}

impl Change {
    fn of(self, before: u64) -> Result<u64, Error> {
        let after = match self {
            Self::To(size) => Some(size),
            Self::More(more) => before.checked_add(more),
            Self::Less(less) => before.checked_sub(less),
        };
        after.ok_or_else(|| Error::usage(format!("the disk has {before} bytes")))
    }
}

/// What `--output json` prints.
#[derive(Serialize)]
struct Report {
    filename: String,
    format: Format,
    previous_virtual_size: u64,
    virtual_size: u64,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let report = resize(args).with_context(|| args.file.display().to_string())?;
    match args.output {
        Output::Json => output::json(&report)?,
        Output::Human if args.quiet => {}
        Output::Human => output::data(b"Image resized.\n")?,
    }
    Ok(Exit::Fine)
}

fn resize(args: &Args) -> anyhow::Result<Report> {
    let file = open_alone(&args.file)?;
    let sink = FileSink::new(file.try_clone().context("sharing the file")?);
    let source: Arc<dyn Source> = Arc::new(FileSource::new(file)?);
    let found = input::judge(&source, &Limits::default())?;
    // Whatever is cut off or added must be a disk's: never on somebody's word alone.
    if found.compression.is_some() {
        bail!("is compressed: only the image in it has a size to change");
    }
    // The file beneath is neither read nor changed.
    let allowed = Allowance {
        files: true,
        ..Allowance::default()
    };
    image::admit(args.format, &found, allowed)?;
    let is_plain = image::is_same(Format::Raw, found.format);
    if args.format.is_none() && is_plain && found.format != Format::Raw {
        bail!(
            "is {}: say -f raw to change its size all the same",
            found.format
        );
    }
    let before = found.virtual_size.unwrap_or(source.len());
    let after = args.size.of(before)?;
    if after < before && !args.shrink {
        bail!(
            "{after} bytes are fewer than the {before} of the disk: use --shrink to lose the rest"
        );
    }
    let after = match found.format {
        Format::Qcow2 => work::watched(work::show(false, args.quiet), |progress| {
            formats::qcow2::resize(&source, &sink, after, args.shrink, progress)
        })?,
        _ if is_plain => {
            sink.set_len(after)?;
            after
        }
        other => {
            return Err(Error::unsupported(
                other,
                "",
                "cannot be resized in place: raw and qcow2 can",
            )
            .into());
        }
    };
    sink.sync()?;
    Ok(Report {
        filename: args.file.to_string_lossy().into_owned(),
        format: found.format,
        previous_virtual_size: before,
        virtual_size: after,
    })
}

/// Opens a file to be changed, unless another program has it: qemu locks what it has open.
pub(super) fn open_alone(path: &Path) -> anyhow::Result<File> {
    let file = input::open_to_change(path)?;
    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(std::io::Error::from)
        .context("another program has it open")?;
    Ok(file)
}
