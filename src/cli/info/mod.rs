//! `glint info`: what `qemu-img info` prints, so that scripts switch by changing one word.

mod human;
mod node;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use formats::{Error, FileSource, Format, Limits, Source};
use serde::Serialize;
use serde_json::{Value, json};

use super::fence::{Fence, Named};
use super::output::{self, Output};
use super::permit::{self, Folders};
use super::{Exit, image, input};

/// Tell what `qemu-img info` tells, in its words and fields
///
/// The same judgement as `inspect`, without its verdict: scripts written for qemu-img read it
/// unchanged. Only a few megabytes of each file are read, and of the files that an image names none
/// but the backing files that --backing-chain and --allow-backing ask for.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Format the files must have; `raw` takes the bytes of any file as they are
    #[arg(short, value_name = "FMT")]
    format: Option<Format>,

    /// Tell of all images of a chain, the topmost first; --allow-backing says where they may lie
    #[arg(long)]
    backing_chain: bool,

    /// Let images name backing files inside this folder; may be repeated
    #[arg(long, value_name = "DIR")]
    allow_backing: Vec<PathBuf>,

    /// Accepted for qemu-img's sake: nothing is locked here
    #[arg(short = 'U', long, hide = true)]
    force_share: bool,

    #[command(flatten)]
    fence: Fence,

    /// How to print: `json` gives one object for one file, an array for several
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,

    /// Image files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Images a chain may have.
const MAX_CHAIN: usize = 16;

/// The name qemu has for a format.
pub(super) fn qemu_name(format: Format) -> &'static str {
    match format {
        Format::Vhd => "vpc",
        Format::Iso | Format::Gpt => Format::Raw.name(),
        other => other.name(),
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let named = Named {
        files: args.files.iter().map(AsRef::as_ref).collect(),
        folders: &args.allow_backing,
    };
    args.fence.reading(&named, || tell(args))
}

fn tell(args: &Args) -> anyhow::Result<Exit> {
    let folders = match args.allow_backing.as_slice() {
        [] => None,
        dirs => Some(Folders::open(dirs)?),
    };
    let mut worst = Exit::Fine;
    let mut nodes = Vec::new();
    for (n, path) in args.files.iter().enumerate() {
        match chain(args, folders.as_ref(), path).with_context(|| path.display().to_string()) {
            Ok(chain) => {
                if args.output == Output::Human {
                    let texts: Vec<_> = chain.iter().map(human::image).collect();
                    let gap = if n == 0 { "" } else { "\n" };
                    output::data(format!("{gap}{}", texts.join("\n")).as_bytes())?;
                }
                nodes.extend(chain);
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

/// An image of a chain.
struct Link {
    name: String,
    source: Arc<dyn Source>,
    /// Where names in it count from.
    dir: PathBuf,
    /// What it has to be.
    claimed: Option<Format>,
}

/// The image at `path`, and all beneath it where that is asked for.
fn chain(args: &Args, folders: Option<&Folders>, path: &Path) -> anyhow::Result<Vec<Value>> {
    let mut link = Link {
        name: path.to_string_lossy().into_owned(),
        source: Arc::new(input::open(path)?),
        dir: permit::folder_of(path),
        claimed: args.format,
    };
    let mut nodes = Vec::new();
    loop {
        let node = describe(&link)?;
        let beneath = match args.backing_chain {
            true => beneath(&node, &link, folders)?,
            false => None,
        };
        nodes.push(node);
        let Some(next) = beneath else {
            return Ok(nodes);
        };
        if nodes.len() >= MAX_CHAIN {
            bail!("the chain is longer than {MAX_CHAIN} images");
        }
        link = next;
    }
}

fn describe(link: &Link) -> anyhow::Result<Value> {
    let file = node::File {
        name: link.name.clone(),
        len: link.source.len(),
        allocated: link.source.allocated(),
    };
    if link.claimed == Some(Format::Raw) {
        return Ok(node::raw(&file));
    }
    let found = input::judge(&link.source, &Limits::default())?;
    if let Some(claimed) = link.claimed
        && !image::is_same(claimed, found.format)
    {
        let what = format!("it is not {claimed} as it is said to be");
        return Err(Error::refused(found.format, "", what).into());
    }
    node::image(&file, &found).ok_or_else(|| {
        let why = found.findings.first().map_or_else(
            || "its size cannot be told".to_owned(),
            |f| format!("{}: {}", f.place, f.message),
        );
        Error::malformed(found.format, "", why).into()
    })
}

/// The image beneath that of `node`, where it has one.
fn beneath(node: &Value, link: &Link, folders: Option<&Folders>) -> anyhow::Result<Option<Link>> {
    let Some(name) = node["backing-filename"].as_str() else {
        return Ok(None);
    };
    let open = || -> anyhow::Result<Link> {
        let Some(folders) = folders else {
            bail!("no file is opened that --allow-backing does not grant");
        };
        let recorded = node["backing-filename-format"].as_str();
        let path = match node["format"].as_str() {
            Some("qcow" | "qcow2" | "qed") => permit::plain_path(name)?,
            _ => name,
        };
        let (file, dir) = folders.file(&link.dir, path)?;
        Ok(Link {
            name: node["full-backing-filename"]
                .as_str()
                .unwrap_or(name)
                .to_owned(),
            source: Arc::new(FileSource::new(file)?),
            dir,
            claimed: recorded.map(str::parse).transpose()?,
        })
    };
    open()
        .with_context(|| format!("its backing file {name:?}"))
        .map(Some)
}
