//! An image whose bytes lie where a client says (`image-states.md` 4.6): the location is looked
//! at, verified where that is asked for, and made the image's; digests nobody gave are computed
//! afterwards.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use super::import::deleted;
use super::meter::{Meter, Phase};
use super::runner::{Failure, Why, chain};
use crate::catalog::{self, Tx, images, jobs, locations, tasks};
use crate::config::StoreKind;
use crate::domain::{
    Event, HashAlgo, Hashes, Image, ImageId, Location, Status, TaskStatus, Timestamp,
};
use crate::ingest;
use crate::jobs::{LOCK, payload};
use crate::service::Service;
use crate::stores;

/// The store of a location that was refused.
pub(crate) const REFUSED: &str = "os_glance_refused_location_store";

/// An accepted location.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LocateJob {
    /// The image.
    pub image_id: String,
    /// The task that clients watch.
    pub task_id: String,
    /// The store that the URL belongs to.
    pub store: String,
    /// Where the bytes lie.
    pub url: String,
    /// Name and hexadecimal value of the digest the client says they have.
    pub digest: Option<(String, String)>,
}

impl LocateJob {
    /// Its name in the queue.
    pub const KIND: &'static str = "location";

    fn id(&self) -> Result<ImageId, Failure> {
        let id = self.image_id.parse();
        id.map_err(|_| Failure::Final("the job names no image".into()))
    }

    pub(super) async fn run(
        &self,
        svc: &Arc<Service>,
        job: &jobs::Claimed,
        meter: &Arc<Meter>,
    ) -> Result<(), Failure> {
        let id = self.id()?;
        let mut tx = svc.catalog.write().await?;
        let now = Timestamp::now();
        tasks::progress(&mut tx, &self.task_id, TaskStatus::Processing, "", now).await?;
        tx.commit().await?;
        let store = svc.stores.get(&self.store).ok_or_else(|| {
            Failure::Final(format!("Store for identifier {} not found", self.store).into())
        })?;
        let size = store
            .blobs
            .stat(&self.url)
            .await
            .map_err(|e| unreachable(&e))?;
        if size == 0 {
            return Err(Failure::Final("The location holds no data".into()));
        }
        let verifies = svc.config.import.do_secure_hash;
        let hashes = match &self.digest {
            Some((algo, value)) if verifies => {
                Some(self.verify(svc, size, algo, value, meter).await?)
            }
            Some((algo, value)) => Some(Hashes {
                checksum: None,
                algo: algo.clone(),
                value: value.clone(),
            }),
            None => None,
        };

        let mut tx = svc.catalog.write().await?;
        let image = images::find(&mut tx, &id).await?;
        let image = image.filter(|i| self.is_ours(i)).ok_or_else(deleted)?;
        let event = match image.status {
            Status::Queued => Event::LocationAdded,
            _ => Event::ImportDone,
        };
        let active = image
            .status
            .apply(event)
            .map_err(|e| Failure::Final(e.to_string().into()))?;
        let owner = image.owner.as_deref();
        svc.quotas.fits(&mut tx, owner, size).await?;
        let location = Location::new(&self.store, &self.url, Map::new());
        let now = Timestamp::now();
        locations::insert_active(&mut tx, &id, &location, now).await?;
        let computes = verifies && hashes.is_none();
        images::change(&mut tx, &id, image.status, |image| {
            image.status = active;
            image.size = Some(size);
            image.hashes = hashes;
            image.properties.remove(LOCK);
            image.properties.remove(REFUSED);
        })
        .await?;
        jobs::finish(&mut tx, job).await?;
        if computes {
            // The task goes on: whoever waits for its end finds the digests.
            HashJob::enqueue(&mut tx, &id, &self.task_id, now).await?;
        } else {
            succeed(svc, &mut tx, &id, &self.task_id, "").await?;
        }
        tx.commit().await?;
        svc.wake.notify_one();
        tracing::info!(image.id = %id, store.id = self.store, size_bytes = size, "image {id} has a location");
        Ok(())
    }

    /// Reads all of it and holds it against what the client says.
    async fn verify(
        &self,
        svc: &Service,
        size: u64,
        algo: &str,
        value: &str,
        meter: &Arc<Meter>,
    ) -> Result<Hashes, Failure> {
        let hashes = digest(svc, &self.store, &self.url, size, algo, meter).await?;
        if hashes.value == value {
            Ok(hashes)
        } else {
            Err(Failure::Final(
                format!("The {algo} of the location is not the one given").into(),
            ))
        }
    }

    fn is_ours(&self, image: &Image) -> bool {
        let waits = matches!(image.status, Status::Queued | Status::Importing);
        waits && image.properties.get(LOCK) == Some(&self.task_id)
    }

    /// The task says why, the image waits for data again.
    pub(super) async fn fail(
        &self,
        svc: &Arc<Service>,
        job: &jobs::Claimed,
        why: &Why,
    ) -> catalog::Result<()> {
        let mut tx = svc.catalog.write().await?;
        // The image's row is locked before what belongs to it, as everybody does.
        let image = match self.id() {
            Ok(id) => images::find(&mut tx, &id).await?,
            Err(_) => None,
        };
        jobs::finish(&mut tx, job).await?;
        let now = Timestamp::now();
        let expires = now.plus_seconds(svc.config.import.task_hours * 3600);
        let failure = TaskStatus::Failure;
        tasks::end(
            &mut tx,
            &self.task_id,
            failure,
            None,
            &why.text,
            now,
            expires,
        )
        .await?;
        if let Some(image) = image
            && image.properties.get(LOCK) == Some(&self.task_id)
        {
            // Glance cannot delete from web servers, so the image goes on naming such a store, and
            // clients wait for that (tempest's LocationImport). No bytes are ever read from there.
            let store = svc.stores.get(&self.store);
            let is_named = store.is_some_and(|store| store.config.kind == StoreKind::Http);
            images::change(&mut tx, &image.id, image.status, |image| {
                if is_named {
                    let store = self.store.clone();
                    image.properties.insert(REFUSED.into(), store);
                }
                // Whoever gave it data meanwhile keeps it.
                if let Ok(queued) = image.status.apply(Event::ImportFailed) {
                    image.status = queued;
                }
                image.properties.remove(LOCK);
            })
            .await?;
        }
        tx.commit().await
    }

    pub(super) async fn is_wanted(&self, svc: &Service) -> catalog::Result<bool> {
        let Ok(id) = self.id() else {
            return Ok(true);
        };
        let image = images::find(&mut svc.catalog.read().await?, &id).await?;
        Ok(image.is_some_and(|image| self.is_ours(&image)))
    }
}

/// Digests to be computed of an active image that has none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HashJob {
    /// The image.
    pub image_id: String,
}

impl HashJob {
    /// Its name in the queue.
    pub const KIND: &'static str = "hash";

    /// After what clients wait for.
    const PRIORITY: i64 = -1;

    /// For a task whose own job has ended: a job has the id of its task.
    async fn enqueue(
        tx: &mut Tx,
        image: &ImageId,
        task: &str,
        now: Timestamp,
    ) -> catalog::Result<()> {
        let job = Self {
            image_id: image.to_string(),
        };
        let payload = payload::write(&job);
        jobs::enqueue(tx, task, Self::KIND, &payload, Self::PRIORITY, now).await
    }

    pub(super) async fn run(
        &self,
        svc: &Arc<Service>,
        job: &jobs::Claimed,
        meter: &Arc<Meter>,
    ) -> Result<(), Failure> {
        let Some(image) = self.image(svc).await? else {
            return Err(deleted());
        };
        let (Some(size), Some(location)) = (image.size, image.locations.first()) else {
            return Err(deleted());
        };
        let algo = svc.config.import.hash_algo();
        let (store, url) = (&location.store, &location.url);
        let hashes = digest(svc, store, url, size, algo.name(), meter).await?;
        let mut tx = svc.catalog.write().await?;
        images::change(&mut tx, &image.id, image.status, |image| {
            image.hashes.get_or_insert(hashes);
        })
        .await?;
        jobs::finish(&mut tx, job).await?;
        succeed(svc, &mut tx, &image.id, &job.id, "").await?;
        Ok(tx.commit().await?)
    }

    /// The image has its location all the same, if it is there.
    pub(super) async fn fail(
        &self,
        svc: &Service,
        job: &jobs::Claimed,
        why: &Why,
    ) -> catalog::Result<()> {
        let mut tx = svc.catalog.write().await?;
        let image = match self.image_id.parse() {
            Ok(id) => images::find(&mut tx, &id).await?,
            Err(_) => None,
        };
        jobs::finish(&mut tx, job).await?;
        if let Some(image) = image {
            let message = format!("The digests were not computed: {}", why.text);
            succeed(svc, &mut tx, &image.id, &job.id, &message).await?;
        } else {
            let now = Timestamp::now();
            let expires = now.plus_seconds(svc.config.import.task_hours * 3600);
            let failure = TaskStatus::Failure;
            tasks::end(&mut tx, &job.id, failure, None, &why.text, now, expires).await?;
        }
        tx.commit().await
    }

    async fn image(&self, svc: &Service) -> catalog::Result<Option<Image>> {
        let Ok(id) = self.image_id.parse() else {
            return Ok(None);
        };
        let image = images::find(&mut svc.catalog.read().await?, &id).await?;
        Ok(image.filter(|i| i.hashes.is_none() && !i.locations.is_empty()))
    }

    pub(super) async fn is_wanted(&self, svc: &Service) -> catalog::Result<bool> {
        Ok(self.image(svc).await?.is_some())
    }
}

/// Ends the task of an image that has its location.
async fn succeed(
    svc: &Service,
    tx: &mut Tx,
    image: &ImageId,
    task: &str,
    message: &str,
) -> catalog::Result<()> {
    let now = Timestamp::now();
    let expires = now.plus_seconds(svc.config.import.task_hours * 3600);
    let result = Some(json!({ "image_id": image.as_str() }).to_string());
    tasks::end(tx, task, TaskStatus::Success, result, message, now, expires).await
}

/// The digests of what lies at `url`, which must be `size` bytes.
async fn digest(
    svc: &Service,
    store: &str,
    url: &str,
    size: u64,
    algo: &str,
    meter: &Arc<Meter>,
) -> Result<Hashes, Failure> {
    let algo: HashAlgo = algo.parse().map_err(|e: String| Failure::Final(e.into()))?;
    let store = svc
        .stores
        .get(store)
        .ok_or_else(|| Failure::Final(format!("Store for identifier {store} not found").into()))?;
    let body = store
        .blobs
        .open(url, 0..size)
        .await
        .map_err(|e| unreachable(&e))?;
    meter.begin(Phase::Verifying, Some(size), None);
    let body = meter.count_in(body, false);
    let (got, hashes) = ingest::digest(body, algo).await.map_err(|e| {
        tracing::warn!(error = chain(&e), "a location broke off");
        Failure::Transient("The location broke off".into())
    })?;
    if got == size {
        Ok(hashes)
    } else {
        Err(Failure::Final("The location has changed".into()))
    }
}

/// What clients are told of a location is that it does not answer; the log says more.
fn unreachable(error: &stores::Error) -> Failure {
    tracing::warn!(error = chain(error), "a location cannot be read");
    Failure::Final(match error {
        stores::Error::NotFound => "The location does not exist".into(),
        stores::Error::Foreign => "The location is not allowed".into(),
        _ => "The location cannot be read".into(),
    })
}
