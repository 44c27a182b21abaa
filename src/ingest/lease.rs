//! Keeping a lease alive while bytes are on their way.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::catalog::{self, Tx, derivatives, locations, staged};
use crate::domain::{ImageId, Timestamp};
use crate::service::Service;

/// What is being kept.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    /// A pending location.
    Location(String),
    /// A pending derivative.
    Derivative(String),
    /// An incomplete staging.
    Staged(ImageId),
}

/// Renews a lease until dropped.
pub(crate) struct Lease(JoinHandle<()>);

impl Lease {
    /// When a lease ends that begins now.
    pub(crate) async fn until(svc: &Service, tx: &mut Tx) -> catalog::Result<Timestamp> {
        let lease = i64::from(svc.config.import.lease);
        Ok(tx.clock().await?.plus_seconds(lease))
    }

    pub(crate) fn keep(svc: &Arc<Service>, kept: Kept) -> Self {
        let svc = svc.clone();
        Self(tokio::spawn(async move {
            let lease = Duration::from_secs(svc.config.import.lease.into());
            let mut tick = tokio::time::interval(lease / 4);
            tick.tick().await;
            loop {
                tick.tick().await;
                // A renewal that fails is told by the commit of the fact: the row is gone then.
                if let Err(e) = renew(&svc, &kept).await {
                    tracing::warn!(error = %e, "a lease could not be renewed");
                }
            }
        }))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn renew(svc: &Service, kept: &Kept) -> catalog::Result<()> {
    let mut tx = svc.catalog.write().await?;
    let until = Lease::until(svc, &mut tx).await?;
    match kept {
        Kept::Location(id) => locations::renew(&mut tx, id, until).await?,
        Kept::Derivative(id) => derivatives::renew(&mut tx, id, until).await?,
        Kept::Staged(image) => staged::renew(&mut tx, image, until).await?,
    }
    tx.commit().await
}
