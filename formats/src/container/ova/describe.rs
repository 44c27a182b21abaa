//! Judging a whole package: the archive, each disk in its place, the manifest.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Ova, OvaDisk};
use crate::container::compressed::{self, Inside, max_output};
use crate::container::tar::Listing;
use crate::container::{Context, blank, push_finding};
use crate::inspect::{Finding, Inspection, MemberDisk, Severity, inspect};
use crate::{Format, Limits, Result, Source};

/// Judges the OVA in `source`, its disks and its manifest.
pub(in crate::container) fn describe(
    source: &Arc<dyn Source>,
    listing: Listing,
    cx: &Context<'_>,
) -> Result<Inspection> {
    let members = listing.members.len();
    let ova = match super::is_box(source, &listing)? {
        true => Ova::read_box(source, listing)?,
        false => Ova::read(source, listing)?,
    };
    describe_opened(ova, source.len(), members, cx)
}

fn describe_opened(
    mut ova: Ova,
    file_size: u64,
    members: usize,
    cx: &Context<'_>,
) -> Result<Inspection> {
    let mut inspection = blank(ova.format, ova.format.name(), file_size);
    let mut findings = std::mem::take(&mut ova.findings);

    // What all disks together may inflate to, so that many small bombs are none.
    let mut limits = Limits {
        max_inflated: max_output(file_size, cx.limits),
        ..cx.limits.clone()
    };
    let mut by_member: HashMap<&str, Inspection> = HashMap::new();
    let mut total = Some(0_u64);
    for disk in &ova.disks {
        let found = match by_member.get(disk.name.as_str()) {
            Some(found) => found,
            None => {
                let cx = Context {
                    limits: &limits,
                    ..cx.clone()
                };
                let found = describe_disk(&ova, disk, &cx)?;
                for finding in &found.findings {
                    let mut finding = finding.clone();
                    finding.place = format!("{}: {}", disk.name, finding.place);
                    push_finding(&mut findings, finding);
                }
                let inflated = found.details.get("uncompressed_size");
                let inflated = inflated.and_then(serde_json::Value::as_u64).unwrap_or(0);
                limits.max_inflated = limits.max_inflated.saturating_sub(inflated);
                if disk.compression.is_some() {
                    limits.max_look = limits.max_look.saturating_sub(inflated);
                }
                by_member.entry(&disk.name).or_insert(found)
            }
        };
        for finding in against_descriptor(disk, found) {
            push_finding(&mut findings, finding);
        }
        total = total
            .zip(found.virtual_size)
            .and_then(|(a, b)| a.checked_add(b));
        inspection.disks.push(MemberDisk {
            name: disk.name.clone(),
            id: disk.id.clone(),
            format: found.format,
            compression: found.compression,
            virtual_size: found.virtual_size,
            capacity: disk.capacity,
            controller: disk.controller.clone(),
            file_size: disk.file_size,
            details: found.details.clone(),
        });
    }
    inspection.virtual_size = total.filter(|_| !ova.disks.is_empty());
    let mismatches = ova.verify_manifest(cx)?;
    inspection.details = std::mem::take(&mut ova.details);
    if ova.format == Format::Ova {
        let manifest = match (&ova.manifest, mismatches.is_empty()) {
            (None, _) => "absent",
            (Some(_), true) => "verified",
            (Some(_), false) => "mismatch",
        };
        let details = &mut inspection.details;
        details.insert("manifest".into(), manifest.into());
    }
    findings.extend(mismatches);
    inspection.details.insert("members".into(), members.into());
    inspection.findings = findings;
    Ok(inspection)
}

fn describe_disk(ova: &Ova, disk: &OvaDisk, cx: &Context<'_>) -> Result<Inspection> {
    let member = ova.member(&disk.name)?;
    match disk.compression {
        Some(compression) => compressed::describe(&member, compression, Inside::Image, cx),
        None => inspect(member.as_ref(), cx.limits),
    }
}

/// What the descriptor says of a disk against what was found.
fn against_descriptor(disk: &OvaDisk, found: &Inspection) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut warn = |rule, message| {
        findings.push(Finding {
            rule,
            severity: Severity::Warning,
            place: disk.name.clone(),
            message,
        });
    };
    if let (Some(capacity), Some(size)) = (disk.capacity, found.virtual_size)
        && capacity != size
    {
        warn(
            "ova_capacity",
            format!("the disk has {size} bytes, the descriptor says {capacity}"),
        );
    }
    // The addresses say vmdk even where programs write something else.
    let claim = disk.format.as_deref().unwrap_or_default();
    let claimed = ["vmdk", "vhdx", "vhd", "vdi", "qcow2"]
        .into_iter()
        .find(|name| claim.to_ascii_lowercase().contains(name));
    if let Some(claimed) = claimed
        && claimed != found.format.name()
    {
        let message = format!("is {}, the descriptor says {claimed}", found.format);
        warn("ova_disk_format", message);
    }
    findings
}
