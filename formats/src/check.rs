//! Checking: whether an image's tables agree with each other. Reads all of them, where
//! [`inspect`](crate::inspect) decides from a bounded look.

use std::sync::Arc;

use serde::Serialize;

use crate::copy::Progress;
use crate::{Error, Format, OpenOptions, Result, Source, inspect};
use crate::{parallels, qcow2, qed, vdi, vhd, vhdx, vmdk};

/// Checks the image in `source`, of `options.format` or as found by inspection. What is wrong
/// with it is in the answer; `progress` counts bytes of the file gone through.
///
/// # Errors
/// `Unsupported` for formats that have nothing to check, `Malformed` when so little of the image
/// is sound that there is nothing to compare, `Cancelled`, `Io`.
pub fn check(
    source: &Arc<dyn Source>,
    options: &OpenOptions,
    progress: &Progress,
) -> Result<Check> {
    let format = match options.format {
        Some(format) => format,
        None => inspect::inspect(source.as_ref(), &options.limits)?.format,
    };
    match format {
        Format::Qcow2 => qcow2::check(source, &options.limits, progress),
        Format::Vhd => vhd::check(source, options, progress),
        Format::Vhdx => vhdx::check(source, options, progress),
        Format::Vdi => vdi::check(source, options, progress),
        Format::Vmdk => vmdk::check(source, options, progress),
        Format::Qed => qed::check(source, options, progress),
        Format::Parallels => parallels::check(source, options, progress),
        _ => Err(Error::unsupported(format, "", "has no tables to check")),
    }
}

/// Problems a [`Check`] tells one by one; more are only counted.
pub const MAX_PROBLEMS: usize = 1000;

/// What kind of damage a problem is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProblemKind {
    /// What a guest reads may be wrong, or become wrong with the next write.
    Corruption,
    /// Space is taken that nothing uses; the contents are sound.
    Leak,
}

/// One contradiction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub kind: ProblemKind,
    /// The structure and the byte it stands at.
    pub place: String,
    /// What is wrong, in a sentence.
    pub message: String,
}

/// The outcome of checking an image. All sizes in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Check {
    /// Contradictions that endanger the contents.
    pub corruptions: u64,
    /// Space that is lost.
    pub leaks: u64,
    /// Bytes that leaks take up.
    pub leaked_bytes: u64,
    /// Contradictions that a repair removed.
    pub repaired: u64,
    /// Allocation units that hold data.
    pub allocated_units: u64,
    /// Allocation units that the virtual size has.
    pub total_units: u64,
    /// Those of the allocated units that are compressed.
    pub compressed_units: u64,
    /// Those that do not follow their predecessor in the file.
    pub fragmented_units: u64,
    /// End of the last byte in use.
    pub end_offset: u64,
    /// The first [`MAX_PROBLEMS`], in the order they were found.
    pub problems: Vec<Problem>,
}

impl Check {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.corruptions == 0 && self.leaks == 0
    }

    pub(crate) fn corruption(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.corruptions += 1;
        self.note(ProblemKind::Corruption, place.into(), message.into());
    }

    pub(crate) fn leak(
        &mut self,
        bytes: u64,
        place: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.leaks += 1;
        self.leaked_bytes += bytes;
        self.note(ProblemKind::Leak, place.into(), message.into());
    }

    /// A structure that could not be read is a corruption too.
    pub(crate) fn error(&mut self, error: &Error) {
        self.corruption(error.place(), error.message());
    }

    fn note(&mut self, kind: ProblemKind, place: String, message: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem {
                kind,
                place,
                message,
            });
        }
    }
}
