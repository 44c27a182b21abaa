//! Clearing up: what died between intent and fact.

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{self, images, jobs, locations, staged, tasks};
use crate::domain::{Event, ImageId, Status, Timestamp};
use crate::ingest::{Staging, sweep_doomed};
use crate::service::Service;

/// How often the sweep looks.
const EVERY: Duration = Duration::from_secs(30);

/// Sweeps for ever.
pub async fn sweep(svc: Arc<Service>) {
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tick.tick().await;
        if let Err(e) = clear_up(&svc, Timestamp::now()).await {
            tracing::warn!(error = %e, "the sweep failed and will be tried again");
        }
    }
}

/// At start, when nobody else can be at work on our data: every lease is dead.
pub(crate) async fn recover(svc: &Arc<Service>) -> anyhow::Result<()> {
    let mut tx = svc.catalog.write().await?;
    let freed = jobs::release_all(&mut tx).await?;
    tx.commit().await?;
    let everything = Leases::AllDead;
    once(svc, Timestamp::now(), everything).await?;

    let mut tx = svc.catalog.read().await?;
    let keep = staged::all(&mut tx).await?;
    drop(tx);
    let staging = svc.staging.clone();
    let removed = tokio::task::spawn_blocking(move || staging.sweep(&keep)).await??;
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
    for id in images::ids_with_status(&mut tx, Status::Saving).await? {
        if !locations::is_being_written(&mut tx, &id, now).await? {
            put_back(&mut tx, &id, Status::Saving, Event::UploadFailed).await?;
        }
    }
    let broken_off = staged::expired(&mut tx, now).await?;
    for id in &broken_off {
        staged::delete(&mut tx, id).await?;
        put_back(&mut tx, id, Status::Uploading, Event::StageFailed).await?;
    }
    tasks::purge(&mut tx, today).await?;
    // Before the images are queued again: what is staged next has the same name.
    for id in broken_off {
        let path = svc.staging.path(&id);
        for path in [path.with_added_extension("part"), path] {
            if let Err(e) = tokio::task::spawn_blocking(move || Staging::remove(&path))
                .await
                .map_err(std::io::Error::other)
                .flatten()
            {
                tracing::warn!(image.id = %id, error = %e, "staged bytes could not be removed");
            }
        }
    }
    tx.commit().await?;
    scrub(svc, today).await?;
    sweep_doomed(svc).await;
    Ok(())
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
