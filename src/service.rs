//! The service put together: what `glint serve` starts, and the tests too.

use std::fs::File;
use std::sync::Arc;

use anyhow::Context as _;
use formats::Limits;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::auth::Identity;
use crate::auth::policy::{self, Policies};
use crate::catalog::Catalog;
use crate::config::{Config, Faults};
use crate::domain::{ImageId, Location};
use crate::fetch::Fetcher;
use crate::ingest::Staging;
use crate::jobs;
use crate::stores::{Store, Stores};

/// Everything a request or a job needs.
pub struct Service {
    /// What we were told.
    pub config: Config,
    /// How callers are known.
    pub identity: Identity,
    /// What they may do.
    pub policies: Policies,
    /// What is known of images.
    pub catalog: Catalog,
    /// Where their bytes are.
    pub stores: Stores,
    /// Reads what clients name by URL.
    pub fetcher: Fetcher,
    /// Where bytes wait for an import.
    pub staging: Staging,
    /// Wakes a worker when a job was queued here.
    pub wake: Notify,
    /// The embedded catalog has one owner: held for as long as we run.
    _lock: File,
}

impl Service {
    /// Opens catalog, stores and staging, brings the schema up to date, and clears up what a
    /// crash left behind.
    ///
    /// # Errors
    /// When the configuration is faulty, another process owns the data, or something cannot be
    /// opened.
    pub async fn build(config: Config) -> anyhow::Result<Arc<Self>> {
        config.validate()?;
        let auth = &config.auth;
        let (rules, warnings) =
            policy::load(auth.policy_file.as_deref(), auth.enforce_scope).map_err(Faults)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let identity = Identity::from_config(auth).map_err(|e| Faults(vec![e]))?;
        let dir = &config.data_dir;
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let lock = File::create(dir.join("lock")).context("opening the lock file")?;
        lock.try_lock().with_context(|| {
            format!(
                "{} is in use by another glint: stop it or use another --data",
                dir.display()
            )
        })?;
        let catalog = Catalog::open_sqlite(&dir.join("glint.db"))
            .await
            .with_context(|| format!("opening the catalog in {}", dir.display()))?;
        catalog.sync().await?;
        let fetcher = Fetcher::new(&config.fetch);
        let stores = Stores::open(&config.stores, &fetcher).context("opening the stores")?;
        let staging = Staging::open(&dir.join("staging")).context("opening the staging area")?;
        let service = Arc::new(Self {
            config,
            identity,
            policies: Policies::new(rules),
            catalog,
            stores,
            fetcher,
            staging,
            wake: Notify::new(),
            _lock: lock,
        });
        jobs::recover(&service)
            .await
            .context("clearing up after the last run")?;
        Ok(service)
    }

    /// Starts the workers and the sweep; they end when the set is dropped or shut down.
    #[must_use]
    pub fn start_background(self: &Arc<Self>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for n in 0..self.workers() {
            tasks.spawn(jobs::work(self.clone(), n));
        }
        tasks.spawn(jobs::sweep(self.clone()));
        tasks
    }

    fn workers(&self) -> usize {
        match self.config.import.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }

    /// Bounds for reading what clients send.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            max_virtual_size: self.config.formats.max_virtual_size,
            max_inflated: self.config.quota.image_size_cap,
            ..Limits::default()
        }
    }

    /// A location in `store` that no other blob has or had.
    #[must_use]
    pub fn new_location(&self, image: &ImageId, store: &Store) -> Location {
        let mut location = Location::new(&store.config.id, "", serde_json::Map::new());
        location.url = store.blobs.url(&format!("{image}.{}", &location.id[..8]));
        location
    }
}
