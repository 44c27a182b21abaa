//! A transaction: statements, and what becomes of one that a deadlock undid.
//!
//! Databases undo one of two transactions that wait for each other and leave it to the client to try
//! again. Ours is tried again here: its statements are run once more, and as long as each of them
//! answers what it answered before, whoever drives the transaction would have gone the same way and
//! need not know. Where an answer differs, somebody else changed what it was decided on, and the
//! error stands.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row as _, Transaction};
use tokio::sync::OwnedMutexGuard;
use tracing::Span;

use crate::notify::Events;

use super::database::Database;
use super::row::{Arg, Row};
use crate::catalog::{Direction, Error, Result};
use crate::domain::Timestamp;

/// How often a transaction is run again.
const RETRIES: u8 = 5;

/// A transaction.
pub struct Tx {
    /// `None` while a call is under way, and for good if whoever waited for it went away.
    tx: Option<Transaction<'static, Any>>,
    database: Database,
    writes: bool,
    /// What was done so far, to be done again.
    steps: Vec<Step>,
    retries: u8,
    /// Which events are noted with the facts; `None` where none are.
    events: Option<Arc<Events>>,
    /// Whether one was.
    noted: bool,
    _writer: Option<OwnedMutexGuard<()>>,
    _span: Span,
}

struct Step {
    statement: Statement,
    answer: u64,
}

#[derive(Clone)]
struct Statement {
    sql: String,
    args: Vec<Arg>,
    fetches: bool,
}

/// What a statement answered.
struct Answer {
    changed: u64,
    rows: Vec<AnyRow>,
}

impl Tx {
    pub(super) fn reading(tx: Transaction<'static, Any>, database: Database, span: Span) -> Self {
        Self {
            tx: Some(tx),
            database,
            writes: false,
            steps: Vec::new(),
            retries: 0,
            events: None,
            noted: false,
            _writer: None,
            _span: span,
        }
    }

    pub(super) fn writing(
        tx: Transaction<'static, Any>,
        database: Database,
        events: Option<Arc<Events>>,
        writer: Option<OwnedMutexGuard<()>>,
        span: Span,
    ) -> Self {
        Self {
            tx: Some(tx),
            database,
            writes: true,
            steps: Vec::new(),
            // SQLite's one writer has nobody to be in the way of.
            retries: if writer.is_some() { 0 } else { RETRIES },
            events,
            noted: false,
            _writer: writer,
            _span: span,
        }
    }

    pub(super) const fn database(&self) -> Database {
        self.database
    }

    /// Makes it all durable.
    ///
    /// # Errors
    /// When the database fails. Nothing was changed then, except that a connection lost at this
    /// very moment (`Unavailable`) leaves open whether all of it was.
    pub async fn commit(self) -> Result<()> {
        let tx = self.tx.ok_or(sqlx::Error::WorkerCrashed)?;
        self.database.to_its_end(tx.commit()).await??;
        if let Some(events) = self.events.filter(|_| self.noted) {
            events.wake();
        }
        Ok(())
    }

    /// Whether events of this type are noted.
    pub(in crate::catalog) fn wants(&self, event_type: &str) -> bool {
        self.events.as_ref().is_some_and(|e| e.wants(event_type))
    }

    /// An event was noted: whoever sends it is woken once this is committed.
    pub(in crate::catalog) const fn noted(&mut self) {
        self.noted = true;
    }

    /// Runs a statement; answers how many rows it found to change, even if they stay as they were.
    pub(in crate::catalog) async fn run(
        &mut self,
        sql: impl Into<String>,
        args: Vec<Arg>,
    ) -> Result<u64> {
        Ok(self.answer(sql.into(), args, false).await?.changed)
    }

    /// All rows of a query.
    pub(in crate::catalog) async fn all(
        &mut self,
        sql: impl Into<String>,
        args: Vec<Arg>,
    ) -> Result<Vec<Row>> {
        let rows = self.answer(sql.into(), args, true).await?.rows;
        Ok(rows.into_iter().map(Row).collect())
    }

    /// The first row of a query, which should not have many.
    pub(in crate::catalog) async fn first(
        &mut self,
        sql: impl Into<String>,
        args: Vec<Arg>,
    ) -> Result<Option<Row>> {
        Ok(self.all(sql, args).await?.into_iter().next())
    }

    async fn answer(&mut self, sql: String, args: Vec<Arg>, fetches: bool) -> Result<Answer> {
        let statement = Statement {
            sql: self.database.spell(sql),
            args,
            fetches,
        };
        loop {
            match self.once(&statement).await {
                Err(Error::Contended(e)) if self.retries > 0 => {
                    self.retries -= 1;
                    self.again(e).await?;
                }
                Ok(answer) => {
                    if self.retries > 0 {
                        let answer = answer.digest();
                        self.steps.push(Step { statement, answer });
                    }
                    return Ok(answer);
                }
                Err(e) => return Err(e),
            }
        }
    }

    async fn once(&mut self, statement: &Statement) -> Result<Answer> {
        let query = statement.query();
        let fetches = statement.fetches;
        self.call(move |conn| {
            Box::pin(async move {
                Ok(if fetches {
                    Answer {
                        changed: 0,
                        rows: query.fetch_all(conn).await?,
                    }
                } else {
                    Answer {
                        changed: query.execute(conn).await?.rows_affected(),
                        rows: Vec::new(),
                    }
                })
            })
        })
        .await
    }

    /// Has the connection do something.
    async fn call<T: Send + 'static>(
        &mut self,
        call: impl for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, sqlx::Result<T>>
        + Send
        + 'static,
    ) -> Result<T> {
        let mut tx = self.tx.take().ok_or(sqlx::Error::WorkerCrashed)?;
        let called = async move {
            let done = call(&mut tx).await;
            (tx, done)
        };
        let (tx, done) = self.database.to_its_end(called).await?;
        self.tx = Some(tx);
        Ok(done?)
    }

    /// Begins again and does what was done; `cause` is the error where that comes out differently.
    async fn again(&mut self, cause: sqlx::Error) -> Result<()> {
        'anew: loop {
            for statement in ["ROLLBACK", self.database.begin_writing()] {
                self.call(move |conn| Box::pin(sqlx::raw_sql(statement).execute(conn)))
                    .await?;
            }
            for n in 0..self.steps.len() {
                let statement = self.steps[n].statement.clone();
                match self.once(&statement).await {
                    Ok(answer) if answer.digest() == self.steps[n].answer => {}
                    Ok(_) => return Err(Error::Contended(cause)),
                    Err(Error::Contended(_)) if self.retries > 0 => {
                        self.retries -= 1;
                        continue 'anew;
                    }
                    Err(e) => return Err(e),
                }
            }
            return Ok(());
        }
    }

    /// What time it is to the database, which all processes that share it agree on: for leases and
    /// whatever else one process sets and another one looks at. It is not among what is run again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn clock(&mut self) -> Result<Timestamp> {
        let Some(sql) = self.database.clock() else {
            return Ok(Timestamp::now());
        };
        let statement = Statement {
            sql: sql.to_owned(),
            args: Vec::new(),
            fetches: true,
        };
        let row = self.once(&statement).await?.rows.into_iter().next();
        let now = row.map(|row| Row(row).int("clock", "now")).transpose()?;
        Ok(now.map_or_else(Timestamp::now, Timestamp))
    }

    /// Ends a `SELECT` of rows that this transaction goes on to change: they are locked, if it is
    /// one that writes.
    pub(in crate::catalog) const fn for_update(&self) -> &'static str {
        if self.writes {
            self.database.for_update()
        } else {
            ""
        }
    }

    /// Whether rows below a row are best asked for in its place, as a text of JSON.
    pub(in crate::catalog) const fn aggregates_json(&self) -> bool {
        self.database.aggregates_json()
    }

    /// These columns of a row as a text of JSON, a list with a list in it; of all rows of the
    /// statement, where that is aggregated.
    pub(in crate::catalog) fn json(&self, columns: &str) -> String {
        self.database.json(columns)
    }

    /// Ends a `SELECT` that takes a row nobody else is at.
    pub(in crate::catalog) const fn for_update_of_free_rows(&self) -> &'static str {
        self.database.for_update_of_free_rows()
    }

    /// Whether a text without a bound (a property's value) equals `value`.
    pub(in crate::catalog) fn long_equals(&self, column: &str, value: &str) -> (String, Vec<Arg>) {
        let (text, times) = self.database.long_equals(column, value);
        (text, vec![Arg::from(value); times])
    }

    /// A table in `FROM`, to be read by this index alone.
    pub(in crate::catalog) fn by_index(&self, table: &str, index: &str) -> String {
        self.database.by_index(table, index)
    }

    /// A table in `FROM`, whose rows are looked up by its primary key.
    pub(in crate::catalog) fn by_key(&self, table: &str) -> String {
        self.database.by_key(table)
    }

    /// A term of `ORDER BY`, with NULL as the smallest value.
    pub(in crate::catalog) fn order(
        &self,
        column: &str,
        direction: Direction,
        is_nullable: bool,
    ) -> String {
        self.database.order(column, direction, is_nullable)
    }
}

impl Statement {
    fn query(&self) -> Query<'static, Any, AnyArguments> {
        // Statements are built from constants of this module's siblings; values are always bound.
        let mut query = sqlx::query(AssertSqlSafe(self.sql.clone()));
        for arg in &self.args {
            query = match arg {
                Arg::Text(text) => query.bind(text.clone()),
                Arg::Int(int) => query.bind(*int),
            };
        }
        query
    }
}

impl Answer {
    /// Equal for equal answers, and for hardly any others.
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.changed.hash(&mut hasher);
        self.rows.len().hash(&mut hasher);
        for row in &self.rows {
            for n in 0..row.len() {
                row.try_get::<Option<i64>, _>(n).ok().hash(&mut hasher);
                row.try_get::<Option<String>, _>(n).ok().hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}
