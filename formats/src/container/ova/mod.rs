//! Packages of disks: OVA, which is an OVF package in one tar archive; the same package as files
//! beside each other; vagrant boxes.
//!
//! ```text
//!  descriptor .ovf │ [manifest .mf │ certificate .cert] │ disks and other files, by plain names
//!  metadata.json │ box.img, or box.ovf and *.vmdk, or whatever the provider likes
//! ```
//! DSP0243 2.1.1, section 5. Stricter than the specification where programs differ: one
//! descriptor, no folders, links or sparse members, no name twice, nothing behind the end.
//! Members come in any order.

mod describe;
mod name;
mod options;
mod read;
mod signature;
mod vagrant;
mod write;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::compressed::inflate_to_scratch;
use super::manifest::{self, Entry};
use super::ovf::Envelope;
use super::tar;
use super::{Context, push_finding};
use crate::codec::stream::Compression;
use crate::inspect::{Finding, Severity};
use crate::resolve::{Alone, Granted, Resolver};
use crate::{Disk, Error, Format, OpenOptions, Result, Source};

pub use options::WriteOptions;
pub use write::{Assembly, write_ova};

pub(super) use describe::describe;
pub(super) use name::shown;
pub(super) use read::{external_reference, is_descriptor, parse_descriptor};
pub(super) use vagrant::is_box;

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
    /// What it hangs on, as the descriptor says: `scsi (lsilogic) 0:1`.
    pub controller: Option<String>,
    /// The compression around the disk, as its first bytes say.
    pub compression: Option<Compression>,
    /// Bytes of the member.
    pub file_size: u64,
}

/// A package of disks, opened.
pub struct Ova {
    format: Format,
    /// Regular files by name.
    files: HashMap<String, Granted>,
    envelope: Envelope,
    /// What is worth telling of it all.
    details: Map<String, Value>,
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
    pub fn open(source: &Arc<dyn Source>) -> Result<Self> {
        let listing = tar::list(source.as_ref())?;
        let ova = if is_box(source, &listing)? {
            Self::read_box(source, listing)?
        } else {
            Self::read(source, listing)?
        };
        ova.unless_unsafe()
    }

    /// Opens the descriptor in `source`, whose disks are files that `resolver` may grant, as
    /// [`Wanted::Extent`](crate::resolve::Wanted::Extent). Only files that disks refer to are
    /// asked for, by plain names; there is no manifest to be seen.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and those of the resolver.
    pub fn open_descriptor(source: &dyn Source, resolver: &dyn Resolver) -> Result<Self> {
        Self::read_files(source, resolver)?.unless_unsafe()
    }

    fn unless_unsafe(self) -> Result<Self> {
        match self
            .findings
            .iter()
            .find(|f| f.severity == Severity::Unsafe)
        {
            Some(f) => Err(Error::refused(
                self.format,
                f.place.clone(),
                f.message.clone(),
            )),
            None => Ok(self),
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
    pub fn member(&self, name: &str) -> Result<Arc<dyn Source>> {
        match self.files.get(name) {
            Some(file) => Ok(file.source.clone()),
            None => Err(Error::usage(format!("the archive has no member {name:?}"))),
        }
    }

    fn disk(&self, n: usize) -> Result<&OvaDisk> {
        let count = self.disks.len();
        self.disks.get(n).ok_or_else(|| {
            Error::usage(format!("the archive has {count} disks, none at index {n}"))
        })
    }

    /// The image file of disk `n` (an index into [`disks`](Self::disks)); inflated into a
    /// scratch file where it is compressed.
    ///
    /// # Errors
    /// `Usage` when there is no such disk, and those of [`inflate_into`](super::inflate_into).
    pub fn disk_file(&self, n: usize, cx: &Context<'_>) -> Result<Arc<dyn Source>> {
        let disk = self.disk(n)?;
        let member = self.member(&disk.name)?;
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
        let file = self.files.get(&self.disk(n)?.name);
        let options = OpenOptions {
            limits: cx.limits.clone(),
            resolver: file.map_or_else(|| Arc::new(Alone) as _, |file| file.resolver.clone()),
            ..OpenOptions::default()
        };
        crate::open(self.disk_file(n, cx)?, &options)
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
            let found = manifest::digests(member.as_ref(), algorithms, cx)?;
            let matches = |e: &&Entry| e.algorithm.and_then(|a| found.get(&a)) == Some(&e.digest);
            if !entries.iter().all(matches) {
                let finding = Finding {
                    rule: "manifest_mismatch",
                    severity: Severity::Unsafe,
                    place: format!("member {}", shown(&entry.name)),
                    message: "its digest is not that of the manifest: damaged or changed".into(),
                };
                push_finding(&mut findings, finding);
            }
        }
        Ok(findings)
    }
}
