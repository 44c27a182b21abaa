//! The input: judged, then opened.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use formats::container::{Context, examine};
use formats::copy::Progress;
use formats::inspect::{Allowance, Finding, Inspection};
use formats::{Disk, Format, OpenOptions, Source};

use super::Args;
use super::place::without_path;
use crate::cli::permit::{self, Means};
use crate::cli::{input, output};
use crate::convert::Selector;

/// An image that is not to be converted.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(in crate::cli) struct Refusal {
    reason: String,
    pub(super) findings: Vec<Finding>,
}

impl Refusal {
    fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            findings: Vec::new(),
        }
    }
}

/// Judges the input and opens the disk to copy. `path` is where it lies, unless it came by a pipe.
pub(super) fn open_disk(
    args: &Args,
    source: Arc<dyn Source>,
    path: Option<&Path>,
    means: &Means,
    scratch_dir: &Path,
    progress: &Arc<Progress>,
) -> anyhow::Result<(Arc<dyn Disk>, Format)> {
    let snapshot = args.snapshot.as_deref().map(permit::snapshot).transpose()?;
    let options = means.options(path, snapshot.as_deref());
    if args.format == Some(Format::Raw) {
        let found = input::judge(&source, &options.limits)?;
        // Said by whoever asks, never guessed: the bytes are then just bytes, and safe.
        if !args.quiet && (found.format != Format::Raw || found.compression.is_some()) {
            output::talk(format_args!(
                "note: copying the bytes of this {} file as they are, because of -f raw",
                found.compression.unwrap_or(found.format.name())
            ));
        }
        let options = OpenOptions {
            format: Some(Format::Raw),
            ..options
        };
        return Ok((formats::open(source, &options)?, Format::Raw));
    }
    let scratch = || tempfile::tempfile_in(scratch_dir).map_err(without_path);
    let context = Context {
        scratch: &scratch,
        progress: progress.clone(),
        ..Context::new(&options.limits)
    };
    let (found, source) = examine(&source, &context)?;
    check(args.format, &found, means.allowance())?;
    let selector = match &args.disk {
        Some(_) if !matches!(found.format, Format::Ova | Format::Ovf | Format::Vagrant) => {
            bail!("--disk chooses among the disks of an archive: this is none")
        }
        Some(name) => Selector::Named(name.clone()),
        None => Selector::Only,
    };
    let opened = crate::convert::open(source, &found, &selector, &options, &scratch)
        .map_err(|e| means.explain(e))?;
    Ok((opened.disk, opened.format))
}

/// Refuses what is unsafe in spite of what is allowed, or not what it is said to be.
fn check(claimed: Option<Format>, found: &Inspection, allowed: Allowance) -> Result<(), Refusal> {
    if found.refusal(allowed).is_some() {
        let what = match found.compression {
            Some(compression) => format!("{compression}-compressed file"),
            None => format!("{} image", found.format),
        };
        return Err(Refusal {
            reason: format!("refused: this {what} is unsafe"),
            findings: found.findings.clone(),
        });
    }
    match claimed {
        Some(claimed) if claimed != found.format => Err(Refusal::new(format!(
            "is {}, not {claimed} as -f says",
            found.format
        ))),
        _ => Ok(()),
    }
}
