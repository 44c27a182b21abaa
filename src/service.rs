//! The service put together: what `glint serve` starts, and the tests too.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use formats::Limits;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::Identity;
use crate::auth::policy::{self, Policies};
use crate::auth::protections::Protections;
use crate::catalog::{Catalog, Heard};
use crate::config::{CatalogPlace, Config, Faults};
use crate::derive::Derivations;
use crate::domain::{ImageId, Location};
use crate::fetch::Fetcher;
use crate::ingest::resumable::Resumables;
use crate::ingest::{Folders, Staging};
use crate::jobs;
use crate::notify::{self, Events};
use crate::quota::Quotas;
use crate::stores::{Store, Stores, sync_dir};
use crate::telemetry::Metrics;

/// Everything a request or a job needs.
pub struct Service {
    /// What we were told.
    pub config: Config,
    /// How callers are known.
    pub identity: Identity,
    /// What they may do.
    pub policies: Policies,
    /// Who may see and change which custom properties.
    pub protections: Protections,
    /// What projects may hold.
    pub quotas: Quotas,
    /// What is known of images.
    pub catalog: Catalog,
    /// Where their bytes are.
    pub stores: Stores,
    /// Reads what clients name by URL.
    pub fetcher: Fetcher,
    /// The folders whose files batches may name.
    pub folders: Folders,
    /// Where bytes wait for an import.
    pub staging: Staging,
    /// Images being brought into another form because somebody asks.
    pub derivations: Derivations,
    /// Where uploads in several requests are put together.
    pub resumable: Resumables,
    /// Wakes a worker when a job was queued.
    pub wake: Notify,
    /// Has everybody at work look whether their jobs are still wanted.
    pub stops: Notify,
    /// Tells whoever watches a task that it moved.
    pub told: Notify,
    /// We are about to end: answers that go on for ever end now.
    pub closing: CancellationToken,
    /// The jobs this process has.
    pub(crate) running: jobs::Running,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The name of our staging area among those of a shared catalog: what is staged there only its
    /// processes can import. `None` where there is but one.
    pub host: Option<String>,
    /// The data folder (an embedded catalog, what requests stage) has one owner: held for as long as
    /// we run.
    lock: Option<File>,
}

/// What a process is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It answers requests, and may do jobs.
    Server,
    /// It does jobs, beside the server of the same data folder or by itself.
    Worker,
}

impl Service {
    /// Opens catalog, stores and staging, and clears up what a crash left behind. The embedded
    /// catalog's schema is brought up to date; a server's is its operator's to change.
    ///
    /// # Errors
    /// When the configuration is faulty, another process owns the data, something cannot be
    /// opened, or a server's schema is older than this program needs.
    pub async fn build(config: Config) -> anyhow::Result<Arc<Self>> {
        Self::build_as(Role::Server, config).await
    }

    /// The same for a process of this kind.
    ///
    /// # Errors
    /// As for [`build`](Self::build); and when a worker has a catalog that cannot be shared.
    pub async fn build_as(role: Role, config: Config) -> anyhow::Result<Arc<Self>> {
        config.validate()?;
        let auth = &config.auth;
        let protections = Protections::load(&config.api).map_err(Faults)?;
        let (rules, warnings) = policy::load(auth, &protections.rules()).map_err(Faults)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let identity = Identity::from_config(auth).map_err(|e| Faults(vec![e]))?;
        let quotas = Quotas::new(&config, identity.keystone()).map_err(|e| Faults(vec![e]))?;
        let dir = &config.data_dir;
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let lock = match role {
            Role::Server => Some(lock(dir)?),
            Role::Worker => None,
        };
        let catalog = open_catalog(&config).await?;
        ensure!(
            role == Role::Server || catalog.is_shared(),
            "a worker needs a catalog that can be shared: name a database by [catalog] url"
        );
        if catalog.is_shared() {
            let version = catalog.version().await.context("looking at the schema")?;
            ensure!(
                version.missing.is_empty(),
                "the catalog's schema is at version {}, this program needs {}: run glint db sync",
                version.applied.unwrap_or(0),
                version.newest
            );
        } else {
            catalog.sync().await?;
        }
        let catalog = catalog.with_events(Events::from_config(&config.notifications));
        let fetcher = Fetcher::new(&config.fetch);
        let folders = Folders::open(&config.batches.source_dirs)
            .context("opening the folders of batches.source_dirs")?;
        let stores = Stores::open(&config.stores, &fetcher).context("opening the stores")?;
        let owner = match catalog.is_shared() {
            true => Some(host(dir).context("naming this data folder")?),
            false => None,
        };
        let resumable = Resumables::open(&dir.join("uploads"), owner)
            .context("opening the folder for uploads")?;
        let own = dir.join("staging");
        let shared = config.import.shared_staging.as_ref();
        let staging = Staging::open(shared.unwrap_or(&own), &dir.join("scratch"))
            .context("opening the staging area")?;
        let host = match catalog.is_shared() && shared.is_none() {
            true => Some(host(dir).context("naming this staging area")?),
            false => None,
        };
        let derivations = Derivations::new(config.derivatives.conversions);
        let service = Arc::new(Self {
            config,
            identity,
            policies: Policies::new(rules),
            protections,
            quotas,
            catalog,
            stores,
            fetcher,
            folders,
            staging,
            derivations,
            resumable,
            wake: Notify::new(),
            stops: Notify::new(),
            told: Notify::new(),
            closing: CancellationToken::new(),
            running: jobs::Running::default(),
            metrics: Arc::default(),
            host,
            lock,
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
        if let Some(events) = self.catalog.events() {
            tasks.spawn(notify::publish(self.clone(), events.clone()));
        }
        let svc = self.clone();
        tasks.spawn(async move {
            let heard = |heard| match heard {
                Heard::Job => svc.wake.notify_one(),
                Heard::Stop => svc.stops.notify_waiters(),
            };
            svc.catalog.hear_of_jobs(heard).await;
        });
        tasks
    }

    /// Ends what [`start_background`](Self::start_background) started. The jobs under way go back into
    /// the queue, for whoever is left or we when we start again.
    pub async fn stop_background(self: &Arc<Self>, mut tasks: JoinSet<()>) {
        tasks.shutdown().await;
        self.running.give_back(&self.catalog).await;
    }

    /// Whether the data folder is ours alone; a worker beside the server of the folder is a guest.
    #[must_use]
    pub const fn owns_data(&self) -> bool {
        self.lock.is_some()
    }

    /// Jobs worked on at once.
    #[must_use]
    pub fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.config.import.workers.unwrap_or_else(cores)
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

/// Takes the data in `dir` for ourselves.
fn lock(dir: &Path) -> anyhow::Result<File> {
    let lock = File::create(dir.join("lock")).context("opening the lock file")?;
    lock.try_lock().with_context(|| {
        format!(
            "{} is in use by another glint: stop it or use another --data",
            dir.display()
        )
    })?;
    Ok(lock)
}

/// The name of whoever owns the data in `dir`, for as long as there is data in it.
fn host(dir: &Path) -> io::Result<String> {
    let path = dir.join("host");
    match fs::read_to_string(&path) {
        Ok(name) if !name.is_empty() => return Ok(name),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let name = uuid::Uuid::new_v4().to_string();
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(name.as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(&path) {
        Ok(_) => sync_dir(dir)?,
        // A server and a worker that begin together have one name.
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => {
            return fs::read_to_string(&path);
        }
        Err(e) => return Err(e.error),
    }
    Ok(name)
}

/// Opens the catalog a valid configuration names; its schema may be of any age.
pub(crate) async fn open_catalog(config: &Config) -> anyhow::Result<Catalog> {
    match config.catalog.place(&config.data_dir) {
        Some(CatalogPlace::Embedded(path)) => Catalog::open_sqlite(&path)
            .await
            .with_context(|| format!("opening the catalog {}", path.display())),
        Some(CatalogPlace::Server(url)) => {
            Catalog::open_server(url.reveal(), config.catalog.connections)
                .await
                .context("connecting to the catalog's database")
        }
        None => bail!("catalog.url names no database"),
    }
}
