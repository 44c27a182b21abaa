//! What a descriptor may say: one judgement, for the inspector and for opening.

use super::descriptor::{Class, Descriptor, ExtentType, Fault, confined};
use super::layout::{Header, SECTOR};
use crate::{Error, Format};

/// Judges the embedded descriptor of a sparse file.
pub(super) fn embedded(header: &Header, descriptor: &Descriptor) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |rule, message: String| faults.push(Fault { rule, message });
    let create_type = &descriptor.create_type;
    if create_type.class != Class::SelfContained {
        fault("create_type", why_not_alone(descriptor));
    }
    if let Some(parent) = descriptor.parent() {
        fault("parent", parent);
    }
    if descriptor.extents.len() != 1 {
        fault(
            "extent_count",
            format!("names {} extents, allowed 1", descriptor.extents.len()),
        );
    }
    for extent in &descriptor.extents {
        if extent.kind != ExtentType::Sparse {
            fault(
                "extent_type",
                format!(
                    "line {}: extent is {}, allowed SPARSE",
                    extent.line,
                    extent.kind.name()
                ),
            );
        }
        if extent.offset_sectors != 0 {
            fault(
                "extent_type",
                format!(
                    "line {}: extent begins at sector {} of its file, allowed 0",
                    extent.line, extent.offset_sectors
                ),
            );
        }
    }
    faults.extend(paths(descriptor));
    if let Some(sectors) = descriptor.sectors()
        && !fits(sectors, header)
    {
        faults.push(Fault {
            rule: "capacity",
            message: format!(
                "its extent is {sectors} sectors, capacity in the header is {}",
                header.capacity_sectors
            ),
        });
    }
    faults
}

/// Some writers round the header's capacity up to whole grains.
fn fits(sectors: u64, header: &Header) -> bool {
    header
        .capacity_sectors
        .checked_sub(sectors)
        .is_some_and(|more| more < header.grain_sectors)
}

/// Judges the descriptor of a disk in several files, were these granted.
pub(super) fn split(descriptor: &Descriptor) -> Vec<Fault> {
    let mut faults = Vec::new();
    if descriptor.create_type.class != Class::ExtentFiles {
        faults.push(Fault {
            rule: "create_type",
            message: why_not_alone(descriptor),
        });
    }
    if let Some(message) = descriptor.parent() {
        faults.push(Fault {
            rule: "parent",
            message,
        });
    }
    for extent in &descriptor.extents {
        if matches!(
            extent.kind,
            ExtentType::VmfsRaw | ExtentType::VmfsRdm | ExtentType::SeSparse
        ) {
            faults.push(Fault {
                rule: "extent_type",
                message: format!(
                    "line {}: extent is {}, which is not read",
                    extent.line,
                    extent.kind.name()
                ),
            });
        }
    }
    faults.extend(paths(descriptor));
    if descriptor
        .sectors()
        .is_none_or(|sectors| sectors > u64::MAX / SECTOR)
    {
        faults.push(Fault {
            rule: "capacity",
            message: "its extents add up to more than 64 bits of bytes".into(),
        });
    }
    faults
}

fn paths(descriptor: &Descriptor) -> impl Iterator<Item = Fault> {
    descriptor.extents.iter().filter_map(|extent| {
        let name = extent.name.as_deref()?;
        confined(name).map(|why| Fault {
            rule: "extent_path",
            message: format!(
                "line {}: extent file {name:?} is not a plain file name: {why}",
                extent.line
            ),
        })
    })
}

/// Why a disk of this type is not complete in one file.
pub(super) fn why_not_alone(descriptor: &Descriptor) -> String {
    let name = &descriptor.create_type.name;
    let files: Vec<_> = descriptor
        .extents
        .iter()
        .filter_map(|extent| extent.name.as_deref())
        .take(3)
        .map(|name| format!("{name:?}"))
        .collect();
    let and_so_on = if descriptor.extents.len() > 3 {
        ", …"
    } else {
        ""
    };
    let files = files.join(", ");
    match descriptor.create_type.class {
        Class::SelfContained => format!(
            "createType is {name}, but this is its descriptor alone: the disk is in {files}"
        ),
        Class::ExtentFiles => format!(
            "createType is {name}: the disk is in other files, {files}{and_so_on}; convert it to \
             monolithicSparse or streamOptimized"
        ),
        Class::Device => {
            format!("createType is {name}: the disk is a device of the host, {files}{and_so_on}")
        }
        Class::SeSparse => format!("createType is {name}, which is not read"),
        Class::Unknown if name.is_empty() => "has no createType".into(),
        Class::Unknown => format!("createType is {name:?}, which is unknown"),
    }
}

/// The error for a fault, when opening.
pub(super) fn error(fault: Fault) -> Error {
    let make = match fault.rule {
        "create_type" | "parent" | "extent_path" | "extent_type" => Error::refused,
        _ => Error::malformed,
    };
    make(Format::Vmdk, "descriptor", fault.message)
}
