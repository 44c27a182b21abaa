//! `glint serve` and `glint db`: from what was meant to a running service, and its orderly end.

use std::future::pending;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::auth::policy;
use crate::catalog::glance::Glance;
use crate::catalog::{Catalog, Version, images, purge};
use crate::config::{CatalogPlace, Config, Faults};
use crate::domain::{ImageId, Timestamp};
use crate::fetch::Fetcher;
use crate::glance::{self, Report};
use crate::service::{self, Role, Service};
use crate::stores::Stores;
use crate::{api, telemetry};

/// How long requests under way may take to end after a signal.
const DRAIN: Duration = Duration::from_secs(30);

/// Where the service's data and configuration are.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--config`
    pub config: Option<PathBuf>,
}

impl Place {
    /// The configuration that follows.
    ///
    /// # Errors
    /// When there is no place for data, or the file is faulty.
    pub fn config(&self) -> anyhow::Result<Config> {
        let data = match (&self.data, default_data()) {
            (Some(data), _) => data.clone(),
            (None, Some(data)) => data,
            (None, None) => bail!("neither HOME nor XDG_DATA_HOME is set: say --data DIR"),
        };
        let data = std::path::absolute(data).context("finding the data folder")?;
        let config = match &self.config {
            None => Config::embedded(data),
            Some(path) => Config::load(path, data)?,
        };
        Ok(config.with_environment())
    }
}

fn default_data() -> Option<PathBuf> {
    let from = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let base = from("XDG_DATA_HOME").or_else(|| Some(from("HOME")?.join(".local/share")))?;
    Some(base.join("glint"))
}

/// Serves until a signal says otherwise, then lets requests under way end.
///
/// # Errors
/// When the service cannot be built or the address is taken.
pub async fn serve(place: &Place, listen: Option<SocketAddr>) -> anyhow::Result<()> {
    let mut config = place.config()?;
    if let Some(listen) = listen {
        config.api.listen = listen;
    }
    let telemetry = telemetry::start(&config)?;
    let svc = Service::build(config).await?;
    let listen = svc.config.api.listen;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listening on {listen}"))?;
    let address = listener.local_addr()?;
    let mut background = svc.start_background();
    // The URL comes last: whoever starts us on port 0 reads it from here.
    tracing::info!(
        "glint {} serves the image API from {} on http://{address}",
        env!("CARGO_PKG_VERSION"),
        svc.config.data_dir.display()
    );

    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let head_timeout = Duration::from_secs(svc.config.api.head_timeout);
    if let Some(listen) = svc.config.metrics.listen {
        background.spawn(metrics(&svc, listen).await?);
    }
    let mut server = tokio::spawn(api::serve(
        listener,
        api::router(&svc),
        head_timeout,
        async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        },
    ));
    let mut signalled = pin!(signalled());
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            ended = &mut server => return ended.context("serving"),
            name = &mut signalled => {
                tracing::info!("{} received: finishing what is under way", name?);
                break;
            }
            _ = hangup.recv() => match reload(place, &svc) {
                Ok(()) => tracing::info!("SIGHUP received: log level and policies are read again"),
                Err(e) => tracing::error!(
                    "SIGHUP received, but what was stays, because this is wrong: {e:#}"
                ),
            },
        }
    }
    stop.send_replace(true);
    svc.closing.cancel();
    if tokio::time::timeout(DRAIN, server).await.is_err() {
        tracing::warn!(
            "some requests did not end within {} s and are cut off",
            DRAIN.as_secs()
        );
    }
    svc.stop_background(background).await;
    svc.catalog.close().await;
    telemetry.end().await;
    Ok(())
}

/// The page of metrics, at `listen`, for as long as it is polled.
async fn metrics(
    svc: &Arc<Service>,
    listen: SocketAddr,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listening on {listen} for metrics"))?;
    tracing::info!("metrics are at {}/metrics", listener.local_addr()?);
    let page = telemetry::page::router(svc);
    let head_timeout = Duration::from_secs(svc.config.api.head_timeout);
    Ok(api::serve(listener, page, head_timeout, pending()))
}

/// Does the jobs of the service that `place` is the configuration of, `at_once` at a time, until a
/// signal says otherwise. What is under way then goes back into the queue.
///
/// # Errors
/// When the service cannot be built, its catalog is one that cannot be shared, or the address of
/// the metrics is taken.
pub async fn work(
    place: &Place,
    at_once: Option<NonZeroUsize>,
    metrics_listen: Option<SocketAddr>,
) -> anyhow::Result<()> {
    let mut config = place.config()?;
    if let Some(data) = &place.data {
        config.data_dir = std::path::absolute(data).context("finding the data folder")?;
    }
    config.import.workers = at_once.map(NonZeroUsize::get);
    let telemetry = telemetry::start(&config)?;
    let svc = Service::build_as(Role::Worker, config).await?;
    let mut background = svc.start_background();
    if let Some(listen) = metrics_listen.or(svc.config.metrics.worker_listen) {
        background.spawn(metrics(&svc, listen).await?);
    }
    tracing::info!(
        "glint {} works on {} jobs at once in {}",
        env!("CARGO_PKG_VERSION"),
        svc.workers(),
        svc.config.data_dir.display()
    );
    let name = signalled().await?;
    tracing::info!("{name} received: what is under way goes back into the queue");
    svc.stop_background(background).await;
    svc.catalog.close().await;
    telemetry.end().await;
    Ok(())
}

/// Reads again what can change while we run: the level of the log, and the policies.
fn reload(place: &Place, svc: &Service) -> anyhow::Result<()> {
    let config = place.config()?;
    config.validate()?;
    let (rules, warnings) = policy::load(&config.auth, &svc.protections.rules()).map_err(Faults)?;
    telemetry::log::reload(&config.log)?;
    svc.policies.replace(rules);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(())
}

async fn signalled() -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// Brings the catalog's schema up to date.
///
/// # Errors
/// When it cannot be opened or changed.
pub async fn db_sync(place: &Place) -> anyhow::Result<i64> {
    let catalog = open_catalog(place).await?;
    catalog.sync().await?;
    Ok(catalog.version().await?.newest)
}

/// Where the schema stands. Nothing is made by looking.
///
/// # Errors
/// When there is no catalog, or it cannot be opened.
pub async fn db_version(place: &Place) -> anyhow::Result<Version> {
    let config = place.config()?;
    config.validate()?;
    if let Some(CatalogPlace::Embedded(path)) = config.catalog.place(&config.data_dir) {
        let is_there = path.try_exists();
        let is_there = is_there.with_context(|| format!("looking for {}", path.display()))?;
        ensure!(
            is_there,
            "there is no catalog {} yet: glint db sync makes it",
            path.display()
        );
    }
    Ok(service::open_catalog(&config).await?.version().await?)
}

/// Takes back the deletion of an image whose data is still there; answers whether it was. The
/// service may run meanwhile.
///
/// # Errors
/// When the catalog cannot be opened or changed.
pub async fn restore_image(place: &Place, id: &ImageId) -> anyhow::Result<bool> {
    let catalog = open_catalog(place).await?;
    let mut tx = catalog.write().await?;
    let is_back = images::restore(&mut tx, id, Timestamp::now()).await?;
    tx.commit().await?;
    Ok(is_back)
}

/// Forgets what was deleted more than `age_days` days ago, at most `max_images`, all but the ids;
/// answers how many images. Harmless while the service runs.
///
/// # Errors
/// When the catalog cannot be opened or fails; what was purged until then stays purged.
pub async fn db_purge(
    place: &Place,
    age_days: u32,
    max_images: Option<u64>,
) -> anyhow::Result<u64> {
    /// Images a transaction: others wait for no longer than these take.
    const BATCH: u64 = 500;
    let catalog = open_catalog(place).await?;
    let before = Timestamp::now().plus_seconds(-i64::from(age_days) * 24 * 3600);
    let mut left = max_images.unwrap_or(u64::MAX);
    let mut purged = 0;
    while left > 0 {
        let batch = left.min(BATCH) as u32;
        let mut tx = catalog.write().await?;
        let done = purge::deleted_images(&mut tx, before, batch).await?;
        tx.commit().await?;
        purged += done;
        left -= done.min(left);
        if done == 0 {
            break;
        }
    }
    Ok(purged)
}

/// Moves what the Glance database at `url` knows into the catalog, which is synced first; says what
/// was moved.
///
/// # Errors
/// When a database or a store cannot be opened or fails; what was moved until then stays.
pub async fn db_import_glance(place: &Place, url: &str, dry_run: bool) -> anyhow::Result<Report> {
    let config = place.config()?;
    let theirs = Glance::open(url)
        .await
        .context("opening Glance's database")?;
    let catalog = open_catalog(place).await?;
    catalog.sync().await?;
    let fetcher = Fetcher::new(&config.fetch);
    let stores = Stores::open(&config.stores, &fetcher).context("opening the stores")?;
    glance::move_from(&theirs, &catalog, &stores, dry_run).await
}

/// The catalog, for the commands that look after it.
///
/// # Errors
/// When it cannot be opened.
pub async fn open_catalog(place: &Place) -> anyhow::Result<Catalog> {
    let config = place.config()?;
    config.validate()?;
    let dir = &config.data_dir;
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    service::open_catalog(&config).await
}
