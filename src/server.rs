//! `glint serve` and `glint db`: from what was meant to a running service, and its orderly end.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::api;
use crate::catalog::{Catalog, images};
use crate::config::Config;
use crate::domain::{ImageId, Timestamp};
use crate::service::Service;

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
        Ok(match &self.config {
            None => Config::embedded(data),
            Some(path) => Config::load(path, data)?,
        })
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
    let mut server = tokio::spawn(api::serve(
        listener,
        api::router(&svc),
        head_timeout,
        async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        },
    ));
    tokio::select! {
        ended = &mut server => return ended.context("serving"),
        name = signalled() => tracing::info!("{} received: finishing what is under way", name?),
    }
    stop.send_replace(true);
    if tokio::time::timeout(DRAIN, server).await.is_err() {
        tracing::warn!(
            "some requests did not end within {} s and are cut off",
            DRAIN.as_secs()
        );
    }
    background.shutdown().await;
    svc.catalog.close().await;
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
    Ok(catalog.version().await?.1)
}

/// The schema version applied, and the newest known.
///
/// # Errors
/// When the catalog cannot be opened.
pub async fn db_version(place: &Place) -> anyhow::Result<(Option<i64>, i64)> {
    Ok(open_catalog(place).await?.version().await?)
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

/// The catalog, for the commands that look after it.
///
/// # Errors
/// When it cannot be opened.
pub async fn open_catalog(place: &Place) -> anyhow::Result<Catalog> {
    let dir = place.config()?.data_dir;
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Catalog::open_sqlite(&dir.join("glint.db"))
        .await
        .with_context(|| format!("opening the catalog in {}", dir.display()))
}

/// Logs to standard error: `GLINT_LOG` says how much (`info`, `glint=debug`, …).
pub fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("GLINT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,sqlx=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
