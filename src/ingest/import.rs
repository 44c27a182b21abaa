//! `POST /import` and `POST /locations`: accepted in one transaction with the task to show and the
//! job to do.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Error;
use super::upload::{begin, begin_with};
use crate::auth::Context;
use crate::catalog::{Tx, images, jobs, outbox, staged, tasks};
use crate::convert::Form;
use crate::domain::{Event, Expected, Image, ImageId, Status, Task, TaskStatus, Timestamp};
use crate::jobs::{FAILED, IMPORTING, ImportJob, LOCK, LocateJob, Source};
use crate::notify::payload;
use crate::service::Service;

/// An import as it was asked for, checked by the caller.
#[derive(Clone, Debug, Default)]
pub struct ImportRequest {
    /// The body, as tasks show it.
    pub import_req: Value,
    /// Where the bytes come from.
    pub from: Source,
    /// Ids of the stores to write to; known, and not empty.
    pub stores: Vec<String>,
    /// Whether one failing store fails the import.
    pub all_stores_must_succeed: bool,
    /// Whether the image gets the properties that imports set.
    pub inject: bool,
    /// The form to store it in, where the caller asks for one.
    pub convert: Option<Form>,
    /// The digest the data must have.
    pub expected: Option<Expected>,
    /// Whether each disk of an archive becomes an image.
    pub appliance: bool,
}

/// Who waits for a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Urgency {
    /// Somebody looks now and then.
    Watched,
    /// A client whose request is open: it goes before what is only watched.
    Awaited,
}

impl Urgency {
    const fn priority(self) -> i64 {
        match self {
            Self::Watched => 0,
            Self::Awaited => 1,
        }
    }
}

/// Seconds after which the lock of a task that shows no progress is taken over: while it is
/// worked on, and while it waits.
const STALE: i64 = 60 * 60;
const STALE_PENDING: i64 = 120 * 60;

/// Accepts an import: the image is importing (a copy stays active), its task pending, its job
/// queued, or nothing happened.
///
/// # Errors
/// `Illegal`, `Conflict`, `UnknownStore`, `NoData` when nothing is staged, or the catalog failed.
pub async fn import(
    svc: &Arc<Service>,
    image: &ImageId,
    request: ImportRequest,
    ctx: &Context,
) -> Result<(), Error> {
    let mut tx = svc.catalog.write().await?;
    accept(svc, &mut tx, image, request, ctx, Urgency::Watched).await?;
    tx.commit().await?;
    svc.wake.notify_one();
    Ok(())
}

/// The same within a transaction of the caller, who wakes a worker afterwards. Answers the task's
/// id.
pub(super) async fn accept(
    svc: &Service,
    tx: &mut Tx,
    image: &ImageId,
    request: ImportRequest,
    ctx: &Context,
    urgency: Urgency,
) -> Result<String, Error> {
    for store in &request.stores {
        if svc.stores.get(store).is_none_or(|s| s.config.read_only) {
            return Err(Error::UnknownStore(store.clone()));
        }
    }
    let now = Timestamp::now();
    let input = json!({
        "image_id": image.as_str(),
        "import_req": request.import_req,
        "backend": request.stores,
    });
    let task = new_task("api_image_import", image, input, ctx, now);
    let begun = match &request.from {
        Source::Staged => begin(tx, image, Event::ImportStaged).await?,
        Source::Web { .. } | Source::Image { .. } | Source::File { .. } => {
            begin(tx, image, Event::ImportFetched).await?
        }
        // Its formats come with it.
        Source::Glance { .. } => begin_with(tx, image, Event::ImportFetched, |_| Ok(())).await?,
        Source::Copy => {
            let found = images::find(tx, image).await?.ok_or(Error::Gone)?;
            if found.status != Status::Active {
                return Err(Error::Conflict(
                    "Only images with status active can be targeted for copying".into(),
                ));
            }
            found
        }
    };
    if matches!(request.from, Source::Staged) && staged::find(tx, image).await?.is_none() {
        return Err(Error::NoData);
    }
    let importing = request.stores.join(",");
    let taken = take_lock(svc, tx, &begun, &task, |image| {
        image.properties.insert(IMPORTING.into(), importing);
        image.properties.insert(FAILED.into(), String::new());
    })
    .await?;
    let told = || payload::image_data(&taken, None);
    outbox::note(tx, "image.prepare", told).await?;
    let job = ImportJob {
        image_id: image.to_string(),
        task_id: task.id.clone(),
        from: request.from,
        stores: request.stores,
        all_stores_must_succeed: request.all_stores_must_succeed,
        inject: request.inject,
        convert: request.convert,
        expected: request.expected,
        appliance: request.appliance,
        owns_image: false,
    };
    enqueue(tx, &task, ImportJob::KIND, &job, urgency).await?;
    if let Some(host) = staged::host(tx, image).await? {
        jobs::leave_to(tx, &task.id, &host).await?;
    }
    Ok(task.id)
}

/// Makes an image and accepts an import of what `uri` names into it, all at once.
///
/// # Errors
/// `FormatsUnset`, or the catalog failed.
pub async fn import_new(
    svc: &Arc<Service>,
    image: &Image,
    uri: &str,
    input: &Value,
    ctx: &Context,
) -> Result<Task, Error> {
    let now = Timestamp::now();
    let task = new_task("import", &image.id, input.clone(), ctx, now);
    let mut tx = svc.catalog.write().await?;
    images::insert(&mut tx, image).await?;
    let begun = begin(&mut tx, &image.id, Event::ImportFetched).await?;
    let taken = take_lock(svc, &mut tx, &begun, &task, |_| {}).await?;
    let told = || payload::image_data(&taken, None);
    outbox::note(&mut tx, "image.prepare", told).await?;
    let job = ImportJob {
        image_id: image.id.to_string(),
        task_id: task.id.clone(),
        from: Source::Web {
            uri: uri.to_owned(),
        },
        stores: vec![svc.stores.default_id().to_owned()],
        all_stores_must_succeed: true,
        inject: false,
        convert: None,
        expected: None,
        appliance: false,
        owns_image: false,
    };
    enqueue(&mut tx, &task, ImportJob::KIND, &job, Urgency::Watched).await?;
    tx.commit().await?;
    svc.wake.notify_one();
    Ok(task)
}

/// Accepts a location for an image without data.
///
/// # Errors
/// `Conflict` when the image is not queued or somebody else is at it, `FormatsUnset`, or the
/// catalog failed.
pub async fn locate(
    svc: &Arc<Service>,
    image: &ImageId,
    store: &str,
    url: &str,
    digest: Option<(String, String)>,
    ctx: &Context,
) -> Result<(), Error> {
    let now = Timestamp::now();
    let validation = digest
        .as_ref()
        .map(|(algo, value)| json!({"os_hash_algo": algo, "os_hash_value": value}));
    let input = json!({
        "image_id": image.as_str(),
        "loc_url": url,
        "validation_data": validation.unwrap_or_else(|| json!({})),
    });
    let task = new_task("location_import", image, input, ctx, now);
    let mut tx = svc.catalog.write().await?;
    let found = images::find(&mut tx, image).await?.ok_or(Error::Gone)?;
    if found.status != Status::Queued {
        return Err(Error::Conflict(format!(
            "It's not allowed to add locations if image status is {}.",
            found.status
        )));
    }
    found.has_formats()?;
    // What is verified first is importing meanwhile.
    let verifies = svc.config.import.do_secure_hash && digest.is_some();
    let begun = if verifies {
        begin(&mut tx, image, Event::ImportFetched).await?
    } else {
        found
    };
    take_lock(svc, &mut tx, &begun, &task, |_| {}).await?;
    let job = LocateJob {
        image_id: image.to_string(),
        task_id: task.id.clone(),
        store: store.to_owned(),
        url: url.to_owned(),
        digest,
    };
    enqueue(&mut tx, &task, LocateJob::KIND, &job, Urgency::Watched).await?;
    tx.commit().await?;
    svc.wake.notify_one();
    Ok(())
}

/// Gives the image to the task, unless another one that is alive has it. A task that is gone, has
/// ended or shows no progress loses its lock, and its job with it.
async fn take_lock(
    svc: &Service,
    tx: &mut Tx,
    image: &Image,
    task: &Task,
    change: impl FnOnce(&mut Image),
) -> Result<Image, Error> {
    if let Some(holder) = image.properties.get(LOCK) {
        let now = task.created_at;
        if let Some(other) = tasks::find(tx, holder).await? {
            let patience = match other.status {
                TaskStatus::Pending => STALE_PENDING,
                TaskStatus::Processing => STALE,
                TaskStatus::Success | TaskStatus::Failure => 0,
            };
            if other.updated_at.plus_seconds(patience) > now {
                return Err(Error::Conflict(format!(
                    "Image {} is locked by an import that is still under way",
                    image.id
                )));
            }
        }
        let message = "Expired lock preempted";
        let expires = now.plus_seconds(svc.config.import.task_hours * 3600);
        tasks::end(tx, holder, TaskStatus::Failure, None, message, now, expires).await?;
        jobs::cancel(tx, holder).await?;
    }
    let taken = images::change(tx, &image.id, image.status, |image| {
        change(image);
        image.properties.insert(LOCK.into(), task.id.clone());
    })
    .await?;
    tasks::insert(tx, task).await?;
    Ok(taken)
}

/// The job of a task, under the task's id.
async fn enqueue(
    tx: &mut Tx,
    task: &Task,
    kind: &str,
    job: &impl serde::Serialize,
    urgency: Urgency,
) -> Result<(), Error> {
    let payload = crate::jobs::payload::write(job);
    let priority = urgency.priority();
    jobs::enqueue(tx, &task.id, kind, &payload, priority, task.created_at).await?;
    if let Some(project) = &task.owner {
        jobs::belongs_to(tx, &task.id, project).await?;
    }
    Ok(())
}

pub(super) fn new_task(
    kind: &str,
    image: &ImageId,
    input: Value,
    ctx: &Context,
    now: Timestamp,
) -> Task {
    Task {
        id: uuid::Uuid::new_v4().to_string(),
        kind: kind.into(),
        status: TaskStatus::Pending,
        owner: ctx.project.clone(),
        image_id: image.to_string(),
        request_id: ctx.request_id.clone(),
        user_id: ctx.user.clone(),
        input,
        result: None,
        message: String::new(),
        expires_at: None,
        created_at: now,
        updated_at: now,
        progress: None,
    }
}
