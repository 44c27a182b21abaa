//! What a descriptor may say: one judgement, for the inspector and for opening.

use super::descriptor::{CID_NOPARENT, Class, Descriptor, ExtentType, Fault, confined, shown};
use super::layout::{Header, SECTOR};
use crate::{Error, Format, Result};

/// Judges the embedded descriptor of a sparse file.
pub(super) fn embedded(header: &Header, descriptor: &Descriptor) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |rule, message: String| faults.push(Fault { rule, message });
    let create_type = &descriptor.create_type;
    if create_type.class != Class::SelfContained {
        fault("create_type", why_not_alone(descriptor));
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
        && !descriptor.extents.is_empty()
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

/// Judges the descriptor of a disk in several files, were these granted. `is_embedded`: it lies
/// in one of them.
pub(super) fn split(descriptor: &Descriptor, is_embedded: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    let allows = match descriptor.create_type.class {
        Class::ExtentFiles => true,
        Class::SelfContained => is_embedded,
        Class::Device | Class::Unknown => false,
    };
    if !allows {
        faults.push(Fault {
            rule: "create_type",
            message: why_not_alone(descriptor),
        });
    }
    for extent in &descriptor.extents {
        if matches!(extent.kind, ExtentType::VmfsRaw | ExtentType::VmfsRdm) {
            faults.push(Fault {
                rule: "extent_type",
                message: format!(
                    "line {}: extent is {}, a device of the host",
                    extent.line,
                    extent.kind.name()
                ),
            });
        }
    }
    faults.extend(paths(descriptor));
    faults.extend(shared(descriptor));
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

/// A file that stands for two parts of the disk: a small one, named thousands of times, would make
/// a disk full of data.
fn shared(descriptor: &Descriptor) -> Option<Fault> {
    let mut extents: Vec<_> = descriptor
        .extents
        .iter()
        .filter_map(|extent| Some((extent.name.as_deref()?, extent.offset_sectors, extent)))
        .collect();
    extents.sort_by_key(|(name, offset, _)| (*name, *offset));
    let (name, one, other) = extents.windows(2).find_map(|pair| {
        let [(name, start, one), (next, offset, other)] = pair else {
            return None;
        };
        // Only what is stored as it is has parts in one file.
        let is_plain = |kind| matches!(kind, ExtentType::Flat | ExtentType::Vmfs);
        let is_apart = is_plain(one.kind)
            && is_plain(other.kind)
            && offset.checked_sub(*start) >= Some(one.sectors);
        (name == next && !is_apart).then_some((name, one, other))
    })?;
    Some(Fault {
        rule: "extent_shared",
        message: format!(
            "lines {} and {}: extent file {name:?} holds two parts of the disk in the same place",
            one.line, other.line
        ),
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
        Class::Unknown if name.is_empty() => "has no createType".into(),
        Class::Unknown => format!("createType is {name:?}, which is unknown"),
    }
}

/// A parent, as its child names it.
pub(super) struct Parent<'a> {
    pub(super) name: &'a str,
    cid: u32,
}

impl Parent<'_> {
    /// Checks that a file granted for it, of content id `cid`, is the one meant.
    pub(super) fn check(&self, cid: Option<u32>) -> Result<()> {
        let name = shown(self.name);
        let wanted = self.cid;
        match cid {
            Some(cid) if cid == wanted => Ok(()),
            Some(cid) => Err(Error::malformed(
                Format::Vmdk,
                "parent",
                format!(
                    "CID of {name:?} is {cid:08x}, parentCID is {wanted:08x}: it has changed \
                     since, or is another disk"
                ),
            )),
            None => Err(Error::malformed(
                Format::Vmdk,
                "parent",
                format!("{name:?} has no CID, parentCID is {wanted:08x}"),
            )),
        }
    }
}

/// What the disk falls through to, where it is a delta link.
pub(super) fn parent(descriptor: &Descriptor) -> Result<Option<Parent<'_>>> {
    let cid = descriptor.parent_cid.filter(|&cid| cid != CID_NOPARENT);
    let name = descriptor.parent_file_name_hint.as_deref();
    match (cid, name) {
        (None, None) => Ok(None),
        (Some(cid), Some(name)) if !name.is_empty() => Ok(Some(Parent { name, cid })),
        (Some(cid), _) => Err(Error::malformed(
            Format::Vmdk,
            "descriptor",
            format!(
                "parentCID is {cid:08x}: a delta link, but no parentFileNameHint names its parent"
            ),
        )),
        (None, Some(name)) => Err(Error::malformed(
            Format::Vmdk,
            "descriptor",
            format!(
                "parentFileNameHint names {:?}, but parentCID says that there is none",
                shown(name)
            ),
        )),
    }
}

/// The error for a fault, when opening.
pub(super) fn error(fault: Fault) -> Error {
    let make = match fault.rule {
        "create_type" | "extent_path" | "extent_type" => Error::refused,
        _ => Error::malformed,
    };
    make(Format::Vmdk, "descriptor", fault.message)
}
