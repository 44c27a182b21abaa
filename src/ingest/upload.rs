//! `PUT /file`.

use std::sync::Arc;

use formats::Source;
use formats::container::Context;
use formats::inspect::{Inspection, Stream};
use tracing::Instrument;

use super::intake::{self, Expect};
use super::lease::{Kept, Lease};
use super::{Body, Error, content, verdict};
use crate::catalog::{self, Tx, images, locations, outbox};
use crate::domain::{
    Event, Expected, FormatsUnset, HashAlgo, Hashes, Image, ImageId, Location, Measured, Status,
    Timestamp,
};
use crate::notify::{Priority, payload};
use crate::quota::Allowance;
use crate::service::Service;
use crate::stores::{BlobWriter, Store};
use crate::telemetry::Stage;
use crate::telemetry::metrics::Direction;

/// What a client says of the data it sends.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Announced {
    /// Bytes.
    pub size: Option<u64>,
    /// Their digest.
    pub digest: Option<Expected>,
}

impl From<Option<u64>> for Announced {
    fn from(size: Option<u64>) -> Self {
        Self { size, digest: None }
    }
}

impl Announced {
    /// The hash to compute of the bytes as they come.
    pub(super) fn algo(&self) -> Option<HashAlgo> {
        let digest = self.digest.as_ref();
        digest.filter(|d| d.of == Measured::Sent).map(|d| d.algo)
    }

    /// Holds the digest of what came against it.
    pub(super) fn check(&self, got: Option<&String>) -> Result<(), Error> {
        match (&self.digest, got) {
            (Some(digest), Some(got)) => digest.check(got).map_err(Error::OtherDigest),
            _ => Ok(()),
        }
    }

    /// The digest that the data must have once it is decompressed.
    pub(super) fn of_content(&self) -> Option<&Expected> {
        let digest = self.digest.as_ref();
        digest.filter(|d| d.of == Measured::Content)
    }
}

/// Takes an image's data in, judges it and publishes it in `store`: one pass over the bytes.
///
/// # Errors
/// Any of [`Error`]; the image is queued again then and nothing is left in the store.
pub async fn upload(
    svc: &Arc<Service>,
    image: &ImageId,
    body: Body,
    announced: impl Into<Announced>,
    store: &str,
) -> Result<(), Error> {
    let announced = announced.into();
    let target = svc
        .stores
        .get(store)
        .ok_or_else(|| Error::UnknownStore(store.to_owned()))?
        .clone();
    if target.config.read_only {
        return Err(Error::ReadOnlyStore(store.to_owned()));
    }

    let location = svc.new_location(image, &target);
    let mut tx = svc.catalog.write().await?;
    let image = begin(&mut tx, image, Event::UploadStarted).await?;
    let owner = image.owner.as_deref();
    let mut allowance = svc.quotas.allowance(&mut tx, owner, announced.size).await?;
    let told = || payload::image_data(&image, Some(store));
    outbox::note(&mut tx, "image.prepare", told).await?;
    let now = Timestamp::now();
    let until = Lease::until(svc, &mut tx).await?;
    locations::insert_pending(&mut tx, &image.id, &location, until, now).await?;
    tx.commit().await?;

    let lease = Lease::keep(svc, Kept::Location(location.id.clone()));
    // The upload goes on by itself, so that a client that hangs up cannot leave it half undone.
    let next = image.status.apply(Event::UploadDone)?;
    let work = Upload {
        svc: svc.clone(),
        disk: image.disk_format.clone().unwrap_or_default(),
        container: image.container_format.clone().unwrap_or_default(),
        image,
        next,
        location,
        announced,
    };
    let going = async move {
        let result = match target.blobs.begin(&work.location.url).await {
            Ok(writer) => work.run(body, writer, &mut allowance).await,
            Err(e) => Err(e.into()),
        };
        drop(lease);
        // What came in counts as stored now, or is gone.
        drop(allowance);
        match result {
            Ok(()) => Ok(()),
            // Whatever went wrong: when the image is no longer there, that is why.
            Err(e) => match work.undo(&e).await {
                PutBack::Gone => Err(Error::Gone),
                PutBack::Queued => Err(e),
            },
        }
    };
    let done = tokio::spawn(going.in_current_span());
    done.await.map_err(|e| Error::Internal(e.to_string()))?
}

struct Upload {
    svc: Arc<Service>,
    /// The image as it is while its bytes come in.
    image: Image,
    /// Its status once they have.
    next: Status,
    location: Location,
    disk: String,
    container: String,
    announced: Announced,
}

/// What came in, judged.
struct Data {
    size: u64,
    virtual_size: Option<u64>,
    hashes: Hashes,
}

impl Upload {
    async fn run(
        &self,
        body: Body,
        mut writer: Box<dyn BlobWriter>,
        allowance: &mut Allowance,
    ) -> Result<(), Error> {
        let taken = self.take(body, writer.as_mut(), allowance).await;
        let data = match taken {
            Ok(data) => data,
            Err(e) => {
                if let Err(abort) = writer.abort().await {
                    tracing::warn!(image.id = %self.image.id, error = %abort, "an upload could not be taken back: the sweep will");
                }
                return Err(e);
            }
        };
        let commit = self.svc.metrics.stage(Stage::Commit);
        writer.commit().await?;
        drop(commit);
        let store = &self.location.store;
        self.svc.metrics.store(store, Direction::In, data.size);
        let mut tx = self.svc.catalog.write().await?;
        // The image's row before its location's, as everybody locks them.
        images::change(&mut tx, &self.image.id, self.image.status, |image| {
            image.status = self.next;
            image.size = Some(data.size);
            image.virtual_size = data.virtual_size;
            image.hashes = Some(data.hashes);
            image.locations.push(self.location.clone());
        })
        .await
        .map_err(gone)?;
        locations::activate(&mut tx, &self.location.id)
            .await
            .map_err(gone)?;
        tx.commit().await?;
        tracing::info!(
            image.id = %self.image.id, store.id = self.location.store, size_bytes = data.size,
            "image {} is active", self.image.id
        );
        Ok(())
    }

    /// Receives and judges.
    async fn take(
        &self,
        body: Body,
        writer: &mut dyn BlobWriter,
        allowance: &mut Allowance,
    ) -> Result<Data, Error> {
        let rules = &self.svc.config.formats;
        let early = |stream: &Stream| verdict::early(stream, &self.disk, &self.container, rules);
        let expect = Expect {
            announced: self.announced.size,
            allowance: Some(allowance),
            cap: self.svc.config.quota.image_size_cap,
            algo: self.svc.config.import.hash_algo(),
            also: self.announced.algo(),
            early: &early,
        };
        let stage = self.svc.metrics.stage(Stage::Receive);
        let received = intake::receive(body, writer, expect).await?;
        drop(stage);
        self.announced.check(received.also.as_ref())?;
        let _stage = self.svc.metrics.stage(Stage::Judge);
        let (mut inspection, staged) =
            intake::judge(received.inspectors, writer, self.svc.limits()).await?;
        // What is in an archive can only be told from the whole of it.
        if self.container != "bare"
            && let Some(source) = &staged
        {
            inspection = describe(&self.svc, source.clone(), Look::Beginning).await?;
        }
        let virtual_size = verdict::judge(
            &inspection,
            &self.disk,
            &self.container,
            &self.svc.config.formats,
        )
        .map_err(|reason| Error::Refused { reason })?;
        // Last, for it may have to inflate all of it.
        if let Some(expected) = self.announced.of_content() {
            content::check(&self.svc, staged, expected).await?;
        }
        if let Some(doubt) = verdict::doubt(&inspection, &self.disk) {
            tracing::warn!(image.id = %self.image.id, "{doubt}");
        }
        Ok(Data {
            size: received.size,
            virtual_size,
            hashes: received.hashes,
        })
    }

    /// Back to queued, with nothing left behind.
    async fn undo(&self, failed: &Error) -> PutBack {
        let put_back = self.try_undo(failed).await.unwrap_or_else(|e| {
            tracing::error!(image.id = %self.image.id, error = %e, "a failed upload could not be undone: the sweep will");
            PutBack::Queued
        });
        super::sweep_doomed(&self.svc).await;
        put_back
    }

    async fn try_undo(&self, failed: &Error) -> Result<PutBack, Error> {
        let mut tx = self.svc.catalog.write().await?;
        let put_back = back_to_queued(&mut tx, &self.image, Event::UploadFailed).await?;
        locations::doom(&mut tx, &self.location.id).await?;
        let told = || format!("The upload of image {} failed: {failed}", self.image.id).into();
        outbox::note_as(&mut tx, Priority::Error, "image.upload", told).await?;
        tx.commit().await?;
        Ok(put_back)
    }
}

/// What became of a failed image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PutBack {
    /// It waits for data again.
    Queued,
    /// It was deleted meanwhile.
    Gone,
}

/// Copies an image's data, seen by `watch`, from the stores that have it into the blob at `url`, and
/// checks on the way that it still is what it was.
pub(crate) async fn copy(
    svc: &Arc<Service>,
    image: &Image,
    to: &Store,
    url: &str,
    watch: impl FnOnce(Body) -> Body,
) -> Result<(), Error> {
    let size = image.size.ok_or(Error::NoData)?;
    let body = watch(super::download(svc, image, 0..size, &[]).await?);
    let algo = image.hashes.as_ref().and_then(|h| h.algo.parse().ok());
    let expect = Expect {
        announced: Some(size),
        allowance: None,
        cap: size,
        algo: algo.unwrap_or_default(),
        also: None,
        early: &|_| None,
    };
    let mut writer = to.blobs.begin(url).await?;
    let received = intake::receive(body, writer.as_mut(), expect).await;
    let checked = received.and_then(|received| match (&image.hashes, algo) {
        (Some(known), Some(_)) if known.value != received.hashes.value => Err(Error::Refused {
            reason: "The data in the other store is not what it was".into(),
        }),
        _ => Ok(()),
    });
    match checked {
        Ok(()) => Ok(writer.commit().await?),
        Err(e) => {
            writer.abort().await?;
            Err(e)
        }
    }
}

/// Puts a failed image back where it began, unless it was deleted meanwhile.
pub(super) async fn back_to_queued(
    tx: &mut Tx,
    image: &Image,
    failed: Event,
) -> Result<PutBack, Error> {
    let queued = image.status.apply(failed)?;
    let put_back = images::change(tx, &image.id, image.status, |image| {
        image.status = queued;
        image.forget_data();
    });
    match put_back.await {
        Ok(_) => Ok(PutBack::Queued),
        Err(catalog::Error::Conflict(_)) => Ok(PutBack::Gone),
        Err(e) => Err(e.into()),
    }
}

/// Moves the image on as it is now, not as it was looked up: what was changed since stays.
pub(super) async fn begin(tx: &mut Tx, id: &ImageId, event: Event) -> Result<Image, Error> {
    begin_with(tx, id, event, Image::has_formats).await
}

/// The same, for an image that is `ready`.
pub(super) async fn begin_with(
    tx: &mut Tx,
    id: &ImageId,
    event: Event,
    ready: fn(&Image) -> Result<(), FormatsUnset>,
) -> Result<Image, Error> {
    let image = images::find(tx, id).await?.ok_or(Error::Gone)?;
    let next = image.status.apply(event)?;
    ready(&image)?;
    Ok(images::change(tx, id, image.status, |image| image.status = next).await?)
}

/// How much of a compressed image is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Look {
    /// Its beginning, where it is stored as it came.
    Beginning,
    /// All of it: a footer may tell what it is, and what it becomes depends on that.
    Whole,
}

/// Judges a file, archives and all; what must be inflated for it goes to the staging area. `look`
/// bounds how much of a compressed image is.
pub(crate) async fn describe(
    svc: &Arc<Service>,
    source: Arc<dyn Source>,
    look: Look,
) -> Result<Inspection, Error> {
    let svc = svc.clone();
    tokio::task::spawn_blocking(move || {
        let mut limits = svc.limits();
        if look == Look::Whole {
            limits.max_look = u64::MAX;
        }
        let scratch = || svc.staging.scratch();
        let context = Context {
            scratch: &scratch,
            ..Context::new(&limits)
        };
        formats::container::describe_with(&source, &context)
    })
    .await
    .map_err(|e| Error::Internal(e.to_string()))?
    .map_err(Error::from)
}

/// A conflict at the end means that the image was deleted, or its lease swept, meanwhile.
pub(super) fn gone(error: catalog::Error) -> Error {
    match error {
        catalog::Error::Conflict(_) => Error::Gone,
        other => other.into(),
    }
}
