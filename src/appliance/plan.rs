//! What becomes of the disks of an archive.

use std::sync::Arc;

use formats::Source;
use formats::container::Ova;
use formats::inspect::{Inspection, MemberDisk};
use sha2::{Digest, Sha256};

use super::machine::{self, Machine, Properties};
use super::{APPLIANCE, BOOT_ORDER, DISK_INDEX};
use crate::domain::{Image, ImageId, Timestamp};

/// Disks of an appliance: one import makes as many images.
const MAX_DISKS: usize = 64;

/// An image for each disk of an archive.
#[derive(Clone, Debug)]
pub struct Plan {
    machine: Machine,
    /// In the order of the hardware.
    pub parts: Vec<Part>,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Part {
    /// As it was found in the archive.
    pub disk: MemberDisk,
    /// What its hardware is, and its place in the appliance.
    properties: Properties,
}

/// Reads the descriptor of the archive in `source`, which was `found` to be safe.
///
/// # Errors
/// A sentence for the client: it holds no disk, or too many.
pub fn plan(source: &Arc<dyn Source>, found: &Inspection) -> Result<Plan, String> {
    let ova = Ova::open(source).map_err(|e| e.to_string())?;
    let envelope = ova.envelope();
    let count = found.disks.len();
    if !(1..=MAX_DISKS).contains(&count) {
        return Err(format!(
            "The archive holds {count} disks; an appliance has 1 to {MAX_DISKS}"
        ));
    }
    let part = |(order, disk): (usize, &MemberDisk)| {
        let told = envelope.disks.iter().position(|d| d.id == disk.id);
        let of = told.map(|index| machine::disk(envelope, &envelope.disks[index]));
        let mut properties = of.unwrap_or_default();
        let index = told.unwrap_or(order);
        properties.insert(DISK_INDEX.into(), index.to_string());
        properties.insert(BOOT_ORDER.into(), order.to_string());
        Part {
            disk: disk.clone(),
            properties,
        }
    };
    Ok(Plan {
        machine: machine::machine(envelope),
        parts: found.disks.iter().enumerate().map(part).collect(),
    })
}

impl Plan {
    /// The images of the parts behind the first, as `task` makes them beside `first`: the same
    /// each time it is asked, so that a run of a job finds what the last one began.
    #[must_use]
    pub fn others(&self, first: &Image, task: &str, now: Timestamp) -> Vec<Image> {
        let other = |order: usize| {
            let mut image = Image::new(part_id(task, order), first.owner.clone(), now);
            image.status = first.status;
            image.visibility = first.visibility;
            image.protected = first.protected;
            image.hidden = first.hidden;
            image.disk_format.clone_from(&first.disk_format);
            image.container_format.clone_from(&first.container_format);
            image.tags.clone_from(&first.tags);
            image.properties.clone_from(&first.properties);
            let base = first.name.as_ref().or(self.machine.name.as_ref());
            image.name = base.map(|base| {
                let end = format!("-disk{}", order + 1);
                // As long as names may be.
                let room = base.floor_char_boundary(255 - end.len());
                format!("{}{end}", &base[..room])
            });
            image
                .properties
                .insert(APPLIANCE.into(), first.id.to_string());
            image
        };
        (1..self.parts.len()).map(other).collect()
    }

    /// Notes in the image of part `order` what its hardware was, as far as nothing else was said
    /// of it, with at most `limit` properties.
    pub fn describe(&self, order: usize, first: &ImageId, image: &mut Image, limit: usize) {
        let part = &self.parts[order];
        let bytes = part.disk.virtual_size.unwrap_or(0);
        image.min_disk = image.min_disk.max(machine::min_disk(bytes));
        if order == 0 {
            image.min_ram = image.min_ram.max(self.machine.min_ram);
            if image.name.is_none() {
                image.name.clone_from(&self.machine.name);
            }
        }
        image.properties.insert(APPLIANCE.into(), first.to_string());
        let own = part.properties.iter();
        // What the disk is goes before what the machine is.
        for (name, value) in own.chain(&self.machine.properties) {
            let is_counted = |name: &&String| !name.starts_with("os_glance_");
            let count = image.properties.keys().filter(is_counted).count();
            if count < limit && !image.properties.contains_key(name) {
                image.properties.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The id of the image that `task` makes of a part.
fn part_id(task: &str, order: usize) -> ImageId {
    let digest = Sha256::digest(format!("{task} {order}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    ImageId::from_random(bytes)
}
