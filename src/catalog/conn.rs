//! Connections, transactions and rows: the seam to the database. Statements are written with `?`
//! and the types all three databases share (text and 64-bit integers).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::{Any, AnyPool, AssertSqlSafe, Row as _, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Error, Result};

static SQLITE: sqlx::migrate::Migrator = sqlx::migrate!("src/catalog/migrations/sqlite");

/// How long a transaction waits for a connection or a lock.
const PATIENCE: Duration = Duration::from_secs(30);

/// The catalog's connections.
#[derive(Clone)]
pub struct Catalog {
    pool: AnyPool,
    /// SQLite has one writer: waiting here is fair and cheap, waiting in SQLite is polling.
    writer: Arc<Mutex<()>>,
}

impl Catalog {
    /// Opens the SQLite catalog at `path`, creating it where there is none. The schema is not
    /// touched: see [`sync`](Self::sync).
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn open_sqlite(path: &Path) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let url = format!("sqlite://{}?mode=rwc", path.display());
        let pool = AnyPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(PATIENCE)
            .after_connect(|conn, _| {
                Box::pin(async move {
                    // FULL: what a client was told is stored survives a power cut.
                    for pragma in [
                        "PRAGMA busy_timeout = 30000",
                        "PRAGMA journal_mode = WAL",
                        "PRAGMA synchronous = FULL",
                        "PRAGMA foreign_keys = ON",
                    ] {
                        sqlx::query(pragma).execute(&mut *conn).await?;
                    }
                    Ok(())
                })
            })
            .connect(&url)
            .await?;
        Ok(Self {
            pool,
            writer: Arc::default(),
        })
    }

    /// Brings the schema up to date; does nothing when it is.
    ///
    /// # Errors
    /// When a migration fails, or the schema is newer than this program.
    pub async fn sync(&self) -> Result<()> {
        let _writer = self.writer.lock().await;
        SQLITE.run(&self.pool).await.map_err(Error::Migrate)
    }

    /// The newest migration applied, and the newest this program knows.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn version(&self) -> Result<(Option<i64>, i64)> {
        let known = SQLITE.iter().map(|m| m.version).max().unwrap_or(0);
        let mut tx = self.read().await?;
        let exists = tx
            .all(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'",
                vec![],
            )
            .await?;
        if exists.is_empty() {
            return Ok((None, known));
        }
        let rows = tx
            .all(
                "SELECT version FROM _sqlx_migrations ORDER BY version DESC LIMIT 1",
                vec![],
            )
            .await?;
        let applied = rows
            .first()
            .map(|row| row.int("_sqlx_migrations", "version"))
            .transpose()?;
        Ok((applied, known))
    }

    /// A consistent view for reading.
    ///
    /// # Errors
    /// `Unavailable` when no connection is to be had.
    pub async fn read(&self) -> Result<Tx> {
        Ok(Tx {
            tx: self.pool.begin().await?,
            _writer: None,
        })
    }

    /// A transaction that writes. Undone unless committed.
    ///
    /// # Errors
    /// `Unavailable` when no connection is to be had.
    pub async fn write(&self) -> Result<Tx> {
        let writer = tokio::time::timeout(PATIENCE, self.writer.clone().lock_owned())
            .await
            .map_err(|_| Error::Unavailable(sqlx::Error::PoolTimedOut))?;
        let tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Tx {
            tx,
            _writer: Some(writer),
        })
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// A transaction.
pub struct Tx {
    tx: Transaction<'static, Any>,
    _writer: Option<OwnedMutexGuard<()>>,
}

/// A bound value.
#[derive(Clone, Debug)]
pub(super) enum Arg {
    Text(Option<String>),
    Int(Option<i64>),
}

impl From<&str> for Arg {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Arg {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Arg {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Arg {
    fn from(int: i64) -> Self {
        Self::Int(Some(int))
    }
}

impl From<Option<i64>> for Arg {
    fn from(int: Option<i64>) -> Self {
        Self::Int(int)
    }
}

impl From<bool> for Arg {
    fn from(flag: bool) -> Self {
        Self::Int(Some(i64::from(flag)))
    }
}

/// Values for the `?` of a statement, in order.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::catalog::conn::Arg::from($value)),*] };
}
pub(super) use args;

impl Tx {
    /// Makes it all durable.
    ///
    /// # Errors
    /// When the database fails; nothing was changed then.
    pub async fn commit(self) -> Result<()> {
        Ok(self.tx.commit().await?)
    }

    /// Runs a statement; answers how many rows it changed.
    pub(super) async fn run(&mut self, sql: impl Into<String>, args: Vec<Arg>) -> Result<u64> {
        let done = bind(sql.into(), args).execute(&mut *self.tx).await?;
        Ok(done.rows_affected())
    }

    /// All rows of a query.
    pub(super) async fn all(&mut self, sql: impl Into<String>, args: Vec<Arg>) -> Result<Vec<Row>> {
        let rows = bind(sql.into(), args).fetch_all(&mut *self.tx).await?;
        Ok(rows.into_iter().map(Row).collect())
    }

    /// The first row of a query.
    pub(super) async fn first(
        &mut self,
        sql: impl Into<String>,
        args: Vec<Arg>,
    ) -> Result<Option<Row>> {
        Ok(bind(sql.into(), args)
            .fetch_optional(&mut *self.tx)
            .await?
            .map(Row))
    }
}

fn bind(sql: String, args: Vec<Arg>) -> sqlx::query::Query<'static, Any, sqlx::any::AnyArguments> {
    // Statements are built from constants of this module's siblings; values are always bound.
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for arg in args {
        query = match arg {
            Arg::Text(text) => query.bind(text),
            Arg::Int(int) => query.bind(int),
        };
    }
    query
}

/// A row: suspected until its fields were read.
pub(super) struct Row(AnyRow);

impl Row {
    /// A text that may be NULL.
    pub(super) fn opt_text(
        &self,
        table: &'static str,
        column: &'static str,
    ) -> Result<Option<String>> {
        self.0
            .try_get(column)
            .map_err(|_| self.corrupt(table, column))
    }

    /// A text.
    pub(super) fn text(&self, table: &'static str, column: &'static str) -> Result<String> {
        self.opt_text(table, column)?
            .ok_or_else(|| self.corrupt(table, column))
    }

    /// An integer that may be NULL.
    pub(super) fn opt_int(&self, table: &'static str, column: &'static str) -> Result<Option<i64>> {
        self.0
            .try_get(column)
            .map_err(|_| self.corrupt(table, column))
    }

    /// An integer.
    pub(super) fn int(&self, table: &'static str, column: &'static str) -> Result<i64> {
        self.opt_int(table, column)?
            .ok_or_else(|| self.corrupt(table, column))
    }

    /// A size in bytes that may be NULL.
    pub(super) fn opt_size(
        &self,
        table: &'static str,
        column: &'static str,
    ) -> Result<Option<u64>> {
        self.opt_int(table, column)?
            .map(|n| u64::try_from(n).map_err(|_| self.corrupt(table, column)))
            .transpose()
    }

    /// A text that stands for a value of ours.
    pub(super) fn parse<T: std::str::FromStr>(
        &self,
        table: &'static str,
        column: &'static str,
    ) -> Result<T> {
        self.text(table, column)?
            .parse()
            .map_err(|_| self.corrupt(table, column))
    }

    pub(super) fn corrupt(&self, table: &'static str, column: &'static str) -> Error {
        let id = self
            .0
            .try_get::<String, _>("id")
            .unwrap_or_else(|_| "a row".into());
        Error::Corrupt { table, column, id }
    }
}

/// A size for the database, whose integers are signed.
pub(super) fn size_arg(size: Option<u64>) -> Arg {
    Arg::Int(size.map(|n| i64::try_from(n).unwrap_or(i64::MAX)))
}

/// `?, ?, ?`: `n` of them.
pub(super) fn marks(n: usize) -> String {
    vec!["?"; n].join(", ")
}
