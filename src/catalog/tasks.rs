//! Tasks.

use serde_json::Value;

use super::conn::{Arg, Row, args};
use super::{Direction, Result, TaskKey, TaskQuery, Tx, outbox};
use crate::domain::{ImageId, Task, TaskStatus, Timestamp};
use crate::notify::payload;

const TABLE: &str = "tasks";
const COLUMNS: &str = "id, kind, status, owner, image_id, request_id, user_id, input, result, \
     message, expires_at, created_at, updated_at, progress";

/// Adds a task.
///
/// # Errors
/// When the database fails.
pub async fn insert(tx: &mut Tx, task: &Task) -> Result<()> {
    tx.run(
        format!("INSERT INTO tasks ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
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
            task.progress.as_ref().map(ToString::to_string).into(),
        ],
    )
    .await?;
    outbox::note(tx, "task.create", || payload::task(task)).await
}

/// The task with this id.
///
/// # Errors
/// When the database fails or the row is corrupt.
pub async fn find(tx: &mut Tx, id: &str) -> Result<Option<Task>> {
    let sql = format!("SELECT {COLUMNS} FROM tasks WHERE id = ?");
    let row = tx.first(sql, args![id]).await?;
    row.as_ref().map(from_row).transpose()
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

/// A page of the tasks that have not expired.
///
/// # Errors
/// When the database fails or a row is corrupt.
pub async fn list(tx: &mut Tx, query: &TaskQuery, now: Timestamp) -> Result<Vec<Task>> {
    let mut conditions = vec!["(expires_at IS NULL OR expires_at > ?)".to_owned()];
    let mut args = args![now.0];
    for (column, value) in [
        ("status", query.status.map(|s| s.name().to_owned())),
        ("kind", query.kind.clone()),
    ] {
        if let Some(value) = value {
            conditions.push(format!("{column} = ?"));
            args.push(value.into());
        }
    }
    let (key, direction) = query.sort;
    let (before, word) = match direction {
        Direction::Asc => (">", "ASC"),
        Direction::Desc => ("<", "DESC"),
    };
    let column = column(key);
    if let Some(marker) = &query.marker {
        conditions.push(format!(
            "({column} {before} ? OR ({column} = ? AND id {before} ?))"
        ));
        args.extend([value(key, marker), value(key, marker)]);
        args.push(marker.id.as_str().into());
    }
    args.push(i64::from(query.limit).into());
    let sql = format!(
        "SELECT {COLUMNS} FROM tasks WHERE {} ORDER BY {column} {word}, id {word} LIMIT ?",
        conditions.join(" AND ")
    );
    tx.all(sql, args).await?.iter().map(from_row).collect()
}

const fn column(key: TaskKey) -> &'static str {
    match key {
        TaskKey::Id => "id",
        TaskKey::Type => "kind",
        TaskKey::Status => "status",
        TaskKey::CreatedAt => "created_at",
        TaskKey::UpdatedAt => "updated_at",
        // What does not expire yet comes first.
        TaskKey::ExpiresAt => "COALESCE(expires_at, 0)",
    }
}

fn value(key: TaskKey, task: &Task) -> Arg {
    match key {
        TaskKey::Id => task.id.as_str().into(),
        TaskKey::Type => task.kind.as_str().into(),
        TaskKey::Status => task.status.name().into(),
        TaskKey::CreatedAt => task.created_at.0.into(),
        TaskKey::UpdatedAt => task.updated_at.0.into(),
        TaskKey::ExpiresAt => task.expires_at.map_or(0, |t| t.0).into(),
    }
}

/// What is told when somebody begins with a task.
const BEGINNING: [&str; 2] = ["task.run", "task.processing"];

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
    let pending = "SELECT id FROM tasks WHERE id = ? AND status = 'pending'";
    let begins = BEGINNING.iter().any(|event| tx.wants(event))
        && tx.first(pending, args![id]).await?.is_some();
    tx.run(
        "UPDATE tasks SET status = ?, message = ?, updated_at = ? WHERE id = ? \
         AND status IN ('pending', 'processing')",
        args![status.name(), message, now.0, id],
    )
    .await?;
    if begins {
        note(tx, id, &BEGINNING).await?;
    }
    Ok(())
}

/// Notes how far the work of a task is, in words and in numbers, while it is being worked on.
///
/// # Errors
/// When the database fails.
pub async fn report(
    tx: &mut Tx,
    id: &str,
    message: &str,
    progress: &Value,
    now: Timestamp,
) -> Result<()> {
    tx.run(
        "UPDATE tasks SET message = ?, progress = ?, updated_at = ? \
         WHERE id = ? AND status = 'processing'",
        args![message, progress.to_string(), now.0, id],
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
    let ended = tx
        .run(
            "UPDATE tasks SET status = ?, result = ?, message = ?, updated_at = ?, expires_at = ?, \
             progress = NULL WHERE id = ? AND status IN ('pending', 'processing')",
            args![status.name(), result, message, now.0, expires_at.0, id],
        )
        .await?;
    let event = match status {
        TaskStatus::Success => "task.success",
        _ => "task.failure",
    };
    if ended == 1 {
        note(tx, id, &[event]).await?;
    }
    Ok(())
}

/// Tells others of a task as it is now.
async fn note(tx: &mut Tx, id: &str, events: &[&str]) -> Result<()> {
    if !events.iter().any(|event| tx.wants(event)) {
        return Ok(());
    }
    let sql = format!("SELECT {COLUMNS} FROM tasks WHERE id = ?");
    if let Some(row) = tx.first(sql, args![id]).await? {
        let task = from_row(&row)?;
        for event in events {
            outbox::note(tx, event, || payload::task(&task)).await?;
        }
    }
    Ok(())
}

/// Removes tasks that expired before `now`, but for those that a batch still tells of.
///
/// # Errors
/// When the database fails.
pub async fn purge(tx: &mut Tx, now: Timestamp) -> Result<u64> {
    tx.run(
        "DELETE FROM tasks WHERE expires_at < ? \
         AND NOT EXISTS (SELECT 1 FROM batch_items WHERE task_id = tasks.id)",
        args![now.0],
    )
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
        progress: row
            .opt_text(TABLE, "progress")?
            .map(|text| json("progress", &text))
            .transpose()?,
    })
}
