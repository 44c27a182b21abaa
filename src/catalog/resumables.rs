//! Uploads that go on where they were broken off.

use super::conn::{Row, args, marks, size_arg};
use super::{Error, Result, Tx};
use crate::domain::{ImageId, Part, Resumable, Timestamp};

const TABLE: &str = "resumable_uploads";
const COLUMNS: &str = "id, image_id, owner, host, store, part, size, received, done, metadata, \
     expected, parts, expires_at";

/// Adds an upload.
///
/// # Errors
/// When the database fails.
pub async fn insert(tx: &mut Tx, upload: &Resumable) -> Result<()> {
    let expected = upload.expected.as_ref().map(serde_json::to_string);
    let expected = expected.transpose().map_err(|_| Error::Corrupt {
        table: TABLE,
        column: "expected",
        id: upload.id.clone(),
    })?;
    tx.run(
        format!("INSERT INTO {TABLE} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
        vec![
            upload.id.as_str().into(),
            upload.image.as_str().into(),
            upload.owner.clone().into(),
            upload.host.clone().into(),
            upload.store.as_str().into(),
            upload.part.name().into(),
            size_arg(Some(upload.size)),
            size_arg(Some(upload.received)),
            i64::from(upload.done).into(),
            upload.metadata.as_str().into(),
            expected.into(),
            upload.parts.join(" ").into(),
            upload.expires_at.0.into(),
        ],
    )
    .await?;
    Ok(())
}

/// The upload with this id.
///
/// # Errors
/// When the database fails or the row is corrupt.
pub async fn find(tx: &mut Tx, id: &str) -> Result<Option<Resumable>> {
    let sql = format!("SELECT {COLUMNS} FROM {TABLE} WHERE id = ?");
    let row = tx.first(sql, args![id]).await?;
    row.as_ref().map(from_row).transpose()
}

/// Notes that bytes up to `to` are durable, where those up to `from` were.
///
/// # Errors
/// `Conflict` when the upload is gone, or others went on with it.
pub async fn advance(
    tx: &mut Tx,
    id: &str,
    (from, to): (u64, u64),
    expires_at: Timestamp,
) -> Result<()> {
    let sql = "UPDATE resumable_uploads SET received = ?, expires_at = ? \
         WHERE id = ? AND received = ?";
    let args = vec![
        size_arg(Some(to)),
        expires_at.0.into(),
        id.into(),
        size_arg(Some(from)),
    ];
    match tx.run(sql, args).await? {
        1 => Ok(()),
        _ => Err(Error::Conflict(format!("upload {id}"))),
    }
}

/// Notes that the image has the data. What is left is told to clients that missed the answer.
///
/// # Errors
/// When the database fails.
pub async fn finish(tx: &mut Tx, id: &str) -> Result<()> {
    let sql = "UPDATE resumable_uploads SET done = 1 WHERE id = ?";
    tx.run(sql, args![id]).await?;
    Ok(())
}

/// Forgets uploads.
///
/// # Errors
/// When the database fails.
pub async fn delete(tx: &mut Tx, ids: &[String]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let sql = format!("DELETE FROM {TABLE} WHERE id IN ({})", marks(ids.len()));
    tx.run(sql, ids.iter().map(|id| id.as_str().into()).collect())
        .await?;
    Ok(())
}

/// Uploads of an image that are not done.
///
/// # Errors
/// When the database fails.
pub async fn count(tx: &mut Tx, image: &ImageId) -> Result<usize> {
    let sql = "SELECT COUNT(*) AS uploads FROM resumable_uploads WHERE image_id = ? AND done = 0";
    let row = tx.first(sql, args![image.as_str()]).await?;
    let count = row.map_or(Ok(0), |row| row.int(TABLE, "uploads"))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Bytes that the uploads of a project that are not done will have. Joined ones are those of their
/// parts.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn pending(tx: &mut Tx, owner: &str) -> Result<u64> {
    let sql = "SELECT id, size FROM resumable_uploads \
         WHERE owner = ? AND done = 0 AND part <> ?";
    let mut sum = 0_u64;
    for row in tx.all(sql, args![owner, Part::Joined.name()]).await? {
        sum = sum.saturating_add(row.opt_size(TABLE, "size")?.unwrap_or(0));
    }
    Ok(sum)
}

/// What makes an upload one that is over: `?` is now.
const OVER: &str =
    "(expires_at < ? OR image_id IN (SELECT id FROM images WHERE deleted_at IS NOT NULL))";

/// At most `limit` uploads that are over before `now`, or whose image is deleted: at any host, for
/// one that is gone forgets nothing. Files without a row are removed where they lie.
///
/// # Errors
/// When the database fails.
pub async fn over(tx: &mut Tx, now: Timestamp, limit: u32) -> Result<Vec<String>> {
    let sql = format!("SELECT id FROM resumable_uploads WHERE {OVER} LIMIT ?");
    ids(&tx.all(sql, args![now.0, i64::from(limit)]).await?)
}

/// Forgets these uploads, but those that somebody went on with meanwhile.
///
/// # Errors
/// When the database fails.
pub async fn delete_over(tx: &mut Tx, ids: &[String], now: Timestamp) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "DELETE FROM {TABLE} WHERE id IN ({}) AND {OVER}",
        marks(ids.len())
    );
    let ids = ids.iter().map(|id| id.as_str().into());
    tx.run(sql, ids.chain(args![now.0]).collect()).await?;
    Ok(())
}

/// Of these uploads, those that have bytes.
///
/// # Errors
/// When the database fails.
pub async fn with_bytes(tx: &mut Tx, ids_asked: &[String]) -> Result<Vec<String>> {
    if ids_asked.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT id FROM {TABLE} WHERE done = 0 AND id IN ({})",
        marks(ids_asked.len())
    );
    let args = ids_asked.iter().map(|id| id.as_str().into()).collect();
    ids(&tx.all(sql, args).await?)
}

fn ids(rows: &[Row]) -> Result<Vec<String>> {
    rows.iter().map(|row| row.text(TABLE, "id")).collect()
}

fn from_row(row: &Row) -> Result<Resumable> {
    let expected = row.opt_text(TABLE, "expected")?;
    let expected = expected.map(|text| serde_json::from_str(&text));
    let size = |column| {
        let size = row.opt_size(TABLE, column)?;
        size.ok_or_else(|| row.corrupt(TABLE, column))
    };
    let upload = Resumable {
        id: row.text(TABLE, "id")?,
        image: row.parse(TABLE, "image_id")?,
        owner: row.opt_text(TABLE, "owner")?,
        host: row.opt_text(TABLE, "host")?,
        store: row.text(TABLE, "store")?,
        part: row.parse(TABLE, "part")?,
        size: size("size")?,
        received: size("received")?,
        done: row.int(TABLE, "done")? != 0,
        metadata: row.text(TABLE, "metadata")?,
        expected: (expected.transpose()).map_err(|_| row.corrupt(TABLE, "expected"))?,
        parts: (row.text(TABLE, "parts")?.split_whitespace())
            .map(str::to_owned)
            .collect(),
        expires_at: Timestamp(row.int(TABLE, "expires_at")?),
    };
    match upload.received <= upload.size {
        true => Ok(upload),
        false => Err(row.corrupt(TABLE, "received")),
    }
}
