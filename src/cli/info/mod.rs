//! `glint info`: what `qemu-img info` prints, so that scripts switch by changing one word.

mod human;
mod node;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use formats::inspect::Inspection;
use formats::{Error, Format, Limits, Source};
use serde::Serialize;
use serde_json::{Value, json};

use super::output::{self, Output};
use super::{Exit, image, input};

/// Tell what `qemu-img info` tells, in its words and fields
///
/// The same judgement as `inspect`, without its verdict: scripts written for qemu-img read it
/// unchanged. Only a few megabytes of each file are read, and nothing an image names is opened.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Format the files must have; `raw` takes the bytes of any file as they are
    #[arg(short, value_name = "FMT")]
    format: Option<Format>,

    /// Print an array of the images of a chain: one, for backing files are not opened
    #[arg(long)]
    backing_chain: bool,

    /// Accepted for qemu-img's sake: nothing is locked here
    #[arg(short = 'U', long, hide = true)]
    force_share: bool,

    /// How to print: `json` gives one object for one file, an array for several
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,

    /// Image files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// The name qemu has for a format.
pub(super) fn qemu_name(format: Format) -> &'static str {
    match format {
        Format::Vhd => "vpc",
        Format::Iso | Format::Gpt => Format::Raw.name(),
        other => other.name(),
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut worst = Exit::Fine;
    let mut nodes = Vec::new();
    for (n, path) in args.files.iter().enumerate() {
        match describe(args, path).with_context(|| path.display().to_string()) {
            Ok(node) => {
                if args.output == Output::Human {
                    let gap = if n == 0 { "" } else { "\n" };
                    output::data(format!("{gap}{}", human::image(&node)).as_bytes())?;
                }
                nodes.push(node);
            }
            Err(e) => {
                output::complain(&e);
                worst = worst.max(Exit::of(&e));
                if args.files.len() > 1 {
                    let filename = path.to_string_lossy();
                    nodes.push(json!({"filename": filename, "error": format!("{e:#}")}));
                }
            }
        }
    }
    if args.output == Output::Json {
        match nodes.as_slice() {
            [] => {}
            [one] if !args.backing_chain => print(one)?,
            all => print(&Value::Array(all.to_vec()))?,
        }
    }
    Ok(worst)
}

/// As qemu-img does: indented by four.
fn print(value: &Value) -> anyhow::Result<()> {
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut text, indent,
    ))?;
    text.push(b'\n');
    output::data(&text)
}

fn describe(args: &Args, path: &Path) -> anyhow::Result<Value> {
    let source: Arc<dyn Source> = Arc::new(input::open(path)?);
    let file = node::File {
        name: path.to_string_lossy().into_owned(),
        len: source.len(),
        allocated: source.allocated(),
    };
    if args.format == Some(Format::Raw) {
        return Ok(node::raw(&file));
    }
    let found = input::judge(&source, &Limits::default())?;
    check(args, &found)?;
    node::image(&file, &found).ok_or_else(|| {
        let why = found.findings.first().map_or_else(
            || "its size cannot be told".to_owned(),
            |f| format!("{}: {}", f.place, f.message),
        );
        Error::malformed(found.format, "", why).into()
    })
}

fn check(args: &Args, found: &Inspection) -> anyhow::Result<()> {
    if let Some(claimed) = args.format
        && !image::is_same(claimed, found.format)
    {
        let what = format!("it is not {claimed} as -f says");
        return Err(Error::refused(found.format, "", what).into());
    }
    let names_another = found.findings.iter().any(|f| f.rule == "backing_file");
    if args.backing_chain && names_another {
        bail!("has a backing file, and none is opened here: leave out --backing-chain");
    }
    Ok(())
}
