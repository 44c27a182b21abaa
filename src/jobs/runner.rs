//! Claims jobs and runs them, renewing the lease meanwhile. No transaction is held while a job
//! runs; its fencing number proves at the end that it still was ours.

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{self, jobs};
use crate::domain::Timestamp;
use crate::ingest::LEASE_SECONDS;
use crate::service::Service;

use super::ImportJob;
use super::import::deleted;

/// How often an idle worker looks by itself.
const IDLE: Duration = Duration::from_secs(5);
/// How often a lease is renewed and the image looked at: a deleted image stops its job this soon.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Times a job is begun before it is given up.
const ATTEMPTS: i64 = 5;

/// How a job ended that was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// It never can be: the reason is for the client.
    Final(String),
    /// It may be, later.
    Transient(String),
    /// Somebody else has it, or its image is gone.
    Lost,
}

impl From<catalog::Error> for Failure {
    fn from(error: catalog::Error) -> Self {
        match error {
            catalog::Error::Conflict(_) => Self::Lost,
            other => Self::Transient(chain(&other)),
        }
    }
}

/// An error with its causes, for logs.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}

/// A worker: runs jobs for ever.
pub async fn work(svc: Arc<Service>, n: usize) {
    loop {
        let claimed = async {
            let now = Timestamp::now();
            let mut tx = svc.catalog.write().await?;
            let job = jobs::claim(&mut tx, now, now.plus_seconds(LEASE_SECONDS)).await?;
            tx.commit().await?;
            Ok::<_, catalog::Error>(job)
        };
        match claimed.await {
            Ok(Some(job)) => run(&svc, job).await,
            Ok(None) => {
                let _ = tokio::time::timeout(IDLE, svc.wake.notified()).await;
            }
            Err(e) => {
                tracing::warn!(worker = n, error = %e, "the queue cannot be reached");
                tokio::time::sleep(IDLE).await;
            }
        }
    }
}

async fn run(svc: &Arc<Service>, job: jobs::Claimed) {
    // One wake-up may stand for several jobs: pass it on before getting busy.
    svc.wake.notify_one();
    let result = if job.attempts > ATTEMPTS {
        // It took its worker down with it, time and again.
        Err(Failure::Final(format!(
            "given up after {ATTEMPTS} attempts"
        )))
    } else {
        tokio::select! {
            result = dispatch(svc, &job) => result,
            stopped = keep(svc, &job) => Err(stopped),
        }
    };
    let ended = match result {
        Ok(()) => Ok(()),
        Err(Failure::Lost) => {
            tracing::info!(job.id, "job {} is no longer ours", job.id);
            Ok(())
        }
        Err(Failure::Transient(e)) if job.attempts < ATTEMPTS => {
            tracing::warn!(
                job.id,
                error = e,
                "job {} failed and will be tried again",
                job.id
            );
            let run_at = Timestamp::now().plus_seconds(1 << job.attempts.clamp(0, 10));
            ImportJob::retry(svc, &job, &e, run_at).await
        }
        Err(Failure::Transient(e) | Failure::Final(e)) => {
            tracing::warn!(job.id, error = e, "job {} failed", job.id);
            ImportJob::fail(svc, &job, &e).await
        }
    };
    if let Err(e) = ended {
        tracing::error!(job.id, error = %e, "the end of job {} could not be recorded", job.id);
    }
}

async fn dispatch(svc: &Arc<Service>, job: &jobs::Claimed) -> Result<(), Failure> {
    match job.kind.as_str() {
        ImportJob::KIND => ImportJob::run(svc, job).await,
        other => Err(Failure::Final(format!("no job is called {other:?}"))),
    }
}

/// Renews the lease until it is lost, or the job no longer wanted.
async fn keep(svc: &Arc<Service>, job: &jobs::Claimed) -> Failure {
    let mut tick = tokio::time::interval(HEARTBEAT);
    tick.tick().await;
    loop {
        tick.tick().await;
        match beat(svc, job).await {
            Ok(true) => {}
            Ok(false) => return deleted(),
            Err(catalog::Error::Conflict(_)) => return Failure::Lost,
            Err(e) => tracing::warn!(job.id, error = %e, "a heartbeat was missed"),
        }
    }
}

/// Renews the lease; answers whether the job is still wanted.
async fn beat(svc: &Arc<Service>, job: &jobs::Claimed) -> catalog::Result<bool> {
    let mut tx = svc.catalog.write().await?;
    let until = Timestamp::now().plus_seconds(LEASE_SECONDS);
    jobs::heartbeat(&mut tx, job, until).await?;
    tx.commit().await?;
    ImportJob::is_wanted(svc, job).await
}
