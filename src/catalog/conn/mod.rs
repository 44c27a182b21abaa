//! Connections and transactions: the seam to the database. Statements are written with `?` and the
//! types all three databases share (text and 64-bit integers); `database` is the one file that
//! knows how they differ, `fault` what their errors mean.

mod database;
mod fault;
mod row;
mod schema;
mod tx;
mod wake;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyPool, Transaction};
use tokio::sync::Mutex;

use self::database::Database;
pub(super) use self::row::{Arg, Row, args, marks, size_arg};
pub use self::schema::Version;
pub use self::tx::Tx;
pub use self::wake::Heard;
use super::Result;
use crate::notify::Events;
use crate::telemetry::trace;

/// Connections to SQLite.
const EMBEDDED_CONNECTIONS: u32 = 8;
/// How long a transaction on SQLite waits for a connection or its turn to write.
const EMBEDDED_PATIENCE: Duration = Duration::from_secs(30);
/// How long one waits for a connection to a server. Not long: a client is told to come back while
/// the database is away.
const SERVER_PATIENCE: Duration = Duration::from_secs(5);
/// A connection that rested longer is asked whether it still lives before it is used.
const RESTED: Duration = Duration::from_secs(1);

/// The catalog's connections.
#[derive(Clone)]
pub struct Catalog {
    pool: AnyPool,
    database: Database,
    /// SQLite has one writer: waiting here is fair and cheap, waiting in SQLite is polling.
    writer: Arc<Mutex<()>>,
    /// Which events are noted with the facts; `None` where nobody is told.
    events: Option<Arc<Events>>,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Catalog({:?})", self.database)
    }
}

impl Catalog {
    /// Opens the SQLite catalog at `path`, creating it where there is none. The schema is not
    /// touched: see [`sync`](Self::sync).
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn open_sqlite(path: &Path) -> Result<Self> {
        let options = AnyPoolOptions::new()
            .max_connections(EMBEDDED_CONNECTIONS)
            .acquire_timeout(EMBEDDED_PATIENCE);
        let url = format!("sqlite://{}?mode=rwc", path.display());
        Self::open(Database::Sqlite, options, &url).await
    }

    /// Connects to the PostgreSQL, MySQL or MariaDB server a URL names, with at most `connections`
    /// at once. The schema is not touched: see [`sync`](Self::sync).
    ///
    /// # Errors
    /// `Unavailable` when the server cannot be reached; `Sql` when the URL is no such thing, or the
    /// server does not let us in.
    pub async fn open_server(url: &str, connections: u32) -> Result<Self> {
        let database = Database::of_url(url)
            .filter(|database| *database != Database::Sqlite)
            .ok_or_else(|| sqlx::Error::Configuration("not the URL of a server".into()))?;
        let options = AnyPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(SERVER_PATIENCE)
            .test_before_acquire(false)
            .before_acquire(|conn, state| {
                Box::pin(async move {
                    if state.idle_for >= RESTED {
                        sqlx::Connection::ping(conn).await?;
                    }
                    Ok(true)
                })
            });
        Self::open(database, options, url).await
    }

    /// Opens a database of somebody else's, for reading: `sqlite:FILE`, or the URL of a server in
    /// SQLAlchemy's spelling too (`mysql+pymysql://…`).
    pub(super) async fn open_foreign(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        let scheme = scheme.split('+').next().unwrap_or(scheme);
        let database = Database::of_url(&format!("{scheme}:"))
            .ok_or_else(|| sqlx::Error::Configuration("not the URL of a database".into()))?;
        let url = match database {
            Database::Sqlite => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                format!("sqlite://{path}?mode=ro")
            }
            _ => format!("{scheme}:{}", without_dialect(rest)),
        };
        sqlx::any::install_default_drivers();
        // No greeting: it is about writing, and would change a file of theirs.
        let options = AnyPoolOptions::new().max_connections(1);
        Ok(Self {
            pool: options.connect(&url).await?,
            database,
            writer: Arc::default(),
            events: None,
        })
    }

    async fn open(database: Database, options: AnyPoolOptions, url: &str) -> Result<Self> {
        sqlx::any::install_default_drivers();
        Ok(Self {
            pool: database.greet(options).connect(url).await?,
            database,
            writer: Arc::default(),
            events: None,
        })
    }

    /// Whether other processes may work on the same catalog: it is a server's, not a file of ours.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.database != Database::Sqlite
    }

    /// The same, noting events for others ([`outbox`](super::outbox)).
    #[must_use]
    pub fn with_events(self, events: Option<Arc<Events>>) -> Self {
        Self { events, ..self }
    }

    /// Which events are noted.
    #[must_use]
    pub const fn events(&self) -> Option<&Arc<Events>> {
        self.events.as_ref()
    }

    /// A consistent view for reading.
    ///
    /// # Errors
    /// `Unavailable` when no connection is to be had.
    pub async fn read(&self) -> Result<Tx> {
        let span = trace::transaction("catalog.read", self.database.system());
        let tx = self.begin(self.database.begin_reading()).await?;
        Ok(Tx::reading(tx, self.database, span))
    }

    /// A transaction that writes. Undone unless committed.
    ///
    /// # Errors
    /// `Unavailable` when no connection is to be had.
    pub async fn write(&self) -> Result<Tx> {
        let span = trace::transaction("catalog.write", self.database.system());
        let writer = if self.is_shared() {
            None
        } else {
            let turn = self.writer.clone().lock_owned();
            let writer = tokio::time::timeout(EMBEDDED_PATIENCE, turn).await;
            Some(writer.map_err(|_| sqlx::Error::PoolTimedOut)?)
        };
        let tx = self.begin(self.database.begin_writing()).await?;
        let events = self.events.clone();
        Ok(Tx::writing(tx, self.database, events, writer, span))
    }

    /// Begins a transaction. Nothing has happened in it yet, so a connection that turns out to be
    /// dead is replaced by another, as often as there may be dead ones.
    async fn begin(&self, statement: &'static str) -> Result<Transaction<'static, Any>> {
        let mut left = self.pool.options().get_max_connections();
        loop {
            let pool = self.pool.clone();
            let begins = async move { pool.begin_with(statement).await };
            match self.database.to_its_end(begins).await? {
                Err(e) if left > 0 && fault::is_lost(&e) => left -= 1,
                begun => return Ok(begun?),
            }
        }
    }

    /// Keeps lists fast as images come and go; cheap where nothing has changed much. To be called
    /// now and then.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tend(&self) -> Result<()> {
        if let Some(statement) = self.database.tend() {
            let _writer = self.writer.lock().await;
            sqlx::raw_sql(statement).execute(&self.pool).await?;
        }
        Ok(())
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// A URL of SQLAlchemy's with the one parameter that matters here, in our driver's spelling.
fn without_dialect(rest: &str) -> String {
    let Some((place, query)) = rest.split_once('?') else {
        return rest.to_owned();
    };
    let socket = query.split('&').find_map(|parameter| {
        let socket = parameter.strip_prefix("unix_socket=");
        socket.or_else(|| parameter.strip_prefix("socket="))
    });
    socket.map_or_else(
        || place.to_owned(),
        |socket| format!("{place}?socket={socket}"),
    )
}
