//! The configured stores, by id.

use std::sync::Arc;

use super::{BlobStore, FileStore, Result};
use crate::config::{StoreConfig, StoreKind};

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
    /// Opens every configured store.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn open(configs: &[StoreConfig]) -> Result<Self> {
        configs
            .iter()
            .map(|config| {
                let blobs: Arc<dyn BlobStore> = match config.kind {
                    StoreKind::File => Arc::new(FileStore::open(&config.path)?),
                };
                Ok(Store {
                    config: config.clone(),
                    blobs,
                })
            })
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The store called `id`.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Store> {
        self.0.iter().find(|s| s.config.id == id)
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
