//! `POST /import`: accepted in one transaction with the task to show and the job to do.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Error;
use super::upload::begin;
use crate::auth::Context;
use crate::catalog::{images, jobs, staged, tasks};
use crate::domain::{Event, ImageId, Task, TaskStatus, Timestamp};
use crate::jobs::{FAILED, IMPORTING, ImportJob};
use crate::service::Service;

/// An import as it was asked for, checked by the caller.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    /// The body, as tasks show it.
    pub import_req: Value,
    /// The method; `glance-direct` is what is offered.
    pub method: String,
    /// Ids of the stores to write to; known, and not empty.
    pub stores: Vec<String>,
    /// Whether one failing store fails the import.
    pub all_stores_must_succeed: bool,
}

/// Accepts an import of staged data: the image is importing, its task pending, its job queued, or
/// nothing happened.
///
/// # Errors
/// `Illegal`, `Conflict`, `UnknownStore`, `NoData` when nothing is staged, or the catalog failed.
pub async fn import(
    svc: &Arc<Service>,
    image: &ImageId,
    request: ImportRequest,
    ctx: &Context,
) -> Result<(), Error> {
    for store in &request.stores {
        if svc.stores.get(store).is_none_or(|s| s.config.read_only) {
            return Err(Error::UnknownStore(store.clone()));
        }
    }
    let now = Timestamp::now();
    let task = Task {
        id: uuid::Uuid::new_v4().to_string(),
        kind: "api_image_import".into(),
        status: TaskStatus::Pending,
        owner: ctx.project.clone(),
        image_id: image.to_string(),
        request_id: ctx.request_id.clone(),
        user_id: ctx.user.clone(),
        input: json!({
            "image_id": image.as_str(),
            "import_req": request.import_req,
            "backend": request.stores,
        }),
        result: None,
        message: String::new(),
        expires_at: None,
        created_at: now,
        updated_at: now,
    };
    let job = ImportJob {
        image_id: image.to_string(),
        task_id: task.id.clone(),
        stores: request.stores.clone(),
        all_stores_must_succeed: request.all_stores_must_succeed,
    };
    let mut tx = svc.catalog.write().await?;
    let begun = begin(&mut tx, image, Event::ImportStaged).await?;
    if staged::find(&mut tx, image).await?.is_none() {
        return Err(Error::NoData);
    }
    images::change(&mut tx, image, begun.status, |image| {
        let importing = request.stores.join(",");
        image.properties.insert(IMPORTING.into(), importing);
        image.properties.insert(FAILED.into(), String::new());
    })
    .await?;
    tasks::insert(&mut tx, &task).await?;
    let payload = serde_json::to_string(&job).map_err(|e| Error::Internal(e.to_string()))?;
    jobs::enqueue(&mut tx, &task.id, ImportJob::KIND, &payload, 0, now).await?;
    tx.commit().await?;
    svc.wake.notify_one();
    Ok(())
}
