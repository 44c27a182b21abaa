//! The bytes of an image as an open file, which is all that a worker is handed.

use std::fs::File;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::task::spawn_blocking;

use super::Error;
use crate::domain::Image;
use crate::ingest;
use crate::service::Service;

/// Opens the stored bytes of `image`: the file they lie in, or a copy without a name where they
/// lie elsewhere.
///
/// # Errors
/// `NoData`, or `Ours` when no store gives them.
pub(super) async fn open(svc: &Arc<Service>, image: &Image) -> Result<File, Error> {
    for location in svc.stores.by_weight(&image.locations) {
        let Some(store) = svc.stores.get(&location.store) else {
            continue;
        };
        let (blobs, url) = (store.blobs.clone(), location.url.clone());
        let opened = spawn_blocking(move || Some(blobs.local()?.open_file(&url)));
        match opened.await.map_err(ours)? {
            Some(Ok(file)) => return Ok(file),
            Some(Err(e)) => {
                tracing::warn!(image.id = %image.id, store.id = location.store, error = %e, "a location cannot be opened");
            }
            None => {}
        }
    }
    fetch(svc, image).await
}

async fn fetch(svc: &Arc<Service>, image: &Image) -> Result<File, Error> {
    let size = image.size.ok_or(Error::NoData)?;
    let body = ingest::download(svc, image, 0..size, &[]).await;
    let mut body = body.map_err(|e| match e {
        ingest::Error::NoData => Error::NoData,
        other => ours(other),
    })?;
    let staging = svc.staging.clone();
    let scratch = spawn_blocking(move || staging.scratch()).await;
    let scratch = scratch.map_err(ours)?.map_err(ours)?;
    let mut copy = tokio::fs::File::from_std(scratch);
    let mut left = size;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(ours)?;
        left = left.checked_sub(piece.len() as u64).ok_or(Error::NoData)?;
        copy.write_all(&piece).await.map_err(ours)?;
    }
    copy.flush().await.map_err(ours)?;
    if left > 0 {
        return Err(Error::NoData);
    }
    copy.rewind().await.map_err(ours)?;
    Ok(copy.into_std().await)
}

pub(super) fn ours(error: impl std::fmt::Display) -> Error {
    Error::Ours(error.to_string())
}
