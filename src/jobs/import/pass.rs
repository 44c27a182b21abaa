//! From elsewhere straight into the stores, in one pass and without staging: what is stored as it
//! comes.

use std::sync::Arc;

use reqwest::header::HeaderMap;

use super::bytes::{Bytes, Ready, of_fetch, transient};
use super::publish::of_store;
use super::{ImportJob, Source, deleted};
use crate::catalog::{images, jobs};
use crate::convert::{self, Plan};
use crate::domain::{Image, ImageId, Measured, Status};
use crate::fetch::Changed;
use crate::ingest::{self, Announced, Body};
use crate::jobs::meter::{Meter, Phase};
use crate::jobs::runner::{Failure, chain};
use crate::service::Service;
use crate::stores::{self, Tee};
use crate::telemetry::metrics::Direction;

/// Where the bytes of an import come from that are not ours yet.
pub(super) struct Origin {
    /// The image they are for, with what came along.
    pub(super) image: Image,
    place: Place,
}

enum Place {
    Url(String, HeaderMap),
    Image(ImageId),
    File(String),
}

impl ImportJob {
    /// Where to fetch from; `None` where bytes are staged.
    pub(super) async fn origin(
        &self,
        svc: &Arc<Service>,
        image: &Image,
    ) -> Result<Option<Origin>, Failure> {
        Ok(Some(match &self.from {
            Source::Staged => return Ok(None),
            Source::Web { uri } => Origin {
                image: image.clone(),
                place: Place::Url(uri.clone(), HeaderMap::new()),
            },
            Source::Image { id } => Origin {
                image: image.clone(),
                place: Place::Image(id.parse().map_err(|_| no_source())?),
            },
            Source::File { path } => Origin {
                image: image.clone(),
                place: Place::File(path.clone()),
            },
            Source::Glance {
                endpoint,
                image: remote,
                token,
            } => {
                let endpoint = endpoint
                    .as_deref()
                    .ok_or_else(|| Failure::Final("The region is not known here".into()))?;
                let url = format!("{endpoint}/v2/images/{remote}");
                let headers = super::remote::headers(token)?;
                Origin {
                    image: self.copy_metadata(svc, image, &url, &headers).await?,
                    place: Place::Url(format!("{url}/file"), headers),
                }
            }
            // An image without data is nothing to copy.
            Source::Copy => return Err(deleted()),
        }))
    }

    /// Begins to read.
    pub(super) async fn open(
        &self,
        svc: &Arc<Service>,
        origin: &Origin,
        meter: &Arc<Meter>,
    ) -> Result<(Body, Announced), Failure> {
        let (body, size) = match &origin.place {
            Place::Url(url, headers) => {
                let answer = svc.fetcher.download(url, headers).await;
                let answer = answer.map_err(of_fetch)?;
                (answer.body, answer.length)
            }
            Place::Image(id) => {
                let image = images::find(&mut svc.catalog.read().await?, id).await?;
                let image = image.filter(|i| i.status == Status::Active);
                let (image, size) = image
                    .and_then(|image| image.size.map(|size| (image, size)))
                    .ok_or_else(no_source)?;
                let body = ingest::download(svc, &image, 0..size, &[]).await;
                (body.map_err(transient)?, Some(size))
            }
            Place::File(path) => {
                let opened = svc.folders.file(path).await;
                let (file, size) = opened
                    .map_err(|e| Failure::Final(format!("The source was refused: {e}").into()))?;
                let body = stores::read_stream(Arc::new(file), 0..size);
                (body, Some(size))
            }
        };
        // What is too much in any case is not fetched first.
        let mut tx = svc.catalog.read().await?;
        let owner = origin.image.owner.as_deref();
        svc.quotas.fits(&mut tx, owner, size.unwrap_or(0)).await?;
        drop(tx);
        meter.begin(Phase::Fetching, size, size);
        let announced = Announced {
            size,
            digest: self.expected.clone(),
        };
        Ok((meter.count_in(body, true), announced))
    }

    /// Whether bytes may go where they belong while they come: nothing is done to them, and nobody
    /// must see all of them before.
    pub(super) fn passes(&self, svc: &Service, image: &Image) -> Result<bool, Failure> {
        let together = self.all_stores_must_succeed || self.stores.len() == 1;
        Ok(together
            && image.container_format.as_deref() == Some("bare")
            && !svc.config.import.decompress
            && self.expected_of(Measured::Content).is_none()
            && self.form(svc)?.is_none())
    }

    /// Fetches into all stores at once, judges, and publishes.
    pub(super) async fn pass(
        &self,
        svc: &Arc<Service>,
        job: &jobs::Claimed,
        origin: &Origin,
        meter: &Arc<Meter>,
    ) -> Result<(), Failure> {
        let image = &origin.image;
        let (body, announced) = self.open(svc, origin, meter).await?;
        let mut tee = Tee::default();
        let mut stored = Vec::new();
        for name in &self.stores {
            let (store, intent) = self.intend(svc, image, name).await?;
            let begun = store.blobs.begin(intent.url()).await;
            tee.add(name, begun.map_err(|e| of_store(name, &e))?);
            stored.push(intent);
        }
        let ready = match self.take(svc, image, body, &announced, &mut tee).await {
            Ok(ready) => ready,
            Err(e) => {
                if let Err(abort) = tee.abort_all().await {
                    tracing::warn!(image.id = %image.id, error = %abort, "an import could not be taken back: the sweep will");
                }
                return Err(e);
            }
        };
        tee.commit_all()
            .await
            .map_err(|(store, e)| of_store(&store, &e))?;
        for store in &self.stores {
            svc.metrics.store(store, Direction::In, ready.size);
        }
        self.finish(svc, job, &image.id, stored, &Bytes::File(ready))
            .await
    }

    async fn take(
        &self,
        svc: &Arc<Service>,
        image: &Image,
        body: Body,
        announced: &Announced,
        tee: &mut Tee,
    ) -> Result<Ready, Failure> {
        let taken = ingest::pass(svc, image, body, announced, tee).await;
        let (taken, found) = taken.map_err(|e| match (e, tee.failed()) {
            (ingest::Error::StoreUnavailable(e), Some(store)) => of_store(store, &e),
            (ingest::Error::StoreFull, Some(store)) => {
                Failure::Final(format!("Store {store} is full").into()).in_store(store)
            }
            (other, _) => of_taking(other, image),
        })?;
        match convert::decide(image, &found, None, &svc.config) {
            Ok(Plan::Keep { virtual_size }) => {
                Ok(Ready::written(taken.size, virtual_size, taken.hashes))
            }
            Ok(Plan::Convert { .. }) => Err(Failure::Transient(
                "The configuration changed while it was read".into(),
            )),
            Err(reason) => Err(Failure::Final(reason.into())),
        }
    }
}

/// Why an import ends that copies an image which is not there any more.
fn no_source() -> Failure {
    Failure::Final("The image to be copied is not active any more".into())
}

/// Why bytes did not come in from elsewhere.
pub(super) fn of_taking(error: ingest::Error, image: &Image) -> Failure {
    match error {
        ingest::Error::Client(e) if Changed::is(&e) => {
            Failure::Final("The source changed while it was read".into())
        }
        ingest::Error::Client(e) => {
            tracing::warn!(image.id = %image.id, error = chain(&e), "a download broke off");
            Failure::Transient("The download broke off".into())
        }
        ingest::Error::SizeMismatch { expected, got } => Failure::Transient(
            format!("The source announced {expected} bytes and sent {got}").into(),
        ),
        ingest::Error::TooLarge { cap } => {
            Failure::Final(format!("The source holds more than the {cap} bytes allowed").into())
        }
        ingest::Error::Refused { reason } | ingest::Error::OtherDigest(reason) => {
            Failure::Final(reason.into())
        }
        other => transient(other),
    }
}
