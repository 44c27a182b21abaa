//! The schema: bringing it forwards, and saying where it stands.

use sqlx::AssertSqlSafe;

use super::{Catalog, args};
use crate::catalog::{Error, Result};

/// Where sqlx notes the migrations applied.
const TABLE: &str = "_sqlx_migrations";

/// Where a schema stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// The newest migration applied; `None` before the first sync.
    pub applied: Option<i64>,
    /// The newest this program knows.
    pub newest: i64,
    /// Known here and not applied yet, oldest first.
    pub missing: Vec<i64>,
}

impl Catalog {
    /// Brings the schema up to date; does nothing when it is. Migrations that a newer program
    /// applied are left alone. Several processes may do so at once: they wait for each other.
    ///
    /// # Errors
    /// When a migration fails.
    pub async fn sync(&self) -> Result<()> {
        let _writer = self.writer.lock().await;
        let version = self.server_version().await?;
        // One connection for both: on MySQL and MariaDB each remembers the database's default
        // collation from when it began, and what others change since goes past it.
        let mut conn = self.pool.acquire().await?;
        if let Some(statement) = self.database.prepare_schema(&version) {
            sqlx::raw_sql(AssertSqlSafe(statement.into_owned()))
                .execute(&mut *conn)
                .await?;
        }
        let migrator = self.database.migrator();
        migrator.run(&mut *conn).await.map_err(Error::Migrate)
    }

    /// What the server says it is; empty for SQLite, which is no server.
    async fn server_version(&self) -> Result<String> {
        if !self.is_shared() {
            return Ok(String::new());
        }
        let mut tx = self.read().await?;
        let row = tx.first("SELECT VERSION() AS version", vec![]).await?;
        row.map_or_else(|| Ok(String::new()), |row| row.text("server", "version"))
    }

    /// Where the schema stands.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn version(&self) -> Result<Version> {
        let known: Vec<i64> = self.database.migrator().iter().map(|m| m.version).collect();
        let mut tx = self.read().await?;
        let exists = tx.all(self.database.has_migrations(), args![TABLE]).await?;
        let mut applied = Vec::new();
        if !exists.is_empty() {
            let sql = format!("SELECT version FROM {TABLE} ORDER BY version");
            for row in tx.all(sql, vec![]).await? {
                applied.push(row.int(TABLE, "version")?);
            }
        }
        Ok(Version {
            applied: applied.last().copied(),
            newest: known.iter().copied().max().unwrap_or(0),
            missing: known.into_iter().filter(|v| !applied.contains(v)).collect(),
        })
    }
}
