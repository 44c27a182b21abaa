//! Judging a whole OVA: the archive, each disk in its place, the manifest.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Ova, OvaDisk};
use crate::container::compressed::{self, Inside, max_output};
use crate::container::tar::Listing;
use crate::container::{Context, blank, push_finding};
use crate::inspect::{Finding, Inspection, MemberDisk, Severity, inspect};
use crate::{Format, HostOffset, Limits, Result, Source};

/// Judges the OVA in `source`, its disks and its manifest.
pub(in crate::container) fn describe(
    source: &Arc<dyn Source>,
    listing: Listing,
    cx: &Context<'_>,
) -> Result<Inspection> {
    let mut inspection = blank(Format::Ova, "ova", source.len());
    let members = listing.members.len();
    let mut ova = Ova::read(source.clone(), listing)?;
    let mut findings = std::mem::take(&mut ova.findings);

    // What all disks together may inflate to, so that many small bombs are none.
    let mut limits = Limits {
        max_inflated: max_output(source.len(), cx.limits),
        ..cx.limits.clone()
    };
    let mut by_member: HashMap<HostOffset, Inspection> = HashMap::new();
    let mut total = Some(0_u64);
    for disk in &ova.disks {
        let found = match by_member.get(&disk.at) {
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
                by_member.entry(disk.at).or_insert(found)
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
            file_size: disk.file_size,
            details: found.details.clone(),
        });
    }
    inspection.virtual_size = total.filter(|_| !ova.disks.is_empty());
    let mismatches = ova.verify_manifest(cx)?;
    let manifest = match (&ova.manifest, mismatches.is_empty()) {
        (None, _) => "absent",
        (Some(_), true) => "verified",
        (Some(_), false) => "mismatch",
    };
    findings.extend(mismatches);
    inspection.details = ova.envelope.details();
    inspection
        .details
        .insert("manifest".into(), manifest.into());
    inspection.details.insert("members".into(), members.into());
    inspection.findings = findings;
    Ok(inspection)
}

fn describe_disk(ova: &Ova, disk: &OvaDisk, cx: &Context<'_>) -> Result<Inspection> {
    let member = ova.slice(disk)?;
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
