//! What conversions gave, kept in a store while there is room, and found again by whoever shares
//! the catalog.

use std::ops::Range;
use std::sync::Arc;

use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;

use super::{Error, Order};
use crate::catalog::derivatives::{self, Derivative};
use crate::catalog::{self, images};
use crate::domain::{Location, Timestamp};
use crate::ingest::Body;
use crate::ingest::lease::{Kept, Lease};
use crate::service::Service;
use crate::stores::{self, Store, put_file};
use crate::telemetry::counted;
use crate::telemetry::metrics::Direction;

/// Seconds for which it does not matter when a derivative was asked for.
const COARSE: i64 = 60;

fn store(svc: &Service) -> Option<&Store> {
    svc.stores.get(svc.config.derivatives.store.as_deref()?)
}

/// The name under which what `order` gives is kept, if it is.
fn key<'a>(svc: &Service, order: &'a Order) -> Option<&'a str> {
    // A set belongs to no image with which it would be forgotten.
    let is_one = order.images.len() == 1;
    store(svc)?;
    order.key.as_deref().filter(|_| is_one)
}

/// Whether what `order` gives is kept.
pub(super) fn keeps(svc: &Service, order: &Order) -> bool {
    key(svc, order).is_some()
}

/// What is kept of `order`.
///
/// # Errors
/// When the catalog fails.
pub(super) async fn find(svc: &Service, order: &Order) -> Result<Option<Derivative>, Error> {
    let Some(key) = key(svc, order) else {
        return Ok(None);
    };
    let mut tx = svc.catalog.read().await?;
    Ok(derivatives::find(&mut tx, &order.images[0].id, key).await?)
}

/// The bytes of a kept one.
///
/// # Errors
/// `NotFound` when it was dropped meanwhile.
pub(super) async fn read(
    svc: &Arc<Service>,
    kept: &Derivative,
    range: Option<Range<u64>>,
) -> stores::Result<Body> {
    let Location { id, store, url, .. } = &kept.location;
    let store = svc.stores.get(store).ok_or(stores::Error::NotFound)?;
    let range = range.unwrap_or(0..kept.size);
    let body = store.blobs.open(url, range).await?;
    let now = Timestamp::now();
    if kept.used_at.plus_seconds(COARSE) < now
        && let Err(e) = touch(svc, id, now).await
    {
        tracing::warn!(error = %e, "it could not be noted that a derivative is in use");
    }
    let (metrics, name) = (svc.metrics.clone(), store.config.id.clone());
    let read = move |n| metrics.store(&name, Direction::Out, n);
    Ok(counted(&svc.metrics, Direction::Out, body, read))
}

async fn touch(svc: &Service, id: &str, now: Timestamp) -> catalog::Result<()> {
    let mut tx = svc.catalog.write().await?;
    derivatives::touch(&mut tx, id, now).await?;
    tx.commit().await
}

/// Puts what `order` gave into the store. That it could not is no harm: it is made again.
pub(super) async fn put(svc: &Arc<Service>, order: &Order, file: NamedTempFile, size: u64) {
    let (Some(store), Some(key)) = (store(svc), key(svc, order)) else {
        return;
    };
    if size > svc.config.derivatives.limit {
        return;
    }
    let location = svc.new_location(&order.images[0].id, store);
    if let Err(e) = try_put(svc, order, store, key, &location, file, size).await {
        tracing::warn!(store.id = store.config.id, error = %e, "a derivative could not be kept");
        forget(svc, &location).await;
    }
    sweep_doomed(svc).await;
}

/// Has what is left of a derivative removed by the next sweep.
pub(super) async fn forget(svc: &Service, location: &Location) {
    let doomed = async {
        let mut tx = svc.catalog.write().await?;
        derivatives::doom(&mut tx, &location.id).await?;
        tx.commit().await
    };
    if let Err(e) = doomed.await {
        tracing::warn!(error = %e, "a derivative could not be given up yet");
    }
}

async fn try_put(
    svc: &Arc<Service>,
    order: &Order,
    store: &Store,
    key: &str,
    location: &Location,
    file: NamedTempFile,
    size: u64,
) -> Result<(), Error> {
    let image = &order.images[0].id;
    let mut tx = svc.catalog.write().await?;
    let is_there = images::find(&mut tx, image).await?.is_some();
    // Another process may have been faster.
    if !is_there || derivatives::find(&mut tx, image, key).await?.is_some() {
        return Ok(());
    }
    let until = Lease::until(svc, &mut tx).await?;
    derivatives::insert_pending(&mut tx, image, key, location, size, until).await?;
    tx.commit().await?;
    let _lease = Lease::keep(svc, Kept::Derivative(location.id.clone()));
    let file = spawn_blocking(move || file.as_file().sync_all().map(|()| file)).await;
    let file = file.map_err(std::io::Error::other).flatten();
    let file = file.map_err(super::source::ours)?;
    put_file(&store.blobs, &location.url, file.path(), size, |body| body).await?;
    svc.metrics.store(&store.config.id, Direction::In, size);
    let mut tx = svc.catalog.write().await?;
    // Locked, so that a deletion comes before or after: either finds the row to doom.
    if images::find(&mut tx, image).await?.is_none() {
        return Err(Error::NoData);
    }
    derivatives::activate(&mut tx, &location.id).await?;
    derivatives::evict(&mut tx, svc.config.derivatives.limit).await?;
    Ok(tx.commit().await?)
}

/// Removes the bytes of doomed derivatives, then their rows. What fails is tried again later.
pub async fn sweep_doomed(svc: &Arc<Service>) {
    const BATCH: u32 = 1000;
    let swept = async {
        let mut after = String::new();
        loop {
            let mut tx = svc.catalog.read().await?;
            let doomed = derivatives::doomed(&mut tx, &after, BATCH).await?;
            drop(tx);
            let Some(last) = doomed.last() else {
                return Ok::<_, catalog::Error>(());
            };
            after.clone_from(&last.id);
            for location in doomed {
                remove(svc, &location).await?;
            }
        }
    };
    if let Err(e) = swept.await {
        tracing::warn!(error = %e, "doomed derivatives could not be swept");
    }
}

/// Removes one; what fails stays doomed.
async fn remove(svc: &Service, location: &Location) -> catalog::Result<()> {
    let Some(store) = svc.stores.get(&location.store) else {
        return Ok(());
    };
    if let Err(e) = store.blobs.delete(&location.url).await {
        tracing::warn!(store.id = location.store, error = %e, "a doomed derivative could not be removed yet");
        return Ok(());
    }
    let mut tx = svc.catalog.write().await?;
    derivatives::forget(&mut tx, &location.id).await?;
    tx.commit().await
}
