//! The jobs this process has, to be given back when it ends.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::catalog::jobs::{self, Claimed};
use crate::catalog::{self, Catalog};

/// Jobs by their ids.
#[derive(Default)]
pub struct Running(Mutex<HashMap<String, Claimed>>);

impl Running {
    fn jobs(&self) -> MutexGuard<'_, HashMap<String, Claimed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, job: &Claimed) {
        self.jobs().insert(job.id.clone(), job.clone());
    }

    pub(super) fn remove(&self, job: &Claimed) {
        // Unless it was lost, and claimed anew by ourselves.
        let mut jobs = self.jobs();
        if jobs
            .get(&job.id)
            .is_some_and(|held| held.fence == job.fence)
        {
            jobs.remove(&job.id);
        }
    }

    /// Gives everything back: whoever is left goes on with it, and need not wait for leases to end.
    pub(crate) async fn give_back(&self, catalog: &Catalog) {
        let jobs: Vec<_> = self.jobs().drain().map(|(_, job)| job).collect();
        if let Err(e) = give_back(catalog, &jobs).await {
            tracing::warn!(error = %e, "jobs under way stay ours until their leases end");
        }
    }
}

async fn give_back(catalog: &Catalog, jobs: &[Claimed]) -> catalog::Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let mut tx = catalog.write().await?;
    for job in jobs {
        jobs::give_back(&mut tx, job).await?;
    }
    tx.commit().await
}
