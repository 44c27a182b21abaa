//! Hearing of jobs that other processes queued or stop. PostgreSQL tells; elsewhere whoever looks
//! finds out.

use std::time::Duration;

use sqlx::postgres::PgListener;

use super::database::Database;
use super::{Catalog, Tx};
use crate::catalog::Result;

const CHANNEL: &str = "glint_jobs";
/// What is told of a job that is to end.
const STOP: &str = "stop";
/// How long to wait for a server that is away.
const PAUSE: Duration = Duration::from_secs(5);

/// What is heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A job was queued.
    Job,
    /// A job is to end, or its image is gone.
    Stop,
}

impl Catalog {
    /// Calls `heard` whenever a process, this one or another, has queued a job or stops one; never
    /// returns.
    pub async fn hear_of_jobs(&self, heard: impl Fn(Heard)) {
        if self.database != Database::Postgres {
            return std::future::pending().await;
        }
        loop {
            if let Err(error) = self.listen(&heard).await {
                tracing::warn!(%error, "jobs of other processes are not heard of, only found");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn listen(&self, heard: &impl Fn(Heard)) -> sqlx::Result<()> {
        let options = self.pool.connect_options();
        let mut listener = PgListener::connect(options.database_url.as_str()).await?;
        listener.listen(CHANNEL).await?;
        loop {
            // Whatever was told before we listened, or while the connection was lost, may be there.
            heard(Heard::Job);
            while let Some(told) = listener.try_recv().await? {
                heard(match told.payload() {
                    STOP => Heard::Stop,
                    _ => Heard::Job,
                });
            }
            heard(Heard::Stop);
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

    /// Tells other processes, once this transaction is committed, that a job is to end.
    pub(in crate::catalog) async fn tell_of_stop(&mut self) -> Result<()> {
        if self.database() == Database::Postgres {
            self.run(format!("NOTIFY {CHANNEL}, '{STOP}'"), vec![])
                .await?;
        }
        Ok(())
    }
}
