//! Images that verbs read: judged first, then opened.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use formats::container::{self, examine};
use formats::inspect::{Allowance, Inspection};
use formats::{Disk, Error, Format, OpenOptions, Source};

use super::input;
use super::output::{self, Paint};
use super::permit::{self, Means};
use crate::convert::Selector;

/// An image ready to be read.
pub(super) struct Image {
    /// What the guest sees.
    pub(super) disk: Arc<dyn Disk>,
    pub(super) format: Format,
    /// Whether the disk lies in the file as it is: neither in a wrapper nor in an archive.
    pub(super) is_bare: bool,
    /// Bytes of the file.
    pub(super) file_size: u64,
}

/// What is to be opened.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) path: &'a Path,
    /// What it has to be, where something is claimed; `raw` takes the bytes of any file as they
    /// are.
    pub(super) claimed: Option<Format>,
    /// Which disk of an archive.
    pub(super) member: Option<&'a str>,
    /// Which internal snapshot.
    pub(super) snapshot: Option<&'a str>,
}

impl<'a> Request<'a> {
    pub(super) fn new(path: &'a Path, claimed: Option<Format>) -> Self {
        Self {
            path,
            claimed,
            member: None,
            snapshot: None,
        }
    }
}

/// Opens an image with what it is allowed.
pub(super) fn open(request: &Request<'_>, means: &Means) -> anyhow::Result<Image> {
    let source: Arc<dyn Source> = Arc::new(input::open(request.path)?);
    open_source(source, request, means).with_context(|| request.path.display().to_string())
}

fn open_source(
    source: Arc<dyn Source>,
    request: &Request<'_>,
    means: &Means,
) -> anyhow::Result<Image> {
    let file_size = source.len();
    let snapshot = request.snapshot.map(permit::snapshot).transpose()?;
    let options = means.options(Some(request.path), snapshot.as_deref());
    let claimed = request.claimed;
    if claimed == Some(Format::Raw) {
        let options = OpenOptions {
            format: claimed,
            ..options
        };
        return Ok(Image {
            disk: formats::open(source, &options)?,
            format: Format::Raw,
            is_bare: true,
            file_size,
        });
    }
    // What is compressed is decompressed here, wholly: the disk is what it holds.
    let (found, source) = examine(&source, &container::Context::new(&options.limits))?;
    admit(claimed, &found, means.allowance())?;
    let selector = match request.member {
        Some(_) if found.format != Format::Ova => {
            anyhow::bail!("--disk chooses among the disks of an archive: this is none")
        }
        Some(name) => Selector::Named(name.to_owned()),
        None => Selector::Only,
    };
    let opened = crate::convert::open(source, &found, &selector, &options, &tempfile::tempfile)
        .map_err(|e| means.explain(e))?;
    Ok(Image {
        disk: opened.disk,
        format: opened.format,
        is_bare: found.compression.is_none() && found.format != Format::Ova,
        file_size,
    })
}

/// Refuses what is unsafe in spite of what is allowed, telling why, and what is not what it is
/// said to be.
pub(super) fn admit(
    claimed: Option<Format>,
    found: &Inspection,
    allowed: Allowance,
) -> formats::Result<()> {
    if found.refusal(allowed).is_some() {
        let paint = Paint::for_stream(&std::io::stderr());
        for finding in &found.findings {
            output::talk(paint.finding(finding));
        }
        let what = match found.compression {
            Some(compression) => format!("this {compression}-compressed file is unsafe"),
            None => "this image is unsafe".to_owned(),
        };
        return Err(Error::refused(found.format, "", what));
    }
    match claimed {
        Some(claimed) if !is_same(claimed, found.format) => Err(Error::refused(
            found.format,
            "",
            format!("it is not {claimed} as -f says"),
        )),
        _ => Ok(()),
    }
}

/// Whether a file found to be `found` may be called `claimed`: a raw disk that holds a file
/// system or a partition table is raw still.
pub(super) fn is_same(claimed: Format, found: Format) -> bool {
    let plain = |format| match format {
        Format::Iso | Format::Gpt => Format::Raw,
        other => other,
    };
    claimed == found || claimed == plain(found)
}
