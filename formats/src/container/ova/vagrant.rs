//! Vagrant boxes: a tar archive, usually in gzip, of what a provider needs.
//!
//! ```text
//!  metadata.json  { "provider": "libvirt", "format": "qcow2", "virtual_size": 40 }   GiB
//!                 { …, "disks": [ { "path": "box.img", "name": "root", "format": "qcow2" } ] }
//!  libvirt: box.img   virtualbox: box.ovf, *.vmdk   others: disks, also in folders
//! ```
//! Vagrant's "Box File Format", and the boxes of vagrant-libvirt, versions 1 and 2.

use std::sync::Arc;

use serde_json::Value;

use super::name::{has_suffix, shown};
use super::{Ova, OvaDisk};
use crate::codec::stream::{self, Compression};
use crate::container::ovf;
use crate::container::tar::{Kind, Listing, Member};
use crate::inspect::Severity;
use crate::resolve::Granted;
use crate::source::read_up_to;
use crate::{Format, HostOffset, Result, Slice, Source};

/// The largest metadata read, in bytes.
const MAX_METADATA: u64 = 256 << 10;
/// Disks of a box; each costs an inspection.
const MAX_DISKS: usize = 256;
/// How names of disks end, where nothing else tells them.
const SUFFIXES: [&str; 8] = [
    ".vmdk", ".vhdx", ".vhd", ".vdi", ".qcow2", ".img", ".raw", ".hds",
];

fn plain(name: &str) -> &str {
    name.strip_prefix("./").unwrap_or(name)
}

/// The metadata, where the archive has some that make it a box.
fn metadata(source: &Arc<dyn Source>, listing: &Listing) -> Result<Option<Value>> {
    let is_metadata = |m: &&Member| m.kind == Kind::File && plain(&m.name) == "metadata.json";
    let Some(member) = listing.members.iter().find(is_metadata) else {
        return Ok(None);
    };
    if member.len > MAX_METADATA {
        return Ok(None);
    }
    let len = usize::try_from(member.len).unwrap_or(0);
    let bytes = read_up_to(source.as_ref(), member.at, len)?;
    let value = serde_json::from_slice::<Value>(&bytes).ok();
    Ok(value.filter(|value| value["provider"].is_string()))
}

/// Whether an archive is a box: its metadata name a provider.
pub(in crate::container) fn is_box(source: &Arc<dyn Source>, listing: &Listing) -> Result<bool> {
    Ok(metadata(source, listing)?.is_some())
}

impl Ova {
    /// Reads everything but the disks of a box.
    pub(super) fn read_box(source: &Arc<dyn Source>, listing: Listing) -> Result<Self> {
        let mut package = Self::empty(Format::Vagrant);
        let metadata = metadata(source, &listing)?.unwrap_or_default();
        package.take_problem(listing.problem.as_ref());
        let mut names = Vec::new();
        for member in listing.members {
            let name = plain(&member.name).to_owned();
            if member.kind != Kind::File {
                continue;
            }
            let slice = Slice::new(source.clone(), member.at, member.len)?;
            let file = Granted::alone(Arc::new(slice));
            if package.files.insert(name.clone(), file).is_some() {
                let place = format!("member {}", shown(&name));
                let message = "the name stands in the archive twice";
                package.find("box_duplicate_member", Severity::Unsafe, place, message);
            }
            names.push(name);
        }

        let is_descriptor = |name: &&String| has_suffix(name, ".ovf") && !name.contains('/');
        if let Some(descriptor) = names.iter().find(is_descriptor) {
            let bytes = package.read_member(descriptor, ovf::MAX_LEN + 1)?;
            package.take_descriptor(&bytes);
            package.take_disks()?;
        } else {
            package.take_listed(&metadata, &names)?;
        }
        for key in ["provider", "architecture"] {
            if let Some(value) = metadata[key].as_str() {
                package.details.insert(key.into(), value.into());
            }
        }
        if package.disks.is_empty() {
            let message = "the box holds no disk";
            package.find("box_no_disk", Severity::Warning, "archive", message);
        }
        Ok(package)
    }

    /// Takes the disks that the metadata list, or else those that names tell.
    fn take_listed(&mut self, metadata: &Value, names: &[String]) -> Result<()> {
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        let mut wanted: Vec<(String, Option<String>, Option<String>)> = Vec::new();
        if let Some(disks) = metadata["disks"].as_array() {
            for disk in disks {
                match text(&disk["path"]) {
                    Some(path) => wanted.push((path, text(&disk["name"]), text(&disk["format"]))),
                    None => {
                        let message = "a disk has no path";
                        self.find("box_disk", Severity::Unsafe, "metadata.json", message);
                    }
                }
            }
        } else if names.iter().any(|name| name == "box.img") {
            wanted.push(("box.img".into(), None, text(&metadata["format"])));
        } else {
            let is_disk = |name: &&String| SUFFIXES.iter().any(|end| has_suffix(name, end));
            let mut found: Vec<_> = names.iter().filter(is_disk).cloned().collect();
            found.sort();
            wanted.extend(found.into_iter().map(|name| (name, None, None)));
        }
        if wanted.len() > MAX_DISKS {
            let message = format!("{} disks, allowed {MAX_DISKS}", wanted.len());
            self.find("box_too_many_disks", Severity::Unsafe, "archive", message);
            wanted.truncate(MAX_DISKS);
        }
        let gib = metadata["virtual_size"]
            .as_u64()
            .filter(|_| wanted.len() == 1);
        let capacity = gib.and_then(|gib| gib.checked_mul(1 << 30));
        for (path, id, format) in wanted {
            let Some(file) = self.files.get(plain(&path)) else {
                let message = format!("the disk {} is not in the archive", shown(&path));
                self.find(
                    "box_missing_disk",
                    Severity::Unsafe,
                    "metadata.json",
                    message,
                );
                continue;
            };
            let file = file.source.clone();
            let head = read_up_to(file.as_ref(), HostOffset::ZERO, stream::HEAD)?;
            let name = plain(&path).to_owned();
            self.disks.push(OvaDisk {
                id: id.unwrap_or_else(|| name.clone()),
                name,
                // A promise that the disk may be larger than what is in it.
                capacity: capacity.filter(|_| format.is_some()),
                populated_size: None,
                format,
                controller: None,
                compression: Compression::detect(&head),
                file_size: file.len(),
            });
        }
        Ok(())
    }
}
