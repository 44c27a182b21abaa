//! What a project may hold: a number of bytes from the configuration, or the limits that Keystone
//! keeps (`image-states.md` 6).
//!
//! Limits of Keystone are soft, as in the reference: they are looked at when something begins, and
//! what is under way may end. The configured number of bytes is held to while bytes come: those of
//! all uploads under way here count, so that many at once do not get past it.

mod flight;
mod limits;

use std::sync::Arc;

use crate::auth::keystone::{Keystone, Trouble};
use crate::catalog::usage::{self, Usage};
use crate::catalog::{self, Catalog, Tx};
use crate::config::Config;

pub use flight::{Allowance, InFlight};
pub use limits::{Limit, Limits};

const MIB: u64 = 1 << 20;

/// The bounds for projects.
pub struct Quotas {
    /// Bytes of all images of a project, from the configuration.
    storage: Option<u64>,
    keystone: Option<limits::Source>,
    /// Bytes that are on their way in.
    flight: Arc<InFlight>,
}

/// More than allowed: 413. The sentence is for the client.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Exceeded(pub String);

/// Why something may not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It would be too much.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// Keystone does not say.
    #[error(transparent)]
    Keystone(#[from] Trouble),
    /// The catalog does not say.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
}

/// What is about to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// So many new images.
    Create(u64),
    /// Data for an image, of so many bytes where the client says.
    Upload(Option<u64>),
    /// Data for staging.
    Stage,
    /// An import of what was staged: so many bytes.
    ImportStaged(u64),
    /// An import of what is fetched from elsewhere, or copied.
    ImportFetched,
    /// So many new images, with an import into each.
    Batch(u64),
}

impl Quotas {
    /// As configured.
    ///
    /// # Errors
    /// When Keystone's certificates cannot be read.
    pub fn new(config: &Config, identity: Option<Arc<Keystone>>) -> Result<Self, String> {
        let quota = &config.quota;
        let keystone = match (&quota.keystone, identity) {
            _ if !quota.use_keystone_limits => None,
            (Some(account), _) => Some(Arc::new(Keystone::new(account)?)),
            (None, identity) => identity,
        };
        let region = quota
            .keystone
            .as_ref()
            .and_then(|account| account.region_name.clone())
            .or_else(|| config.auth.keystone.region_name.clone());
        Ok(Self {
            storage: quota.user_storage().filter(|_| !quota.use_keystone_limits),
            keystone: keystone
                .map(|keystone| limits::Source::new(keystone, quota.endpoint_id.clone(), region)),
            flight: Arc::default(),
        })
    }

    /// Checks whether the owner may begin `step`, by the limits that Keystone keeps; it is asked
    /// anew each time.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn check(
        &self,
        catalog: &Catalog,
        owner: Option<&str>,
        step: Step,
    ) -> Result<(), Error> {
        // Further data comes by uploads, which hold an allowance.
        if let (Some(_), Step::ImportStaged(size)) = (self.storage, step) {
            self.fits(&mut catalog.read().await?, owner, size).await?;
        }
        let (Some(source), Some(owner)) = (&self.keystone, owner) else {
            return Ok(());
        };
        let limits = source.of(owner).await?;
        let usage = self.used(catalog, owner).await?;
        Ok(limits.allow(owner, &usage, step)?)
    }

    /// What `project` holds and may hold, by the limits' names, for `GET /v2/info/usage`; empty
    /// where Keystone keeps no limits for us.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn usage(
        &self,
        catalog: &Catalog,
        project: Option<&str>,
    ) -> Result<Vec<(&'static str, u64, i64)>, Error> {
        let (Some(source), Some(project)) = (&self.keystone, project) else {
            return Ok(Vec::new());
        };
        let limits = source.of(project).await?;
        let usage = self.used(catalog, project).await?;
        let each = Limit::ALL.map(|limit| (limit.name(), limit.used(&usage), limits.of(limit)));
        Ok(each.to_vec())
    }

    async fn used(&self, catalog: &Catalog, project: &str) -> Result<Usage, Error> {
        let mut tx = catalog.read().await?;
        let mut usage = usage::of(&mut tx, project).await?;
        usage.stored += self.flight.of(project);
        Ok(usage)
    }

    /// Whether images of `owner` may hold so many bytes more, by the configured number.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn fits(&self, tx: &mut Tx, owner: Option<&str>, bytes: u64) -> Result<(), Error> {
        self.allowance(tx, owner, Some(bytes)).await.map(drop)
    }

    /// What an upload for `owner` may still take in: hold the answer while bytes come.
    ///
    /// # Errors
    /// [`Error`]: `Exceeded` when the announced bytes are too many already.
    pub async fn allowance(
        &self,
        tx: &mut Tx,
        owner: Option<&str>,
        announced: Option<u64>,
    ) -> Result<Allowance, Error> {
        let stored = match (self.storage, owner) {
            (Some(_), Some(owner)) => usage::of(tx, owner).await?.stored,
            _ => 0,
        };
        let limit = owner.and(self.storage);
        let allowance = Allowance::new(&self.flight, owner, stored, limit);
        allowance.fits(announced.unwrap_or(0))?;
        Ok(allowance)
    }
}
