//! Claims jobs and runs them, renewing the lease meanwhile. No transaction is held while a job
//! runs; its fencing number proves at the end that it still was ours.

use std::sync::Arc;
use std::time::Duration;

use tracing::{Instrument, Span};

use crate::catalog::{self, jobs, tasks};
use crate::domain::TaskStatus;
use crate::ingest::lease::Lease;
use crate::quota;
use crate::service::Service;
use crate::telemetry::trace;

use super::import::deleted;
use super::locate::{HashJob, LocateJob};
use super::meter::Meter;
use super::{ImportJob, payload};

/// How often an idle worker looks by itself.
const IDLE: Duration = Duration::from_secs(5);
/// Times a lease is renewed, and the image looked at, while it lasts: a deleted image stops its job
/// this soon.
const HEARTBEATS: u32 = 12;
/// Times a job is begun before it is given up.
const ATTEMPTS: i64 = 5;

/// How a job ended that was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// It never can be: the reason is for the client.
    Final(Why),
    /// It may be, later.
    Transient(Why),
    /// Somebody else has it, or its image is gone.
    Lost,
}

/// Why a job was not done.
#[derive(Debug)]
pub(super) struct Why {
    /// A sentence.
    pub(super) text: String,
    /// The store that failed, where one did.
    pub(super) store: Option<String>,
}

impl Why {
    pub(super) fn of_store(store: &str, text: String) -> Self {
        Self {
            text,
            store: Some(store.to_owned()),
        }
    }
}

impl From<String> for Why {
    fn from(text: String) -> Self {
        Self { text, store: None }
    }
}

impl From<&str> for Why {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Failure {
    /// The same, of this store.
    pub(super) fn in_store(self, name: &str) -> Self {
        let of = |why: Why| Why::of_store(name, why.text);
        match self {
            Self::Final(why) => Self::Final(of(why)),
            Self::Transient(why) => Self::Transient(of(why)),
            Self::Lost => Self::Lost,
        }
    }
}

impl From<catalog::Error> for Failure {
    fn from(error: catalog::Error) -> Self {
        match error {
            catalog::Error::Conflict(_) => Self::Lost,
            other => Self::Transient(chain(&other).into()),
        }
    }
}

impl From<quota::Error> for Failure {
    fn from(error: quota::Error) -> Self {
        match error {
            quota::Error::Exceeded(exceeded) => Self::Final(exceeded.0.into()),
            quota::Error::Keystone(trouble) => {
                tracing::error!("no limit can be checked: {}", trouble.story());
                Self::Transient("The limits of the project are not known".into())
            }
            quota::Error::Catalog(error) => error.into(),
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
            let mut tx = svc.catalog.write().await?;
            let now = tx.clock().await?;
            let until = Lease::until(&svc, &mut tx).await?;
            let job = jobs::claim(&mut tx, svc.host.as_deref(), now, until).await?;
            tx.commit().await?;
            job.iter().for_each(|job| svc.running.add(job));
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
    let ended = match Work::of(&job) {
        Ok(work) => {
            let origin = payload::origin(&job.payload);
            let span = trace::job(&job.kind, &job.id, job.attempts, origin.as_deref());
            attempt(svc, &job, &work, &span)
                .instrument(span.clone())
                .await
        }
        Err(e) => {
            tracing::error!(
                job.id,
                error = e,
                "job {} cannot be read and is dropped",
                job.id
            );
            drop_job(svc, &job).await
        }
    };
    if let Err(e) = ended {
        tracing::error!(job.id, error = %e, "the end of job {} could not be recorded", job.id);
    }
    svc.running.remove(&job);
    svc.told.notify_waiters();
}

async fn attempt(
    svc: &Arc<Service>,
    job: &jobs::Claimed,
    work: &Work,
    span: &Span,
) -> catalog::Result<()> {
    let result = if job.attempts > ATTEMPTS {
        // It took its worker down with it, time and again.
        let sentence = format!("given up after {ATTEMPTS} attempts");
        Err(Failure::Final(sentence.into()))
    } else if job.is_cancelled {
        Err(cancelled())
    } else {
        let meter = Arc::new(Meter::default());
        tokio::select! {
            result = work.run(svc, job, &meter) => result,
            stopped = keep(svc, job, work) => Err(stopped),
            stopped = meter.tell(svc, &job.id) => Err(stopped),
        }
    };
    work.tidy(svc, job).await;
    match result {
        Ok(()) => Ok(()),
        Err(Failure::Lost) => {
            tracing::info!(job.id, "job {} is no longer ours", job.id);
            trace::job_failed(span, "lost");
            Ok(())
        }
        Err(Failure::Transient(e)) if job.attempts < ATTEMPTS => {
            trace::job_failed(span, "transient");
            tracing::warn!(
                job.id,
                error = e.text,
                "job {} failed and will be tried again",
                job.id
            );
            let mut tx = svc.catalog.write().await?;
            let wait = 1 << job.attempts.clamp(0, 10);
            let now = tx.clock().await?;
            let run_at = now.plus_seconds(wait);
            let sentence = format!("{}: tried again in {wait} s", e.text);
            let processing = TaskStatus::Processing;
            work.reset(&mut tx).await?;
            tasks::progress(&mut tx, &job.id, processing, &sentence, now).await?;
            jobs::retry(&mut tx, job, &e.text, run_at).await?;
            tx.commit().await
        }
        Err(Failure::Transient(e) | Failure::Final(e)) => {
            trace::job_failed(span, "final");
            tracing::warn!(job.id, error = e.text, "job {} failed", job.id);
            work.fail(svc, job, &e).await
        }
    }
}

async fn drop_job(svc: &Service, job: &jobs::Claimed) -> catalog::Result<()> {
    let mut tx = svc.catalog.write().await?;
    jobs::finish(&mut tx, job).await?;
    tx.commit().await
}

/// What a job is.
enum Work {
    Import(ImportJob),
    Locate(LocateJob),
    Hash(HashJob),
}

impl Work {
    fn of(job: &jobs::Claimed) -> Result<Self, String> {
        let text = job.payload.as_str();
        match job.kind.as_str() {
            ImportJob::KIND => serde_json::from_str(text).map(Self::Import),
            LocateJob::KIND => serde_json::from_str(text).map(Self::Locate),
            HashJob::KIND => serde_json::from_str(text).map(Self::Hash),
            other => return Err(format!("no job is called {other:?}")),
        }
        .map_err(|e| e.to_string())
    }

    async fn run(
        &self,
        svc: &Arc<Service>,
        job: &jobs::Claimed,
        meter: &Arc<Meter>,
    ) -> Result<(), Failure> {
        match self {
            Self::Import(work) => work.run(svc, job, meter).await,
            Self::Locate(work) => work.run(svc, job, meter).await,
            Self::Hash(work) => work.run(svc, job, meter).await,
        }
    }

    /// Ends it for good.
    async fn fail(
        &self,
        svc: &Arc<Service>,
        job: &jobs::Claimed,
        why: &Why,
    ) -> catalog::Result<()> {
        match self {
            Self::Import(work) => work.fail(svc, job, why).await,
            Self::Locate(work) => work.fail(svc, job, why).await,
            Self::Hash(work) => work.fail(svc, job, why).await,
        }
    }

    /// Removes the files of a run, however it ended.
    async fn tidy(&self, svc: &Service, job: &jobs::Claimed) {
        match self {
            Self::Import(work) => work.tidy(svc, job).await,
            Self::Locate(_) | Self::Hash(_) => {}
        }
    }

    /// Gives up what a run left, before the next.
    async fn reset(&self, tx: &mut catalog::Tx) -> catalog::Result<()> {
        match self {
            Self::Import(work) => work.reset(tx).await,
            Self::Locate(_) | Self::Hash(_) => Ok(()),
        }
    }

    /// Whether its image still waits for it.
    async fn is_wanted(&self, svc: &Service) -> catalog::Result<bool> {
        match self {
            Self::Import(work) => work.is_wanted(svc).await,
            Self::Locate(work) => work.is_wanted(svc).await,
            Self::Hash(work) => work.is_wanted(svc).await,
        }
    }
}

/// Renews the lease until it is lost, or the job no longer wanted.
async fn keep(svc: &Arc<Service>, job: &jobs::Claimed, work: &Work) -> Failure {
    let lease = Duration::from_secs(svc.config.import.lease.into());
    let mut tick = tokio::time::interval(lease / HEARTBEATS);
    tick.tick().await;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = svc.stops.notified() => {}
        }
        match beat(svc, job, work).await {
            Ok(Wanted::Still) => {}
            Ok(Wanted::Deleted) => return deleted(),
            Ok(Wanted::Cancelled) => return cancelled(),
            Err(catalog::Error::Conflict(_)) => return Failure::Lost,
            Err(e) => tracing::warn!(job.id, error = %e, "a heartbeat was missed"),
        }
    }
}

/// Whether a job is still to be done.
enum Wanted {
    Still,
    /// Its image is gone, or no longer waits for it.
    Deleted,
    /// Somebody asked for its end.
    Cancelled,
}

/// Why a job ends that its owner does not want any more.
fn cancelled() -> Failure {
    Failure::Final("Cancelled on request".into())
}

/// Renews the lease; answers whether the job is still wanted.
async fn beat(svc: &Arc<Service>, job: &jobs::Claimed, work: &Work) -> catalog::Result<Wanted> {
    let mut tx = svc.catalog.write().await?;
    let until = Lease::until(svc, &mut tx).await?;
    let is_cancelled = jobs::heartbeat(&mut tx, job, until).await?;
    tx.commit().await?;
    if is_cancelled {
        return Ok(Wanted::Cancelled);
    }
    Ok(match work.is_wanted(svc).await? {
        true => Wanted::Still,
        false => Wanted::Deleted,
    })
}
