//! Tasks.

use super::conn::{Row, args};
use super::{Result, Tx};
use crate::domain::{ImageId, Task, TaskStatus, Timestamp};

const TABLE: &str = "tasks";
const COLUMNS: &str = "id, kind, status, owner, image_id, request_id, user_id, input, result, \
     message, expires_at, created_at, updated_at";

/// Adds a task.
///
/// # Errors
/// When the database fails.
pub async fn insert(tx: &mut Tx, task: &Task) -> Result<()> {
    tx.run(
        format!("INSERT INTO tasks ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
        vec![
            task.id.as_str().into(),
            task.kind.as_str().into(),
            task.status.name().into(),
            task.owner.clone().into(),
            task.image_id.as_str().into(),
            task.request_id.as_str().into(),
            task.user_id.clone().into(),
            task.input.to_string().into(),
            task.result.as_ref().map(ToString::to_string).into(),
            task.message.as_str().into(),
            task.expires_at.map(|t| t.0).into(),
            task.created_at.0.into(),
            task.updated_at.0.into(),
        ],
    )
    .await?;
    Ok(())
}

/// The tasks of an image that have not expired, oldest first.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn list_of_image(tx: &mut Tx, image: &ImageId, now: Timestamp) -> Result<Vec<Task>> {
    tx.all(
        format!(
            "SELECT {COLUMNS} FROM tasks WHERE image_id = ? \
             AND (expires_at IS NULL OR expires_at > ?) ORDER BY created_at, id"
        ),
        args![image.as_str(), now.0],
    )
    .await?
    .iter()
    .map(from_row)
    .collect()
}

/// Notes that a task moved: its status and what to tell of it.
///
/// # Errors
/// When the database fails.
pub async fn progress(
    tx: &mut Tx,
    id: &str,
    status: TaskStatus,
    message: &str,
    now: Timestamp,
) -> Result<()> {
    tx.run(
        "UPDATE tasks SET status = ?, message = ?, updated_at = ? WHERE id = ? \
         AND status IN ('pending', 'processing')",
        args![status.name(), message, now.0, id],
    )
    .await?;
    Ok(())
}

/// Ends a task; it is forgotten at `expires_at`.
///
/// # Errors
/// When the database fails.
pub async fn end(
    tx: &mut Tx,
    id: &str,
    status: TaskStatus,
    result: Option<String>,
    message: &str,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<()> {
    tx.run(
        "UPDATE tasks SET status = ?, result = ?, message = ?, updated_at = ?, expires_at = ? \
         WHERE id = ? AND status IN ('pending', 'processing')",
        args![status.name(), result, message, now.0, expires_at.0, id],
    )
    .await?;
    Ok(())
}

/// Removes tasks that expired before `now`.
///
/// # Errors
/// When the database fails.
pub async fn purge(tx: &mut Tx, now: Timestamp) -> Result<u64> {
    tx.run("DELETE FROM tasks WHERE expires_at < ?", args![now.0])
        .await
}

fn from_row(row: &Row) -> Result<Task> {
    let json = |column: &'static str, text: &str| {
        serde_json::from_str(text).map_err(|_| row.corrupt(TABLE, column))
    };
    Ok(Task {
        id: row.text(TABLE, "id")?,
        kind: row.text(TABLE, "kind")?,
        status: row.parse(TABLE, "status")?,
        owner: row.opt_text(TABLE, "owner")?,
        image_id: row.text(TABLE, "image_id")?,
        request_id: row.text(TABLE, "request_id")?,
        user_id: row.opt_text(TABLE, "user_id")?,
        input: json("input", &row.text(TABLE, "input")?)?,
        result: row
            .opt_text(TABLE, "result")?
            .map(|text| json("result", &text))
            .transpose()?,
        message: row.text(TABLE, "message")?,
        expires_at: row.opt_int(TABLE, "expires_at")?.map(Timestamp),
        created_at: Timestamp(row.int(TABLE, "created_at")?),
        updated_at: Timestamp(row.int(TABLE, "updated_at")?),
    })
}
