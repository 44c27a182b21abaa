//! `glint create`: new, empty images.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use formats::{CreateOptions, FileSink, Format, Limits, Source};
use serde::Serialize;

use super::convert::Place;
use super::output::{self, Output, Plain};
use super::publish::{Existing, publish};
use super::{Exit, input, size, target};

/// Create an empty image
///
/// A file that is there already is left alone unless --force is given.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Format of the image
    #[arg(short, value_name = "FMT", default_value = "raw")]
    format: Format,

    /// Options of the format; may be repeated
    #[arg(short, value_name = "KEY=VALUE,…", value_delimiter = ',', value_parser = target::pair)]
    options: Vec<(String, String)>,

    /// Passphrase of an image written with -o encrypt.format=luks: all bytes of this file
    #[arg(long, value_name = "FILE")]
    output_passphrase_file: Option<PathBuf>,

    /// Replace a file that is there already: what it holds is lost
    #[arg(long)]
    force: bool,

    /// Say nothing
    #[arg(short)]
    quiet: bool,

    /// How to sum up
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,

    /// Image to write
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Size of the disk in bytes, or with k, M, G, T for powers of 1024
    #[arg(value_name = "SIZE", value_parser = size::parse)]
    size: u64,
}

/// What `--output json` prints.
#[derive(Serialize)]
struct Report {
    filename: String,
    format: Format,
    virtual_size: u64,
    file_size: u64,
    allocated_size: u64,
}

/// The virtual size that the image says it has.
fn written_size(args: &Args) -> anyhow::Result<u64> {
    if args.format == Format::Raw {
        return Ok(args.size);
    }
    let source: Arc<dyn Source> = Arc::new(input::open(&args.file)?);
    let found = input::judge(&source, &Limits::default())?;
    found
        .virtual_size
        .with_context(|| format!("{} does not tell its size", args.file.display()))
}

/// Writes an image in one file; answers its length and the bytes it takes up.
fn write_file(
    args: &Args,
    options: &CreateOptions,
    existing: Existing,
) -> anyhow::Result<(u64, u64)> {
    let target = formats::create(options, args.size)?;
    publish(&args.file, existing, |file| {
        let sink = FileSink::new(file.try_clone().context("sharing the output")?);
        let summary = target
            .finish(&sink)
            .with_context(|| args.file.display().to_string())?;
        let allocated = file.metadata().map_or(0, |meta| meta.blocks() * 512);
        Ok((summary.file_size, allocated))
    })
}

/// Writes an image in several files, which are called after the one that was named.
fn write_files(
    args: &Args,
    options: CreateOptions,
    existing: Existing,
) -> anyhow::Result<(u64, u64)> {
    let place = Place::new(&args.file, None)?.with_existing(existing);
    let target = formats::create(&options.named(&place.name()), args.size)?;
    let draft = place.begin(target.parts())?;
    let summary = target
        .finish(draft.sink()?.as_ref())
        .with_context(|| args.file.display().to_string())?;
    Ok((summary.file_size, place.commit(&draft)?))
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let options = target::options(
        args.format,
        &args.options,
        false,
        args.output_passphrase_file.as_deref(),
    )?;
    let existing = match args.force {
        true => Existing::Replace,
        false => Existing::Keep,
    };
    let (file_size, allocated_size) = match options.is_split() {
        true => write_files(args, options, existing)?,
        false => write_file(args, &options, existing)?,
    };
    // A format may round the size: what the file says counts.
    let virtual_size = written_size(args)?;
    match args.output {
        Output::Json => output::json(&Report {
            filename: args.file.to_string_lossy().into_owned(),
            format: args.format,
            virtual_size,
            file_size,
            allocated_size,
        })?,
        Output::Human if args.quiet => {}
        Output::Human => output::data(
            format!(
                "{}: {}, {}\n",
                Plain(&args.file.to_string_lossy()),
                args.format,
                output::size(virtual_size)
            )
            .as_bytes(),
        )?,
    }
    Ok(Exit::Fine)
}
