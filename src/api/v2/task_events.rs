//! Beyond the reference: a task followed as server-sent events, and its end asked for.
//!
//! Administrators may do so as they may see tasks; others for the tasks that they find at
//! `/v2/images/{id}/tasks`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::{empty, not_found};
use crate::api::error::Failure;
use crate::api::extract::At;
use crate::api::wire::TaskEvent;
use crate::auth::{Context, policy};
use crate::catalog::{Tx, jobs, tasks};
use crate::domain::{Image, Task, Timestamp};
use crate::service::Service;

/// How often a task is looked at whose job another process does.
const LOOK: Duration = Duration::from_secs(1);

/// The task, which must not have expired, and its image where the caller is no administrator.
async fn find(tx: &mut Tx, ctx: &Context, id: &str) -> Result<(Task, Option<Image>), Failure> {
    let missing = || not_found(format!("Could not find task {id}"));
    let now = Timestamp::now();
    let task = tasks::find(tx, id).await?;
    let task = task.filter(|t| t.expires_at.is_none_or(|at| at > now));
    let task = task.ok_or_else(missing)?;
    if policy::tasks_api_access(ctx).is_ok() {
        return Ok((task, None));
    }
    let image = super::find(tx, ctx, task.image_id.as_str())
        .await?
        .ok_or_else(missing)?;
    policy::get_image(ctx, &image)?;
    if ctx.owns(image.owner.as_deref()) || ctx.owns(task.owner.as_deref()) {
        Ok((task, Some(image)))
    } else {
        Err(missing())
    }
}

/// `GET /v2/tasks/{id}/events`: an event `progress` whenever the task moves, and at last one that is
/// called as the task ended.
pub(in crate::api) async fn events(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
) -> Result<Response, Failure> {
    let (task, _) = find(&mut svc.catalog.read().await?, &ctx, &id).await?;
    let follow = Follow {
        svc,
        task: Some(task),
        last: None,
    };
    let events = stream::unfold(follow, async |mut follow| {
        let event = follow.next().await?;
        Some((Ok::<_, Infallible>(event), follow))
    });
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response())
}

/// A task being followed.
struct Follow {
    svc: Arc<Service>,
    /// What was found last; `None` once it has ended, or is gone.
    task: Option<Task>,
    /// What was told last.
    last: Option<String>,
}

impl Follow {
    async fn next(&mut self) -> Option<Event> {
        loop {
            let task = self.task.take()?;
            let has_ended = task.status.has_ended();
            let text = TaskEvent::from(&task).to_string();
            let is_news = self.last.as_ref() != Some(&text);
            let id = task.id.clone();
            let name = if has_ended {
                task.status.name()
            } else {
                self.task = Some(task);
                "progress"
            };
            if has_ended || is_news {
                self.last = Some(text.clone());
                return Some(Event::default().event(name).data(text));
            }
            self.wait(&id).await;
        }
    }

    /// Waits until the task may have moved, and looks.
    async fn wait(&mut self, id: &str) {
        let told = self.svc.told.notified();
        tokio::select! {
            () = self.svc.closing.cancelled() => {
                self.task = None;
                return;
            }
            _ = tokio::time::timeout(LOOK, told) => {}
        }
        let found = async {
            let mut tx = self.svc.catalog.read().await?;
            tasks::find(&mut tx, id).await
        };
        match found.await {
            Ok(found) => self.task = found,
            // The client asks again when it wants to.
            Err(e) => {
                tracing::warn!(error = %e, "a task can no longer be followed");
                self.task = None;
            }
        }
    }
}

/// `POST /v2/tasks/{id}/cancel`: whoever does its job ends it, and the task fails.
pub(in crate::api) async fn cancel(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
) -> Result<Response, Failure> {
    let mut tx = svc.catalog.write().await?;
    let (task, image) = find(&mut tx, &ctx, &id).await?;
    if let Some(image) = &image {
        policy::modify_image(&ctx, image)?;
    }
    let is_stopped = !task.status.has_ended() && jobs::stop(&mut tx, &id).await?;
    if !is_stopped {
        let sentence = format!("Task {id} has ended already");
        return Err(Failure::new(StatusCode::CONFLICT, sentence));
    }
    tx.commit().await?;
    svc.stops.notify_waiters();
    svc.wake.notify_one();
    Ok(empty(StatusCode::ACCEPTED))
}
