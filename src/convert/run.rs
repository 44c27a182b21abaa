//! From an examined file to the one disk in it: the archive's member chosen.

use std::fs::File;
use std::io;
use std::sync::Arc;

use formats::container::{Context, Ova, OvaDisk};
use formats::inspect::{Inspection, inspect};
use formats::{Disk, Error, Format, OpenOptions, Result, Source};

/// Which disk of an archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selector {
    /// By its name or id in the archive, or its place in the descriptor counted from 0.
    Named(String),
    /// The only one.
    Only,
}

/// A disk ready to be copied.
pub struct Opened {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The format it was read as.
    pub format: Format,
}

/// Opens the disk in `source`, as `found` by inspection; both come from
/// [`examine`](formats::container::examine), so nothing is compressed around it any more. What
/// must be inflated inside goes to `scratch`, an empty file nobody else sees.
///
/// # Errors
/// As [`formats::open`]; `Unsupported` for an archive of anything but disks, `Refused` when one
/// holds no disk, or several and none was chosen.
pub fn open(
    source: Arc<dyn Source>,
    found: &Inspection,
    selector: &Selector,
    options: &OpenOptions,
    scratch: &dyn Fn() -> io::Result<File>,
) -> Result<Opened> {
    let cx = Context {
        scratch,
        ..Context::new(&options.limits)
    };
    let package = match found.format {
        Format::Tar | Format::Docker => {
            let what = "is an archive without a disk image";
            return Err(Error::unsupported(found.format, "", what));
        }
        Format::Ova | Format::Vagrant => Ova::open(&source)?,
        Format::Ovf => Ova::open_descriptor(source.as_ref(), options.resolver.as_ref())?,
        format => {
            let options = OpenOptions {
                format: Some(format),
                ..options.clone()
            };
            let disk = formats::open(source, &options)?;
            return Ok(Opened { disk, format });
        }
    };
    let index = choose(found.format, package.disks(), selector)?;
    let format = match found.disks.get(index) {
        Some(disk) => disk.format,
        // Beside a descriptor nobody has looked at the disks yet.
        None => judged(&package, index, &cx)?,
    };
    let disk = package.open_disk(index, &cx)?;
    Ok(Opened { disk, format })
}

/// The image file of one disk of an archive, and what it is; nothing else there is looked at.
///
/// # Errors
/// Those of [`open`].
pub(super) fn take_out(
    source: &Arc<dyn Source>,
    id: &str,
    cx: &Context<'_>,
) -> Result<(Inspection, Arc<dyn Source>)> {
    let package = Ova::open(source)?;
    let index = choose(Format::Ova, package.disks(), &Selector::Named(id.into()))?;
    let file = package.disk_file(index, cx)?;
    Ok((inspect(file.as_ref(), cx.limits)?, file))
}

/// The format of a disk of a package, which must be safe.
fn judged(package: &Ova, index: usize, cx: &Context<'_>) -> Result<Format> {
    let file = package.disk_file(index, cx)?;
    let found = inspect(file.as_ref(), cx.limits)?;
    match found.unsafe_finding() {
        Some(finding) => Err(Error::refused(
            found.format,
            finding.place.clone(),
            finding.message.clone(),
        )),
        None => Ok(found.format),
    }
}

/// The index of the chosen disk.
fn choose(format: Format, disks: &[OvaDisk], selector: &Selector) -> Result<usize> {
    let names = || {
        let names: Vec<_> = disks.iter().map(|d| d.name.as_str()).collect();
        names.join(", ")
    };
    match selector {
        _ if disks.is_empty() => Err(Error::refused(format, "disks", "it holds no disk")),
        Selector::Only if disks.len() == 1 => Ok(0),
        Selector::Only => Err(Error::refused(
            format,
            "disks",
            format!("it holds {} disks, choose one: {}", disks.len(), names()),
        )),
        Selector::Named(name) => disks
            .iter()
            .position(|d| d.name == *name || d.id == *name)
            .or_else(|| name.parse().ok().filter(|n| *n < disks.len()))
            .ok_or_else(|| {
                Error::usage(format!(
                    "the archive holds no disk {name:?}; it holds {}",
                    names()
                ))
            }),
    }
}
