//! Inspection: what an image is and whether it is safe, decided from bounded reads.
//!
//! ```text
//!  bytes ──► driver (stream | source) ──regions──► Inspector, one a format ──► Facts
//!                                                        all Facts ──► verdict ──► Inspection
//! ```
//! Inspectors do no I/O. They name the spans they want, are handed the bytes, and answer with
//! more wants, facts, or "not mine". Two drivers feed them: [`Stream`] while an upload passes
//! by, [`inspect`] by positioned reads. Both reach the same judgement (see [`judge`]).

mod allow;
mod judge;
mod marks;
mod source;
mod stream;

use serde::Serialize;
use serde_json::{Map, Value};

pub use allow::Allowance;
pub use judge::{Inspection, MemberDisk, Verdict, judge};
pub use marks::Mark;
pub use source::inspect;
pub(crate) use stream::HEAD as REMEMBERED_HEAD;
pub use stream::Stream;

use crate::error::presentable;
use crate::{Error, ErrorKind, Format};
use crate::{bochs, content, dmg, foreign, gpt, iso, luks, parallels};
use crate::{qcow1, qcow2, qed, vdi, vhd, vhdx, vmdk};

/// The largest span an inspector may ask for, in bytes; the drivers clip what is larger.
pub const MAX_SPAN: u64 = 1 << 20;
/// Bytes all spans of one inspector may add up to; asking for more ends it with a finding.
pub const MAX_WANTED: u64 = 4 << 20;

/// Bytes an inspector asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Span {
    /// `len` bytes from `at`, both in bytes of the file.
    At {
        /// First byte.
        at: u64,
        /// Bytes wanted.
        len: u64,
    },
    /// The last `len` bytes. `Tail(0)` waits for the end of the file and so tells its length.
    Tail(u64),
}

impl Span {
    /// The first `len` bytes.
    #[must_use]
    pub const fn head(len: u64) -> Self {
        Self::At { at: 0, len }
    }
}

/// Bytes an inspector asked for, as far as the file holds them: shorter than asked where the
/// file ends first, empty where it ends before.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    /// Where in the file `bytes` begin.
    pub at: u64,
    /// The bytes.
    pub bytes: &'a [u8],
    /// Length of the file, once its end was seen. Always known with a `Tail` among the wants.
    pub file_len: Option<u64>,
}

/// Whether a stream still has all of `len` bytes at `at` when the spans that an inspector wanted
/// before end at `before`: those near the head are remembered, those further on are yet to come.
pub(crate) fn is_ahead(at: u64, len: u64, before: u64) -> bool {
    let remembered = stream::HEAD as u64;
    at.checked_add(len).is_some_and(|end| end <= remembered)
        || at >= before.saturating_add(stream::TAIL as u64)
}

/// An inspector's answer.
#[derive(Debug)]
pub enum Next {
    /// Hand over these spans, all at once and in this order, when the last has been seen.
    Want(Vec<Span>),
    /// It is this format; here is what was found.
    Done(Facts),
    /// It is not this format.
    NotMine,
}

/// Recognises one format. Fed with regions, never reads.
pub trait Inspector: Send {
    /// The format it recognises.
    fn format(&self) -> Format;

    /// The first spans wanted. Keep them short: most files are something else.
    fn start(&mut self) -> Next;

    /// The regions wanted last, in the order asked.
    fn regions(&mut self, regions: &[Region<'_>]) -> Next;
}

/// What an inspector found.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The format recognised.
    pub format: Format,
    /// Bytes the guest sees; `None` where the format does not say or it is the file's length.
    pub virtual_size: Option<u64>,
    /// Format-specific facts for people and scripts, in the specification's words.
    pub details: Map<String, Value>,
    /// What is noteworthy or wrong.
    pub findings: Vec<Finding>,
    /// The guest's bytes begin at byte 0 of the file (fixed VHD): a partition table seen there
    /// is the guest's, not a second format.
    pub guest_at_zero: bool,
    /// What other programs may take the file for.
    pub marks: Vec<Mark>,
}

impl Facts {
    /// Facts without anything found yet.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self {
            format,
            virtual_size: None,
            details: Map::new(),
            findings: Vec::new(),
            guest_at_zero: false,
            marks: Vec::new(),
        }
    }

    /// Records a detail.
    pub fn detail(&mut self, key: &str, value: impl Into<Value>) {
        self.details.insert(key.to_owned(), value.into());
    }

    /// Records a finding.
    pub fn find(
        &mut self,
        rule: &'static str,
        severity: Severity,
        place: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.findings.push(Finding {
            rule,
            severity,
            place: presentable(place.into()),
            message: presentable(message.into()),
        });
    }

    /// Records a finding in the structure that begins at byte `at` of the file, or its field there.
    pub(crate) fn find_at(
        &mut self,
        rule: &'static str,
        severity: Severity,
        (structure, at): (&str, u64),
        message: impl Into<String>,
    ) {
        self.find(rule, severity, at_byte(structure, at), message);
    }

    /// Whether the image is refused whatever is allowed: nothing more needs to be looked at.
    pub(crate) fn is_lost(&self) -> bool {
        self.findings.iter().any(|finding| {
            finding.severity == Severity::Unsafe && !Allowance::ALL.covers(self.format, finding)
        })
    }

    /// Records why a structure cannot be used, as a finding that makes the image unsafe.
    pub(crate) fn find_error(&mut self, error: &Error) {
        let rule = match error.kind() {
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Refused => "refused",
            ErrorKind::Limit => "limit",
            _ => "malformed",
        };
        let place = match error.place() {
            "" => "file",
            place => place,
        };
        self.find(rule, Severity::Unsafe, place, error.message());
    }
}

/// How much a finding weighs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Odd, and harmless to read.
    Warning,
    /// The image is not to be used: it reaches outside itself, contradicts itself, or cannot be
    /// judged.
    Unsafe,
}

/// A place: offsets above a page in hexadecimal.
fn at_byte(structure: &str, at: u64) -> String {
    match at {
        ..4096 => format!("{structure}, byte {at}"),
        _ => format!("{structure}, byte {at:#x}"),
    }
}

/// One observation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// Stable name, such as `backing_file`: for scripts and policies.
    pub rule: &'static str,
    /// How much it weighs.
    pub severity: Severity,
    /// Where: structure and byte of the file, such as `header, byte 8`.
    pub place: String,
    /// A sentence for a person: what is wrong, and what to do where that is not plain.
    pub message: String,
}

/// One inspector of each format, in the order of [`Format`]. Those of raw come last and only
/// describe: raw is what is left.
#[must_use]
pub fn inspectors() -> Vec<Box<dyn Inspector>> {
    let mut all: Vec<Box<dyn Inspector>> = vec![
        Box::new(qcow2::Inspector::default()),
        Box::new(qcow1::Inspector::default()),
        Box::new(qed::Inspector::default()),
        Box::new(vhd::Inspector::default()),
        Box::new(vhdx::Inspector::default()),
        Box::new(vmdk::Inspector::default()),
        Box::new(vdi::Inspector::default()),
        Box::new(parallels::Inspector::default()),
        Box::new(dmg::Inspector::default()),
        Box::new(bochs::Inspector::default()),
        Box::new(iso::Inspector::default()),
        Box::new(gpt::Inspector::default()),
        Box::new(luks::Inspector::default()),
    ];
    all.extend(foreign::inspectors());
    all.push(Box::new(content::Inspector::default()));
    all.push(Box::new(marks::Inspector::default()));
    all
}
