//! The import job: get the bytes, judge them, convert them where that is asked for, put them into
//! the stores, publish.
//!
//! Every step can be done again: what a broken run left behind is named by its own fencing number
//! or location, and swept. What is fetched is fetched again after a crash; what was staged stays.
//! Once a first store has an image it is active, and whoever goes on copies from there.

mod bytes;
mod digests;
mod linked;
mod pass;
mod publish;
mod remote;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::meter::Meter;
use super::runner::{Failure, Why};
use crate::catalog::{self, images, jobs, locations, staged, tasks};
use crate::convert::Form;
use crate::domain::{Event, Expected, Image, ImageId, Status, TaskStatus, Timestamp};
use crate::ingest::{self, Staging};
use crate::service::Service;
use crate::telemetry::Stage;
use bytes::Bytes;

pub(super) use linked::sweep_sets;

/// An accepted import.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImportJob {
    /// The image.
    pub image_id: String,
    /// The task that clients watch.
    pub task_id: String,
    /// Where the bytes come from.
    #[serde(default)]
    pub from: Source,
    /// The stores to write to.
    pub stores: Vec<String>,
    /// Whether one failing store fails it all.
    pub all_stores_must_succeed: bool,
    /// Whether the image gets the properties of `[import] inject`.
    #[serde(default)]
    pub inject: bool,
    /// The form to store it in, where its caller asked for one.
    #[serde(default)]
    pub convert: Option<Form>,
    /// The digest the data must have.
    #[serde(default)]
    pub expected: Option<Expected>,
    /// Whether each disk of an archive becomes an image.
    #[serde(default)]
    pub appliance: bool,
    /// Whether the image was made for this import, and goes with it when it fails.
    #[serde(default)]
    pub owns_image: bool,
}

/// Where the bytes of an import come from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The staging area.
    #[default]
    Staged,
    /// A URL, which passed the rules when it was asked for and has to again.
    Web {
        /// The URL.
        uri: String,
    },
    /// An image of another image service.
    Glance {
        /// That service's URL, without a slash at its end; absent for a region nobody knows.
        endpoint: Option<String>,
        /// Its id there.
        image: String,
        /// The caller's token, which reads it.
        token: Token,
    },
    /// The image's own locations: it only gets more of them.
    Copy,
    /// Another image of ours, as it is stored.
    Image {
        /// Its id.
        id: String,
    },
    /// A file in a folder of `[batches] source_dirs`.
    File {
        /// Its path.
        path: String,
    },
}

/// A token, never shown. It lies in the job until that ends.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Property: the stores an import still has to write.
pub(crate) const IMPORTING: &str = "os_glance_importing_to_stores";
/// Property: the stores where it failed.
pub(crate) const FAILED: &str = "os_glance_failed_import";
/// Property: the task that holds the right to import into the image.
pub(crate) const LOCK: &str = "os_glance_import_task";

impl ImportJob {
    /// Its name in the queue.
    pub const KIND: &'static str = "import";

    /// The form in which it is stored.
    fn form(&self, svc: &Service) -> Result<Option<Form>, Failure> {
        Form::of(&svc.config, &self.stores, self.convert.as_ref())
            .map_err(|sentence| Failure::Final(sentence.into()))
    }

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
        let _stage = svc.metrics.stage(Stage::Import);
        let id = self.id()?;
        let mut tx = svc.catalog.write().await?;
        let image = images::find(&mut tx, &id).await?;
        let now = Timestamp::now();
        tasks::progress(&mut tx, &self.task_id, TaskStatus::Processing, "", now).await?;
        tx.commit().await?;
        let Some(image) = image.filter(|i| self.is_ours(i)) else {
            return Err(deleted());
        };

        if self.appliance && image.status == Status::Importing {
            let scratch = Scratch::of(svc, &id, job);
            self.run_linked(svc, job, &image, &scratch, meter).await?;
            remove(svc.staging.path(&id)).await;
            return Ok(());
        }
        let bytes = match image.status {
            Status::Importing => {
                let origin = self.origin(svc, &image).await?;
                if let Some(origin) = &origin
                    && self.passes(svc, &origin.image)?
                {
                    return self.pass(svc, job, origin, meter).await;
                }
                let scratch = Scratch::of(svc, &id, job);
                let ready = self.prepare(svc, &image, origin.as_ref(), &scratch, meter);
                Bytes::File(ready.await?)
            }
            _ => Bytes::Copy(image.clone()),
        };
        let (image, bytes) = (Arc::new(image), Arc::new(bytes));
        self.publish(svc, job, &image, &bytes, meter).await?;
        remove(svc.staging.path(&id)).await;
        Ok(())
    }

    /// Removes the files of a run, however it ended.
    pub(super) async fn tidy(&self, svc: &Service, job: &jobs::Claimed) {
        if let Ok(id) = self.id() {
            Scratch::of(svc, &id, job).remove().await;
        }
    }

    /// Whether the image still waits for this job.
    fn is_ours(&self, image: &Image) -> bool {
        let in_progress = matches!(
            image.status,
            Status::Importing | Status::Active | Status::Deactivated
        );
        let lock = image.properties.get(LOCK);
        in_progress && lock.is_none_or(|task| *task == self.task_id)
    }

    /// The stores that have neither taken the image yet nor failed to.
    fn missing(&self, image: &Image) -> Vec<String> {
        let failed = image.properties.get(FAILED).map_or("", String::as_str);
        let has = |store: &str| {
            image.locations.iter().any(|l| l.store == store)
                || failed.split(',').any(|f| f == store)
        };
        self.stores.iter().filter(|s| !has(s)).cloned().collect()
    }

    /// Ends the job for good: an image without data is queued again, the task says why.
    pub(super) async fn fail(
        &self,
        svc: &Arc<Service>,
        job: &jobs::Claimed,
        why: &Why,
    ) -> catalog::Result<()> {
        let mut tx = svc.catalog.write().await?;
        let Ok(id) = self.id() else {
            jobs::finish(&mut tx, job).await?;
            return tx.commit().await;
        };
        // The image's row is locked before what belongs to it, as everybody does.
        let image = images::find(&mut tx, &id).await?;
        // The job is still ours, or nothing here may be touched.
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
        locations::doom_pending(&mut tx, &id).await?;
        self.abandon_set(&mut tx, &id).await?;
        if let Some(image) = image.filter(|i| self.is_ours(i)) {
            let failed = match &why.store {
                Some(store) => vec![store.clone()],
                None => self.missing(&image),
            };
            if image.status == Status::Importing {
                staged::delete(&mut tx, &id).await?;
            }
            if self.owns_image && image.status == Status::Importing {
                linked::abandon(&mut tx, &image).await?;
            } else {
                images::change(&mut tx, &id, image.status, |image| {
                    if let Ok(queued) = image.status.apply(Event::ImportFailed) {
                        image.status = queued;
                        image.forget_data();
                    }
                    let before = image.properties.get(FAILED).cloned().unwrap_or_default();
                    let failed = before.split(',').chain(failed.iter().map(String::as_str));
                    let failed: Vec<_> = failed.filter(|s| !s.is_empty()).collect();
                    end_import(image, failed.join(","));
                })
                .await?;
            }
        }
        // Before the image is queued again: what is staged next has the same name.
        remove(svc.staging.path(&id)).await;
        tx.commit().await?;
        ingest::sweep_doomed(svc).await;
        Ok(())
    }

    /// Gives up what a run left, before the job is tried again from its beginning. Locks the image:
    /// nothing that belongs to it may be changed in the transaction before.
    pub(super) async fn reset(&self, tx: &mut catalog::Tx) -> catalog::Result<()> {
        match self.id() {
            Ok(id) => {
                images::find(tx, &id).await?;
                locations::doom_pending(tx, &id).await?;
                self.reset_set(tx, &id).await
            }
            Err(_) => Ok(()),
        }
    }

    /// Whether the image of the job still waits for it.
    pub(super) async fn is_wanted(&self, svc: &Service) -> catalog::Result<bool> {
        let Ok(id) = self.id() else {
            return Ok(true);
        };
        let image = images::find(&mut svc.catalog.read().await?, &id).await?;
        Ok(image.is_some_and(|image| self.is_ours(&image)))
    }
}

/// Notes in an image's properties that an import has ended, and where it failed.
fn end_import(image: &mut Image, failed: String) {
    image.properties.remove(LOCK);
    image.properties.insert(IMPORTING.into(), String::new());
    image.properties.insert(FAILED.into(), failed);
}

/// Why a job ends whose image is gone.
pub(super) fn deleted() -> Failure {
    Failure::Final("Image was deleted while it was imported".into())
}

/// The files of one run, named for its fencing number.
struct Scratch {
    /// What came over the net.
    fetched: PathBuf,
    /// The same without its wrapper.
    unpacked: PathBuf,
    /// What a conversion wrote.
    output: PathBuf,
}

impl Scratch {
    fn of(svc: &Service, id: &ImageId, job: &jobs::Claimed) -> Self {
        Self {
            fetched: svc.staging.fetched(id, job.fence),
            unpacked: svc.staging.unpacked(id, job.fence),
            output: svc.staging.output(id, job.fence),
        }
    }

    async fn remove(self) {
        // A download that was stopped still has its temporary name.
        let part = self.fetched.with_added_extension("part");
        for path in [part, self.fetched, self.unpacked, self.output] {
            remove(path).await;
        }
    }
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
