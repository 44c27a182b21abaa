//! Moving from Glance: what its database knows becomes ours, its images' data stays where it lies.

use serde::Serialize;

use crate::catalog::glance::{self, Found, Glance};
use crate::catalog::{self, Catalog, Tx, images, locations, members};
use crate::domain::{Location, Status, Timestamp};
use crate::metadefs;
use crate::stores::{self, Stores};

/// Images read at a time, and written in one transaction.
const BATCH: u32 = 200;

/// What was moved, or would be.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// Nothing was written: this is what would be.
    pub dry_run: bool,
    /// Images with their data.
    pub images: u64,
    /// Images without data, which are queued.
    pub queued: u64,
    /// Ids of deleted images, which stay taken.
    pub deleted_ids: u64,
    /// Locations of data.
    pub locations: u64,
    /// Custom properties.
    pub properties: u64,
    /// Tags.
    pub tags: u64,
    /// Memberships.
    pub members: u64,
    /// Namespaces of metadata definitions.
    pub namespaces: u64,
    /// Images of a former run, or with an id that is taken, left as they are.
    pub already_there: u64,
    /// What needs a look, a sentence each.
    pub notes: Vec<String>,
}

/// Moves everything into a synced catalog. Each image is moved whole or not at all, and what is there
/// is left alone: a run that was broken off is simply started again.
///
/// # Errors
/// When a database fails or a row of theirs cannot be. What was moved until then stays.
pub async fn move_from(
    theirs: &Glance,
    ours: &Catalog,
    stores: &Stores,
    dry_run: bool,
) -> anyhow::Result<Report> {
    let mut report = Report {
        dry_run,
        ..Report::default()
    };
    let mut source = theirs.read().await?;
    let mut after = String::new();
    loop {
        let batch = glance::images(&mut source, &after, BATCH).await?;
        let Some(last) = batch.last() else { break };
        after = last.image.id.to_string();
        let mut moved = Vec::with_capacity(batch.len());
        for found in batch {
            moved.push(settle(found, stores, &mut report).await);
        }
        let ids: Vec<_> = moved.iter().map(|m| m.found.image.id.clone()).collect();
        let mut tx = if dry_run {
            ours.read().await?
        } else {
            ours.write().await?
        };
        let taken = images::taken(&mut tx, &ids).await?;
        for moved in &moved {
            if taken.contains(&moved.found.image.id) {
                report.already_there += 1;
                continue;
            }
            count(moved, &mut report);
            if !dry_run {
                write(&mut tx, moved).await?;
            }
        }
        if !dry_run {
            tx.commit().await?;
        }
    }
    let namespaces = glance::metadefs::all(&mut source).await?;
    report.namespaces = if dry_run {
        namespaces.len() as u64
    } else {
        metadefs::load(ours, &namespaces, false).await?.added as u64
    };
    Ok(report)
}

/// An image with the places of its data in our terms.
struct Moved {
    found: Found,
    locations: Vec<Location>,
}

/// Decides what an image is with us.
async fn settle(mut found: Found, stores: &Stores, report: &mut Report) -> Moved {
    let id = found.image.id.clone();
    let mut places = Vec::new();
    if found.deleted_at.is_none() {
        for url in std::mem::take(&mut found.urls) {
            match place(stores, &url).await {
                Ok(store) => places.push(Location::new(&store, &url, serde_json::Map::new())),
                Err(why) => report.notes.push(format!("image {id}: {why}")),
            }
        }
    }
    let status = match found.status.as_str() {
        "active" => Status::Active,
        "deactivated" => Status::Deactivated,
        _ => Status::Queued,
    };
    found.image.status = if places.is_empty() && status != Status::Queued {
        report.notes.push(format!(
            "image {id} is {} and none of its data is in a configured store: it is queued",
            found.status
        ));
        Status::Queued
    } else {
        status
    };
    if found.image.status == Status::Queued {
        if found.deleted_at.is_none()
            && !matches!(found.status.as_str(), "queued" | "active" | "deactivated")
        {
            report
                .notes
                .push(format!("image {id} was {}: it is queued", found.status));
        }
        found.image.forget_data();
        places.clear();
    }
    // What the reference notes of stores and of work under way says nothing here.
    found
        .image
        .properties
        .retain(|name, _| !name.starts_with("os_glance_"));
    Moved {
        found,
        locations: places,
    }
}

/// The store whose blob `url` is, if the blob is there.
async fn place(stores: &Stores, url: &str) -> Result<String, String> {
    for store in stores.iter() {
        match store.blobs.stat(url).await {
            Ok(_) => return Ok(store.config.id.clone()),
            Err(stores::Error::Foreign) => {}
            Err(e) => {
                return Err(format!(
                    "store {} cannot read its data: {e}",
                    store.config.id
                ));
            }
        }
    }
    // The path and all behind it may be secret.
    let scheme = url.split_once(':').map_or("?", |(scheme, _)| scheme);
    Err(format!("no configured store holds its {scheme} location"))
}

fn count(moved: &Moved, report: &mut Report) {
    let image = &moved.found.image;
    if moved.found.deleted_at.is_some() {
        report.deleted_ids += 1;
        return;
    }
    if image.status == Status::Queued {
        report.queued += 1;
    } else {
        report.images += 1;
    }
    report.locations += moved.locations.len() as u64;
    report.properties += image.properties.len() as u64;
    report.tags += image.tags.len() as u64;
    report.members += moved.found.members.len() as u64;
}

async fn write(tx: &mut Tx, moved: &Moved) -> catalog::Result<()> {
    let image = &moved.found.image;
    images::insert(tx, image).await?;
    if let Some(at) = moved.found.deleted_at {
        return images::delete(tx, image, image.status, at).await;
    }
    for (n, location) in moved.locations.iter().enumerate() {
        // Their order is told by their times.
        let now = Timestamp(image.created_at.0 + n as i64);
        locations::insert_pending(tx, &image.id, location, Timestamp(i64::MAX), now).await?;
        locations::activate(tx, &location.id).await?;
    }
    for (member, status) in &moved.found.members {
        members::insert(tx, &image.id, member, image.created_at).await?;
        members::set_status(tx, &image.id, member, *status, image.updated_at).await?;
    }
    Ok(())
}
