//! What images come wrapped in: compression, archives of disks, descriptors.
//!
//! ```text
//!  any file ──► compressed? ── inflated as a stream ──► inspectors
//!     │              └── an archive inside ──► scratch file ──┐
//!     ├──► tar? ◄─────────────────────────────────────────────┘
//!     │      ├── with a descriptor or a vagrant box: each disk inspected in its place
//!     │      └── docker: images and layers listed; or a tar of anything
//!     ├──► descriptor alone: OVF
//!     └──► inspectors
//! ```
//! Archives are never unpacked: a member is a [`Slice`](crate::Slice) of the one source. Only
//! what must be read by position and is compressed goes to a scratch file, bounded by
//! [`Limits`]. Compression inside compression is refused.

pub mod compressed;
mod docker;
pub mod manifest;
pub mod ova;
pub mod ovf;
mod tar;
mod wrap;

use std::fs::File;
use std::io;
use std::sync::Arc;

use serde_json::Map;

use crate::copy::Progress;
use crate::error::presentable;
use crate::inspect::{self, Finding, Inspection, Severity};
use crate::source::read_up_to;
use crate::{Error, Format, HostOffset, Limits, Result, Source};

pub use crate::codec::stream::Compression;
pub use compressed::inflate_into;
pub use ova::{Ova, OvaDisk, write_ova};
pub use wrap::{Wrap, compress};

/// Bytes of the head looked at to tell archives and descriptors.
const HEAD: usize = 4096;

/// What looking into containers may use.
#[derive(Clone)]
pub struct Context<'a> {
    /// Bounds.
    pub limits: &'a Limits,
    /// Makes an empty file for what must be inflated and read by position; unnamed, so that it
    /// goes away by itself.
    pub scratch: &'a dyn Fn() -> io::Result<File>,
    /// Bytes gone through out, cancellation in.
    pub progress: Arc<Progress>,
}

impl<'a> Context<'a> {
    /// Scratch files in the system's folder for temporary files; nobody watches or cancels.
    #[must_use]
    pub fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            scratch: &tempfile::tempfile,
            progress: Arc::default(),
        }
    }
}

/// Judges any file: what it is, what is in it, and whether that is safe.
///
/// Plain images cost a few MiB of reads, compressed ones a bounded decompression
/// (see [`Limits::max_look`]), archives with a manifest one pass.
///
/// # Errors
/// `Io` only. What is wrong with the file is a finding, not an error.
pub fn describe(source: &Arc<dyn Source>, limits: &Limits) -> Result<Inspection> {
    describe_with(source, &Context::new(limits))
}

/// [`describe`] with scratch files, progress and cancellation by the caller.
///
/// # Errors
/// `Io`, and `Cancelled` when the context's progress was told so.
pub fn describe_with(source: &Arc<dyn Source>, cx: &Context<'_>) -> Result<Inspection> {
    let Some((compression, bare)) = around(source, cx.limits)? else {
        return describe_plain(source, cx);
    };
    let mut inspection = compressed::describe(source, compression, compressed::Inside::Any, cx)?;
    find_polyglot(&mut inspection, compression.name(), &bare);
    Ok(inspection)
}

/// [`describe_with`], and the file it is of: `source`, or what that holds once it is wholly
/// decompressed, within [`Limits::max_inflated`]. For whoever goes on to read the disk.
///
/// # Errors
/// Those of [`describe_with`].
pub fn examine(
    source: &Arc<dyn Source>,
    cx: &Context<'_>,
) -> Result<(Inspection, Arc<dyn Source>)> {
    let Some((compression, bare)) = around(source, cx.limits)? else {
        return Ok((describe_plain(source, cx)?, source.clone()));
    };
    let (mut inspection, held) = compressed::examine(source, compression, cx)?;
    find_polyglot(&mut inspection, compression.name(), &bare);
    Ok((inspection, held))
}

/// The compression around a file, for whoever takes it off before anything else is looked at.
///
/// # Errors
/// `Refused` where the file is something else at once; `Io`.
pub fn wrapper(source: &Arc<dyn Source>, limits: &Limits) -> Result<Option<Compression>> {
    let Some((compression, bare)) = around(source, limits)? else {
        return Ok(None);
    };
    match polyglot(compression.name(), &bare) {
        Some(finding) => Err(Error::refused(bare.format, finding.place, finding.message)),
        None => Ok(Some(compression)),
    }
}

/// The compression around a file, and what the file is beside.
fn around(source: &Arc<dyn Source>, limits: &Limits) -> Result<Option<(Compression, Inspection)>> {
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, HEAD)?;
    let Some(compression) = Compression::detect(&head) else {
        return Ok(None);
    };
    // A disk's mark may stand at the end of what begins as a compressed file.
    let bare = inspect::inspect(source.as_ref(), limits)?;
    Ok((!is_whole_dmg(&bare)).then_some((compression, bare)))
}

/// An Apple image that is one: what begins like a compressed file is its first chunk.
fn is_whole_dmg(bare: &Inspection) -> bool {
    bare.format == Format::Dmg && bare.verdict() == inspect::Verdict::Safe
}

/// [`describe`] for what is not compressed.
fn describe_plain(source: &Arc<dyn Source>, cx: &Context<'_>) -> Result<Inspection> {
    let bare = inspect::inspect(source.as_ref(), cx.limits)?;
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, HEAD)?;
    let mut inspection = if tar::is_tar(&head) {
        describe_archive(source, cx)?
    } else if ovf::is_ovf(&head) {
        describe_descriptor(source.as_ref())?
    } else {
        return Ok(bare);
    };
    let name = inspection.format.name();
    find_polyglot(&mut inspection, name, &bare);
    inspection.sort_findings();
    Ok(inspection)
}

fn find_polyglot(inspection: &mut Inspection, name: &str, bare: &Inspection) {
    if let Some(finding) = polyglot(name, bare) {
        inspection.findings.push(finding);
        inspection.sort_findings();
    }
}

/// What is wrong with a file that is `name` and what `bare` says as well.
fn polyglot(name: &str, bare: &Inspection) -> Option<Finding> {
    let other = bare.format;
    (other != Format::Raw).then(|| Finding {
        rule: "polyglot",
        severity: Severity::Unsafe,
        place: "file".into(),
        message: format!("is {name} and {other} at once: programs would disagree on what it holds"),
    })
}

/// An inspection of `format` with nothing found yet.
fn blank(format: Format, container_format: &'static str, file_size: u64) -> Inspection {
    Inspection {
        format,
        container_format,
        compression: None,
        virtual_size: None,
        file_size,
        details: Map::new(),
        disks: Vec::new(),
        findings: Vec::new(),
    }
}

/// Keeps the first of very many findings, and rather those that refuse the image.
fn push_finding(findings: &mut Vec<Finding>, mut finding: Finding) {
    const ENOUGH: usize = 100;
    let bound = match finding.severity {
        Severity::Unsafe => 2 * ENOUGH,
        _ => ENOUGH,
    };
    if findings.len() < bound {
        finding.place = presentable(finding.place);
        finding.message = presentable(finding.message);
        findings.push(finding);
    }
}

/// Judges a tar archive by its members' names.
fn describe_archive(source: &Arc<dyn Source>, cx: &Context<'_>) -> Result<Inspection> {
    let listing = tar::list(source.as_ref())?;
    let has = |name: &str| {
        let mut members = listing.members.iter();
        members.any(|m| m.name.strip_prefix("./").unwrap_or(&m.name) == name)
    };
    if listing.members.iter().any(ova::is_descriptor) || ova::is_box(source, &listing)? {
        return ova::describe(source, listing, cx);
    }
    let is_docker = has("manifest.json") || has("index.json") || has("oci-layout");
    if is_docker {
        return docker::describe(source, listing);
    }
    let mut inspection = if has("repositories") {
        blank(Format::Docker, "docker", source.len())
    } else {
        blank(Format::Tar, "bare", source.len())
    };
    inspection
        .details
        .insert("members".into(), listing.members.len().into());
    let mut find = |rule, severity, place: String, message: String| {
        inspection.findings.push(Finding {
            rule,
            severity,
            place,
            message,
        });
    };
    if let Some(problem) = listing.problem {
        let severity = match inspection.format {
            Format::Docker if problem.rule != "tar_too_many_members" => Severity::Unsafe,
            _ => Severity::Warning,
        };
        let place = format!("byte {}", problem.at);
        find(problem.rule, severity, place, problem.message);
    }
    if inspection.format == Format::Tar {
        find(
            "archive",
            Severity::Warning,
            "file".into(),
            "is a tar archive without an OVF descriptor: as a disk it boots nothing".into(),
        );
    } else {
        find(
            "docker_manifest",
            Severity::Unsafe,
            "file".into(),
            "has repositories but no manifest.json: a container archive that cannot be loaded"
                .into(),
        );
    }
    Ok(inspection)
}

/// Judges a descriptor that came without its files.
fn describe_descriptor(source: &dyn Source) -> Result<Inspection> {
    let mut inspection = blank(Format::Ovf, "ovf", source.len());
    let len = usize::try_from(source.len().min(ovf::MAX_LEN + 1)).unwrap_or(0);
    let bytes = read_up_to(source, HostOffset::ZERO, len)?;
    let mut envelope = match ova::parse_descriptor(&bytes) {
        Ok(envelope) => envelope,
        Err(finding) => {
            inspection.findings.push(finding);
            return Ok(inspection);
        }
    };
    inspection.details = envelope.details();
    inspection
        .details
        .insert("disks".into(), envelope.disk_details().into());
    inspection.findings = std::mem::take(&mut envelope.findings);
    for file in &envelope.files {
        if let Some(finding) = ova::external_reference(file) {
            push_finding(&mut inspection.findings, finding);
        }
    }
    if !envelope.files.is_empty() {
        push_finding(
            &mut inspection.findings,
            Finding {
                rule: "ovf_references",
                severity: Severity::Warning,
                place: "descriptor".into(),
                message: format!(
                    "its {} files are not here: pack them into one archive (OVA)",
                    envelope.files.len()
                ),
            },
        );
    }
    Ok(inspection)
}
