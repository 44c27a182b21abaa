//! The durable queue: claim by compare-and-set, lease, heartbeat, fencing number, backoff.

use super::conn::{Row, args};
use super::{Catalog, Error, Result, Tx};
use crate::domain::Timestamp;

const TABLE: &str = "jobs";
const COLUMNS: &str = "id, kind, payload, fence, attempts";

/// A job somebody holds the lease of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claimed {
    /// Its id.
    pub id: String,
    /// What to do.
    pub kind: String,
    /// With what, as JSON.
    pub payload: String,
    /// Proof that the lease is still ours; grows with every claim.
    pub fence: i64,
    /// How often it was begun, this time included.
    pub attempts: i64,
}

/// Enqueues a job, in the transaction of the fact it follows from.
///
/// # Errors
/// When the database fails.
pub async fn enqueue(
    tx: &mut Tx,
    id: &str,
    kind: &str,
    payload: &str,
    priority: i64,
    now: Timestamp,
) -> Result<()> {
    tx.run(
        "INSERT INTO jobs (id, kind, payload, priority, run_at, fence, attempts, created_at) \
         VALUES (?, ?, ?, ?, ?, 0, 0, ?)",
        args![id, kind, payload, priority, now.0, now.0],
    )
    .await?;
    tx.tell_of_job().await
}

/// Leaves a job to the process called `host`, which has what it needs.
///
/// # Errors
/// When the database fails.
pub async fn leave_to(tx: &mut Tx, id: &str, host: &str) -> Result<()> {
    tx.run("UPDATE jobs SET host = ? WHERE id = ?", args![host, id])
        .await?;
    Ok(())
}

/// Claims the most urgent job that is due, held by nobody, and anybody's or left to `host`.
///
/// # Errors
/// When the database fails.
pub async fn claim(
    tx: &mut Tx,
    host: Option<&str>,
    now: Timestamp,
    lease_until: Timestamp,
) -> Result<Option<Claimed>> {
    let lock = tx.for_update_of_free_rows();
    let row = tx
        .first(
            format!(
                "SELECT {COLUMNS} FROM jobs WHERE run_at <= ? \
                 AND (lease_until IS NULL OR lease_until < ?) \
                 AND (host IS NULL OR host = ?) \
                 ORDER BY priority DESC, run_at, id LIMIT 1{lock}"
            ),
            args![now.0, now.0, host.map(str::to_owned)],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut job = from_row(&row)?;
    let changed = tx
        .run(
            "UPDATE jobs SET lease_until = ?, fence = fence + 1, attempts = attempts + 1 \
             WHERE id = ? AND fence = ?",
            args![lease_until.0, job.id.as_str(), job.fence],
        )
        .await?;
    if changed != 1 {
        return Ok(None);
    }
    job.fence += 1;
    job.attempts += 1;
    Ok(Some(job))
}

/// How many jobs wait for a worker, and how many one has claimed.
///
/// # Errors
/// When the database fails.
pub async fn depth(catalog: &Catalog) -> Result<(i64, i64)> {
    let mut tx = catalog.read().await?;
    let mut count = async |sql| {
        let row = tx.first(sql, args![Timestamp::now().0]).await?;
        row.map_or(Ok(0), |row| row.int(TABLE, "n"))
    };
    let claimed = count("SELECT COUNT(*) AS n FROM jobs WHERE lease_until >= ?").await?;
    let free = "SELECT COUNT(*) AS n FROM jobs WHERE lease_until IS NULL OR lease_until < ?";
    Ok((count(free).await?, claimed))
}

/// Renews the lease.
///
/// # Errors
/// `Conflict` when it was lost.
pub async fn heartbeat(tx: &mut Tx, job: &Claimed, lease_until: Timestamp) -> Result<()> {
    let changed = tx
        .run(
            "UPDATE jobs SET lease_until = ? WHERE id = ? AND fence = ?",
            args![lease_until.0, job.id.as_str(), job.fence],
        )
        .await?;
    held(changed, job)
}

/// Removes a job that is done, in the transaction of its last fact.
///
/// # Errors
/// `Conflict` when the lease was lost: the facts must not be committed.
pub async fn finish(tx: &mut Tx, job: &Claimed) -> Result<()> {
    let changed = tx
        .run(
            "DELETE FROM jobs WHERE id = ? AND fence = ?",
            args![job.id.as_str(), job.fence],
        )
        .await?;
    held(changed, job)
}

/// Gives a job back, to be tried again at `run_at`.
///
/// # Errors
/// `Conflict` when the lease was lost.
pub async fn retry(tx: &mut Tx, job: &Claimed, error: &str, run_at: Timestamp) -> Result<()> {
    let changed = tx
        .run(
            "UPDATE jobs SET lease_until = NULL, run_at = ?, last_error = ? \
             WHERE id = ? AND fence = ?",
            args![run_at.0, error, job.id.as_str(), job.fence],
        )
        .await?;
    held(changed, job)
}

/// Takes a job from whoever holds it: what they do can no longer become fact.
///
/// # Errors
/// When the database fails.
pub async fn cancel(tx: &mut Tx, id: &str) -> Result<()> {
    tx.run("DELETE FROM jobs WHERE id = ?", args![id]).await?;
    Ok(())
}

/// Frees every job: for the one process that owns the catalog, when it starts.
///
/// # Errors
/// When the database fails.
pub async fn release_all(tx: &mut Tx) -> Result<u64> {
    tx.run(
        "UPDATE jobs SET lease_until = NULL WHERE lease_until IS NOT NULL",
        vec![],
    )
    .await
}

fn held(changed: u64, job: &Claimed) -> Result<()> {
    if changed == 1 {
        Ok(())
    } else {
        Err(Error::Conflict(format!("the lease of job {}", job.id)))
    }
}

fn from_row(row: &Row) -> Result<Claimed> {
    Ok(Claimed {
        id: row.text(TABLE, "id")?,
        kind: row.text(TABLE, "kind")?,
        payload: row.text(TABLE, "payload")?,
        fence: row.int(TABLE, "fence")?,
        attempts: row.int(TABLE, "attempts")?,
    })
}
