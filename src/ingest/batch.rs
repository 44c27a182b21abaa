//! Batches: accepted in one transaction with every image, task and job of theirs.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Error;
use super::import::new_task;
use crate::auth::Context;
use crate::catalog::{Tx, batches, images, jobs, outbox, tasks};
use crate::convert::Form;
use crate::domain::batch::{Batch, Item};
use crate::domain::{Event, Expected, Image, Timestamp};
use crate::jobs::{FAILED, IMPORTING, ImportJob, LOCK, Source};
use crate::notify::payload;
use crate::service::Service;

/// One image to make, checked by the caller.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its place in the batch, from 1.
    pub n: u32,
    /// What was asked for, as the batch shows it.
    pub asked: Value,
    /// The image, queued, with its formats.
    pub image: Image,
    /// Where its bytes come from.
    pub from: Source,
    /// The digest they must have.
    pub expected: Option<Expected>,
}

/// How all images of a batch are made.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Ids of the stores to write to; known, and not empty.
    pub stores: Vec<String>,
    /// Whether images get the properties that imports set.
    pub inject: bool,
    /// The form to store them in, where the caller asks for one.
    pub convert: Option<Form>,
}

/// Accepts a batch: its images are importing, their tasks pending, their jobs queued, or nothing
/// happened.
///
/// # Errors
/// `Conflict` when the project has as many under way as it may, or the catalog failed.
pub async fn begin_batch(
    svc: &Arc<Service>,
    batch: &Batch,
    parts: Vec<Part>,
    manner: &Manner,
    ctx: &Context,
) -> Result<(), Error> {
    let mut tx = svc.catalog.write().await?;
    has_room(svc, &mut tx, batch).await?;
    batches::insert(&mut tx, batch).await?;
    let mut queued = Vec::with_capacity(parts.len());
    for part in parts {
        let (item, job) = enter(svc, &mut tx, batch, part, manner, ctx).await?;
        batches::insert_item(&mut tx, &batch.id, &item).await?;
        queued.push(job);
    }
    enqueue(svc, tx, batch, queued).await
}

/// Begins again with items that have ended: each gets a new image and a new task. `parts` are these
/// items, each with the task it had.
///
/// # Errors
/// `Conflict` when somebody else was faster or the project has as many batches under way as it may, or
/// the catalog failed.
pub async fn retry_batch(
    svc: &Arc<Service>,
    batch: &Batch,
    parts: Vec<(Part, String)>,
    manner: &Manner,
    ctx: &Context,
) -> Result<(), Error> {
    let mut tx = svc.catalog.write().await?;
    let counts = batches::counts(&mut tx, &[&batch.id]).await?;
    if counts.iter().all(|counts| counts.state().has_ended()) {
        has_room(svc, &mut tx, batch).await?;
    }
    batches::find(&mut tx, &batch.id)
        .await?
        .ok_or(Error::Gone)?;
    let mut queued = Vec::with_capacity(parts.len());
    for (part, ended) in parts {
        let (item, job) = enter(svc, &mut tx, batch, part, manner, ctx).await?;
        batches::begin_again(&mut tx, &batch.id, &item, &ended).await?;
        queued.push(job);
    }
    enqueue(svc, tx, batch, queued).await
}

/// Asks for the end of whatever of a batch has not ended. Answers whether there was anything.
///
/// # Errors
/// When the catalog failed.
pub async fn cancel_batch(svc: &Arc<Service>, batch: &Batch) -> Result<bool, Error> {
    let mut tx = svc.catalog.write().await?;
    let counts = batches::counts(&mut tx, &[&batch.id]).await?;
    if counts.iter().all(|counts| counts.state().has_ended()) {
        return Ok(false);
    }
    // Whoever claims a job has its row before the batch's: the same order here.
    jobs::stop_batch(&mut tx, &batch.id).await?;
    batches::cancel(&mut tx, &batch.id).await?;
    tx.commit().await?;
    svc.stops.notify_waiters();
    svc.wake.notify_one();
    Ok(true)
}

async fn has_room(svc: &Service, tx: &mut Tx, batch: &Batch) -> Result<(), Error> {
    let most = svc.config.batches.open;
    if batches::open(tx, batch.owner.as_deref()).await? < most {
        return Ok(());
    }
    Err(Error::Conflict(format!(
        "The project has {most} batches that have not ended, and may have no more"
    )))
}

/// Writes an image that is being imported, and its task.
async fn enter(
    svc: &Service,
    tx: &mut Tx,
    batch: &Batch,
    part: Part,
    manner: &Manner,
    ctx: &Context,
) -> Result<(Item, jobs::Part), Error> {
    let mut image = part.image;
    let input = json!({
        "image_id": image.id.as_str(),
        "import_req": {"batch": batch.id, "item": part.n, "source": part.asked},
        "backend": manner.stores,
    });
    let mut task = new_task("api_image_import", &image.id, input, ctx, Timestamp::now());
    task.owner.clone_from(&batch.owner);
    image.status = image.status.apply(Event::ImportFetched)?;
    let importing = manner.stores.join(",");
    for (name, value) in [
        (LOCK, task.id.clone()),
        (IMPORTING, importing),
        (FAILED, String::new()),
    ] {
        image.properties.insert(name.into(), value);
    }
    images::insert(tx, &image).await?;
    let told = || payload::image_data(&image, None);
    outbox::note(tx, "image.prepare", told).await?;
    tasks::insert(tx, &task).await?;
    // A file lies where we are.
    let host = match part.from {
        Source::File { .. } => svc.host.clone(),
        _ => None,
    };
    let job = ImportJob {
        image_id: image.id.to_string(),
        task_id: task.id.clone(),
        from: part.from,
        stores: manner.stores.clone(),
        all_stores_must_succeed: true,
        inject: manner.inject,
        convert: manner.convert.clone(),
        expected: part.expected,
        appliance: false,
        owns_image: true,
    };
    let payload = crate::jobs::payload::write(&job);
    let job = jobs::Part {
        id: task.id.clone(),
        payload,
        host,
    };
    let item = Item {
        n: part.n,
        source: part.asked,
        name: image.name,
        image_id: image.id,
        task_id: task.id,
        is_cancelled: false,
        status: Some(task.status),
        message: task.message,
        progress: None,
    };
    Ok((item, job))
}

async fn enqueue(
    svc: &Service,
    mut tx: Tx,
    batch: &Batch,
    queued: Vec<jobs::Part>,
) -> Result<(), Error> {
    let owner = batch.owner.as_deref();
    let now = Timestamp::now();
    jobs::enqueue_batch(&mut tx, &batch.id, owner, ImportJob::KIND, queued, now).await?;
    tx.commit().await?;
    svc.wake.notify_one();
    Ok(())
}
