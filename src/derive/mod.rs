//! Images in another form than they are stored in, made when somebody asks for it.
//!
//! ```text
//!  GET …/file?disk_format=… ─► Wish ─┬─► kept from last time: out of the store
//!                                    ├─► nothing is ever kept, and it can be written in order:
//!                                    │       stored bytes ─► worker ══ pipe ══► client
//!                                    └─► else: one conversion, however many ask
//!                                            stored bytes ─► worker ══ file ──┬─► clients
//!                                                                             └─► the store
//! ```
//! Clients read the file while it grows where its format is written in order, else when it is
//! whole. A conversion ends with the last client that waits for it. Workers are those of imports:
//! confined, and handed open files only.

mod keep;
mod ova;
mod pipe;
mod shared;
mod source;
mod wish;

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::catalog::derivatives::Derivative;
use crate::domain::Image;
use crate::ingest::Body;
use crate::service::Service;
use crate::{catalog, convert, stores};

pub use keep::sweep_doomed;
pub use wish::Wish;

/// Why there is no such form of an image.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A field of the query asks for what there is not; it is named.
    #[error("{0}")]
    Wish(String),
    /// The image cannot be brought into that form.
    #[error("{0}")]
    Unfit(String),
    /// None are made here.
    #[error("images are not converted on demand here")]
    Off,
    /// As many as may be are being made.
    #[error("too many conversions are under way")]
    Busy,
    /// The image's bytes cannot be found.
    #[error("the image has no data that can be found")]
    NoData,
    /// The catalog cannot be reached.
    #[error("the catalog is not available")]
    Unavailable,
    /// We failed.
    #[error("{0}")]
    Ours(String),
}

impl From<convert::Error> for Error {
    fn from(error: convert::Error) -> Self {
        match error {
            convert::Error::Image(reason) => Self::Unfit(reason),
            convert::Error::Ours(reason) => Self::Ours(reason),
        }
    }
}

impl From<catalog::Error> for Error {
    fn from(error: catalog::Error) -> Self {
        match error {
            catalog::Error::Unavailable(_) | catalog::Error::Contended(_) => Self::Unavailable,
            other => Self::Ours(other.to_string()),
        }
    }
}

impl From<stores::Error> for Error {
    fn from(error: stores::Error) -> Self {
        match error {
            stores::Error::NotFound => Self::NoData,
            other => Self::Ours(other.to_string()),
        }
    }
}

/// What is under way, and how much may be.
pub struct Derivations {
    shared: shared::Registry,
    /// One for each conversion that may be under way.
    free: Arc<Semaphore>,
}

impl Derivations {
    /// At most `conversions` at once.
    #[must_use]
    pub fn new(conversions: usize) -> Self {
        Self {
            shared: shared::Registry::default(),
            free: Arc::new(Semaphore::new(conversions.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// The right to one more conversion.
    fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let free = self.free.clone();
        free.try_acquire_owned().map_err(|_| Error::Busy)
    }
}

/// Images that somebody wants in some form: one, or those that go into an archive together.
#[derive(Clone, Debug)]
pub struct Order {
    images: Arc<[Image]>,
    wish: Wish,
    /// What it is called among all orders; `None` where nobody can tell whether two are the same.
    key: Option<String>,
}

impl Order {
    /// Of one image, or several that go into an archive in this order.
    ///
    /// # Errors
    /// `Off`, or `Unfit` when one of them cannot be read as a disk.
    pub fn new(svc: &Service, images: Vec<Image>, wish: Wish) -> Result<Self, Error> {
        if svc.config.derivatives.conversions == 0 {
            return Err(Error::Off);
        }
        for image in &images {
            wish.request(image, &svc.config)?;
        }
        Ok(Self {
            key: wish.key(&images),
            images: images.into(),
            wish,
        })
    }

    /// Bytes it will have, where that is known before anything is made.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn size(&self, svc: &Service) -> Result<Option<u64>, Error> {
        let kept = keep::find(svc, self).await?;
        Ok(kept.map_or_else(|| self.fixed_size(), |kept| Some(kept.size)))
    }

    fn fixed_size(&self) -> Option<u64> {
        match &*self.images {
            [image] => self.wish.fixed_size(image.virtual_size),
            _ => None,
        }
    }

    /// Has it made, if it is not there already.
    ///
    /// # Errors
    /// `Busy`, or when the catalog or the file system fails.
    pub async fn begin(self, svc: &Arc<Service>) -> Result<Derivation, Error> {
        let how = match keep::find(svc, &self).await? {
            Some(kept) => How::Kept(kept),
            None if self.wish.streams() && !keep::keeps(svc, &self) => How::Piped,
            None => How::Shared(shared::join(svc, &self)?),
        };
        Ok(Derivation { order: self, how })
    }
}

/// An order being served.
pub struct Derivation {
    order: Order,
    how: How,
}

enum How {
    Kept(Derivative),
    Piped,
    Shared(Arc<shared::Running>),
}

impl Derivation {
    /// Bytes it has. Where they are not known ahead this waits for the end, if `waits`, unless
    /// even that would not tell, as of a pipe.
    ///
    /// # Errors
    /// Why it could not be made.
    pub async fn size(&self, waits: bool) -> Result<Option<u64>, Error> {
        match (&self.how, self.order.fixed_size()) {
            (How::Kept(kept), _) => Ok(Some(kept.size)),
            (How::Piped | How::Shared(_), Some(size)) => Ok(Some(size)),
            (How::Piped, None) => Ok(None),
            (How::Shared(running), None) => {
                // What cannot be read before it is whole is waited for anyway.
                running.size(waits || !self.order.wish.streams()).await
            }
        }
    }

    /// Its bytes, or those of `range`. Answers when the first of them are there: what goes wrong
    /// before that is told, what goes wrong later breaks the body off.
    ///
    /// # Errors
    /// Why it could not be made.
    pub async fn read(self, svc: &Arc<Service>, range: Option<Range<u64>>) -> Result<Body, Error> {
        let running = match self.how {
            How::Piped => return pipe::read(svc, &self.order, range).await,
            How::Kept(kept) => match keep::read(svc, &kept, range.clone()).await {
                Ok(body) => return Ok(body),
                // It was dropped meanwhile, to make room, or is lost.
                Err(stores::Error::NotFound) => {
                    keep::forget(svc, &kept.location).await;
                    shared::join(svc, &self.order)?
                }
                Err(e) => return Err(e.into()),
            },
            How::Shared(running) => running,
        };
        shared::read(running, range).await
    }
}
