//! Reading an archive: members, descriptor, manifest, and how they fit.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use serde_json::Map;

use super::name::{has_suffix, is_plain, percent_decoded, shown};
use super::{Ova, OvaDisk};
use crate::codec::stream::{self, Compression};
use crate::container::ovf::{self, Envelope};
use crate::container::tar::{Kind, Listing, Member, Problem};
use crate::container::{manifest, push_finding};
use crate::inspect::{Finding, Severity};
use crate::resolve::{Granted, Resolver, Wanted};
use crate::source::read_up_to;
use crate::{Format, HostOffset, Result, Slice, Source};

/// Whether a member says it is a descriptor.
pub(in crate::container) fn is_descriptor(member: &Member) -> bool {
    member.kind != Kind::Folder && has_suffix(&member.name, ".ovf")
}

/// The finding for a file that is somewhere else.
pub(in crate::container) fn external_reference(file: &ovf::File) -> Option<Finding> {
    (!is_plain(&file.href)).then(|| Finding {
        rule: "ova_external_reference",
        severity: Severity::Unsafe,
        place: "descriptor".into(),
        message: format!(
            "the file {} is no plain name: only files of the package itself are used",
            shown(&file.href)
        ),
    })
}

/// Parses a descriptor, its fault being a finding.
pub(in crate::container) fn parse_descriptor(bytes: &[u8]) -> Result<Envelope, Finding> {
    let finding = |message| Finding {
        rule: "ovf_xml",
        severity: Severity::Unsafe,
        place: "descriptor".into(),
        message,
    };
    if bytes.len() as u64 > ovf::MAX_LEN {
        let message = format!("is larger than {} bytes", ovf::MAX_LEN);
        return Err(finding(message));
    }
    Envelope::parse(bytes).map_err(|e| finding(e.message().to_owned()))
}

/// The one folder that all members lie in, as where a folder was packed and not what is in it.
fn common_folder(members: &[Member]) -> Option<String> {
    let folder_of = |member: &Member| {
        let name = member.name.strip_prefix("./").unwrap_or(&member.name);
        let (folder, rest) = match name.split_once('/') {
            Some(split) => split,
            None if member.kind == Kind::Folder => (name, ""),
            None => return None,
        };
        let is_in_it = !rest.is_empty() || member.kind == Kind::Folder;
        is_in_it.then(|| folder.to_owned())
    };
    let mut folders = members.iter().filter(|m| !is_itself(m)).map(folder_of);
    let first = folders.next()??;
    let is_one = is_plain(&first) && folders.all(|folder| folder.as_ref() == Some(&first));
    is_one.then_some(first)
}

/// Whether it is the folder that was packed.
fn is_itself(member: &Member) -> bool {
    member.kind == Kind::Folder && matches!(member.name.as_str(), "." | "./")
}

/// The name of a member below `folder`, or else below where the archive was packed.
fn below<'a>(member: &'a Member, folder: Option<&str>) -> Option<&'a str> {
    let name = member.name.strip_prefix("./");
    match folder {
        None => name,
        Some(folder) => {
            let rest = name.unwrap_or(&member.name).strip_prefix(folder);
            rest.map(|rest| rest.strip_prefix('/').unwrap_or(rest))
        }
    }
}

impl Ova {
    pub(super) fn find(
        &mut self,
        rule: &'static str,
        severity: Severity,
        place: impl Into<String>,
        message: impl Into<String>,
    ) {
        let finding = Finding {
            rule,
            severity,
            place: place.into(),
            message: message.into(),
        };
        push_finding(&mut self.findings, finding);
    }

    pub(super) fn empty(format: Format) -> Self {
        Self {
            format,
            files: HashMap::new(),
            envelope: Envelope::default(),
            details: Map::new(),
            disks: Vec::new(),
            manifest: None,
            findings: Vec::new(),
        }
    }

    /// Reads a descriptor whose files `resolver` grants.
    pub(super) fn read_files(source: &dyn Source, resolver: &dyn Resolver) -> Result<Self> {
        let mut ova = Self::empty(Format::Ovf);
        let len = usize::try_from(source.len().min(ovf::MAX_LEN + 1)).unwrap_or(0);
        ova.take_descriptor(&read_up_to(source, HostOffset::ZERO, len)?);
        let wanted: Vec<_> = ova
            .envelope
            .disks_in_order()
            .filter(|disk| disk.parent_ref.is_none())
            .filter_map(|disk| ova.envelope.file_of(disk))
            .filter(|file| file.chunk_size.is_none() && is_plain(&file.href))
            .map(|file| percent_decoded(&file.href).unwrap_or_else(|| file.href.clone()))
            .filter(|name| is_plain(name))
            .collect();
        for name in wanted {
            if let Entry::Vacant(file) = ova.files.entry(name) {
                let granted = resolver.resolve(Format::Ovf, Wanted::Extent, file.key())?;
                file.insert(granted);
            }
        }
        ova.take_disks()?;
        Ok(ova)
    }

    /// Reads everything but the disks.
    pub(super) fn read(source: &Arc<dyn Source>, listing: Listing) -> Result<Self> {
        let mut ova = Self::empty(Format::Ova);
        ova.take_problem(listing.problem.as_ref());
        let names = ova.take_members(source, listing.members)?;
        let is = |suffix| move |name: &&String| has_suffix(name, suffix);
        let descriptors: Vec<_> = names.iter().filter(is(".ovf")).collect();
        let descriptor = match descriptors.as_slice() {
            [] => {
                let message = "the archive has no OVF descriptor";
                ova.find("ova_no_descriptor", Severity::Unsafe, "archive", message);
                return Ok(ova);
            }
            [one] => one.as_str(),
            [first, second, ..] => {
                let message = format!("{} and {}", shown(first), shown(second));
                ova.find(
                    "ova_two_descriptors",
                    Severity::Unsafe,
                    "archive",
                    format!("has more than one OVF descriptor: {message}"),
                );
                first.as_str()
            }
        };
        if names.first().is_some_and(|first| first != descriptor) {
            let message = "the descriptor is not the first member";
            ova.find("ova_order", Severity::Note, "archive", message);
        }
        let manifests: Vec<_> = names.iter().filter(is(".mf")).collect();
        let stem = &descriptor[..descriptor.len() - ".ovf".len()];
        let manifest = manifests
            .iter()
            .find(|name| name.strip_suffix(".mf") == Some(stem))
            .or(manifests.first())
            .map(|name| name.as_str());
        if manifests.len() > 1 {
            let message = "has more than one manifest";
            ova.find("ova_two_manifests", Severity::Unsafe, "archive", message);
        }
        let descriptor_bytes = ova.read_member(descriptor, ovf::MAX_LEN + 1)?;
        ova.take_descriptor(&descriptor_bytes);
        ova.take_disks()?;
        let certificates: Vec<_> = names.iter().filter(is(".cert")).collect();
        if certificates.len() > 1 {
            let message = "has more than one certificate";
            ova.find("ova_two_certificates", Severity::Unsafe, "archive", message);
        }
        if let Some(manifest) = manifest {
            ova.read_manifest(manifest, descriptor)?;
        }
        if let Some(certificate) = certificates.first() {
            ova.check_signature(certificate, manifest)?;
        }
        Ok(ova)
    }

    pub(super) fn take_problem(&mut self, problem: Option<&Problem>) {
        if let Some(problem) = problem {
            let place = format!("byte {}", problem.at);
            self.find(problem.rule, Severity::Unsafe, place, &*problem.message);
        }
    }

    /// Keeps the regular files; answers with their names in the archive's order.
    fn take_members(
        &mut self,
        source: &Arc<dyn Source>,
        members: Vec<Member>,
    ) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let folder = common_folder(&members);
        if let Some(folder) = &folder {
            let message = format!("all of it lies in the folder {}", shown(folder));
            self.find("ova_folder", Severity::Note, "archive", message);
        }
        for mut member in members.into_iter().filter(|m| !is_itself(m)) {
            let place = format!("member {}", shown(&member.name));
            if let Some(name) = below(&member, folder.as_deref()) {
                if name.is_empty() && member.kind == Kind::Folder {
                    continue;
                }
                member.name = name.to_owned();
            }
            match member.kind {
                Kind::File if is_plain(&member.name) => {}
                Kind::File => {
                    let message = "the name is not plain: no folders, colons or control characters";
                    self.find("ova_member_name", Severity::Unsafe, place, message);
                    continue;
                }
                Kind::Folder => {
                    let message = "is a folder: an OVA has none";
                    self.find("ova_member_kind", Severity::Unsafe, place, message);
                    continue;
                }
                Kind::Other(what) => {
                    let message = format!("is {what}: only plain files are allowed");
                    self.find("ova_member_kind", Severity::Unsafe, place, message);
                    continue;
                }
            }
            names.push(member.name.clone());
            let slice = Slice::new(source.clone(), member.at, member.len)?;
            let file = Granted::alone(Arc::new(slice));
            if self.files.insert(member.name, file).is_some() {
                let message = "the name stands in the archive twice";
                self.find("ova_duplicate_member", Severity::Unsafe, place, message);
            }
        }
        Ok(names)
    }

    pub(super) fn read_member(&self, name: &str, max: u64) -> Result<Vec<u8>> {
        let member = self.member(name)?;
        let len = usize::try_from(member.len().min(max)).unwrap_or(0);
        read_up_to(member.as_ref(), HostOffset::ZERO, len)
    }

    pub(super) fn take_descriptor(&mut self, bytes: &[u8]) {
        match parse_descriptor(bytes) {
            Ok(mut envelope) => {
                self.details = envelope.details();
                for finding in std::mem::take(&mut envelope.findings) {
                    push_finding(&mut self.findings, finding);
                }
                self.envelope = envelope;
            }
            Err(finding) => push_finding(&mut self.findings, finding),
        }
    }

    /// The member a reference names, spelled as it is or percent-encoded.
    fn member_of(&self, file: &ovf::File) -> Option<(&String, &Granted)> {
        self.files.get_key_value(&file.href).or_else(|| {
            let name = percent_decoded(&file.href)?;
            self.files.get_key_value(&name).filter(|_| is_plain(&name))
        })
    }

    /// Looks up the descriptor's files and disks among the members.
    pub(super) fn take_disks(&mut self) -> Result<()> {
        let envelope = std::mem::take(&mut self.envelope);
        for file in &envelope.files {
            if let Some(finding) = external_reference(file) {
                push_finding(&mut self.findings, finding);
                continue;
            }
            let is_disk = || {
                let mut disks = envelope.disks.iter();
                disks.any(|d| d.file_ref.as_deref() == Some(&file.id))
            };
            match self.member_of(file) {
                // A missing disk is reported as one.
                None if is_disk() => {}
                None => {
                    let message = format!("the file {} is not in the archive", shown(&file.href));
                    self.find("ova_missing_file", Severity::Warning, "descriptor", message);
                }
                Some((_, member))
                    if file
                        .size
                        .is_some_and(|s| s != 0 && s != member.source.len()) =>
                {
                    let message = format!(
                        "the file {} has {} bytes, the descriptor says {}",
                        shown(&file.href),
                        member.source.len(),
                        file.size.unwrap_or(0)
                    );
                    self.find("ova_file_size", Severity::Warning, "descriptor", message);
                }
                Some(_) => {}
            }
        }
        for disk in envelope.disks_in_order() {
            self.take_disk(&envelope, disk)?;
        }
        self.envelope = envelope;
        Ok(())
    }

    fn take_disk(&mut self, envelope: &Envelope, disk: &ovf::Disk) -> Result<()> {
        let place = format!("disk {}", shown(&disk.id));
        if let Some(parent) = &disk.parent_ref {
            let message = format!("is a difference to {}: flatten it first", shown(parent));
            self.find("ova_parent_disk", Severity::Unsafe, place, message);
            return Ok(());
        }
        let Some(wanted) = &disk.file_ref else {
            let message = "has no file: it is created empty and not part of the image";
            self.find("ova_blank_disk", Severity::Note, place, message);
            return Ok(());
        };
        let file = envelope.file_of(disk);
        let found = file.and_then(|file| {
            let (name, member) = self.member_of(file)?;
            Some((file, name.clone(), member.source.clone()))
        });
        let Some((file, name, member)) = found else {
            let (rule, message) = match file {
                Some(file) if file.chunk_size.is_some() => (
                    "ova_chunked",
                    format!("{} is cut in parts: join them first", shown(&file.href)),
                ),
                Some(file) => (
                    "ova_missing_disk",
                    format!("its file {} is not in the archive", shown(&file.href)),
                ),
                None => (
                    "ova_missing_disk",
                    format!("refers to the file {}, which is none", shown(wanted)),
                ),
            };
            self.find(rule, Severity::Unsafe, place, message);
            return Ok(());
        };
        let head = read_up_to(member.as_ref(), HostOffset::ZERO, stream::HEAD)?;
        let compression = Compression::detect(&head);
        if let Some(claim) = &file.compression
            && compression.map(Compression::name) != Some(claim)
        {
            let message = format!(
                "the descriptor says its compression is {}, its bytes say {}",
                shown(claim),
                compression.map_or("none", Compression::name)
            );
            self.find("ova_compression", Severity::Warning, place, message);
        }
        self.disks.push(OvaDisk {
            name,
            id: disk.id.clone(),
            capacity: disk.capacity,
            populated_size: disk.populated_size,
            format: disk.format.clone(),
            controller: envelope.controller_of(disk),
            compression,
            file_size: member.len(),
        });
        Ok(())
    }

    fn read_manifest(&mut self, name: &str, descriptor: &str) -> Result<()> {
        let bytes = self.read_member(name, manifest::MAX_LEN + 1)?;
        let entries = if bytes.len() as u64 > manifest::MAX_LEN {
            Err(format!("is larger than {} bytes", manifest::MAX_LEN))
        } else {
            manifest::parse(&bytes).map_err(|e| e.message().to_owned())
        };
        let entries = match entries {
            Ok(entries) => entries,
            Err(message) => {
                self.find("manifest_syntax", Severity::Unsafe, "manifest", message);
                return Ok(());
            }
        };
        let mut unlisted: Vec<&str> = vec![descriptor];
        unlisted.extend(self.disks.iter().map(|disk| disk.name.as_str()));
        unlisted.retain(|name| !entries.iter().any(|entry| entry.name == *name));
        unlisted.dedup();
        let unlisted: Vec<_> = unlisted.into_iter().map(shown).collect();
        for name in unlisted {
            let message = format!("does not list {name}, which is not checked");
            self.find("manifest_unlisted", Severity::Warning, "manifest", message);
        }
        for entry in &entries {
            let name = shown(&entry.name);
            if !self.files.contains_key(&entry.name) {
                self.find(
                    "manifest_missing_file",
                    Severity::Unsafe,
                    "manifest",
                    format!("lists {name}, which is not in the archive"),
                );
            } else if entry.algorithm.is_none() {
                self.find(
                    "manifest_algorithm",
                    Severity::Warning,
                    "manifest",
                    format!("{name} has a digest of a kind that is not known"),
                );
            }
        }
        self.manifest = Some(entries);
        Ok(())
    }
}
