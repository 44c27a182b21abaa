//! An archive that becomes several images, one for each of its disks.
//!
//! The images behind the first are made when the archive has been judged, importing like it and
//! holding its task's right; then each disk is taken out, converted where that is asked for, and
//! put into the stores. One transaction makes all of them active, or none: what fails, or is
//! deleted meanwhile, takes them all with it.

use std::sync::Arc;

use serde_json::json;

use super::bytes::{Bytes, Ready, convert, source};
use super::publish::{Stored, within_quota};
use super::{FAILED, ImportJob, LOCK, Scratch, deleted, end_import};
use crate::appliance::{self, APPLIANCE, Plan};
use crate::catalog::{self, Tx, appliances, images, jobs, locations, staged, tasks};
use crate::convert::part;
use crate::domain::{Image, ImageId, Status, TaskStatus, Timestamp};
use crate::ingest::{Staging, verdict};
use crate::jobs::meter::Meter;
use crate::jobs::runner::Failure;
use crate::quota::Step;
use crate::service::Service;

/// An image of the set, whose bytes lie in the stores and are no fact yet.
struct Ripe {
    image: Image,
    bytes: Bytes,
    stored: Vec<Stored>,
}

impl ImportJob {
    /// Imports the archive that `first` was asked for as a set.
    pub(super) async fn run_linked(
        &self,
        svc: &Arc<Service>,
        job: &jobs::Claimed,
        first: &Image,
        scratch: &Scratch,
        meter: &Arc<Meter>,
    ) -> Result<(), Failure> {
        let origin = self.origin(svc, first).await?;
        let obtained = self.obtain(svc, first, origin.as_ref(), scratch, meter);
        let (raw, found) = obtained.await?;
        let first = origin.map_or_else(|| first.clone(), |origin| origin.image);
        let form = self.form(svc)?;
        let refused = |sentence: String| Failure::Final(sentence.into());
        let disk = first.disk_format.as_deref().unwrap_or_default();
        verdict::judge(&found, disk, "ova", &svc.config.formats).map_err(refused)?;
        let source = source(&raw.path)?;
        let planned = tokio::task::spawn_blocking(move || appliance::plan(&source, &found)).await;
        let plan = planned
            .map_err(|e| Failure::Transient(e.to_string().into()))?
            .map_err(refused)?;
        let others = plan.others(&first, &self.task_id, Timestamp::now());
        let set: Vec<_> = [first].into_iter().chain(others).collect();
        self.allow_set(svc, &set).await?;
        self.begin_set(svc, &set).await?;
        let mut ripe = Vec::with_capacity(set.len());
        for (image, of) in set.into_iter().zip(&plan.parts) {
            let asked = part(&of.disk, form.as_ref(), &svc.config).map_err(refused);
            let (request, target) = asked?;
            let to = &scratch.output;
            let ready = convert(svc, &raw, &request, target, to, meter).await?;
            ripe.push(self.put_all(svc, image, ready, meter).await?);
            // The next is not to be written into a blob that this name is a link of.
            let path = to.clone();
            let removed = tokio::task::spawn_blocking(move || Staging::remove(&path)).await;
            let removed = removed.map_err(std::io::Error::other).flatten();
            removed.map_err(|e| Failure::Transient(format!("removing an output: {e}").into()))?;
        }
        self.tidy(svc, job).await;
        self.finish_set(svc, job, &plan, ripe).await
    }

    /// Whether the project may have the images that this run adds.
    async fn allow_set(&self, svc: &Service, set: &[Image]) -> Result<(), Failure> {
        let mut tx = svc.catalog.read().await?;
        let mut added = 0;
        for image in set {
            added += u64::from(images::find(&mut tx, &image.id).await?.is_none());
        }
        drop(tx);
        let owner = set.first().and_then(|image| image.owner.as_deref());
        let step = Step::Create(added);
        Ok(svc.quotas.check(&svc.catalog, owner, step).await?)
    }

    /// Makes the images behind the first, unless an earlier run of the job has.
    async fn begin_set(&self, svc: &Service, set: &[Image]) -> Result<(), Failure> {
        let mut tx = svc.catalog.write().await?;
        for (order, image) in set.iter().enumerate() {
            match images::find(&mut tx, &image.id).await? {
                Some(found) if self.is_ours(&found) => {}
                None if order > 0 => images::insert(&mut tx, image).await.map_err(|e| match e {
                    catalog::Error::Conflict(_) => deleted(),
                    other => other.into(),
                })?,
                _ => return Err(deleted()),
            }
        }
        Ok(tx.commit().await?)
    }

    /// Puts one part into every store.
    async fn put_all(
        &self,
        svc: &Arc<Service>,
        image: Image,
        ready: Ready,
        meter: &Arc<Meter>,
    ) -> Result<Ripe, Failure> {
        let bytes = Bytes::File(ready);
        let mut stored = Vec::with_capacity(self.stores.len());
        for name in &self.stores {
            let put = self.put(svc, &image, name, &bytes, meter).await;
            stored.push(put.map_err(|e| e.in_store(name))?);
        }
        Ok(Ripe {
            image,
            bytes,
            stored,
        })
    }

    /// The last transaction: all of it becomes a fact.
    async fn finish_set(
        &self,
        svc: &Arc<Service>,
        job: &jobs::Claimed,
        plan: &Plan,
        set: Vec<Ripe>,
    ) -> Result<(), Failure> {
        let limit = usize::try_from(svc.config.quota.properties).unwrap_or(usize::MAX);
        let first = set.first().map(|ripe| ripe.image.id.clone());
        let first = first.ok_or_else(deleted)?;
        let mut ids: Vec<&str> = Vec::with_capacity(set.len());
        let now = Timestamp::now();
        let mut tx = svc.catalog.write().await?;
        for (order, ripe) in set.iter().enumerate() {
            let image = self
                .change(&mut tx, &ripe.image.id, |image| {
                    self.activate(svc, image, &ripe.bytes);
                    let stored = ripe.stored.iter();
                    image.locations.extend(stored.map(|s| s.location.clone()));
                    plan.describe(order, &first, image, limit);
                    let failed = image.properties.get(FAILED).cloned().unwrap_or_default();
                    end_import(image, failed);
                })
                .await?;
            within_quota(svc, &mut tx, &image, ripe.stored.len()).await?;
            for stored in &ripe.stored {
                locations::activate(&mut tx, &stored.location.id).await?;
            }
            ids.push(ripe.image.id.as_str());
        }
        staged::delete(&mut tx, &first).await?;
        let message = format!("Made {} images", ids.len());
        let result =
            json!({"image_id": first.as_str(), "appliance": first.as_str(), "images": ids});
        let expires = now.plus_seconds(svc.config.import.task_hours * 3600);
        let success = TaskStatus::Success;
        let result = Some(result.to_string());
        tasks::end(
            &mut tx,
            &self.task_id,
            success,
            result,
            &message,
            now,
            expires,
        )
        .await?;
        jobs::finish(&mut tx, job).await?;
        tx.commit().await?;
        tracing::info!(image.id = %first, images = ids.len(), "appliance {first} is imported");
        Ok(())
    }

    /// Ends the images behind the first: nothing of them is left.
    pub(super) async fn abandon_set(&self, tx: &mut Tx, first: &ImageId) -> catalog::Result<()> {
        for image in self.others(tx, first).await? {
            abandon(tx, &image).await?;
        }
        Ok(())
    }

    /// Gives up what was written for the images behind the first.
    pub(super) async fn reset_set(&self, tx: &mut Tx, first: &ImageId) -> catalog::Result<()> {
        for image in self.others(tx, first).await? {
            locations::doom_pending(tx, &image.id).await?;
        }
        Ok(())
    }

    async fn others(&self, tx: &mut Tx, first: &ImageId) -> catalog::Result<Vec<Image>> {
        if !self.appliance {
            return Ok(Vec::new());
        }
        let mut found = appliances::images_of(tx, first).await?;
        found.retain(|image| {
            let is_held = image.properties.get(LOCK) == Some(&self.task_id);
            is_held && image.id != *first && image.status == Status::Importing
        });
        Ok(found)
    }
}

/// Deletes an image that was importing.
pub(super) async fn abandon(tx: &mut Tx, image: &Image) -> catalog::Result<()> {
    images::delete(tx, image, Status::Deleted, Timestamp::now()).await?;
    locations::doom_all(tx, &image.id).await
}

/// Ends images that belong to a set whose task is over: whoever worked on it lost it and could not.
///
/// # Errors
/// When the catalog fails.
pub(crate) async fn sweep_sets(svc: &Service) -> catalog::Result<()> {
    let mut tx = svc.catalog.read().await?;
    let mut members = Vec::new();
    for id in images::ids_with_status(&mut tx, Status::Importing).await? {
        let image = images::find(&mut tx, &id).await?;
        let set = image.and_then(|mut image| image.properties.remove(APPLIANCE));
        if set.is_some_and(|set| set != id.as_str()) {
            members.push(id);
        }
    }
    drop(tx);
    for id in members {
        let mut tx = svc.catalog.write().await?;
        let Some(image) = images::find(&mut tx, &id).await? else {
            continue;
        };
        let (set, task) = (image.properties.get(APPLIANCE), image.properties.get(LOCK));
        let (Some(set), Some(task)) = (set, task) else {
            continue;
        };
        if set == id.as_str() || image.status != Status::Importing {
            continue;
        }
        let task = tasks::find(&mut tx, task).await?;
        if task.is_none_or(|task| matches!(task.status, TaskStatus::Success | TaskStatus::Failure))
        {
            abandon(&mut tx, &image).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}
