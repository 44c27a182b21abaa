//! Tasks of an image.

use serde::Serialize;
use serde_json::Value;

use crate::domain::Task;

/// A task as `GET /v2/images/{id}/tasks` shows it.
#[derive(Serialize)]
pub(in crate::api) struct TaskView<'a> {
    id: &'a str,
    r#type: &'a str,
    status: &'static str,
    owner: Option<&'a str>,
    expires_at: Option<String>,
    created_at: String,
    updated_at: String,
    deleted_at: Option<String>,
    deleted: bool,
    image_id: &'a str,
    request_id: &'a str,
    user_id: Option<&'a str>,
    input: &'a Value,
    result: Option<&'a Value>,
    message: &'a str,
}

impl<'a> From<&'a Task> for TaskView<'a> {
    fn from(task: &'a Task) -> Self {
        Self {
            id: &task.id,
            r#type: &task.kind,
            status: task.status.name(),
            owner: task.owner.as_deref(),
            expires_at: task.expires_at.map(crate::domain::Timestamp::with_micros),
            created_at: task.created_at.with_micros(),
            updated_at: task.updated_at.with_micros(),
            deleted_at: None,
            deleted: false,
            image_id: &task.image_id,
            request_id: &task.request_id,
            user_id: task.user_id.as_deref(),
            input: &task.input,
            result: task.result.as_ref(),
            message: &task.message,
        }
    }
}

/// All of them.
#[derive(Serialize)]
pub(in crate::api) struct TaskList<'a> {
    pub(in crate::api) tasks: Vec<TaskView<'a>>,
}
