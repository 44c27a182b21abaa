//! Clearing up: what died between intent and fact.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{self, batches, derivatives, images, jobs, locations, staged, tasks};
use crate::derive;
use crate::domain::{Event, ImageId, Status, Timestamp};
use crate::ingest::{Named, Staging, resumable, sweep_doomed};
use crate::service::Service;

/// How often the sweep looks.
const EVERY: Duration = Duration::from_secs(30);

/// Sweeps for ever.
pub async fn sweep(svc: Arc<Service>) {
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tick.tick().await;
        if let Err(e) = now_and_then(&svc).await {
            tracing::warn!(error = %e, "the sweep failed and will be tried again");
        }
    }
}

async fn now_and_then(svc: &Arc<Service>) -> catalog::Result<()> {
    let now = svc.catalog.read().await?.clock().await?;
    once(svc, now, Leases::Living).await
}

/// At start. Nobody else can be at work on an embedded catalog: every lease is dead. On a shared
/// one others may be, and leases tell who died.
pub(crate) async fn recover(svc: &Arc<Service>) -> anyhow::Result<()> {
    let mut freed = 0;
    if svc.catalog.is_shared() {
        now_and_then(svc).await?;
    } else {
        let mut tx = svc.catalog.write().await?;
        freed = jobs::release_all(&mut tx).await?;
        tx.commit().await?;
        once(svc, Timestamp::now(), Leases::AllDead).await?;
    }
    let removed = sweep_staging(svc).await?;
    // Of another's folder nothing is cleared: it may be at work.
    if svc.owns_data() {
        let staging = svc.staging.clone();
        tokio::task::spawn_blocking(move || staging.clear_scratch()).await??;
    }
    if freed > 0 || removed > 0 {
        tracing::info!(
            jobs = freed,
            files = removed,
            "picked up after the last run"
        );
    }
    Ok(())
}

/// Which leases still hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leases {
    /// Those that have not run out.
    Living,
    /// None: whoever held them is gone.
    AllDead,
}

/// Does once what the sweep does: what was broken off before `now` is undone, what is over is
/// forgotten.
///
/// # Errors
/// When the catalog fails; what was done stays done.
pub async fn clear_up(svc: &Arc<Service>, now: Timestamp) -> catalog::Result<()> {
    once(svc, now, Leases::Living).await
}

async fn once(svc: &Arc<Service>, today: Timestamp, leases: Leases) -> catalog::Result<()> {
    let now = match leases {
        Leases::Living => today,
        Leases::AllDead => Timestamp(i64::MAX),
    };
    let mut tx = svc.catalog.write().await?;
    locations::doom_expired(&mut tx, now).await?;
    derivatives::doom_expired(&mut tx, now).await?;
    batches::purge(&mut tx, today).await?;
    tasks::purge(&mut tx, today).await?;
    tx.commit().await?;

    let mut tx = svc.catalog.read().await?;
    let saving = images::ids_with_status(&mut tx, Status::Saving).await?;
    let broken_off = staged::expired(&mut tx, now).await?;
    drop(tx);
    for id in saving {
        end_upload(svc, &id, now).await?;
    }
    for id in broken_off {
        end_staging(svc, &id, now).await?;
    }
    super::import::sweep_sets(svc).await?;
    resumable::sweep(svc, today).await?;
    scrub(svc, today).await?;
    sweep_doomed(svc).await;
    derive::sweep_doomed(svc).await;
    if svc.catalog.is_shared() {
        sweep_staging(svc).await?;
    }
    svc.catalog.tend().await
}

/// Puts back an image whose upload died, if it still has: with its row locked nobody begins another.
async fn end_upload(svc: &Service, id: &ImageId, now: Timestamp) -> catalog::Result<()> {
    let mut tx = svc.catalog.write().await?;
    images::find(&mut tx, id).await?;
    if !locations::is_being_written(&mut tx, id, now).await? {
        put_back(&mut tx, id, Status::Saving, Event::UploadFailed).await?;
    }
    tx.commit().await
}

/// The same for what was being staged.
async fn end_staging(svc: &Service, id: &ImageId, now: Timestamp) -> catalog::Result<()> {
    let mut tx = svc.catalog.write().await?;
    images::find(&mut tx, id).await?;
    if staged::delete_expired(&mut tx, id, now).await? {
        put_back(&mut tx, id, Status::Uploading, Event::StageFailed).await?;
        // Before the image is queued again: what is staged next has the same name.
        remove_staged(svc, id).await;
    }
    tx.commit().await
}

/// Removes what lies in our staging area and belongs to nobody: of images that were deleted or put
/// back, of jobs that nobody is at any more. Answers how many files it was.
async fn sweep_staging(svc: &Service) -> catalog::Result<usize> {
    let staging = svc.staging.clone();
    // Listed first: whoever makes a file has noted it in the catalog before.
    let found = tokio::task::spawn_blocking(move || staging.files()).await;
    let found = match found.map_err(std::io::Error::other).flatten() {
        Ok(found) => found,
        Err(e) => {
            tracing::warn!(error = %e, "the staging area could not be listed");
            return Ok(0);
        }
    };
    let mut tx = svc.catalog.read().await?;
    let staged = staged::all(&mut tx, svc.host.as_deref()).await?;
    let now = tx.clock().await?;
    let at_work = jobs::at_work(&mut tx, now).await?;
    drop(tx);
    let mut removed = 0;
    for (path, named) in found {
        let Some(Named { image, fence }) = named else {
            continue;
        };
        let is_wanted = match fence {
            None => staged.contains(&image),
            Some(fence) => at_work
                .iter()
                .any(|(held, job)| *held == fence && job.contains(image.as_str())),
        };
        if is_wanted {
            continue;
        }
        removed += 1;
        if fence.is_some() {
            remove_file(&image, path).await;
            continue;
        }
        let mut tx = svc.catalog.write().await?;
        // Locked, so that nobody stages anew meanwhile.
        images::find(&mut tx, &image).await?;
        let staged = staged::all(&mut tx, svc.host.as_deref()).await?;
        if !staged.contains(&image) {
            remove_file(&image, path).await;
        }
    }
    Ok(removed)
}

async fn remove_file(image: &ImageId, path: PathBuf) {
    let removed = tokio::task::spawn_blocking(move || Staging::remove(&path)).await;
    if let Err(e) = removed.map_err(std::io::Error::other).flatten() {
        tracing::warn!(image.id = %image, error = %e, "staged bytes could not be removed");
    }
}

async fn remove_staged(svc: &Service, id: &ImageId) {
    let path = svc.staging.path(id);
    for path in [path.with_added_extension("part"), path] {
        remove_file(id, path).await;
    }
}

/// Dooms the data of images whose deletion was delayed for long enough.
async fn scrub(svc: &Arc<Service>, now: Timestamp) -> catalog::Result<()> {
    const BATCH: u32 = 1000;
    let before = now.plus_seconds(-svc.config.delete.scrub_after);
    let due = images::to_scrub(&mut svc.catalog.read().await?, before, BATCH).await?;
    for id in due {
        let mut tx = svc.catalog.write().await?;
        if images::scrub(&mut tx, &id).await? {
            locations::doom_all(&mut tx, &id).await?;
            tracing::info!(image.id = %id, "the data of deleted image {id} is removed");
        }
        tx.commit().await?;
    }
    Ok(())
}

async fn put_back(
    tx: &mut catalog::Tx,
    id: &ImageId,
    from: Status,
    failed: Event,
) -> catalog::Result<()> {
    let Ok(queued) = from.apply(failed) else {
        return Ok(());
    };
    let put_back = images::change(tx, id, from, |image| {
        image.status = queued;
        image.forget_data();
    });
    match put_back.await {
        Ok(_) => {
            tracing::info!(image.id = %id, "image {id} is queued again: its upload died");
            Ok(())
        }
        Err(catalog::Error::Conflict(_)) => Ok(()),
        Err(e) => Err(e),
    }
}
