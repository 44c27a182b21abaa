//! Derivatives: images in another form, kept while there is room. Like locations, intent first,
//! then fact, then doom; they are never an image's own.

use super::conn::{Row, args};
use super::{Error, Result, Tx};
use crate::domain::{ImageId, Location, LocationState, Timestamp};

const TABLE: &str = "derivatives";

/// A derivative whose bytes can be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Derivative {
    /// Where it lies.
    pub location: Location,
    /// Bytes.
    pub size: u64,
    /// When it was asked for last.
    pub used_at: Timestamp,
}

/// Notes that `size` bytes of `image` in the form `target` are about to be written at `location`.
///
/// # Errors
/// When the database fails.
pub async fn insert_pending(
    tx: &mut Tx,
    image: &ImageId,
    target: &str,
    location: &Location,
    size: u64,
    lease_until: Timestamp,
) -> Result<()> {
    tx.run(
        "INSERT INTO derivatives \
         (id, image_id, target, store, url, state, size, lease_until, used_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        args![
            location.id.as_str(),
            image.as_str(),
            target,
            location.store.as_str(),
            location.url.as_str(),
            LocationState::Pending.name(),
            i64::try_from(size).unwrap_or(i64::MAX),
            lease_until.0,
            Timestamp::now().0
        ],
    )
    .await?;
    Ok(())
}

/// The derivative of `image` in the form `target`, if it is kept.
///
/// # Errors
/// When the database fails or the row is corrupt.
pub async fn find(tx: &mut Tx, image: &ImageId, target: &str) -> Result<Option<Derivative>> {
    let row = tx
        .first(
            "SELECT id, store, url, size, used_at FROM derivatives \
             WHERE image_id = ? AND target = ? AND state = ? ORDER BY id LIMIT 1",
            args![image.as_str(), target, LocationState::Active.name()],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// Notes that it was asked for.
///
/// # Errors
/// When the database fails.
pub async fn touch(tx: &mut Tx, id: &str, now: Timestamp) -> Result<()> {
    tx.run(
        "UPDATE derivatives SET used_at = ? WHERE id = ?",
        args![now.0, id],
    )
    .await?;
    Ok(())
}

/// Makes a pending derivative count.
///
/// # Errors
/// `Conflict` when it is no longer pending.
pub async fn activate(tx: &mut Tx, id: &str) -> Result<()> {
    let sql = "UPDATE derivatives SET state = ? WHERE id = ? AND state = ?";
    let (to, from) = (LocationState::Active, LocationState::Pending);
    match tx.run(sql, args![to.name(), id, from.name()]).await? {
        1 => Ok(()),
        _ => Err(Error::Conflict(format!("derivative {id}"))),
    }
}

/// Keeps a pending derivative from being swept until `lease_until`.
///
/// # Errors
/// `Conflict` when it is no longer pending.
pub async fn renew(tx: &mut Tx, id: &str, lease_until: Timestamp) -> Result<()> {
    let sql = "UPDATE derivatives SET lease_until = ? WHERE id = ? AND state = ?";
    let pending = LocationState::Pending.name();
    match tx.run(sql, args![lease_until.0, id, pending]).await? {
        1 => Ok(()),
        _ => Err(Error::Conflict(format!("derivative {id}"))),
    }
}

/// Dooms one: its bytes are to be removed.
///
/// # Errors
/// When the database fails.
pub async fn doom(tx: &mut Tx, id: &str) -> Result<()> {
    let doomed = LocationState::Doomed.name();
    let sql = "UPDATE derivatives SET state = ? WHERE id = ?";
    tx.run(sql, args![doomed, id]).await?;
    Ok(())
}

/// Dooms all of an image.
///
/// # Errors
/// When the database fails.
pub async fn doom_all(tx: &mut Tx, image: &ImageId) -> Result<()> {
    let doomed = LocationState::Doomed.name();
    let sql = "UPDATE derivatives SET state = ? WHERE image_id = ?";
    tx.run(sql, args![doomed, image.as_str()]).await?;
    Ok(())
}

/// Dooms the pending ones whose lease ended before `now`.
///
/// # Errors
/// When the database fails.
pub async fn doom_expired(tx: &mut Tx, now: Timestamp) -> Result<()> {
    let (to, from) = (LocationState::Doomed, LocationState::Pending);
    let sql = "UPDATE derivatives SET state = ? WHERE state = ? AND lease_until < ?";
    tx.run(sql, args![to.name(), from.name(), now.0]).await?;
    Ok(())
}

/// Dooms those that were not asked for the longest, until the rest has at most `limit` bytes.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn evict(tx: &mut Tx, limit: u64) -> Result<()> {
    let rows = tx
        .all(
            "SELECT id, store, url, size, used_at FROM derivatives WHERE state = ? \
             ORDER BY used_at DESC, id",
            args![LocationState::Active.name()],
        )
        .await?;
    let mut kept = 0u64;
    for row in &rows {
        let derivative = from_row(row)?;
        kept = kept.saturating_add(derivative.size);
        if kept > limit {
            doom(tx, &derivative.location.id).await?;
        }
    }
    Ok(())
}

/// Doomed ones with ids behind `after`, in their order, at most `limit`.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn doomed(tx: &mut Tx, after: &str, limit: u32) -> Result<Vec<Location>> {
    let sql = "SELECT id, store, url, size, used_at FROM derivatives \
         WHERE state = ? AND id > ? ORDER BY id LIMIT ?";
    let args = args![LocationState::Doomed.name(), after, i64::from(limit)];
    let rows = tx.all(sql, args).await?;
    rows.iter().map(|row| Ok(from_row(row)?.location)).collect()
}

/// Forgets a doomed one whose bytes are gone.
///
/// # Errors
/// When the database fails.
pub async fn forget(tx: &mut Tx, id: &str) -> Result<()> {
    let sql = "DELETE FROM derivatives WHERE id = ? AND state = ?";
    tx.run(sql, args![id, LocationState::Doomed.name()]).await?;
    Ok(())
}

fn from_row(row: &Row) -> Result<Derivative> {
    Ok(Derivative {
        location: Location {
            id: row.text(TABLE, "id")?,
            store: row.text(TABLE, "store")?,
            url: row.text(TABLE, "url")?,
            metadata: serde_json::Map::new(),
        },
        size: u64::try_from(row.int(TABLE, "size")?).map_err(|_| row.corrupt(TABLE, "size"))?,
        used_at: Timestamp(row.int(TABLE, "used_at")?),
    })
}
