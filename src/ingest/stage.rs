//! `PUT /stage`, and the uploads that become imports.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use formats::FileSource;
use formats::inspect::{Inspection, Stream};
use tracing::Instrument;

use super::import::{ImportRequest, Urgency, accept};
use super::intake::{self, Expect};
use super::lease::{Kept, Lease};
use super::upload::{Announced, Look, PutBack, back_to_queued, begin_with, describe, gone};
use super::{Body, Error, Staging, content, verdict};
use crate::auth::Context;
use crate::catalog::staged::{self, Staged};
use crate::catalog::{images, tasks};
use crate::domain::{Event, Image, ImageId, TaskStatus};
use crate::quota::Allowance;
use crate::service::Service;
use crate::stores::{BlobWriter, FileWriter};
use crate::telemetry::Stage;

/// How often an upload that became an import looks how far that is, where nobody tells it.
const LOOK: Duration = Duration::from_millis(200);

/// Takes an image's data into staging, to be imported later.
///
/// # Errors
/// Any of [`Error`]; the image is queued again then and nothing is left in staging.
pub async fn stage(
    svc: &Arc<Service>,
    image: &ImageId,
    body: Body,
    announced: impl Into<Announced>,
) -> Result<(), Error> {
    put(svc, image, body, announced.into(), None).await?;
    Ok(())
}

/// Takes an image's data in as a staged import, in one go: staged, accepted as `request` says in
/// the transaction that completes the staging, and waited for. Whoever hangs up before the data is
/// in leaves nothing; the import goes on without its client.
///
/// # Errors
/// Any of [`Error`]; the image is queued again then. `NotImported` says why the import failed.
pub async fn upload_converting(
    svc: &Arc<Service>,
    image: &ImageId,
    body: Body,
    announced: impl Into<Announced>,
    request: ImportRequest,
    ctx: &Context,
) -> Result<(), Error> {
    for store in &request.stores {
        let target = svc.stores.get(store);
        let target = target.ok_or_else(|| Error::UnknownStore(store.clone()))?;
        if target.config.read_only {
            return Err(Error::ReadOnlyStore(store.clone()));
        }
    }
    let then = Some((request, ctx.clone()));
    match put(svc, image, body, announced.into(), then).await? {
        Some(task) => end_of(svc, image, &task).await,
        None => Ok(()),
    }
}

/// Waits until a task has ended.
async fn end_of(svc: &Service, image: &ImageId, task: &str) -> Result<(), Error> {
    loop {
        let told = svc.told.notified();
        let mut tx = svc.catalog.read().await?;
        let found = tasks::find(&mut tx, task).await?.ok_or(Error::Gone)?;
        match found.status {
            TaskStatus::Success => return Ok(()),
            TaskStatus::Failure if images::find(&mut tx, image).await?.is_none() => {
                return Err(Error::Gone);
            }
            TaskStatus::Failure => return Err(Error::NotImported(found.message)),
            TaskStatus::Pending | TaskStatus::Processing => {}
        }
        drop(tx);
        let _ = tokio::time::timeout(LOOK, told).await;
    }
}

/// Stages; answers the task of the import that follows, where one does.
async fn put(
    svc: &Arc<Service>,
    image: &ImageId,
    body: Body,
    announced: Announced,
    then: Option<(ImportRequest, Context)>,
) -> Result<Option<String>, Error> {
    let mut tx = svc.catalog.write().await?;
    // As in Glance the formats of what is staged may still be unset: its import asks for them.
    let ready = match then {
        Some(_) => Image::has_formats,
        None => |_: &Image| Ok(()),
    };
    let image = begin_with(&mut tx, image, Event::StageStarted, ready).await?;
    let mut allowance = None;
    if then.is_some() {
        // What is staged on the way to a store counts as an upload does.
        let owner = image.owner.as_deref();
        allowance = Some(svc.quotas.allowance(&mut tx, owner, announced.size).await?);
    }
    let until = Lease::until(svc, &mut tx).await?;
    staged::insert(&mut tx, &image.id, until).await?;
    if let Some(host) = &svc.host {
        staged::lies_at(&mut tx, &image.id, host).await?;
    }
    tx.commit().await?;

    let lease = Lease::keep(svc, Kept::Staged(image.id.clone()));
    let svc = svc.clone();
    let going = async move {
        let result = receive(&svc, &image, body, announced, allowance.as_mut(), then).await;
        drop(lease);
        drop(allowance);
        let failed = match result {
            Ok(task) => return Ok(task),
            Err(failed) => failed,
        };
        match unstage(&svc, &image).await {
            Ok(PutBack::Gone) => return Err(Error::Gone),
            Ok(PutBack::Queued) => {}
            Err(e) => {
                tracing::error!(image.id = %image.id, error = %e, "a failed staging could not be undone: the sweep will");
            }
        }
        Err(failed)
    };
    let done = tokio::spawn(going.in_current_span());
    done.await.map_err(|e| Error::Internal(e.to_string()))?
}

async fn receive(
    svc: &Arc<Service>,
    image: &Image,
    body: Body,
    announced: Announced,
    allowance: Option<&mut Allowance>,
    then: Option<(ImportRequest, Context)>,
) -> Result<Option<String>, Error> {
    let to = svc.staging.path(&image.id);
    let staged = receive_file(svc, body, &announced, allowance, &to, &|_| None).await?;
    if let Some(expected) = announced.of_content() {
        let internal = |e: std::io::Error| Error::Internal(format!("reading what was staged: {e}"));
        let file = std::fs::File::open(&to).map_err(internal)?;
        content::check(svc, Some(Arc::new(FileSource::new(file)?)), expected).await?;
    }
    let mut tx = svc.catalog.write().await?;
    // The image's row before what belongs to it, as everybody locks them.
    let size = staged.size;
    images::change(&mut tx, &image.id, image.status, |image| {
        image.size = Some(size);
    })
    .await
    .map_err(gone)?;
    staged::complete(&mut tx, &image.id, &staged)
        .await
        .map_err(gone)?;
    let task = match then {
        None => None,
        Some((request, ctx)) => {
            Some(accept(svc, &mut tx, &image.id, request, &ctx, Urgency::Awaited).await?)
        }
    };
    tx.commit().await?;
    svc.wake.notify_one();
    Ok(task)
}

/// Takes what an import fetches into the file `to`. What is stored `as_it_is` ends early where
/// `image` cannot be it; where wrappers are taken off, what begins otherwise may still be.
pub(crate) async fn take(
    svc: &Arc<Service>,
    image: &Image,
    body: Body,
    announced: &Announced,
    to: &Path,
    as_it_is: bool,
) -> Result<Staged, Error> {
    let disk = image.disk_format.as_deref().unwrap_or_default();
    let container = image.container_format.as_deref().unwrap_or_default();
    let rules = &svc.config.formats;
    let early = |stream: &Stream| {
        as_it_is
            .then(|| verdict::early(stream, disk, container, rules))
            .flatten()
    };
    receive_file(svc, body, announced, None, to, &early).await
}

/// Takes what an import fetches straight into the stores that `writer` writes, and judges it there:
/// for what is stored as it came. Nothing is visible yet.
pub(crate) async fn pass(
    svc: &Arc<Service>,
    image: &Image,
    body: Body,
    announced: &Announced,
    writer: &mut dyn BlobWriter,
) -> Result<(Staged, Inspection), Error> {
    let disk = image.disk_format.as_deref().unwrap_or_default();
    let container = image.container_format.as_deref().unwrap_or_default();
    let rules = &svc.config.formats;
    let early = |stream: &Stream| verdict::early(stream, disk, container, rules);
    let expect = Expect {
        announced: announced.size,
        allowance: None,
        cap: svc.config.quota.image_size_cap,
        algo: svc.config.import.hash_algo(),
        also: announced.algo(),
        early: &early,
    };
    let stage = svc.metrics.stage(Stage::Receive);
    let received = intake::receive(body, writer, expect).await?;
    drop(stage);
    announced.check(received.also.as_ref())?;
    let _stage = svc.metrics.stage(Stage::Judge);
    let (mut found, source) = intake::judge(received.inspectors, writer, svc.limits()).await?;
    // What is in a wrapper or an archive can only be told from the whole of it.
    if let Some(source) = source {
        found = describe(svc, source, Look::Beginning).await?;
    }
    let taken = Staged {
        size: received.size,
        hashes: received.hashes,
    };
    Ok((taken, found))
}

async fn receive_file(
    svc: &Arc<Service>,
    body: Body,
    announced: &Announced,
    allowance: Option<&mut Allowance>,
    to: &Path,
    early: &(dyn Fn(&Stream) -> Option<String> + Sync),
) -> Result<Staged, Error> {
    let mut writer = Box::new(FileWriter::create(to.to_owned()).await?);
    let expect = Expect {
        announced: announced.size,
        allowance,
        cap: svc.config.quota.image_size_cap,
        algo: svc.config.import.hash_algo(),
        also: announced.algo(),
        early,
    };
    let _stage = svc.metrics.stage(Stage::Receive);
    let received = intake::receive(body, writer.as_mut(), expect).await;
    let checked = received.and_then(|r| announced.check(r.also.as_ref()).map(|()| r));
    match checked {
        Ok(received) => {
            writer.commit().await?;
            Ok(Staged {
                size: received.size,
                hashes: received.hashes,
            })
        }
        Err(e) => {
            writer.abort().await?;
            Err(e)
        }
    }
}

async fn unstage(svc: &Arc<Service>, image: &Image) -> Result<PutBack, Error> {
    let path = svc.staging.path(&image.id);
    tokio::task::spawn_blocking(move || Staging::remove(&path))
        .await
        .map_err(std::io::Error::other)
        .flatten()
        .map_err(|e| Error::Internal(e.to_string()))?;
    let mut tx = svc.catalog.write().await?;
    let put_back = back_to_queued(&mut tx, image, Event::StageFailed).await?;
    staged::delete(&mut tx, &image.id).await?;
    tx.commit().await?;
    Ok(put_back)
}
