//! `GET /v2/images/{id}/tasks`

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::must_find;
use crate::api::error::Failure;
use crate::api::extract::{At, NoBody};
use crate::api::json::Json;
use crate::api::wire::{TaskList, TaskView};
use crate::auth::{Context, policy};
use crate::catalog::tasks;
use crate::domain::Timestamp;
use crate::service::Service;

/// The tasks of an image: all for its owner and administrators, their own project's for others.
pub(in crate::api) async fn of_image(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    _: NoBody,
) -> Result<Response, Failure> {
    let mut tx = svc.catalog.read().await?;
    let image = must_find(&mut tx, &ctx, &id).await?;
    policy::get_image(&ctx, &image)?;
    let all = ctx.is_admin || ctx.owns(image.owner.as_deref());
    let mut tasks = tasks::list_of_image(&mut tx, &image.id, Timestamp::now()).await?;
    tasks.retain(|task| all || ctx.owns(task.owner.as_deref()));
    Ok(Json(TaskList {
        tasks: tasks.iter().map(TaskView::from).collect(),
    })
    .into_response())
}
