//! The durable queue: claim by compare-and-set, lease, heartbeat, fencing number, backoff, and turns,
//! so that a project with many jobs is not in the way of others.
//!
//! What time it is comes from [`Tx::clock`], which all processes agree on. A time further ahead than
//! anybody sets one counts as past: a clock that was wrong and has been put back holds nothing up.

use super::conn::{Row, args};
use super::{Catalog, Error, Result, Tx};
use crate::domain::Timestamp;

const TABLE: &str = "jobs";
const COLUMNS: &str = "id, kind, payload, fence, attempts, cancelled";
/// Seconds. No lease and no wait between attempts is as long.
const FAR: i64 = 3600;

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
    /// Whether it is to end and not to be done.
    pub is_cancelled: bool,
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
         VALUES (?, ?, ?, ?, 0, 0, 0, ?)",
        args![id, kind, payload, priority, now.0],
    )
    .await?;
    tx.tell_of_job().await
}

/// A job of a batch.
pub struct Part {
    /// Its id.
    pub id: String,
    /// With what, as JSON.
    pub payload: String,
    /// The process it is left to; `None`: anybody's.
    pub host: Option<String>,
}

/// Enqueues the jobs of a batch that belongs to `project`, in their order, in the transaction of the
/// facts they follow from. No more of them are claimed at once than the batch says.
///
/// # Errors
/// When the database fails.
pub async fn enqueue_batch(
    tx: &mut Tx,
    batch: &str,
    project: Option<&str>,
    kind: &str,
    parts: Vec<Part>,
    now: Timestamp,
) -> Result<()> {
    let first = match project {
        Some(project) => next_turn(tx, project).await?,
        None => 0,
    };
    for (order, part) in (0..).zip(parts) {
        let turn = first + if project.is_some() { order } else { 0 };
        tx.run(
            "INSERT INTO jobs (id, kind, payload, priority, run_at, fence, attempts, created_at, \
             owner, turn, host, batch) VALUES (?, ?, ?, 0, 0, 0, 0, ?, ?, ?, ?, ?)",
            args![
                part.id,
                kind,
                part.payload,
                now.0 + order,
                project.map(str::to_owned),
                turn,
                part.host,
                batch,
            ],
        )
        .await?;
    }
    tx.tell_of_job().await
}

/// Says whose job it is: it takes its turn behind those that `project` has waiting, and beside those
/// of others. Jobs of nobody are all due at once.
///
/// # Errors
/// When the database fails.
pub async fn belongs_to(tx: &mut Tx, id: &str, project: &str) -> Result<()> {
    let turn = next_turn(tx, project).await?;
    tx.run(
        "UPDATE jobs SET owner = ?, turn = ? WHERE id = ?",
        args![project, turn, id],
    )
    .await?;
    Ok(())
}

async fn next_turn(tx: &mut Tx, project: &str) -> Result<i64> {
    let mut turn = 0;
    for (sql, args) in [
        (
            "SELECT 'turn' AS id, MIN(turn) AS turn FROM jobs WHERE owner IS NOT NULL",
            args![],
        ),
        (
            "SELECT 'turn' AS id, MAX(turn) + 1 AS turn FROM jobs WHERE owner = ?",
            args![project],
        ),
    ] {
        if let Some(row) = tx.first(sql, args).await? {
            turn = turn.max(row.opt_int(TABLE, "turn")?.unwrap_or(0));
        }
    }
    Ok(turn)
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

/// Jobs looked at by one claim.
const CLAIMS: u32 = 8;

/// Jobs of this batch that somebody has.
const HELD: &str = "SELECT COUNT(*) AS n FROM jobs \
     WHERE batch = ? AND lease_until >= ? AND lease_until <= ?";

/// Claims the job whose turn it is: the most urgent one that is due, held by nobody, anybody's or
/// left to `host`, and of no batch that has as many under way as it may. What is to end may always.
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
    let far = now.plus_seconds(FAR).0;
    let sql = format!(
        "SELECT {COLUMNS}, batch FROM jobs WHERE (run_at <= ? OR run_at > ?) \
         AND (lease_until IS NULL OR lease_until < ? OR lease_until > ?) \
         AND (host IS NULL OR host = ?) \
         AND (batch IS NULL OR cancelled = 1 OR batch NOT IN \
         (SELECT b.id FROM batches b INNER JOIN jobs held ON held.batch = b.id \
         WHERE held.lease_until >= ? AND held.lease_until <= ? \
         GROUP BY b.id, b.concurrency HAVING COUNT(*) >= b.concurrency)) \
         ORDER BY priority DESC, turn, created_at, id LIMIT 1{lock}"
    );
    // Where others are faster, what they claimed is seen the next time.
    for _ in 0..CLAIMS {
        let host = host.map(str::to_owned);
        let args = args![now.0, far, now.0, far, host, now.0, far];
        let Some(row) = tx.first(sql.clone(), args).await? else {
            return Ok(None);
        };
        let job = from_row(&row)?;
        let batch = row.opt_text(TABLE, "batch")?;
        match batch.filter(|_| !job.is_cancelled) {
            Some(batch) if !has_room(tx, &batch, now.0, far).await? => {}
            _ => return hold(tx, job, lease_until).await,
        }
    }
    Ok(None)
}

/// Takes the lease of a job that was found free.
async fn hold(tx: &mut Tx, mut job: Claimed, lease_until: Timestamp) -> Result<Option<Claimed>> {
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

/// Whether one more job of the batch may be claimed. Until the end of the transaction nobody else is
/// told so: the batch is locked.
async fn has_room(tx: &mut Tx, batch: &str, now: i64, far: i64) -> Result<bool> {
    let lock = tx.for_update();
    let sql = format!("SELECT id, concurrency FROM batches WHERE id = ?{lock}");
    let Some(found) = tx.first(sql, args![batch]).await? else {
        return Ok(true);
    };
    let may = found.int("batches", "concurrency")?;
    let held = tx.first(HELD, args![batch, now, far]).await?;
    Ok(held.map_or(Ok(0), |row| row.int(TABLE, "n"))? < may)
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

/// Renews the lease; answers whether the job is to end.
///
/// # Errors
/// `Conflict` when it was lost.
pub async fn heartbeat(tx: &mut Tx, job: &Claimed, lease_until: Timestamp) -> Result<bool> {
    let changed = tx
        .run(
            "UPDATE jobs SET lease_until = ? WHERE id = ? AND fence = ?",
            args![lease_until.0, job.id.as_str(), job.fence],
        )
        .await?;
    held(changed, job)?;
    let sql = "SELECT id, cancelled FROM jobs WHERE id = ?";
    let row = tx.first(sql, args![job.id.as_str()]).await?;
    row.map_or(Ok(true), |row| Ok(row.int(TABLE, "cancelled")? != 0))
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

/// Asks whoever has the job to end it; where nobody has, the next who claims it does. Answers whether
/// there is such a job.
///
/// # Errors
/// When the database fails.
pub async fn stop(tx: &mut Tx, id: &str) -> Result<bool> {
    let changed = tx
        .run(
            "UPDATE jobs SET cancelled = 1, run_at = 0 WHERE id = ?",
            args![id],
        )
        .await?;
    tell_of_stop(tx).await?;
    tx.tell_of_job().await?;
    Ok(changed == 1)
}

/// The same for all jobs of a batch, which any host may end: nothing of theirs lies anywhere yet.
///
/// # Errors
/// When the database fails.
pub async fn stop_batch(tx: &mut Tx, batch: &str) -> Result<()> {
    tx.run(
        "UPDATE jobs SET cancelled = 1, run_at = 0, host = NULL WHERE batch = ?",
        args![batch],
    )
    .await?;
    tell_of_stop(tx).await?;
    tx.tell_of_job().await
}

/// Tells everybody at work to look whether they still should be.
///
/// # Errors
/// When the database fails.
pub async fn tell_of_stop(tx: &mut Tx) -> Result<()> {
    tx.tell_of_stop().await
}

/// Gives back a job that was broken off through no fault of its own: it may be claimed at once, and
/// this attempt does not count.
///
/// # Errors
/// When the database fails.
pub async fn give_back(tx: &mut Tx, job: &Claimed) -> Result<()> {
    tx.run(
        "UPDATE jobs SET lease_until = NULL, attempts = attempts - 1 WHERE id = ? AND fence = ?",
        args![job.id.as_str(), job.fence],
    )
    .await?;
    tx.tell_of_job().await
}

/// Fencing numbers and payloads of the jobs that somebody has at this moment.
///
/// # Errors
/// When the database fails.
pub async fn at_work(tx: &mut Tx, now: Timestamp) -> Result<Vec<(i64, String)>> {
    let sql = "SELECT id, fence, payload FROM jobs WHERE lease_until >= ?";
    tx.all(sql, args![now.0])
        .await?
        .iter()
        .map(|row| Ok((row.int(TABLE, "fence")?, row.text(TABLE, "payload")?)))
        .collect()
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
        is_cancelled: row.int(TABLE, "cancelled")? != 0,
    })
}
