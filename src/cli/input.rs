//! Image files named on the command line.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use formats::inspect::Inspection;
use formats::{FileSource, Limits, Source};
use rustix::fs::OFlags;

/// Opens the file at `path` for reading.
pub(super) fn open(path: &Path) -> anyhow::Result<FileSource> {
    // A pipe nobody writes to would hold up a plain open for ever, before its type is looked at.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    FileSource::new(file).with_context(|| path.display().to_string())
}

/// Opens the regular file at `path` for reading and writing.
pub(super) fn open_to_change(path: &Path) -> anyhow::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .context("opening it")?;
    if !file
        .metadata()
        .context("reading file attributes")?
        .is_file()
    {
        anyhow::bail!("not a regular file");
    }
    Ok(file)
}

/// What the image in `source` is and whether it is safe: the one judgement, the service's too.
pub(super) fn judge(source: &Arc<dyn Source>, limits: &Limits) -> formats::Result<Inspection> {
    formats::container::describe(source, limits)
}
