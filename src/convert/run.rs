//! From any file to the one disk in it: the wrapper inflated, the archive's member chosen.

use std::fs::File;
use std::io;
use std::sync::Arc;

use formats::container::{Compression, Context, Ova, inflate_into};
use formats::inspect::Inspection;
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

/// Opens the disk in `source`, as `found` by inspection. What must be inflated first goes to
/// `scratch`, an empty file nobody else sees.
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
    match found.format {
        Format::Tar | Format::Docker => {
            let what = "is an archive without a disk image";
            return Err(Error::unsupported(found.format, "", what));
        }
        Format::Ovf => {
            let what = "is a descriptor without its disk images";
            return Err(Error::unsupported(found.format, "", what));
        }
        _ => {}
    }
    let source = match found.compression.and_then(Compression::from_name) {
        None => source,
        Some(compression) => {
            let file = scratch().map_err(|e| Error::io("making a scratch file", e))?;
            let inflated: Arc<dyn Source> =
                Arc::new(inflate_into(&source, compression, file, &cx)?);
            inflated
        }
    };
    if found.format != Format::Ova {
        let options = OpenOptions {
            format: Some(found.format),
            ..options.clone()
        };
        return Ok(Opened {
            disk: formats::open(source, &options)?,
            format: found.format,
        });
    }
    let index = choose(found, selector)?;
    let disk = Ova::open(source)?.open_disk(index, &cx)?;
    Ok(Opened {
        disk,
        format: found.disks[index].format,
    })
}

/// The index of the chosen disk.
fn choose(found: &Inspection, selector: &Selector) -> Result<usize> {
    let names = || {
        let names: Vec<_> = found.disks.iter().map(|d| d.name.as_str()).collect();
        names.join(", ")
    };
    match selector {
        _ if found.disks.is_empty() => {
            Err(Error::refused(Format::Ova, "disks", "it holds no disk"))
        }
        Selector::Only if found.disks.len() == 1 => Ok(0),
        Selector::Only => Err(Error::refused(
            Format::Ova,
            "disks",
            format!(
                "it holds {} disks, choose one: {}",
                found.disks.len(),
                names()
            ),
        )),
        Selector::Named(name) => found
            .disks
            .iter()
            .position(|d| d.name == *name || d.id == *name)
            .or_else(|| name.parse().ok().filter(|n| *n < found.disks.len()))
            .ok_or_else(|| {
                Error::usage(format!(
                    "the archive holds no disk {name:?}; it holds {}",
                    names()
                ))
            }),
    }
}
