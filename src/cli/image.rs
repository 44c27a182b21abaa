//! Images that verbs read: judged first, then opened.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use formats::inspect::{Inspection, Verdict};
use formats::{Disk, Error, Format, OpenOptions, Source};

use super::input;
use super::output::{self, Paint};
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

/// Opens the image at `path`. It must be `claimed`, where something is; `raw` takes the bytes of
/// any file as they are. `member` chooses a disk of an archive.
pub(super) fn open(
    path: &Path,
    claimed: Option<Format>,
    member: Option<&str>,
) -> anyhow::Result<Image> {
    let source: Arc<dyn Source> = Arc::new(input::open(path)?);
    open_source(source, claimed, member).with_context(|| path.display().to_string())
}

fn open_source(
    source: Arc<dyn Source>,
    claimed: Option<Format>,
    member: Option<&str>,
) -> anyhow::Result<Image> {
    let file_size = source.len();
    let options = OpenOptions::default();
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
    let found = input::judge(&source, &options.limits)?;
    admit(claimed, &found)?;
    let selector = match member {
        Some(_) if found.format != Format::Ova => {
            anyhow::bail!("--disk chooses among the disks of an archive: this is none")
        }
        Some(name) => Selector::Named(name.to_owned()),
        None => Selector::Only,
    };
    let opened = crate::convert::open(source, &found, &selector, &options, &tempfile::tempfile)?;
    Ok(Image {
        disk: opened.disk,
        format: opened.format,
        is_bare: found.compression.is_none() && found.format != Format::Ova,
        file_size,
    })
}

/// Refuses what is unsafe, telling why, and what is not what it is said to be.
pub(super) fn admit(claimed: Option<Format>, found: &Inspection) -> formats::Result<()> {
    if found.verdict() == Verdict::Unsafe {
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
