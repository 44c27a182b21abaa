//! Getting bytes in, and out: upload, staging, import requests, download, deletion.
//!
//! Intent is written before bytes, bytes are durable before the fact. Whatever dies between
//! leaves a row that the sweep (`jobs::sweep`) finishes off.

mod batch;
pub(crate) mod content;
mod delete;
mod folders;
mod import;
mod intake;
pub(crate) mod lease;
pub mod resumable;
mod stage;
mod staging;
mod upload;
pub mod verdict;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog;
use crate::domain::{FormatsUnset, Illegal, Image};
use crate::quota;
use crate::service::Service;
use crate::stores;
use crate::telemetry::counted;
use crate::telemetry::metrics::Direction;

pub use batch::{Manner, Part, begin_batch, cancel_batch, retry_batch};
pub use delete::{delete, sweep_doomed};
pub use folders::{Folders, Refused};
pub use import::{ImportRequest, import, import_new, locate};
pub(crate) use intake::{Digest, Digests};
pub use intake::{Received, digest};
pub(crate) use stage::{pass, take};
pub use stage::{stage, upload_converting};
pub use staging::{Named, Staging};
pub use upload::{Announced, upload};
pub(crate) use upload::{Look, copy, describe};

/// Image bytes on their way in or out.
pub type Body = stores::Bytestream;

/// Why bytes did not get in or out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image's status does not allow it.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// Something else stands in the way; the sentence is for the client.
    #[error("{0}")]
    Conflict(String),
    /// The image vanished, or was taken away, while its bytes were on their way.
    #[error("the image is gone")]
    Gone,
    /// The image is protected against deletion.
    #[error("the image is protected")]
    Protected,
    /// There is no store of that name to write to.
    #[error("store {0} is not known")]
    UnknownStore(String),
    /// Nothing may be added to that store.
    #[error("store {0} is read-only")]
    ReadOnlyStore(String),
    /// Disk and container format must be set first.
    #[error(transparent)]
    FormatsUnset(#[from] FormatsUnset),
    /// More or fewer bytes came than announced.
    #[error("expected {expected} bytes, got {got}")]
    SizeMismatch {
        /// Bytes announced.
        expected: u64,
        /// Bytes that came.
        got: u64,
    },
    /// The image is larger than allowed.
    #[error("larger than the {cap} bytes allowed")]
    TooLarge {
        /// Bytes allowed.
        cap: u64,
    },
    /// The project has not that much left.
    #[error(transparent)]
    Quota(#[from] quota::Error),
    /// The content is not what the image claims, or not safe.
    #[error("{reason}")]
    Refused {
        /// A sentence for the client.
        reason: String,
    },
    /// The data has not the digest that was expected.
    #[error("{0}")]
    OtherDigest(String),
    /// The import that an upload became failed.
    #[error("{0}")]
    NotImported(String),
    /// No room is left.
    #[error("the store is full")]
    StoreFull,
    /// The store cannot be used now.
    #[error("the store cannot be used")]
    StoreUnavailable(#[source] stores::Error),
    /// The image has no data, or its data is missing.
    #[error("the image has no data")]
    NoData,
    /// The client broke off.
    #[error("the client broke off")]
    Client(#[source] io::Error),
    /// The catalog failed.
    #[error("the catalog failed")]
    Catalog(#[from] catalog::Error),
    /// We failed.
    #[error("{0}")]
    Internal(String),
}

impl From<stores::Error> for Error {
    fn from(error: stores::Error) -> Self {
        match error {
            stores::Error::NotFound => Self::NoData,
            stores::Error::Full(_) => Self::StoreFull,
            other => Self::StoreUnavailable(other),
        }
    }
}

impl From<formats::Error> for Error {
    fn from(error: formats::Error) -> Self {
        use std::error::Error as _;
        let cause = error.source().map(|e| format!(": {e}")).unwrap_or_default();
        Self::Internal(format!("{error}{cause}"))
    }
}

/// The bytes `range` of an image, from the first of its locations that opens: those in the stores
/// `prefer` first, then by weight.
///
/// # Errors
/// `NoData` when it has none, or none is left; `StoreUnavailable`.
pub async fn download(
    svc: &Arc<Service>,
    image: &Image,
    range: Range<u64>,
    prefer: &[String],
) -> Result<Body, Error> {
    let mut failed = Error::NoData;
    let mut locations = svc.stores.by_weight(&image.locations);
    locations.sort_by_key(|l| {
        prefer
            .iter()
            .position(|p| *p == l.store)
            .unwrap_or(usize::MAX)
    });
    for location in locations {
        let Some(store) = svc.stores.get(&location.store) else {
            tracing::warn!(image.id = %image.id, store.id = location.store, "a store is not configured any more");
            continue;
        };
        match store.blobs.open(&location.url, range.clone()).await {
            Ok(body) => {
                let (metrics, store) = (svc.metrics.clone(), location.store.clone());
                let read = move |n| metrics.store(&store, Direction::Out, n);
                return Ok(counted(&svc.metrics, Direction::Out, body, read));
            }
            Err(e) => {
                tracing::warn!(
                    image.id = %image.id, store.id = location.store, error = %e,
                    "a location of image {} cannot be opened", image.id
                );
                failed = e.into();
            }
        }
    }
    Err(failed)
}
