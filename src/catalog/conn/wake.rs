//! Hearing of jobs that other processes queued. PostgreSQL tells; elsewhere whoever looks finds them.

use std::time::Duration;

use sqlx::postgres::PgListener;

use super::database::Database;
use super::{Catalog, Tx};
use crate::catalog::Result;

const CHANNEL: &str = "glint_jobs";
/// How long to wait for a server that is away.
const PAUSE: Duration = Duration::from_secs(5);

impl Catalog {
    /// Calls `woken` whenever a process, this one or another, has queued a job; never returns.
    pub async fn hear_of_jobs(&self, woken: impl Fn()) {
        if self.database != Database::Postgres {
            return std::future::pending().await;
        }
        loop {
            if let Err(error) = self.listen(&woken).await {
                tracing::warn!(%error, "jobs of other processes are not heard of, only found");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn listen(&self, woken: &impl Fn()) -> sqlx::Result<()> {
        let options = self.pool.connect_options();
        let mut listener = PgListener::connect(options.database_url.as_str()).await?;
        listener.listen(CHANNEL).await?;
        loop {
            // Whatever was told before we listened, or while the connection was lost, may be there.
            woken();
            listener.try_recv().await?;
        }
    }
}

impl Tx {
    /// Tells other processes, once this transaction is committed, that there is a job.
    pub(in crate::catalog) async fn tell_of_job(&mut self) -> Result<()> {
        if self.database() == Database::Postgres {
            self.run(format!("NOTIFY {CHANNEL}"), vec![]).await?;
        }
        Ok(())
    }
}
