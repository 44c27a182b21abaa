//! `glint compare`: whether two images hold the same disk.

use std::num::NonZero;
use std::path::PathBuf;

use anyhow::Context;
use formats::Format;
use formats::compare::{CompareOptions, allocation_difference, compare};
use serde::Serialize;

use super::fence::Fence;
use super::image::Request;
use super::output::{self, Output};
use super::permit::Permit;
use super::{Exit, image, work};

/// Tell whether two images hold the same disk, whatever their formats
///
/// Where one disk is longer the rest of it must be zero. The exit code is 0 when they are the
/// same, and 1 when they differ or one of them cannot be used.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Format of the first image; `raw` reads the bytes of any file as they are
    #[arg(short, value_name = "FMT")]
    format: Option<Format>,

    /// Format of the second image
    #[arg(short = 'F', value_name = "FMT")]
    second_format: Option<Format>,

    /// Let sizes differ in nothing, and what is stored neither
    #[arg(short)]
    strict: bool,

    /// Threads to work with, as many as there are cores unless told
    #[arg(short = 'm', value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: Option<u8>,

    /// Show progress, also where standard error is no terminal
    #[arg(short)]
    progress: bool,

    /// Say nothing: the exit code tells
    #[arg(short)]
    quiet: bool,

    /// Accepted for qemu-img's sake: nothing is locked here
    #[arg(short = 'U', long, hide = true)]
    force_share: bool,

    /// Read an internal snapshot of the first image instead of its present state: its name or id
    #[arg(short = 'l', long, value_name = "NAME")]
    snapshot: Option<String>,

    #[command(flatten)]
    permit: Permit,

    #[command(flatten)]
    fence: Fence,

    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,

    /// First image
    #[arg(value_name = "A")]
    first: PathBuf,

    /// Second image
    #[arg(value_name = "B")]
    second: PathBuf,
}

/// What `--output json` prints.
#[derive(Serialize)]
struct Report {
    identical: bool,
    /// Of the first byte that differs.
    first_difference: Option<u64>,
    /// With `-s`: of the first byte that only one of them stores.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_allocation_difference: Option<u64>,
    files: [Side; 2],
}

#[derive(Serialize)]
struct Side {
    filename: String,
    format: Format,
    virtual_size: u64,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let named = args.permit.named(vec![&args.first, &args.second]);
    args.fence.reading(&named, || same(args))
}

fn same(args: &Args) -> anyhow::Result<Exit> {
    let means = args.permit.means()?;
    let first = Request {
        snapshot: args.snapshot.as_deref(),
        ..Request::new(&args.first, args.format)
    };
    let a = image::open(&first, &means)?;
    let b = image::open(&Request::new(&args.second, args.second_format), &means)?;
    let (a_size, b_size) = (a.disk.virtual_size(), b.disk.virtual_size());
    let mut options = CompareOptions::default();
    if let Some(threads) = args.threads.and_then(|n| NonZero::new(usize::from(n))) {
        options.threads = threads;
    }
    let is_size_wrong = args.strict && a_size != b_size;
    let mut allocation = None;
    let mut content = None;
    if !is_size_wrong {
        if args.strict {
            allocation = allocation_difference(a.disk.as_ref(), b.disk.as_ref())?;
        }
        content = work::watched(work::show(args.progress, args.quiet), |progress| {
            compare(a.disk.as_ref(), b.disk.as_ref(), &options, progress)
        })
        .with_context(|| format!("{} or {}", args.first.display(), args.second.display()))?;
    }
    if a_size != b_size && !is_size_wrong && !args.quiet {
        output::talk("Warning: Image size mismatch!");
    }
    let identical = !is_size_wrong && allocation.is_none() && content.is_none();
    match args.output {
        _ if args.quiet => {}
        Output::Json => output::json(&Report {
            identical,
            first_difference: content.map(|at| at.0),
            first_allocation_difference: allocation.map(|at| at.0),
            files: [(&args.first, &a), (&args.second, &b)].map(|(path, image)| Side {
                filename: path.to_string_lossy().into_owned(),
                format: image.format,
                virtual_size: image.disk.virtual_size(),
            }),
        })?,
        Output::Human => {
            let mut text = String::new();
            if is_size_wrong {
                text = "Strict mode: Image size mismatch!\n".into();
            } else if let Some(at) = content {
                text += &format!("Content mismatch at offset {}!\n", at.0);
            } else if let Some(at) = allocation {
                text += &format!("Strict mode: Offset {} block status mismatch!\n", at.0);
            } else {
                text += "Images are identical.\n";
            }
            output::data(text.as_bytes())?;
        }
    }
    Ok(if identical { Exit::Fine } else { Exit::Image })
}
