//! `glint map`: what a disk is made of, and where in the file it lies.

mod svg;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context;
use formats::map::{Mapped, Picture, Walk};
use formats::{ExtentKind, Format, GuestOffset, guest_len};

use super::fence::Fence;
use super::image::{self, Image, Request};
use super::output::{Output, Plain};
use super::permit::Permit;
use super::publish::{Existing, publish};
use super::{Exit, size};

/// Tell what a disk is made of, and where in the file it lies
///
/// People see what is stored; `--output json` lists everything, in the words of `qemu-img map`.
/// Memory stays flat however fragmented the image is.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Format the image must have; `raw` reads the bytes of any file as they are
    #[arg(short, value_name = "FMT")]
    format: Option<Format>,

    /// First byte of the disk to tell of
    #[arg(short, long, value_name = "OFFSET", default_value = "0", value_parser = size::parse)]
    start_offset: u64,

    /// Bytes of the disk to tell of, all unless told
    #[arg(short = 'l', long, value_name = "LENGTH", value_parser = size::parse)]
    max_length: Option<u64>,

    /// Which disk of an archive: its name, or its number counted from 0
    #[arg(long, value_name = "N|NAME")]
    disk: Option<String>,

    /// Read an internal snapshot instead of the present state: its name or id
    #[arg(long, value_name = "NAME")]
    snapshot: Option<String>,

    #[command(flatten)]
    permit: Permit,

    /// Draw a picture of the whole disk into this file instead, which it replaces; `-` is
    /// standard output
    #[arg(long, value_name = "FILE", conflicts_with_all = ["start_offset", "max_length", "output"])]
    svg: Option<PathBuf>,

    /// Accepted for qemu-img's sake: nothing is locked here
    #[arg(short = 'U', long, hide = true)]
    force_share: bool,

    #[command(flatten)]
    fence: Fence,

    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,

    /// Image to read
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    // A picture is written beside whatever lies in its folder.
    if args.svg.as_ref().is_some_and(|svg| svg.as_os_str() != "-") {
        return map(args);
    }
    let named = args.permit.named(vec![&args.file]);
    args.fence.reading(&named, || map(args))
}

fn map(args: &Args) -> anyhow::Result<Exit> {
    let request = Request {
        member: args.disk.as_deref(),
        snapshot: args.snapshot.as_deref(),
        ..Request::new(&args.file, args.format)
    };
    let means = args.permit.means()?;
    let image = image::open(&request, &means)?;
    let name = args.file.display().to_string();
    if let Some(svg) = &args.svg {
        draw(&image, args, svg)?;
        return Ok(Exit::Fine);
    }
    let mut files = vec![name.clone()];
    files.extend(means.beneath());
    let start = GuestOffset(args.start_offset);
    let end = start
        .checked_add(args.max_length.unwrap_or(u64::MAX))
        .unwrap_or(GuestOffset(u64::MAX));
    let mut walk = Walk::new(image.disk.as_ref(), start..end);
    // Not the line buffer of a terminal: a map may have millions of lines.
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut list: Box<dyn List> = match args.output {
        Output::Json => Box::new(Json { is_first: true }),
        Output::Human => Box::new(Table { files: &files }),
    };
    let write = |done: io::Result<()>| match done {
        // A reader that has gone away ends the output and nothing else.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        done => done.context("writing to standard output").map(|()| true),
    };
    if !write(list.begin(&mut out))? {
        return Ok(Exit::Fine);
    }
    while let Some(mapped) = walk.next().with_context(|| name.clone())? {
        if !write(list.extent(&mapped, image.is_bare, &mut out))? {
            return Ok(Exit::Fine);
        }
    }
    write(list.end(&mut out).and_then(|()| out.flush()))?;
    Ok(Exit::Fine)
}

/// A way to print extents.
trait List {
    fn begin(&self, out: &mut dyn Write) -> io::Result<()>;

    /// `is_bare`: the file's own bytes can be pointed to.
    fn extent(&mut self, mapped: &Mapped, is_bare: bool, out: &mut dyn Write) -> io::Result<()>;

    fn end(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Where the bytes of an extent lie in the file of its image.
fn host(mapped: &Mapped, is_bare: bool) -> Option<u64> {
    match mapped.extent.kind {
        // Images beneath are never wrapped in anything.
        ExtentKind::Data { host } if is_bare || mapped.depth > 0 => host.map(|at| at.0),
        _ => None,
    }
}

/// The columns of `qemu-img map`.
struct Table<'a> {
    /// By depth.
    files: &'a [String],
}

impl List for Table<'_> {
    fn begin(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{:<16}{:<16}{:<16}File",
            "Offset", "Length", "Mapped to"
        )
    }

    fn extent(&mut self, mapped: &Mapped, is_bare: bool, out: &mut dyn Write) -> io::Result<()> {
        let extent = &mapped.extent;
        if extent.kind.is_hole() {
            return Ok(());
        }
        // C's %#x writes no prefix for zero.
        let hex = |n: u64| match n {
            0 => "0".to_owned(),
            n => format!("{n:#x}"),
        };
        let place = match (host(mapped, is_bare), extent.kind) {
            (Some(at), _) => hex(at),
            (None, ExtentKind::Encoded) => "compressed".into(),
            (None, _) => "-".into(),
        };
        let file = self.files.get(mapped.depth as usize);
        let file = file.map_or("-", String::as_str);
        writeln!(
            out,
            "{:<16}{:<16}{place:<16}{}",
            hex(extent.range.start.0),
            hex(guest_len(&extent.range)),
            Plain(file)
        )
    }

    fn end(&self, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

/// The array of `qemu-img map --output=json`, a line an extent.
struct Json {
    is_first: bool,
}

impl List for Json {
    fn begin(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "[")
    }

    fn extent(&mut self, mapped: &Mapped, is_bare: bool, out: &mut dyn Write) -> io::Result<()> {
        let extent = &mapped.extent;
        let gap = if self.is_first { "" } else { ",\n" };
        self.is_first = false;
        let is_data = !extent.kind.is_hole();
        write!(
            out,
            "{gap}{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {}, \"zero\": {}, \
             \"data\": {is_data}, \"compressed\": {}",
            extent.range.start.0,
            guest_len(&extent.range),
            mapped.depth,
            extent.kind != ExtentKind::Unallocated,
            !is_data,
            extent.kind == ExtentKind::Encoded,
        )?;
        match host(mapped, is_bare) {
            Some(at) => write!(out, ", \"offset\": {at}}}"),
            None => write!(out, "}}"),
        }
    }

    fn end(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "]")
    }
}

fn draw(image: &Image, args: &Args, svg: &std::path::Path) -> anyhow::Result<()> {
    let size = image.disk.virtual_size();
    let mut picture = Picture::new(svg::COLUMNS, size, image.file_size);
    let mut walk = Walk::new(image.disk.as_ref(), GuestOffset::ZERO..GuestOffset(size));
    while let Some(Mapped { mut extent, depth }) = walk
        .next()
        .with_context(|| args.file.display().to_string())?
    {
        // The file drawn is the image's own.
        if let ExtentKind::Data { host } = &mut extent.kind
            && !(image.is_bare && depth == 0)
        {
            *host = None;
        }
        picture.add(&extent);
    }
    let name = args.file.file_name().unwrap_or(args.file.as_os_str());
    let text = svg::render(&picture, &name.to_string_lossy(), image.format.name());
    if svg.as_os_str() == "-" {
        return super::output::data(text.as_bytes());
    }
    publish(svg, Existing::Replace, |mut file| {
        file.write_all(text.as_bytes())
            .with_context(|| format!("writing {}", svg.display()))
    })
}
