//! Locations: intent first, then fact, then doom. A row outlives its bytes, never the other way.

use serde_json::{Map, Value};

use super::conn::args;
use super::{Error, Result, Tx};
use crate::domain::{ImageId, Location, LocationState, Timestamp};

const TABLE: &str = "image_locations";

/// Notes that bytes for `image` are about to be written at `url`, by someone who renews the lease.
///
/// # Errors
/// When the database fails.
pub async fn insert_pending(
    tx: &mut Tx,
    image: &ImageId,
    location: &Location,
    lease_until: Timestamp,
    now: Timestamp,
) -> Result<()> {
    insert(
        tx,
        image,
        location,
        LocationState::Pending,
        lease_until,
        now,
    )
    .await
}

fn text_of(location: &Location) -> Option<String> {
    let metadata = &location.metadata;
    (!metadata.is_empty()).then(|| Value::Object(metadata.clone()).to_string())
}

/// Replaces what is noted beside a location.
///
/// # Errors
/// When the database fails.
pub async fn set_metadata(tx: &mut Tx, location: &Location) -> Result<()> {
    tx.run(
        "UPDATE image_locations SET metadata = ? WHERE id = ?",
        args![text_of(location), location.id.as_str()],
    )
    .await?;
    Ok(())
}

async fn insert(
    tx: &mut Tx,
    image: &ImageId,
    location: &Location,
    state: LocationState,
    lease_until: Timestamp,
    now: Timestamp,
) -> Result<()> {
    let metadata = text_of(location);
    tx.run(
        "INSERT INTO image_locations \
         (id, image_id, store, url, state, lease_until, created_at, metadata) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        args![
            location.id.as_str(),
            image.as_str(),
            location.store.as_str(),
            location.url.as_str(),
            state.name(),
            lease_until.0,
            now.0,
            metadata
        ],
    )
    .await?;
    Ok(())
}

/// Notes where bytes of `image` lie that nobody here has written.
///
/// # Errors
/// When the database fails.
pub async fn insert_active(
    tx: &mut Tx,
    image: &ImageId,
    location: &Location,
    now: Timestamp,
) -> Result<()> {
    insert(tx, image, location, LocationState::Active, now, now).await
}

/// Makes a pending location count.
///
/// # Errors
/// `Conflict` when it is no longer pending: its lease died and it was swept.
pub async fn activate(tx: &mut Tx, id: &str) -> Result<()> {
    let changed = tx
        .run(
            "UPDATE image_locations SET state = ? WHERE id = ? AND state = ?",
            args![
                LocationState::Active.name(),
                id,
                LocationState::Pending.name()
            ],
        )
        .await?;
    if changed == 1 {
        Ok(())
    } else {
        Err(Error::Conflict(format!("location {id}")))
    }
}

/// Keeps a pending location from being swept until `lease_until`.
///
/// # Errors
/// `Conflict` when it is no longer pending.
pub async fn renew(tx: &mut Tx, id: &str, lease_until: Timestamp) -> Result<()> {
    let changed = tx
        .run(
            "UPDATE image_locations SET lease_until = ? WHERE id = ? AND state = ?",
            args![lease_until.0, id, LocationState::Pending.name()],
        )
        .await?;
    if changed == 1 {
        Ok(())
    } else {
        Err(Error::Conflict(format!("location {id}")))
    }
}

/// Dooms one location: its bytes are to be removed.
///
/// # Errors
/// When the database fails.
pub async fn doom(tx: &mut Tx, id: &str) -> Result<()> {
    tx.run(
        "UPDATE image_locations SET state = ? WHERE id = ?",
        args![LocationState::Doomed.name(), id],
    )
    .await?;
    Ok(())
}

/// Dooms every location of an image, whatever its state.
///
/// # Errors
/// When the database fails.
pub async fn doom_all(tx: &mut Tx, image: &ImageId) -> Result<()> {
    tx.run(
        "UPDATE image_locations SET state = ? WHERE image_id = ?",
        args![LocationState::Doomed.name(), image.as_str()],
    )
    .await?;
    Ok(())
}

/// Dooms the pending locations of an image: what a run of a job leaves when it fails.
///
/// # Errors
/// When the database fails.
pub async fn doom_pending(tx: &mut Tx, image: &ImageId) -> Result<()> {
    tx.run(
        "UPDATE image_locations SET state = ? WHERE image_id = ? AND state = ?",
        args![
            LocationState::Doomed.name(),
            image.as_str(),
            LocationState::Pending.name()
        ],
    )
    .await?;
    Ok(())
}

/// Dooms the pending locations whose lease ended before `now`; answers how many.
///
/// # Errors
/// When the database fails.
pub async fn doom_expired(tx: &mut Tx, now: Timestamp) -> Result<u64> {
    tx.run(
        "UPDATE image_locations SET state = ? WHERE state = ? AND lease_until < ?",
        args![
            LocationState::Doomed.name(),
            LocationState::Pending.name(),
            now.0
        ],
    )
    .await
}

/// Whether the image has a pending location with a living lease.
///
/// # Errors
/// When the database fails.
pub async fn is_being_written(tx: &mut Tx, image: &ImageId, now: Timestamp) -> Result<bool> {
    let row = tx
        .first(
            "SELECT id FROM image_locations WHERE image_id = ? AND state = ? AND lease_until >= ?",
            args![image.as_str(), LocationState::Pending.name(), now.0],
        )
        .await?;
    Ok(row.is_some())
}

/// Doomed locations, oldest first, at most `limit`.
///
/// # Errors
/// When the database fails.
pub async fn doomed(tx: &mut Tx, limit: u32) -> Result<Vec<Location>> {
    tx.all(
        "SELECT id, store, url, metadata FROM image_locations WHERE state = ? ORDER BY created_at LIMIT ?",
        args![LocationState::Doomed.name(), i64::from(limit)],
    )
    .await?
    .iter()
    .map(from_row)
    .collect()
}

/// Forgets a doomed location whose bytes are gone.
///
/// # Errors
/// When the database fails.
pub async fn forget(tx: &mut Tx, id: &str) -> Result<()> {
    tx.run(
        "DELETE FROM image_locations WHERE id = ? AND state = ?",
        args![id, LocationState::Doomed.name()],
    )
    .await?;
    Ok(())
}

fn from_row(row: &super::conn::Row) -> Result<Location> {
    Ok(Location {
        id: row.text(TABLE, "id")?,
        store: row.text(TABLE, "store")?,
        url: row.text(TABLE, "url")?,
        metadata: metadata(row.opt_text(TABLE, "metadata")?)
            .map_err(|()| row.corrupt(TABLE, "metadata"))?,
    })
}

/// What a text says that is noted beside a location.
pub(super) fn metadata(text: Option<String>) -> Result<Map<String, Value>, ()> {
    match text {
        Some(text) => serde_json::from_str(&text).map_err(|_| ()),
        None => Ok(Map::new()),
    }
}
