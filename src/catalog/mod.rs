//! The catalog: what is known of images, in SQL. Plain functions over a transaction, one small
//! module an entity; `conn` is the only one that knows which database it is. How to add a table:
//! `migrations/README.md`.

pub mod appliances;
pub mod batches;
mod conn;
pub mod derivatives;
pub mod glance;
pub mod images;
pub mod jobs;
mod list;
pub mod locations;
pub mod members;
pub mod metadefs;
pub mod outbox;
mod parts;
pub mod purge;
pub mod query;
pub mod resumables;
pub mod staged;
pub mod tasks;
pub mod usage;

pub use conn::{Catalog, Heard, Tx, Version};
pub use query::{
    Column, Direction, Filter, ListQuery, MemberFilter, NumberColumn, Op, SortKey, TaskKey,
    TaskQuery, TimeColumn, Viewer, VisibilityFilter,
};

/// Why the catalog could not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else changed the row first, or the id is taken.
    #[error("{0} was changed by someone else meanwhile")]
    Conflict(String),
    /// The database is away or overloaded: try again later.
    #[error("the catalog cannot be reached")]
    Unavailable(#[source] sqlx::Error),
    /// Another transaction was in the way and this one was undone: try again at once.
    #[error("the catalog is busy")]
    Contended(#[source] sqlx::Error),
    /// A value is no text for this database.
    #[error("the catalog cannot hold such text")]
    Unstorable(#[source] sqlx::Error),
    /// A row holds what cannot be.
    #[error("{table}.{column} of {id} holds what it never should")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row.
        id: String,
    },
    /// The migrations could not be applied.
    #[error("the catalog's schema cannot be brought up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The database to move from is somebody else's.
    #[error("this is no database of Glance's, of its release Rocky or later")]
    NotGlance(#[source] sqlx::Error),
    /// Any other failure of the database.
    #[error("the catalog failed")]
    Sql(#[source] sqlx::Error),
}

/// A result with the catalog's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
