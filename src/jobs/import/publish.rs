//! Into the stores, then into the catalog (`image-states.md` 4.3 and 4.4).
//!
//! Where every store must succeed, or there is but one, all of it becomes fact in one transaction
//! at the end. Else each store that took the image is a fact at once: the first makes it active.

use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinSet;

use super::bytes::Bytes;
use super::{FAILED, IMPORTING, ImportJob, deleted, end_import};
use crate::catalog::{Tx, images, jobs, locations, staged, tasks};
use crate::domain::{Event, Image, ImageId, Location, Status, TaskStatus, Timestamp};
use crate::ingest::lease::{Kept, Lease};
use crate::jobs::meter::{Meter, Phase};
use crate::jobs::runner::{Failure, Why, chain};
use crate::service::Service;
use crate::stores::{self, Store};
use crate::telemetry::metrics::Direction;

/// Bytes that lie in a store and are no fact yet.
pub(super) struct Stored {
    pub(super) location: Location,
    _lease: Lease,
}

impl Stored {
    /// Where it lies.
    pub(super) fn url(&self) -> &str {
        &self.location.url
    }
}

impl ImportJob {
    pub(super) async fn publish(
        &self,
        svc: &Arc<Service>,
        job: &jobs::Claimed,
        image: &Arc<Image>,
        bytes: &Arc<Bytes>,
        meter: &Arc<Meter>,
    ) -> Result<(), Failure> {
        let stores = self.missing(image);
        let all = bytes.size().saturating_mul(stores.len() as u64);
        meter.begin(Phase::Storing, Some(all), Some(all));
        let together = self.all_stores_must_succeed || self.stores.len() == 1;
        let at_once = match **bytes {
            Bytes::File(_) => svc.config.import.parallel_stores.max(1),
            Bytes::Copy(_) => 1,
        };
        let mut left = stores.clone();
        let mut done = Vec::new();
        let mut any = stores.len() < self.stores.len() && image.status != Status::Importing;
        let mut broken = None;
        let mut waiting = stores.iter();
        // Each on its own: one that holds the catalog must not wait for us, who wait for that.
        let mut writing = JoinSet::new();
        loop {
            // After a failure nothing more is begun, and what was begun is waited for: nothing
            // writes on behind our back.
            while broken.is_none() && writing.len() < at_once {
                let Some(name) = waiting.next().cloned() else {
                    break;
                };
                let (this, svc) = (self.clone(), svc.clone());
                let (image, bytes) = (image.clone(), bytes.clone());
                let meter = meter.clone();
                writing.spawn(async move {
                    let put = this.put(&svc, &image, &name, &bytes, &meter).await;
                    (name, put)
                });
            }
            let (name, put) = match writing.join_next().await {
                Some(Ok(done)) => done,
                Some(Err(e)) => return Err(Failure::Transient(e.to_string().into())),
                None => break,
            };
            left.retain(|s| *s != name);
            let noted = match put {
                Ok(stored) if together => {
                    done.push(stored);
                    self.note(svc, &image.id, &left, None).await
                }
                Ok(stored) => {
                    any = true;
                    self.add(svc, &image.id, stored, bytes, &left).await
                }
                Err(Failure::Final(why) | Failure::Transient(why)) if !together => {
                    tracing::warn!(image.id = %image.id, store.id = name, error = why.text, "a store of an import failed");
                    self.note(svc, &image.id, &left, Some(&name)).await
                }
                Err(e) => Err(e.in_store(&name)),
            };
            if let Err(e) = noted {
                broken.get_or_insert(e);
            }
        }
        if let Some(e) = broken {
            return Err(e);
        }
        if done.is_empty() && !any && !stores.is_empty() {
            return Err(Failure::Final("No store took the image".into()));
        }
        // The bytes are in the stores: whoever sees the end of it sees nothing else of them.
        self.tidy(svc, job).await;
        self.finish(svc, job, &image.id, done, bytes).await
    }

    /// Shows how far the import is.
    async fn note(
        &self,
        svc: &Arc<Service>,
        image: &ImageId,
        left: &[String],
        failed: Option<&str>,
    ) -> Result<(), Failure> {
        // The end of it is told by the last transaction.
        if left.is_empty() && failed.is_none() {
            return Ok(());
        }
        let mut tx = svc.catalog.write().await?;
        self.change(&mut tx, image, |image| {
            show_progress(image, left);
            if let Some(store) = failed {
                let all = image.properties.entry(FAILED.into()).or_default();
                if !all.is_empty() {
                    all.push(',');
                }
                all.push_str(store);
            }
        })
        .await?;
        Ok(tx.commit().await?)
    }

    /// Makes bytes in one store a fact while others are still written.
    async fn add(
        &self,
        svc: &Arc<Service>,
        image: &ImageId,
        stored: Stored,
        bytes: &Bytes,
        left: &[String],
    ) -> Result<(), Failure> {
        let mut tx = svc.catalog.write().await?;
        let image = self
            .change(&mut tx, image, |image| {
                self.activate(svc, image, bytes);
                image.locations.push(stored.location.clone());
                show_progress(image, left);
            })
            .await?;
        within_quota(svc, &mut tx, &image, 1).await?;
        locations::activate(&mut tx, &stored.location.id).await?;
        Ok(tx.commit().await?)
    }

    /// The last transaction: what is not a fact yet becomes one, and job and task end.
    pub(super) async fn finish(
        &self,
        svc: &Arc<Service>,
        job: &jobs::Claimed,
        id: &ImageId,
        done: Vec<Stored>,
        bytes: &Bytes,
    ) -> Result<(), Failure> {
        let now = Timestamp::now();
        let mut tx = svc.catalog.write().await?;
        // The image's row before its locations', as everybody locks them.
        let image = self
            .change(&mut tx, id, |image| {
                self.activate(svc, image, bytes);
                image
                    .locations
                    .extend(done.iter().map(|s| s.location.clone()));
                let failed = image.properties.get(FAILED).cloned().unwrap_or_default();
                end_import(image, failed);
            })
            .await?;
        within_quota(svc, &mut tx, &image, done.len()).await?;
        for stored in &done {
            locations::activate(&mut tx, &stored.location.id).await?;
        }
        staged::delete(&mut tx, id).await?;
        let message = format!("Copied {} MiB", image.size.unwrap_or(0) >> 20);
        let result = json!({ "image_id": id.as_str() }).to_string();
        let expires = now.plus_seconds(svc.config.import.task_hours * 3600);
        tasks::end(
            &mut tx,
            &self.task_id,
            TaskStatus::Success,
            Some(result),
            &message,
            now,
            expires,
        )
        .await?;
        jobs::finish(&mut tx, job).await?;
        tx.commit().await?;
        tracing::info!(image.id = %id, size_bytes = image.size, "image {id} is imported");
        Ok(())
    }

    /// Makes an importing image active, with what its bytes told. What is active already stays as
    /// it is.
    pub(super) fn activate(&self, svc: &Service, image: &mut Image, bytes: &Bytes) {
        let (Bytes::File(ready), Ok(active)) = (bytes, image.status.apply(Event::ImportDone))
        else {
            return;
        };
        image.status = active;
        image.size = Some(ready.size);
        image.virtual_size = ready.virtual_size;
        image.hashes = Some(ready.hashes.clone());
        if let Some(format) = ready.converted_to {
            image.disk_format = Some(format.into());
            image.container_format = Some("bare".into());
        }
        if self.inject {
            image.properties.extend(svc.config.import.inject.clone());
        }
    }

    /// Changes the image, if it still waits for this job.
    pub(super) async fn change(
        &self,
        tx: &mut Tx,
        id: &ImageId,
        change: impl FnOnce(&mut Image),
    ) -> Result<Image, Failure> {
        let found = images::find(tx, id).await?;
        let image = found.filter(|i| self.is_ours(i)).ok_or_else(deleted)?;
        Ok(images::change(tx, id, image.status, change).await?)
    }

    /// Notes that bytes are about to be written into one store.
    pub(super) async fn intend<'s>(
        &self,
        svc: &'s Arc<Service>,
        image: &Image,
        name: &str,
    ) -> Result<(&'s Store, Stored), Failure> {
        let store = svc
            .stores
            .get(name)
            .filter(|s| !s.config.read_only)
            .ok_or_else(|| {
                Failure::Final(format!("Store for identifier {name} not found").into())
            })?;
        let location = svc.new_location(&image.id, store);
        let mut tx = svc.catalog.write().await?;
        let found = images::find(&mut tx, &image.id).await?;
        if !found.is_some_and(|i| self.is_ours(&i)) {
            return Err(deleted());
        }
        let now = Timestamp::now();
        let until = Lease::until(svc, &mut tx).await?;
        locations::insert_pending(&mut tx, &image.id, &location, until, now).await?;
        tx.commit().await?;
        let lease = Lease::keep(svc, Kept::Location(location.id.clone()));
        let intent = Stored {
            location,
            _lease: lease,
        };
        Ok((store, intent))
    }

    /// Puts the bytes into one store, with its pending row written first.
    pub(super) async fn put(
        &self,
        svc: &Arc<Service>,
        image: &Image,
        name: &str,
        bytes: &Bytes,
        meter: &Arc<Meter>,
    ) -> Result<Stored, Failure> {
        let (store, intent) = self.intend(svc, image, name).await?;
        match bytes.write(svc, store, intent.url(), meter).await {
            Ok(()) => {
                svc.metrics.store(name, Direction::In, bytes.size());
                Ok(intent)
            }
            Err(e) => {
                let mut tx = svc.catalog.write().await?;
                locations::doom(&mut tx, &intent.location.id).await?;
                tx.commit().await?;
                Err(e)
            }
        }
    }
}

fn show_progress(image: &mut Image, left: &[String]) {
    image.properties.insert(IMPORTING.into(), left.join(","));
}

/// A store's failure, as an import tells it.
pub(super) fn of_store(name: &str, error: &stores::Error) -> Failure {
    match error {
        stores::Error::Full(_) => {
            Failure::Final(Why::of_store(name, format!("Store {name} is full")))
        }
        e => Failure::Transient(Why::of_store(name, format!("store {name}: {}", chain(e)))),
    }
}

/// Whether the owner of an image may hold it in so many more stores.
pub(super) async fn within_quota(
    svc: &Service,
    tx: &mut Tx,
    image: &Image,
    stores: usize,
) -> Result<(), Failure> {
    let bytes = image.size.unwrap_or(0).saturating_mul(stores as u64);
    Ok(svc.quotas.fits(tx, image.owner.as_deref(), bytes).await?)
}
