//! OVA: an OVF package in one tar archive.
//!
//! ```text
//!  descriptor .ovf │ [manifest .mf │ certificate .cert] │ disks and other files, by plain names
//! ```
//! DSP0243 2.1.1, section 5. Stricter than the specification where programs differ: one
//! descriptor, no folders, links or sparse members, no name twice, nothing behind the end.

mod describe;
mod name;
mod options;
mod read;
mod write;

use std::collections::HashMap;
use std::sync::Arc;

use super::compressed::inflate_to_scratch;
use super::manifest::{self, Entry};
use super::ovf::Envelope;
use super::tar::{self, Member};
use super::{Context, push_finding};
use crate::codec::stream::Compression;
use crate::inspect::{Finding, Severity};
use crate::{Disk, Error, Format, HostOffset, OpenOptions, Result, Slice, Source};

pub use options::WriteOptions;
pub use write::write_ova;

pub(super) use describe::describe;
pub(super) use read::{external_reference, is_descriptor, parse_descriptor};

/// A disk of an archive.
#[derive(Clone, Debug)]
pub struct OvaDisk {
    /// The member's name.
    pub name: String,
    /// The descriptor's id of the disk.
    pub id: String,
    /// Bytes the guest sees, as the descriptor says.
    pub capacity: Option<u64>,
    /// Bytes in use, as the descriptor says.
    pub populated_size: Option<u64>,
    /// The address of the format's specification, as the descriptor says.
    pub format: Option<String>,
    /// The compression around the disk, as its first bytes say.
    pub compression: Option<Compression>,
    /// Bytes of the member.
    pub file_size: u64,
    at: HostOffset,
}

/// An OVA, opened.
pub struct Ova {
    source: Arc<dyn Source>,
    /// Regular files by name.
    files: HashMap<String, Member>,
    envelope: Envelope,
    disks: Vec<OvaDisk>,
    manifest: Option<Vec<Entry>>,
    findings: Vec<Finding>,
}

impl Ova {
    /// Opens the archive in `source`, which is not compressed. Reads headers, descriptor and
    /// manifest, not the disks.
    ///
    /// # Errors
    /// `Refused` with the first finding that makes the archive unsafe, whatever its disks hold;
    /// `Io`.
    pub fn open(source: Arc<dyn Source>) -> Result<Self> {
        let listing = tar::list(source.as_ref())?;
        let ova = Self::read(source, listing)?;
        match ova.findings.iter().find(|f| f.severity == Severity::Unsafe) {
            Some(f) => Err(Error::refused(
                Format::Ova,
                f.place.clone(),
                f.message.clone(),
            )),
            None => Ok(ova),
        }
    }

    /// The descriptor.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The disks, in the order of the descriptor's hardware.
    #[must_use]
    pub fn disks(&self) -> &[OvaDisk] {
        &self.disks
    }

    /// What is noteworthy or wrong about the archive itself, its disks not looked at.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The bytes of a member, as they stand in the archive.
    ///
    /// # Errors
    /// `Usage` when there is no such member.
    pub fn member(&self, name: &str) -> Result<Slice> {
        let member = self
            .files
            .get(name)
            .ok_or_else(|| Error::usage(format!("the archive has no member {name:?}")))?;
        Slice::new(self.source.clone(), member.at, member.len)
    }

    /// The image file of disk `n` (an index into [`disks`](Self::disks)); inflated into a
    /// scratch file where it is compressed.
    ///
    /// # Errors
    /// `Usage` when there is no such disk, and those of [`inflate_into`](super::inflate_into).
    pub fn disk_file(&self, n: usize, cx: &Context<'_>) -> Result<Arc<dyn Source>> {
        let count = self.disks.len();
        let disk = self.disks.get(n).ok_or_else(|| {
            Error::usage(format!("the archive has {count} disks, none at index {n}"))
        })?;
        let member = self.slice(disk)?;
        match disk.compression {
            Some(compression) => inflate_to_scratch(&member, compression, cx),
            None => Ok(member),
        }
    }

    /// Opens disk `n` (an index into [`disks`](Self::disks)).
    ///
    /// # Errors
    /// Those of [`disk_file`](Self::disk_file) and [`open`](crate::open).
    pub fn open_disk(&self, n: usize, cx: &Context<'_>) -> Result<Arc<dyn Disk>> {
        let options = OpenOptions {
            limits: cx.limits.clone(),
            ..OpenOptions::default()
        };
        crate::open(self.disk_file(n, cx)?, &options)
    }

    fn slice(&self, disk: &OvaDisk) -> Result<Arc<dyn Source>> {
        let slice = Slice::new(self.source.clone(), disk.at, disk.file_size)?;
        Ok(Arc::new(slice))
    }

    /// Compares the files with the manifest, reading each once. Empty: all is well, or there is
    /// no manifest.
    ///
    /// # Errors
    /// `Io`, and `Cancelled` when the context's progress was told so.
    pub fn verify_manifest(&self, cx: &Context<'_>) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let mut by_name: HashMap<&str, Vec<&Entry>> = HashMap::new();
        let entries = self.manifest.as_deref().unwrap_or(&[]);
        for entry in entries.iter().filter(|e| e.algorithm.is_some()) {
            by_name.entry(&entry.name).or_default().push(entry);
        }
        // In the order of the manifest, so that the findings do not depend on the map.
        for entry in entries {
            let Some(entries) = by_name.remove(entry.name.as_str()) else {
                continue;
            };
            let Ok(member) = self.member(&entry.name) else {
                continue;
            };
            let algorithms = entries.iter().filter_map(|e| e.algorithm);
            let found = manifest::digests(&member, algorithms, cx)?;
            let matches = |e: &&Entry| e.algorithm.and_then(|a| found.get(&a)) == Some(&e.digest);
            if !entries.iter().all(matches) {
                let finding = Finding {
                    rule: "manifest_mismatch",
                    severity: Severity::Unsafe,
                    place: format!("member {}", name::shown(&entry.name)),
                    message: "its digest is not that of the manifest: damaged or changed".into(),
                };
                push_finding(&mut findings, finding);
            }
        }
        Ok(findings)
    }
}
