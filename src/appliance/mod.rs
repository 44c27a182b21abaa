//! Appliances: the disks of one machine as images that belong together.
//!
//! An import of an archive makes them: the image it was asked for becomes the first disk and gives
//! the appliance its id; each other disk becomes an image beside it. Each says in properties whose
//! it is and which, and what its hardware was ([`machine`]). All become active in one transaction.

pub mod machine;
mod plan;

use crate::domain::{Image, ImageId};

pub use plan::{Part, Plan, plan};

/// Property: the appliance an image belongs to, which is the id of its first image.
pub const APPLIANCE: &str = "os_glint_appliance";
/// Property: the place of a disk in the descriptor, from 0.
pub const DISK_INDEX: &str = "os_glint_disk_index";
/// Property: the place of a disk in the order in which the hardware lists them, from 0: the
/// machine starts from the first.
pub const BOOT_ORDER: &str = "os_glint_boot_order";

/// Those of `images` that belong to the appliance of `first`, in the order of its hardware.
/// Anybody may give an image the property; only those of the same owner are believed.
#[must_use]
pub fn ordered(first: &ImageId, images: Vec<Image>) -> Option<Vec<Image>> {
    let owner = images.iter().find(|i| i.id == *first)?.owner.clone();
    let mut ours: Vec<_> = images.into_iter().filter(|i| i.owner == owner).collect();
    let place = |image: &Image| {
        let order = image.properties.get(BOOT_ORDER);
        order
            .and_then(|n| n.parse::<u32>().ok())
            .unwrap_or(u32::MAX)
    };
    ours.sort_by_cached_key(|image| (place(image), image.id.clone()));
    Some(ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    #[test]
    fn what_others_claim_to_belong_to_an_appliance_is_left_out() {
        let image = |order: &str, owner: &str| {
            let mut image = Image::new(ImageId::random(), Some(owner.into()), Timestamp::now());
            image.properties.insert(BOOT_ORDER.into(), order.into());
            image
        };
        let (first, tenth, forged) = (image("0", "a"), image("10", "a"), image("0", "b"));
        let odd = image("-1", "a");
        let second = image("2", "a");
        let all = [&tenth, &forged, &odd, &first, &second].map(Clone::clone);
        let found = ordered(&first.id, all.clone().into()).unwrap();
        assert_eq!(found, [&first, &second, &tenth, &odd].map(Clone::clone));
        assert_eq!(ordered(&ImageId::random(), all.into()), None);
    }
}
