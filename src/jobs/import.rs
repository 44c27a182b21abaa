//! The import job: judge what is staged, convert it where that is asked for, put it into the
//! stores, publish.
//!
//! Every step can be done again: what a broken run left behind is named by its own fencing number
//! or location, and swept. The last transaction holds all facts and the end of the job.

use std::path::PathBuf;
use std::sync::Arc;

use formats::FileSource;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::runner::{Failure, chain};
use crate::catalog::{self, Tx, images, jobs, locations, staged, tasks};
use crate::convert::{self, Plan};
use crate::domain::{Event, Hashes, Image, ImageId, Location, Status, TaskStatus, Timestamp};
use crate::ingest::lease::{Kept, Lease};
use crate::ingest::{self, Look, Staging};
use crate::service::Service;
use crate::stores::{self, Store};

/// An accepted import.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImportJob {
    /// The image.
    pub image_id: String,
    /// The task that clients watch.
    pub task_id: String,
    /// The stores to write to.
    pub stores: Vec<String>,
    /// Whether one failing store fails it all.
    pub all_stores_must_succeed: bool,
}

/// Bytes ready to be published.
struct Ready {
    path: PathBuf,
    size: u64,
    virtual_size: Option<u64>,
    hashes: Hashes,
    /// The disk format they were converted to, where they were.
    converted_to: Option<&'static str>,
}

impl ImportJob {
    /// Its name in the queue.
    pub const KIND: &'static str = "import";

    fn parse(job: &jobs::Claimed) -> Result<(Self, ImageId), Failure> {
        let this: Self = serde_json::from_str(&job.payload)
            .map_err(|e| Failure::Final(format!("the job cannot be read: {e}")))?;
        let id = this
            .image_id
            .parse()
            .map_err(|_| Failure::Final("the job names no image".to_owned()))?;
        Ok((this, id))
    }

    pub(super) async fn run(svc: &Arc<Service>, job: &jobs::Claimed) -> Result<(), Failure> {
        let (this, id) = Self::parse(job)?;
        let mut tx = svc.catalog.write().await?;
        let image = images::find(&mut tx, &id).await?;
        let staged = staged::find(&mut tx, &id).await?;
        let now = Timestamp::now();
        tasks::progress(&mut tx, &this.task_id, TaskStatus::Processing, "", now).await?;
        tx.commit().await?;
        let Some(image) = image.filter(|i| i.status == Status::Importing) else {
            return Err(deleted());
        };
        let Some(staged) = staged else {
            return Err(Failure::Final("Staged data is missing".into()));
        };

        let output = svc.staging.output(&id, job.fence);
        let result = async {
            let ready = this.prepare(svc, &image, staged, &output).await?;
            this.publish(svc, job, &image, &ready).await
        };
        let result = result.await;
        remove(output).await;
        if result.is_ok() {
            remove(svc.staging.path(&id)).await;
        }
        result
    }

    /// Judges and converts.
    async fn prepare(
        &self,
        svc: &Arc<Service>,
        image: &Image,
        staged: staged::Staged,
        output: &std::path::Path,
    ) -> Result<Ready, Failure> {
        let path = svc.staging.path(&image.id);
        let file = std::fs::File::open(&path)
            .map_err(|e| Failure::Transient(format!("opening staged data: {e}")))?;
        let source = FileSource::new(file).map_err(|e| Failure::Transient(chain(&e)))?;
        let look = match svc.config.import.target() {
            Some(_) => Look::Whole,
            None => Look::Beginning,
        };
        let inspection = ingest::describe(svc, Arc::new(source), look)
            .await
            .map_err(transient)?;
        let plan = convert::decide(image, &inspection, &svc.config).map_err(Failure::Final)?;
        let (request, target) = match plan {
            Plan::Keep { virtual_size } => {
                return Ok(Ready {
                    path,
                    size: staged.size,
                    virtual_size,
                    hashes: staged.hashes,
                    converted_to: None,
                });
            }
            Plan::Convert { request, target } => (request, target),
        };
        let report =
            |percent: u64| self.report(svc, format!("Converting to {target}: {percent} %"));
        let virtual_size = convert::supervise(svc, &request, &path, output, report)
            .await
            .map_err(|e| match e {
                convert::Error::Image(reason) => Failure::Final(reason),
                convert::Error::Ours(reason) => Failure::Transient(reason),
            })?;
        // What a worker wrote is judged like anything else that came in.
        let file = std::fs::File::open(output)
            .map_err(|e| Failure::Transient(format!("opening the output: {e}")))?;
        let source = FileSource::new(file).map_err(|e| Failure::Transient(chain(&e)))?;
        let written = ingest::describe(svc, Arc::new(source), Look::Whole)
            .await
            .map_err(transient)?;
        let is_raw = target == formats::Format::Raw;
        if (!is_raw && written.format != target) || written.unsafe_finding().is_some() {
            return Err(Failure::Final(format!(
                "The conversion gave {} instead of a safe {target}",
                written.format
            )));
        }
        let cap = svc.config.quota.image_size_cap;
        if written.file_size > cap {
            return Err(Failure::Final(format!(
                "The conversion gave {} bytes, more than the {cap} allowed",
                written.file_size
            )));
        }
        let (size, hashes) = digest(svc, output, written.file_size).await?;
        Ok(Ready {
            path: output.to_owned(),
            size,
            virtual_size: Some(virtual_size),
            hashes,
            converted_to: Some(target.name()),
        })
    }

    /// Tells whoever watches the task; a missed report is no harm.
    fn report(&self, svc: &Arc<Service>, message: String) {
        let (svc, id) = (svc.clone(), self.task_id.clone());
        tokio::spawn(async move {
            let mut tx = svc.catalog.write().await?;
            let now = Timestamp::now();
            tasks::progress(&mut tx, &id, TaskStatus::Processing, &message, now).await?;
            tx.commit().await
        });
    }

    /// Puts the bytes into the stores and makes it all a fact.
    async fn publish(
        &self,
        svc: &Arc<Service>,
        job: &jobs::Claimed,
        image: &Image,
        ready: &Ready,
    ) -> Result<(), Failure> {
        let (mut done, mut failed) = (Vec::<(Location, Lease)>::new(), Vec::new());
        for name in &self.stores {
            match self.put(svc, image, name, ready).await {
                Ok(location) => done.push(location),
                Err(Failure::Lost) => return Err(Failure::Lost),
                Err(e) if self.all_stores_must_succeed || self.stores.len() == 1 => return Err(e),
                Err(e) => {
                    tracing::warn!(image.id = %image.id, store.id = name, error = ?e, "a store of an import failed");
                    failed.push(name.clone());
                }
            }
        }
        if done.is_empty() {
            return Err(Failure::Transient("no store took the image".into()));
        }

        let active = image
            .status
            .apply(Event::ImportDone)
            .map_err(|e| Failure::Final(e.to_string()))?;
        let now = Timestamp::now();
        let mut tx = svc.catalog.write().await?;
        if !is_importing(&mut tx, &image.id).await? {
            return Err(deleted());
        }
        for (location, _) in &done {
            locations::activate(&mut tx, &location.id).await?;
        }
        images::change(&mut tx, &image.id, image.status, |image| {
            image.status = active;
            image.size = Some(ready.size);
            image.virtual_size = ready.virtual_size;
            image.hashes = Some(ready.hashes.clone());
            if let Some(format) = ready.converted_to {
                image.disk_format = Some(format.into());
                image.container_format = Some("bare".into());
            }
            image.properties.insert(IMPORTING.into(), String::new());
            image.properties.insert(FAILED.into(), failed.join(","));
        })
        .await?;
        staged::delete(&mut tx, &image.id).await?;
        let message = format!("Copied {} MiB", ready.size >> 20);
        let result = json!({ "image_id": image.id.as_str() }).to_string();
        let expires = now.plus_seconds(svc.config.import.task_hours * 3600);
        let success = TaskStatus::Success;
        tasks::end(
            &mut tx,
            &self.task_id,
            success,
            Some(result),
            &message,
            now,
            expires,
        )
        .await?;
        jobs::finish(&mut tx, job).await?;
        tx.commit().await?;
        tracing::info!(image.id = %image.id, size_bytes = ready.size, "image {} is imported", image.id);
        Ok(())
    }

    /// Puts the bytes into one store, with its pending row written first.
    async fn put(
        &self,
        svc: &Arc<Service>,
        image: &Image,
        name: &str,
        ready: &Ready,
    ) -> Result<(Location, Lease), Failure> {
        let store = svc
            .stores
            .get(name)
            .ok_or_else(|| Failure::Final(format!("Store for identifier {name} not found")))?;
        let location = svc.new_location(&image.id, store);
        let mut tx = svc.catalog.write().await?;
        if !is_importing(&mut tx, &image.id).await? {
            return Err(deleted());
        }
        let now = Timestamp::now();
        locations::insert_pending(&mut tx, &image.id, &location, Lease::until(), now).await?;
        tx.commit().await?;
        let lease = Lease::keep(svc, Kept::Location(location.id.clone()));
        match write_blob(store, &location.url, ready).await {
            Ok(()) => Ok((location, lease)),
            Err(e) => {
                let mut tx = svc.catalog.write().await?;
                locations::doom(&mut tx, &location.id).await?;
                tx.commit().await?;
                Err(match e {
                    stores::Error::Full(_) => Failure::Final(format!("Store {name} is full")),
                    e => Failure::Transient(format!("store {name}: {}", chain(&e))),
                })
            }
        }
    }

    /// Ends the job for good: the image is queued again, the task says why.
    pub(super) async fn fail(
        svc: &Arc<Service>,
        job: &jobs::Claimed,
        reason: &str,
    ) -> catalog::Result<()> {
        let mut tx = svc.catalog.write().await?;
        // First of all: the job is still ours, or nothing here may be touched.
        jobs::finish(&mut tx, job).await?;
        let Ok((this, id)) = Self::parse(job) else {
            return tx.commit().await;
        };
        let now = Timestamp::now();
        let expires = now.plus_seconds(svc.config.import.task_hours * 3600);
        let failure = TaskStatus::Failure;
        tasks::end(&mut tx, &this.task_id, failure, None, reason, now, expires).await?;
        locations::doom_pending(&mut tx, &id).await?;
        if is_importing(&mut tx, &id).await? {
            staged::delete(&mut tx, &id).await?;
            images::change(&mut tx, &id, Status::Importing, |image| {
                if let Ok(queued) = image.status.apply(Event::ImportFailed) {
                    image.status = queued;
                }
                image.forget_data();
                image.properties.insert(IMPORTING.into(), String::new());
                image
                    .properties
                    .insert(FAILED.into(), this.stores.join(","));
            })
            .await?;
        }
        // Before the image is queued again: what is staged next has the same name.
        remove(svc.staging.path(&id)).await;
        tx.commit().await?;
        remove(svc.staging.output(&id, job.fence)).await;
        ingest::sweep_doomed(svc).await;
        Ok(())
    }

    /// Gives the job back, to be tried again at `run_at` from its beginning.
    pub(super) async fn retry(
        svc: &Arc<Service>,
        job: &jobs::Claimed,
        error: &str,
        run_at: Timestamp,
    ) -> catalog::Result<()> {
        let mut tx = svc.catalog.write().await?;
        jobs::retry(&mut tx, job, error, run_at).await?;
        if let Ok((_, id)) = Self::parse(job) {
            locations::doom_pending(&mut tx, &id).await?;
        }
        tx.commit().await
    }

    /// Whether the image of the job still waits for it.
    pub(super) async fn is_wanted(svc: &Service, job: &jobs::Claimed) -> catalog::Result<bool> {
        let Ok((_, id)) = Self::parse(job) else {
            return Ok(true);
        };
        is_importing(&mut svc.catalog.read().await?, &id).await
    }
}

async fn is_importing(tx: &mut Tx, id: &ImageId) -> catalog::Result<bool> {
    let image = images::find(tx, id).await?;
    Ok(image.is_some_and(|image| image.status == Status::Importing))
}

/// Why a job ends whose image is gone.
pub(super) fn deleted() -> Failure {
    Failure::Final("Image was deleted while it was imported".into())
}

/// Property: the stores an import still has to write.
pub(crate) const IMPORTING: &str = "os_glance_importing_to_stores";
/// Property: the stores where it failed.
pub(crate) const FAILED: &str = "os_glance_failed_import";

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn transient(error: ingest::Error) -> Failure {
    Failure::Transient(chain(&error))
}

/// Links the file into the store where it can, else copies its bytes.
async fn write_blob(store: &Store, url: &str, ready: &Ready) -> stores::Result<()> {
    let blobs = store.blobs.clone();
    let (path, to) = (ready.path.clone(), url.to_owned());
    let linked = tokio::task::spawn_blocking(move || match blobs.local() {
        Some(local) => local.link(&path, &to),
        None => Ok(false),
    });
    if linked
        .await
        .map_err(|e| stores::Error::Io(std::io::Error::other(e)))??
    {
        return Ok(());
    }
    let file = Arc::new(std::fs::File::open(&ready.path)?);
    let mut writer = store.blobs.begin(url).await?;
    let mut body = stores::read_stream(file, 0..ready.size);
    while let Some(piece) = futures_util::StreamExt::next(&mut body).await {
        let written = match piece {
            Ok(piece) => writer.write([piece].into()).await,
            Err(e) => Err(e.into()),
        };
        if let Err(e) = written {
            writer.abort().await?;
            return Err(e);
        }
    }
    writer.commit().await
}

async fn digest(
    svc: &Arc<Service>,
    path: &std::path::Path,
    size: u64,
) -> Result<(u64, Hashes), Failure> {
    let file = std::fs::File::open(path)
        .map_err(|e| Failure::Transient(format!("opening the output: {e}")))?;
    let body = stores::read_stream(Arc::new(file), 0..size);
    ingest::digest(body, svc.config.import.hash_algo())
        .await
        .map_err(transient)
}

async fn remove(path: PathBuf) {
    let shown = path.display().to_string();
    let removed = tokio::task::spawn_blocking(move || Staging::remove(&path)).await;
    if !matches!(removed, Ok(Ok(()))) {
        tracing::warn!(
            path = shown,
            "a staged file could not be removed: the next start will"
        );
    }
}
