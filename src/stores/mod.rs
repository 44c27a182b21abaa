//! Stores: where image bytes are kept. Invisible until committed, durable once they are.
//!
//! The optional abilities are answers, not flags: a store whose blobs are local files says so by
//! [`BlobStore::local`].

mod file;
mod http;
mod put;
mod read;
mod registry;
mod tee;

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use formats::Source;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

pub(crate) use file::write_sparse;
pub use file::{FileStore, FileWriter, sync_dir};
pub use http::{HttpStore, is_http};
pub use put::put_file;
pub(crate) use read::read_stream;
pub use registry::{Store, Stores};
pub use tee::Tee;

/// Why a store could not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such blob.
    #[error("no such blob")]
    NotFound,
    /// No room is left.
    #[error("the store is full")]
    Full(#[source] std::io::Error),
    /// Writing is denied.
    #[error("the store denies access")]
    Denied(#[source] std::io::Error),
    /// The URL is none of this store's.
    #[error("the location does not belong to this store")]
    Foreign,
    /// Anything else.
    #[error("the store failed")]
    Io(#[source] std::io::Error),
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        match error.kind() {
            K::NotFound => Self::NotFound,
            K::StorageFull | K::QuotaExceeded | K::FileTooLarge => Self::Full(error),
            K::PermissionDenied | K::ReadOnlyFilesystem => Self::Denied(error),
            _ => Self::Io(error),
        }
    }
}

/// A result with a store's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A blob's bytes as they are read.
pub type Bytestream = BoxStream<'static, std::io::Result<Bytes>>;

/// A place for blobs.
pub trait BlobStore: Send + Sync {
    /// The URL a blob of this name has. Names are ours: letters, digits, dashes and dots.
    fn url(&self, name: &str) -> String;

    /// Begins a blob at `url`. Nothing can be read there until it is committed.
    fn begin<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Box<dyn BlobWriter>>>;

    /// The bytes `range` of the blob at `url`.
    fn open<'a>(&'a self, url: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytestream>>;

    /// Bytes of the blob at `url`.
    fn stat<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<u64>>;

    /// Removes the blob at `url`, finished or not. Idempotent: what is not there is removed.
    fn delete<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<()>>;

    /// The blobs as local files, where they are.
    fn local(&self) -> Option<&dyn LocalFiles> {
        None
    }
}

/// A blob being written. Dropping it without a word leaves what [`BlobStore::delete`] removes.
pub trait BlobWriter: Send {
    /// Appends a chunk.
    fn write(&mut self, chunk: Chunk) -> BoxFuture<'_, Result<()>>;

    /// Everything written so far, to be read back before the verdict; `None` where the store
    /// cannot.
    fn read_back(&mut self) -> BoxFuture<'_, Result<Option<Arc<dyn Source>>>>;

    /// Makes the blob durable, then visible.
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<()>>;

    /// Removes what was written.
    fn abort(self: Box<Self>) -> BoxFuture<'static, Result<()>>;
}

/// Bytes on their way, shared by everyone who looks at them.
pub type Chunk = Arc<[Bytes]>;

/// A store whose blobs are files of a local or shared file system.
pub trait LocalFiles: Send + Sync {
    /// Makes the durable file at `path` the blob at `url` without moving a byte, where the file
    /// system can link them; false where it cannot. `path` stays.
    ///
    /// # Errors
    /// When the file system fails.
    fn link(&self, path: &Path, url: &str) -> Result<bool>;

    /// Opens the blob for positioned reading.
    ///
    /// # Errors
    /// `NotFound`, or when the file system fails.
    fn open_file(&self, url: &str) -> Result<File>;
}
