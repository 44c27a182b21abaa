//! The configured stores, by id.

use std::sync::Arc;

use super::{BlobStore, FileStore, HttpStore, Result, is_http};
use crate::config::{StoreConfig, StoreKind};
use crate::domain::Location;
use crate::fetch::Fetcher;

/// A configured store.
#[derive(Clone)]
pub struct Store {
    /// What it was told.
    pub config: StoreConfig,
    /// Its blobs.
    pub blobs: Arc<dyn BlobStore>,
}

/// All of them.
#[derive(Clone)]
pub struct Stores(Vec<Store>);

impl Stores {
    /// Opens every configured store; those of other people's web servers read by `fetcher`.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn open(configs: &[StoreConfig], fetcher: &Fetcher) -> Result<Self> {
        configs
            .iter()
            .map(|config| {
                let blobs: Arc<dyn BlobStore> = match config.kind {
                    StoreKind::File => Arc::new(FileStore::open(&config.path)?),
                    StoreKind::Http => Arc::new(HttpStore::new(fetcher.clone())),
                };
                Ok(Store {
                    config: config.clone(),
                    blobs,
                })
            })
            .collect::<Result<_>>()
            .map(Self)
    }

    /// All of them, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Store> {
        self.0.iter()
    }

    /// The store called `id`.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Store> {
        self.0.iter().find(|s| s.config.id == id)
    }

    /// The store a client's URL belongs to. Only web servers are anybody's to name.
    #[must_use]
    pub fn of_url(&self, url: &str) -> Option<&Store> {
        self.0
            .iter()
            .find(|s| s.config.kind == StoreKind::Http && is_http(url))
    }

    /// The stores that can be written to, in the order they are configured.
    pub fn writable(&self) -> impl Iterator<Item = &Store> {
        self.0.iter().filter(|s| !s.config.read_only)
    }

    /// Locations in the order they are shown and read: by the weight of their stores, heaviest
    /// first.
    #[must_use]
    pub fn by_weight<'a>(&self, locations: &'a [Location]) -> Vec<&'a Location> {
        let weight = |l: &Location| self.get(&l.store).map_or(0, |s| s.config.weight);
        let mut sorted: Vec<_> = locations.iter().collect();
        sorted.sort_by_key(|l| std::cmp::Reverse(weight(l)));
        sorted
    }

    /// The store uploads go to unless they say otherwise.
    #[must_use]
    pub fn default_id(&self) -> &str {
        self.0
            .iter()
            .find(|s| s.config.is_default)
            .map_or("", |s| &s.config.id)
    }
}
