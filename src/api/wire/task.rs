//! Tasks.

use std::fmt;

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
    #[serde(skip_serializing_if = "Option::is_none")]
    os_glint_progress: Option<&'a Value>,
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
            os_glint_progress: task.progress.as_ref(),
        }
    }
}

/// All of them.
#[derive(Serialize)]
pub(in crate::api) struct TaskList<'a> {
    pub(in crate::api) tasks: Vec<TaskView<'a>>,
}

/// A task as the task collection lists it.
#[derive(Serialize)]
pub(in crate::api) struct TaskStub<'a> {
    id: &'a str,
    r#type: &'a str,
    status: &'static str,
    owner: Option<&'a str>,
    created_at: String,
    updated_at: String,
    #[serde(rename = "self")]
    link: String,
    schema: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

impl<'a> From<&'a Task> for TaskStub<'a> {
    fn from(task: &'a Task) -> Self {
        Self {
            id: &task.id,
            r#type: &task.kind,
            status: task.status.name(),
            owner: task.owner.as_deref(),
            created_at: task.created_at.to_string(),
            updated_at: task.updated_at.to_string(),
            link: format!("/v2/tasks/{}", task.id),
            schema: "/v2/schemas/task",
            expires_at: task.expires_at.map(|t| t.to_string()),
        }
    }
}

/// A page of tasks.
#[derive(Serialize)]
pub(in crate::api) struct TaskPage<'a> {
    pub(in crate::api) tasks: Vec<TaskStub<'a>>,
    pub(in crate::api) first: String,
    pub(in crate::api) schema: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) next: Option<String>,
}

/// A task by itself.
#[derive(Serialize)]
pub(in crate::api) struct TaskDetail<'a> {
    id: &'a str,
    input: &'a Value,
    r#type: &'a str,
    status: &'static str,
    owner: Option<&'a str>,
    message: &'a str,
    result: Option<&'a Value>,
    created_at: String,
    updated_at: String,
    #[serde(rename = "self")]
    link: String,
    schema: &'static str,
    image_id: &'a str,
    request_id: &'a str,
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    os_glint_progress: Option<&'a Value>,
}

impl<'a> From<&'a Task> for TaskDetail<'a> {
    fn from(task: &'a Task) -> Self {
        let stub = TaskStub::from(task);
        Self {
            id: stub.id,
            input: &task.input,
            r#type: stub.r#type,
            status: stub.status,
            owner: stub.owner,
            message: &task.message,
            result: task.result.as_ref(),
            created_at: stub.created_at,
            updated_at: stub.updated_at,
            link: stub.link,
            schema: stub.schema,
            image_id: &task.image_id,
            request_id: &task.request_id,
            user_id: task.user_id.as_deref(),
            expires_at: stub.expires_at,
            os_glint_progress: task.progress.as_ref(),
        }
    }
}

/// A task as its events tell it.
#[derive(Serialize)]
pub(in crate::api) struct TaskEvent<'a> {
    id: &'a str,
    status: &'static str,
    message: &'a str,
    result: Option<&'a Value>,
    os_glint_progress: Option<&'a Value>,
}

impl<'a> From<&'a Task> for TaskEvent<'a> {
    fn from(task: &'a Task) -> Self {
        Self {
            id: &task.id,
            status: task.status.name(),
            message: &task.message,
            result: task.result.as_ref(),
            os_glint_progress: task.progress.as_ref(),
        }
    }
}

/// As JSON, in one line.
impl fmt::Display for TaskEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}
