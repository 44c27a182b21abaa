//! Deletion: the row first, then the bytes.

use std::sync::Arc;

use super::{Error, Staging};
use crate::catalog::{derivatives, images, jobs, locations, staged};
use crate::derive;
use crate::domain::{Event, ImageId, Location, Status, Timestamp};
use crate::service::Service;

/// Deletes an image. Its id stays taken for ever; its bytes are removed before this returns, or
/// by the sweep if we die or deletion is delayed.
///
/// # Errors
/// `Gone` when it is deleted already, `Protected`, `Illegal`, or the catalog failed.
pub async fn delete(svc: &Arc<Service>, id: &ImageId) -> Result<(), Error> {
    let mut tx = svc.catalog.write().await?;
    let image = images::find(&mut tx, id).await?.ok_or(Error::Gone)?;
    if image.protected {
        return Err(Error::Protected);
    }
    let is_delayed = svc.config.delete.delayed && !image.locations.is_empty();
    let event = if is_delayed {
        Event::DeleteLater
    } else {
        Event::Delete
    };
    let to = image.status.apply(event)?;
    images::delete(&mut tx, &image, to, Timestamp::now()).await?;
    if to == Status::Deleted {
        locations::doom_all(&mut tx, id).await?;
    }
    derivatives::doom_all(&mut tx, id).await?;
    staged::delete(&mut tx, id).await?;
    jobs::tell_of_stop(&mut tx).await?;
    tx.commit().await?;
    // Whoever imports into it need not go on.
    svc.stops.notify_waiters();
    tracing::info!(image.id = %id, "image {id} is deleted");

    // Whatever still writes into staging for it finds its row gone and removes its file. The rest
    // goes on by itself, so that a client that hangs up leaves no bytes behind.
    let (svc, id) = (svc.clone(), id.clone());
    let rest = tokio::spawn(async move {
        let path = svc.staging.path(&id);
        let removed = tokio::task::spawn_blocking(move || Staging::remove(&path)).await;
        if !matches!(removed, Ok(Ok(()))) {
            tracing::warn!(image.id = %id, "a staged file could not be removed: the next start will");
        }
        sweep_doomed(&svc).await;
        derive::sweep_doomed(&svc).await;
    });
    rest.await.map_err(|e| Error::Internal(e.to_string()))
}

/// Removes the bytes of doomed locations, then their rows. What fails is tried again later.
pub async fn sweep_doomed(svc: &Arc<Service>) {
    const BATCH: u32 = 1000;
    let doomed = async {
        let mut tx = svc.catalog.read().await?;
        locations::doomed(&mut tx, BATCH).await
    };
    let doomed = match doomed.await {
        Ok(doomed) => doomed,
        Err(e) => {
            tracing::warn!(error = %e, "doomed locations could not be listed");
            return;
        }
    };
    for location in doomed {
        if let Err(e) = remove(svc, &location).await {
            tracing::warn!(
                location.id = location.id, store.id = location.store, error = %e,
                "a doomed location could not be removed yet"
            );
        }
    }
}

async fn remove(svc: &Arc<Service>, location: &Location) -> Result<(), Error> {
    let store = svc
        .stores
        .get(&location.store)
        .ok_or_else(|| Error::UnknownStore(location.store.clone()))?;
    store.blobs.delete(&location.url).await?;
    let mut tx = svc.catalog.write().await?;
    locations::forget(&mut tx, &location.id).await?;
    Ok(tx.commit().await?)
}
