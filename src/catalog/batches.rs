//! Batches and their items. Where an item stands is told by its task and stored nowhere else.

use super::conn::{Row, args, marks};
use super::{Error, Result, Tx};
use crate::domain::batch::{Batch, Counts, Item};
use crate::domain::{ImageId, TaskStatus, Timestamp};

const TABLE: &str = "batches";
const ITEMS: &str = "batch_items";
const COLUMNS: &str = "id, owner, user_id, plan, concurrency, created_at";
/// Batches forgotten at once.
const FORGOTTEN: i64 = 100;

/// Adds a batch.
///
/// # Errors
/// When the database fails.
pub async fn insert(tx: &mut Tx, batch: &Batch) -> Result<()> {
    tx.run(
        format!("INSERT INTO batches ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"),
        args![
            batch.id.as_str(),
            batch.owner.clone(),
            batch.user_id.clone(),
            batch.plan.to_string(),
            i64::from(batch.concurrency),
            batch.created_at.0,
        ],
    )
    .await?;
    Ok(())
}

/// Adds an item.
///
/// # Errors
/// When the database fails.
pub async fn insert_item(tx: &mut Tx, batch: &str, item: &Item) -> Result<()> {
    tx.run(
        "INSERT INTO batch_items (batch_id, n, source, name, image_id, task_id, cancelled) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
        args![
            batch,
            i64::from(item.n),
            item.source.to_string(),
            item.name.clone(),
            item.image_id.as_str(),
            item.task_id.as_str(),
            item.is_cancelled,
        ],
    )
    .await?;
    Ok(())
}

/// Gives an item another image and task, provided the task it has still is `ended`.
///
/// # Errors
/// `Conflict` when it is not.
pub async fn begin_again(tx: &mut Tx, batch: &str, item: &Item, ended: &str) -> Result<()> {
    let changed = tx
        .run(
            "UPDATE batch_items SET name = ?, image_id = ?, task_id = ?, cancelled = 0 \
             WHERE batch_id = ? AND n = ? AND task_id = ?",
            args![
                item.name.clone(),
                item.image_id.as_str(),
                item.task_id.as_str(),
                batch,
                i64::from(item.n),
                ended,
            ],
        )
        .await?;
    if changed == 1 {
        Ok(())
    } else {
        Err(Error::Conflict(format!("item {} of a batch", item.n)))
    }
}

/// The batch with this id; a transaction that writes locks its row.
///
/// # Errors
/// When the database fails or the row is corrupt.
pub async fn find(tx: &mut Tx, id: &str) -> Result<Option<Batch>> {
    let lock = tx.for_update();
    let sql = format!("SELECT {COLUMNS} FROM batches WHERE id = ?{lock}");
    let row = tx.first(sql, args![id]).await?;
    row.as_ref().map(from_row).transpose()
}

/// A page of batches, the newest first: those of `owner`, or all where there is none; from behind
/// `marker` on.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn list(
    tx: &mut Tx,
    owner: Option<&str>,
    marker: Option<&Batch>,
    limit: u32,
) -> Result<Vec<Batch>> {
    let mut conditions = vec!["1 = 1"];
    let mut args = args![];
    if let Some(owner) = owner {
        conditions.push("owner = ?");
        args.push(owner.into());
    }
    if let Some(marker) = marker {
        conditions.push("(created_at < ? OR (created_at = ? AND id < ?))");
        let at = marker.created_at.0;
        args.extend(args![at, at, marker.id.as_str()]);
    }
    args.push(i64::from(limit).into());
    let sql = format!(
        "SELECT {COLUMNS} FROM batches WHERE {} ORDER BY created_at DESC, id DESC LIMIT ?",
        conditions.join(" AND ")
    );
    tx.all(sql, args).await?.iter().map(from_row).collect()
}

/// The items of a batch, in their order.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn items(tx: &mut Tx, batch: &str) -> Result<Vec<Item>> {
    tx.all(
        "SELECT i.task_id AS id, i.n, i.source, i.name, i.image_id, i.cancelled, \
         t.status, t.message, t.progress FROM batch_items i \
         LEFT JOIN tasks t ON t.id = i.task_id WHERE i.batch_id = ? ORDER BY i.n",
        args![batch],
    )
    .await?
    .iter()
    .map(item)
    .collect()
}

/// How many items of these batches stand where, in the order of `ids`.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn counts(tx: &mut Tx, ids: &[&str]) -> Result<Vec<Counts>> {
    let mut counts = vec![Counts::default(); ids.len()];
    if ids.is_empty() {
        return Ok(counts);
    }
    let sql = format!(
        "SELECT i.batch_id AS id, t.status, i.cancelled, COUNT(*) AS many FROM batch_items i \
         LEFT JOIN tasks t ON t.id = i.task_id WHERE i.batch_id IN ({}) \
         GROUP BY i.batch_id, t.status, i.cancelled",
        marks(ids.len())
    );
    let args = ids.iter().map(|id| (*id).into()).collect();
    for row in tx.all(sql, args).await? {
        let id = row.text(ITEMS, "id")?;
        let many = row.int(ITEMS, "many")?.unsigned_abs();
        if let Some(at) = ids.iter().position(|other| *other == id) {
            counts[at].add(status(&row)?, row.int(ITEMS, "cancelled")? != 0, many);
        }
    }
    Ok(counts)
}

/// How many batches of a project have not ended.
///
/// # Errors
/// When the database fails.
pub async fn open(tx: &mut Tx, owner: Option<&str>) -> Result<u64> {
    let (of, args) = match owner {
        Some(owner) => ("b.owner = ?", args![owner]),
        None => ("b.owner IS NULL", args![]),
    };
    let sql = format!(
        "SELECT COUNT(*) AS many FROM batches b WHERE {of} AND EXISTS (SELECT 1 FROM batch_items i \
         INNER JOIN tasks t ON t.id = i.task_id WHERE i.batch_id = b.id \
         AND t.status IN ('pending', 'processing'))"
    );
    let row = tx.first(sql, args).await?;
    row.map_or(Ok(0), |row| Ok(row.int(TABLE, "many")?.unsigned_abs()))
}

/// Notes of the items whose jobs are to end that they are. A job has the id of its task; one that was
/// enqueued since, by a retry, is not meant.
///
/// # Errors
/// When the database fails.
pub async fn cancel(tx: &mut Tx, id: &str) -> Result<()> {
    tx.run(
        "UPDATE batch_items SET cancelled = 1 WHERE batch_id = ? AND task_id IN \
         (SELECT id FROM jobs WHERE batch = ? AND cancelled = 1)",
        args![id, id],
    )
    .await?;
    Ok(())
}

/// Forgets a batch. Its images and tasks stay.
///
/// # Errors
/// When the database fails.
pub async fn delete(tx: &mut Tx, id: &str) -> Result<()> {
    for sql in [
        "DELETE FROM batch_items WHERE batch_id = ?",
        "DELETE FROM batches WHERE id = ?",
    ] {
        tx.run(sql, args![id]).await?;
    }
    Ok(())
}

/// Forgets batches of which every task expired before `now`. Tasks are kept while an item names
/// them, so this goes first.
///
/// # Errors
/// When the database fails.
pub async fn purge(tx: &mut Tx, now: Timestamp) -> Result<()> {
    let sql = format!(
        "SELECT id FROM batches WHERE NOT EXISTS (SELECT 1 FROM batch_items i \
         INNER JOIN tasks t ON t.id = i.task_id WHERE i.batch_id = batches.id \
         AND (t.expires_at IS NULL OR t.expires_at >= ?)) ORDER BY id LIMIT ?{}",
        tx.for_update()
    );
    for row in tx.all(sql, args![now.0, FORGOTTEN]).await? {
        delete(tx, &row.text(TABLE, "id")?).await?;
    }
    Ok(())
}

fn from_row(row: &Row) -> Result<Batch> {
    let plan = serde_json::from_str(&row.text(TABLE, "plan")?);
    let concurrency = u32::try_from(row.int(TABLE, "concurrency")?);
    Ok(Batch {
        id: row.text(TABLE, "id")?,
        owner: row.opt_text(TABLE, "owner")?,
        user_id: row.opt_text(TABLE, "user_id")?,
        plan: plan.map_err(|_| row.corrupt(TABLE, "plan"))?,
        concurrency: concurrency.map_err(|_| row.corrupt(TABLE, "concurrency"))?,
        created_at: Timestamp(row.int(TABLE, "created_at")?),
    })
}

fn status(row: &Row) -> Result<Option<TaskStatus>> {
    row.opt_text(ITEMS, "status")?
        .map(|name| name.parse().map_err(|()| row.corrupt("tasks", "status")))
        .transpose()
}

fn item(row: &Row) -> Result<Item> {
    let source = serde_json::from_str(&row.text(ITEMS, "source")?);
    let progress = row.opt_text(ITEMS, "progress")?;
    let progress = progress.map(|text| serde_json::from_str(&text)).transpose();
    let n = u32::try_from(row.int(ITEMS, "n")?);
    Ok(Item {
        n: n.map_err(|_| row.corrupt(ITEMS, "n"))?,
        source: source.map_err(|_| row.corrupt(ITEMS, "source"))?,
        name: row.opt_text(ITEMS, "name")?,
        image_id: row.parse::<ImageId>(ITEMS, "image_id")?,
        task_id: row.text(ITEMS, "id")?,
        is_cancelled: row.int(ITEMS, "cancelled")? != 0,
        status: status(row)?,
        message: row.opt_text(ITEMS, "message")?.unwrap_or_default(),
        progress: progress.map_err(|_| row.corrupt("tasks", "progress"))?,
    })
}
