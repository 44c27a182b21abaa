//! What lies in staging: bytes that no image shows yet.

use super::conn::{args, size_arg};
use super::{Error, Result, Tx};
use crate::domain::{Hashes, ImageId, Timestamp};

const TABLE: &str = "staged";

/// Complete staged bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staged {
    /// Bytes.
    pub size: u64,
    /// Their digests.
    pub hashes: Hashes,
}

/// Notes that staging of `image` begins.
///
/// # Errors
/// `Conflict` when something is staged already.
pub async fn insert(tx: &mut Tx, image: &ImageId, lease_until: Timestamp) -> Result<()> {
    tx.run(
        "INSERT INTO staged (image_id, complete, size, lease_until) VALUES (?, 0, 0, ?)",
        args![image.as_str(), lease_until.0],
    )
    .await?;
    Ok(())
}

/// Notes in whose staging area the bytes are.
///
/// # Errors
/// When the database fails.
pub async fn lies_at(tx: &mut Tx, image: &ImageId, host: &str) -> Result<()> {
    tx.run(
        "UPDATE staged SET host = ? WHERE image_id = ?",
        args![host, image.as_str()],
    )
    .await?;
    Ok(())
}

/// In whose staging area the bytes are; `None` where that is everybody's, or nothing is staged.
///
/// # Errors
/// When the database fails.
pub async fn host(tx: &mut Tx, image: &ImageId) -> Result<Option<String>> {
    let row = tx
        .first(
            "SELECT image_id AS id, host FROM staged WHERE image_id = ?",
            args![image.as_str()],
        )
        .await?;
    row.map_or(Ok(None), |row| row.opt_text(TABLE, "host"))
}

/// Notes that the staged bytes are complete and durable.
///
/// # Errors
/// `Conflict` when the row is gone: its lease died and it was swept.
pub async fn complete(tx: &mut Tx, image: &ImageId, staged: &Staged) -> Result<()> {
    let Hashes {
        checksum,
        algo,
        value,
    } = staged.hashes.clone();
    let changed = tx
        .run(
            "UPDATE staged SET complete = 1, size = ?, checksum = ?, hash_algo = ?, \
             hash_value = ? WHERE image_id = ? AND complete = 0",
            vec![
                size_arg(Some(staged.size)),
                checksum.into(),
                algo.into(),
                value.into(),
                image.as_str().into(),
            ],
        )
        .await?;
    if changed == 1 {
        Ok(())
    } else {
        Err(Error::Conflict(format!("staging of {image}")))
    }
}

/// Keeps an incomplete staging from being swept until `lease_until`.
///
/// # Errors
/// `Conflict` when the row is gone.
pub async fn renew(tx: &mut Tx, image: &ImageId, lease_until: Timestamp) -> Result<()> {
    let changed = tx
        .run(
            "UPDATE staged SET lease_until = ? WHERE image_id = ? AND complete = 0",
            args![lease_until.0, image.as_str()],
        )
        .await?;
    if changed == 1 {
        Ok(())
    } else {
        Err(Error::Conflict(format!("staging of {image}")))
    }
}

/// The complete staged bytes of an image.
///
/// # Errors
/// When the database fails or the row is corrupt.
pub async fn find(tx: &mut Tx, image: &ImageId) -> Result<Option<Staged>> {
    let row = tx
        .first(
            "SELECT image_id AS id, size, checksum, hash_algo, hash_value FROM staged \
             WHERE image_id = ? AND complete = 1",
            args![image.as_str()],
        )
        .await?;
    row.map(|row| {
        Ok(Staged {
            size: row.opt_size(TABLE, "size")?.unwrap_or(0),
            hashes: Hashes {
                checksum: row.opt_text(TABLE, "checksum")?,
                algo: row.text(TABLE, "hash_algo")?,
                value: row.text(TABLE, "hash_value")?,
            },
        })
    })
    .transpose()
}

/// Forgets what was staged.
///
/// # Errors
/// When the database fails.
pub async fn delete(tx: &mut Tx, image: &ImageId) -> Result<()> {
    tx.run(
        "DELETE FROM staged WHERE image_id = ?",
        args![image.as_str()],
    )
    .await?;
    Ok(())
}

/// Forgets a staging that was broken off, if it still is; answers whether.
///
/// # Errors
/// When the database fails.
pub async fn delete_expired(tx: &mut Tx, image: &ImageId, now: Timestamp) -> Result<bool> {
    let changed = tx
        .run(
            "DELETE FROM staged WHERE image_id = ? AND complete = 0 AND lease_until < ?",
            args![image.as_str(), now.0],
        )
        .await?;
    Ok(changed == 1)
}

/// Images whose staging was broken off: incomplete, with a lease that ended before `now`.
///
/// # Errors
/// When the database fails.
pub async fn expired(tx: &mut Tx, now: Timestamp) -> Result<Vec<ImageId>> {
    tx.all(
        "SELECT image_id AS id FROM staged WHERE complete = 0 AND lease_until < ?",
        args![now.0],
    )
    .await?
    .iter()
    .map(|row| row.parse(TABLE, "id"))
    .collect()
}

/// Every image that has something staged here, complete or not: in the area of `host`, or in one
/// that is everybody's.
///
/// # Errors
/// When the database fails.
pub async fn all(tx: &mut Tx, host: Option<&str>) -> Result<Vec<ImageId>> {
    let sql = "SELECT image_id AS id FROM staged WHERE host IS NULL OR host = ?";
    tx.all(sql, args![host.map(str::to_owned)])
        .await?
        .iter()
        .map(|row| row.parse(TABLE, "id"))
        .collect()
}
