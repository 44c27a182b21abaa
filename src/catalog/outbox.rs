//! Events that wait to be sent: rows written in the transaction of the fact they tell of.
//!
//! Ids grow with every event, and whoever changes an image holds its row until the change is
//! committed: in the order of ids, an image's events are in the order in which they happened. For
//! them to be sent in it, one process at a time sends: the one that holds the lease.

use serde_json::Value;

use super::conn::{Arg, Row, args, marks};
use super::{Catalog, Result, Tx};
use crate::domain::Timestamp;
use crate::notify::Priority;

const TABLE: &str = "outbox";
/// Events that are taken at once, at most.
const BATCH: i64 = 200;
/// Bytes of their payloads, at most; one event is always taken.
const BATCH_BYTES: i64 = 4 << 20;
/// Seconds: a lease that ends later than this from now was given by a clock that was wrong.
const FAR: i64 = 24 * 3600;

/// An event that waits.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// Its place in the order of events.
    pub id: i64,
    /// Its id for consumers, the same however often it is sent.
    pub message_id: String,
    /// `image.create` and the like.
    pub event_type: String,
    /// How much it matters.
    pub priority: Priority,
    /// What it tells.
    pub payload: Value,
    /// When it happened.
    pub created_at: Timestamp,
}

/// Notes an event, unless nobody wants it. The payload is made only where somebody does.
///
/// # Errors
/// When the database fails.
pub async fn note(tx: &mut Tx, event_type: &str, payload: impl FnOnce() -> Value) -> Result<()> {
    note_as(tx, Priority::Info, event_type, payload).await
}

/// The same, of another priority.
///
/// # Errors
/// When the database fails.
pub async fn note_as(
    tx: &mut Tx,
    priority: Priority,
    event_type: &str,
    payload: impl FnOnce() -> Value,
) -> Result<()> {
    if !tx.wants(event_type) {
        return Ok(());
    }
    let payload = payload().to_string();
    let size = i64::try_from(payload.len()).unwrap_or(i64::MAX);
    tx.run(
        "INSERT INTO outbox (message_id, event_type, priority, payload, size_bytes, created_at) \
         VALUES (?, ?, ?, ?, ?, ?)",
        args![
            uuid::Uuid::new_v4().to_string(),
            event_type,
            priority.name(),
            payload,
            size,
            Timestamp::now().0,
        ],
    )
    .await?;
    tx.noted();
    Ok(())
}

/// The oldest events, for `holder` to send within `seconds`; none where there are none, or somebody
/// else sends.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn claim(catalog: &Catalog, holder: &str, seconds: i64) -> Result<Vec<Event>> {
    // A look first: most of the time there is nothing, and writing takes turns.
    let mut tx = catalog.read().await?;
    if tx
        .first("SELECT id FROM outbox LIMIT 1", vec![])
        .await?
        .is_none()
    {
        return Ok(Vec::new());
    }
    drop(tx);
    let mut tx = catalog.write().await?;
    let now = tx.clock().await?;
    let events = take(&mut tx, holder, now, now.plus_seconds(seconds)).await?;
    tx.commit().await?;
    Ok(events)
}

/// Does so in a transaction: nobody else is given any event until `until`, or until `holder` has let
/// go, which it does when it finds none.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn take(
    tx: &mut Tx,
    holder: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<Vec<Event>> {
    let ours = tx
        .run(
            "UPDATE outbox_sender SET holder = ?, lease_until = ? \
             WHERE id = 1 AND (holder = ? OR lease_until < ? OR lease_until > ?)",
            args![holder, until.0, holder, now.0, now.plus_seconds(FAR).0],
        )
        .await?;
    if ours != 1 {
        return Ok(Vec::new());
    }
    let events = oldest(tx).await?;
    if events.is_empty() {
        // In one transaction with the look: whoever notes an event after it can send it.
        let_go(tx, holder).await?;
    }
    Ok(events)
}

async fn oldest(tx: &mut Tx) -> Result<Vec<Event>> {
    let sql = "SELECT id, size_bytes FROM outbox ORDER BY id LIMIT ?";
    let mut ids: Vec<Arg> = Vec::new();
    let mut bytes = 0_i64;
    for row in tx.all(sql, args![BATCH]).await? {
        bytes = bytes.saturating_add(row.int(TABLE, "size_bytes")?);
        if bytes > BATCH_BYTES && !ids.is_empty() {
            break;
        }
        ids.push(row.int(TABLE, "id")?.into());
    }
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT id, message_id, event_type, priority, payload, created_at FROM outbox \
         WHERE id IN ({}) ORDER BY id",
        marks(ids.len())
    );
    tx.all(sql, ids).await?.iter().map(from_row).collect()
}

/// Lets somebody else send.
///
/// # Errors
/// When the database fails.
pub async fn release(catalog: &Catalog, holder: &str) -> Result<()> {
    let mut tx = catalog.write().await?;
    let_go(&mut tx, holder).await?;
    tx.commit().await
}

async fn let_go(tx: &mut Tx, holder: &str) -> Result<()> {
    tx.run(
        "UPDATE outbox_sender SET lease_until = 0 WHERE id = 1 AND holder = ?",
        args![holder],
    )
    .await?;
    Ok(())
}

/// Removes events that were sent.
///
/// # Errors
/// When the database fails.
pub async fn remove(catalog: &Catalog, events: &[Event]) -> Result<()> {
    let mut tx = catalog.write().await?;
    let sql = format!("DELETE FROM outbox WHERE id IN ({})", marks(events.len()));
    let ids = events.iter().map(|event| event.id.into()).collect();
    tx.run(sql, ids).await?;
    tx.commit().await
}

/// Removes events noted before a moment, and the oldest of more than `most`; answers how many.
///
/// # Errors
/// When the database fails.
pub async fn trim(catalog: &Catalog, before: Timestamp, most: u32) -> Result<u64> {
    let stale = "created_at < ?";
    let surplus = "SELECT id FROM outbox ORDER BY id DESC LIMIT 1 OFFSET ?";
    let mut tx = catalog.read().await?;
    let is_stale = format!("SELECT id FROM outbox WHERE {stale} LIMIT 1");
    let is_stale = tx.first(is_stale, args![before.0]).await?.is_some();
    let last = tx.first(surplus, args![i64::from(most)]).await?;
    let last = last.map(|row| row.int(TABLE, "id")).transpose()?;
    drop(tx);
    if !is_stale && last.is_none() {
        return Ok(0);
    }
    let mut tx = catalog.write().await?;
    let sql = format!("DELETE FROM outbox WHERE {stale} OR id <= ?");
    let dropped = tx.run(sql, args![before.0, last.unwrap_or(0)]).await?;
    tx.commit().await?;
    Ok(dropped)
}

/// How many events wait.
///
/// # Errors
/// When the database fails.
pub async fn depth(catalog: &Catalog) -> Result<i64> {
    let mut tx = catalog.read().await?;
    let row = tx.first("SELECT COUNT(*) AS n FROM outbox", vec![]).await?;
    row.map_or(Ok(0), |row| row.int(TABLE, "n"))
}

fn from_row(row: &Row) -> Result<Event> {
    Ok(Event {
        id: row.int(TABLE, "id")?,
        message_id: row.text(TABLE, "message_id")?,
        event_type: row.text(TABLE, "event_type")?,
        priority: row.parse(TABLE, "priority")?,
        payload: serde_json::from_str(&row.text(TABLE, "payload")?)
            .map_err(|_| row.corrupt(TABLE, "payload"))?,
        created_at: Timestamp(row.int(TABLE, "created_at")?),
    })
}
