//! What the three databases do differently. Nothing outside `conn` asks which one it is.

use std::borrow::Cow;

use sqlx::AnyConnection;
use sqlx::any::AnyPoolOptions;
use sqlx::migrate::Migrator;
use tracing::Instrument;

use crate::catalog::Direction;

/// A kind of database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Database {
    Sqlite,
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
}

impl Database {
    /// The database a URL names by its scheme.
    pub(super) fn of_url(url: &str) -> Option<Self> {
        match url.split_once(':')?.0 {
            "sqlite" => Some(Self::Sqlite),
            "postgres" | "postgresql" => Some(Self::Postgres),
            "mysql" | "mariadb" => Some(Self::Mysql),
            _ => None,
        }
    }

    /// Its name in traces. Of MySQL and MariaDB we do not know which it is.
    pub(super) const fn system(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgresql",
            Self::Mysql => "mysql",
        }
    }

    /// The migrations. One that is applied but unknown here is fine: a newer program added it, and
    /// migrations only ever add.
    pub(super) fn migrator(self) -> Migrator {
        let mut migrator = match self {
            Self::Sqlite => sqlx::migrate!("src/catalog/migrations/sqlite"),
            Self::Postgres => sqlx::migrate!("src/catalog/migrations/postgres"),
            Self::Mysql => sqlx::migrate!("src/catalog/migrations/mysql"),
        };
        migrator.set_ignore_missing(true);
        migrator
    }

    /// What every new connection is told first.
    const fn greeting(self) -> &'static [&'static str] {
        match self {
            // FULL: what a client was told is stored survives a power cut. 16 MiB of pages, where
            // that much was read: a page of images from a large catalog looks at some 300.
            Self::Sqlite => &[
                "PRAGMA cache_size = -16384",
                "PRAGMA busy_timeout = 30000",
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                "PRAGMA foreign_keys = ON",
            ],
            // Custom plans: which index is the right one depends on the values.
            Self::Postgres => &[
                "SET lock_timeout = '10s'",
                "SET plan_cache_mode = force_custom_plan",
            ],
            // Strict: a text that does not fit is an error and never cut short.
            Self::Mysql => &[
                "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
                "SET SESSION innodb_lock_wait_timeout = 10",
            ],
        }
    }

    /// `options` with the greeting.
    pub(super) fn greet(self, options: AnyPoolOptions) -> AnyPoolOptions {
        options.after_connect(move |conn: &mut AnyConnection, _| {
            Box::pin(async move {
                for statement in self.greeting() {
                    sqlx::raw_sql(*statement).execute(&mut *conn).await?;
                }
                Ok(())
            })
        })
    }

    /// Does something on a connection, to its end even if whoever waits for it goes away: the
    /// drivers of servers lose track of a connection whose call was dropped half-way, which then goes
    /// back to the pool in a transaction, or waiting for an answer that was read.
    pub(super) async fn to_its_end<T: Send + 'static>(
        self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> sqlx::Result<T> {
        if self == Self::Sqlite {
            return Ok(call.await);
        }
        let spawned = tokio::spawn(call.in_current_span()).await;
        spawned.map_err(|_| sqlx::Error::WorkerCrashed)
    }

    /// Begins a transaction whose reads all see one moment.
    pub(super) const fn begin_reading(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Self::Mysql => {
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION READ ONLY"
            }
        }
    }

    /// Begins a transaction that writes. It sees what is committed, and locks what it is to change.
    pub(super) const fn begin_writing(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Self::Mysql => "START TRANSACTION",
        }
    }

    /// `sql` with its `?` as this database spells them. No statement of ours holds a literal `?`.
    pub(super) fn spell(self, sql: String) -> String {
        if self != Self::Postgres {
            return sql;
        }
        let mut spelt = String::with_capacity(sql.len() + 16);
        for (n, part) in sql.split('?').enumerate() {
            if n > 0 {
                spelt.push('$');
                spelt.push_str(&n.to_string());
            }
            spelt.push_str(part);
        }
        spelt
    }

    /// What follows a `SELECT` whose rows the same transaction is to change. SQLite has one
    /// writer, and it is us.
    pub(super) const fn for_update(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres | Self::Mysql => " FOR UPDATE",
        }
    }

    /// Whether rows below a row are best asked for in its place, as a text of JSON. SQLite counts
    /// them fast, and each row costs a message from its thread; in MariaDB such an aggregate takes
    /// as long as five statements, and in PostgreSQL it would be from before a lock was waited for.
    pub(super) const fn aggregates_json(self) -> bool {
        matches!(self, Self::Sqlite)
    }

    /// These columns of a row as a text of JSON, a list with a list in it; of all rows of the
    /// statement, where that is aggregated.
    pub(super) fn json(self, columns: &str) -> String {
        match self {
            Self::Sqlite => format!("json_group_array(json_array({columns}))"),
            Self::Postgres => {
                format!("CAST(json_build_array(json_build_array({columns})) AS TEXT)")
            }
            Self::Mysql => format!("CAST(JSON_ARRAY(JSON_ARRAY({columns})) AS CHAR)"),
        }
    }

    /// Asks for microseconds since 1970; `None` where the database lives in this process.
    pub(super) const fn clock(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(
                "SELECT 'clock' AS id, \
                 CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) AS now",
            ),
            Self::Mysql => Some(
                "SELECT 'clock' AS id, \
                 TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) AS now",
            ),
        }
    }

    /// Like [`for_update`](Self::for_update), passing by rows that others hold.
    pub(super) const fn for_update_of_free_rows(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres | Self::Mysql => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// A term of `ORDER BY` in which NULL is the smallest value. An index serves it that was made in
    /// the same words.
    pub(super) fn order(self, column: &str, direction: Direction, is_nullable: bool) -> String {
        let direction = match (self, direction, is_nullable) {
            (Self::Postgres, Direction::Asc, true) => "ASC NULLS FIRST",
            (Self::Postgres, Direction::Desc, true) => "DESC NULLS LAST",
            (_, Direction::Asc, _) => "ASC",
            (_, Direction::Desc, _) => "DESC",
        };
        format!("{column} {direction}")
    }

    /// Whether a text without a bound equals one mark's worth of `value`: the condition, and how often
    /// the value is bound. An index serves it that was made on the text's beginning.
    pub(super) fn long_equals(self, column: &str, value: &str) -> (String, usize) {
        match self {
            // An index there holds no long text: it is on the first 255 characters, which are the
            // whole of most.
            Self::Postgres if value.chars().count() < 255 => {
                (format!("left({column}, 255) = ?"), 1)
            }
            Self::Postgres => (
                format!("left({column}, 255) = left(?, 255) AND {column} = ?"),
                2,
            ),
            Self::Sqlite | Self::Mysql => (format!("{column} = ?"), 1),
        }
    }

    /// A table in `FROM`, to be read by one index alone. PostgreSQL takes no advice, and needs none.
    pub(super) fn by_index(self, table: &str, index: &str) -> String {
        match self {
            Self::Sqlite => format!("{table} INDEXED BY {index}"),
            Self::Postgres => table.to_owned(),
            Self::Mysql => format!("{table} FORCE INDEX ({index})"),
        }
    }

    /// A table in `FROM`, whose rows are looked up by its primary key, a text.
    pub(super) fn by_key(self, table: &str) -> String {
        match self {
            Self::Sqlite => self.by_index(table, &format!("sqlite_autoindex_{table}_1")),
            Self::Postgres | Self::Mysql => self.by_index(table, "PRIMARY"),
        }
    }

    /// What to run now and then so that the planner knows how much there is of what. Servers see to
    /// it by themselves.
    pub(super) const fn tend(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => Some("PRAGMA analysis_limit = 1000; PRAGMA optimize"),
            Self::Postgres | Self::Mysql => None,
        }
    }

    /// Asks whether there is a table of migrations.
    pub(super) const fn has_migrations(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table' AND name = ?",
            Self::Postgres => {
                "SELECT CAST(table_name AS TEXT) AS name FROM information_schema.tables \
                 WHERE table_schema = current_schema() AND table_name = ?"
            }
            Self::Mysql => {
                "SELECT table_name AS name FROM information_schema.tables \
                 WHERE table_schema = DATABASE() AND table_name = ?"
            }
        }
    }

    /// Statements to run before the first migration: `version` is what `SELECT VERSION()` says.
    ///
    /// Text must compare by its bytes, trailing spaces included. SQLite does so by itself,
    /// PostgreSQL's migrations say so by column; MySQL and MariaDB have no such collation under one
    /// name, so it becomes the database's default.
    pub(super) fn prepare_schema(self, version: &str) -> Option<Cow<'static, str>> {
        if self != Self::Mysql {
            return None;
        }
        let collation = if version.contains("MariaDB") {
            "utf8mb4_nopad_bin"
        } else {
            "utf8mb4_0900_bin"
        };
        Some(format!("ALTER DATABASE CHARACTER SET utf8mb4 COLLATE {collation}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_numbered_for_postgres_alone() {
        let sql = "UPDATE t SET a = ? WHERE b IN (?, ?)";
        assert_eq!(Database::Sqlite.spell(sql.into()), sql);
        assert_eq!(Database::Mysql.spell(sql.into()), sql);
        assert_eq!(
            Database::Postgres.spell(sql.into()),
            "UPDATE t SET a = $1 WHERE b IN ($2, $3)"
        );
    }

    #[test]
    fn urls_name_their_database() {
        let of = Database::of_url;
        assert_eq!(of("sqlite:x.db"), Some(Database::Sqlite));
        assert_eq!(of("postgresql://h/d"), Some(Database::Postgres));
        assert_eq!(of("mariadb://h/d"), Some(Database::Mysql));
        assert_eq!(of("oracle://h/d"), None);
        assert_eq!(of("glint.db"), None);
    }
}
