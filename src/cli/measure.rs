//! `glint measure`: how large the file of a conversion will be.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use anyhow::Context;
use formats::copy::CopyOptions;
use formats::measure::{Depth, Measure, measure, measure_empty};
use formats::{CreateOptions, Format};

use super::fence::Fence;
use super::image::Request;
use super::output::{self, Output};
use super::permit::Permit;
use super::{Exit, image, size, target, work};

/// Tell how large the file that `convert` writes will be
///
/// `required size` is the very size of that file, which costs reading what the image stores, and
/// with -c compressing it; `fully allocated size` is that of a disk without a zero in it.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Format the input must have; `raw` reads the bytes of any file as they are
    #[arg(short, value_name = "FMT")]
    format: Option<Format>,

    /// Format of the output
    #[arg(short = 'O', value_name = "FMT", default_value = "raw")]
    output_format: Format,

    /// Options of the output's format; may be repeated
    #[arg(short, value_name = "KEY=VALUE,…", value_delimiter = ',', value_parser = target::pair)]
    options: Vec<(String, String)>,

    /// Compress the output
    #[arg(short)]
    compress: bool,

    /// Read no contents: `required size` is then a bound, as if no stored byte were zero and
    /// nothing could be compressed
    #[arg(long)]
    quick: bool,

    /// Threads to work with, as many as there are cores unless told
    #[arg(short = 'm', value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: Option<u8>,

    /// Show progress, also where standard error is no terminal
    #[arg(short)]
    progress: bool,

    /// Which disk of an archive: its name, or its number counted from 0
    #[arg(long, value_name = "N|NAME", conflicts_with = "size")]
    disk: Option<String>,

    /// Measure an internal snapshot instead of the present state: its name or id
    #[arg(short = 'l', long, value_name = "NAME", conflicts_with = "size")]
    snapshot: Option<String>,

    #[command(flatten)]
    permit: Permit,

    /// Accepted for qemu-img's sake: nothing is locked here
    #[arg(short = 'U', long, hide = true)]
    force_share: bool,

    #[command(flatten)]
    fence: Fence,

    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,

    /// Measure a new image of this size instead, with k, M, G, T for powers of 1024
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    size: Option<u64>,

    /// Image to read
    #[arg(
        value_name = "FILE",
        required_unless_present = "size",
        conflicts_with = "size"
    )]
    file: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let named = args
        .permit
        .named(args.file.iter().map(AsRef::as_ref).collect());
    args.fence.reading(&named, || weigh(args))
}

fn weigh(args: &Args) -> anyhow::Result<Exit> {
    let create = target::options_to_measure(args.output_format, &args.options, args.compress)?;
    let seen = match (args.size, &args.file) {
        (Some(size), _) => work::watched(work::show(args.progress, false), |progress| {
            measure_empty(&create, size, progress)
        })?,
        (None, Some(file)) => look(args, file, &create)?,
        (None, None) => anyhow::bail!("neither a file nor a size to measure"),
    };
    match args.output {
        Output::Json => output::json(&seen)?,
        Output::Human => {
            let full = match seen.fully_allocated {
                Some(bytes) => bytes.to_string(),
                None => format!("more than {} holds", args.output_format),
            };
            let text = format!(
                "required size: {}\nfully allocated size: {full}\n",
                seen.required
            );
            output::data(text.as_bytes())?;
        }
    }
    Ok(Exit::Fine)
}

fn look(args: &Args, file: &Path, create: &CreateOptions) -> anyhow::Result<Measure> {
    let request = Request {
        member: args.disk.as_deref(),
        snapshot: args.snapshot.as_deref(),
        ..Request::new(file, args.format)
    };
    let image = image::open(&request, &args.permit.means()?)?;
    let mut options = CopyOptions::default();
    if let Some(threads) = args.threads.and_then(|n| NonZero::new(usize::from(n))) {
        options.threads = threads;
    }
    let depth = match args.quick {
        true => Depth::Allocation,
        false => Depth::Contents,
    };
    work::watched(work::show(args.progress, false), |progress| {
        measure(image.disk.as_ref(), create, depth, &options, progress)
    })
    .with_context(|| file.display().to_string())
}
