//! What a database's error means: one table for all three.

use sqlx::error::{DatabaseError, ErrorKind};

use crate::catalog::Error;

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(e) => match meaning(e.as_ref()) {
                Meaning::Taken => Self::Conflict("the row".into()),
                Meaning::Contended => Self::Contended(error),
                Meaning::Away => Self::Unavailable(error),
                Meaning::Unstorable => Self::Unstorable(error),
                Meaning::Other => Self::Sql(error),
            },
            e if is_lost(e) => Self::Unavailable(error),
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Self::Unavailable(error),
            _ => Self::Sql(error),
        }
    }
}

/// Whether the connection, rather than the statement, failed.
pub(super) fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        // A server that dies in the middle of an answer leaves half a message.
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(e) => meaning(e.as_ref()) == Meaning::Away,
        _ => false,
    }
}

#[derive(PartialEq, Eq)]
enum Meaning {
    /// A key is taken, or what a row refers to is gone.
    Taken,
    /// Another transaction was in the way; this one was undone.
    Contended,
    /// The server is going, gone, or takes nobody in.
    Away,
    /// A value is no text for this database.
    Unstorable,
    Other,
}

fn meaning(error: &dyn DatabaseError) -> Meaning {
    if matches!(
        error.kind(),
        ErrorKind::UniqueViolation | ErrorKind::ForeignKeyViolation
    ) {
        return Meaning::Taken;
    }
    if let Some(e) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return match e.number() {
            // Lock wait timeout, deadlock, a row that changed under a snapshot.
            1205 | 1213 | 1020 => Meaning::Contended,
            // Too many connections (of all, of one user), too many prepared statements, shutdown,
            // connection killed, query interrupted, read-only, server gone.
            1040 | 1203 | 1461 | 1226 | 1053 | 1927 | 1317 | 1290 | 1836 | 1792 | 2006 | 2013
            | 3169 => Meaning::Away,
            _ => Meaning::Other,
        };
    }
    let Some(code) = error.code() else {
        return Meaning::Other;
    };
    match code.as_ref() {
        // SQLITE_BUSY and SQLITE_LOCKED, after the busy timeout has run out; PostgreSQL's
        // serialization failure, deadlock, lock timeout.
        "5" | "6" | "517" | "40001" | "40P01" | "55P03" => Meaning::Contended,
        // PostgreSQL's character not in repertoire: a NUL above all.
        "22021" => Meaning::Unstorable,
        // Connection exceptions, insufficient resources, operator intervention, a read-only
        // standby.
        code if code.len() == 5
            && (["08", "53", "57"]
                .iter()
                .any(|class| code.starts_with(class))
                || code == "25006") =>
        {
            Meaning::Away
        }
        _ => Meaning::Other,
    }
}
