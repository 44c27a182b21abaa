//! Blobs on web servers: read where clients say they are, never written and never removed.

use std::io;
use std::ops::Range;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{BlobStore, BlobWriter, Bytestream, Error, Result};
use crate::fetch::{self, Fetcher};

/// All of the web that the rules of `[fetch]` allow.
pub struct HttpStore(Fetcher);

impl HttpStore {
    /// A store that reads by `fetcher`.
    #[must_use]
    pub fn new(fetcher: Fetcher) -> Self {
        Self(fetcher)
    }
}

/// Whether a URL is one of such a store.
#[must_use]
pub fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

impl BlobStore for HttpStore {
    /// Nothing is ever made here, so nothing has a place.
    fn url(&self, _: &str) -> String {
        String::new()
    }

    fn begin<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Box<dyn BlobWriter>>> {
        async { Err(Error::Denied(io::ErrorKind::ReadOnlyFilesystem.into())) }.boxed()
    }

    fn open<'a>(&'a self, url: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytestream>> {
        async move { Ok(self.0.get_range(url, range).await?) }.boxed()
    }

    fn stat<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<u64>> {
        async move {
            let length = self.0.length(url).await?;
            length.ok_or_else(|| Error::Io(io::Error::other("the server does not tell the size")))
        }
        .boxed()
    }

    /// What lies there is not ours to remove.
    fn delete<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed()
    }
}

impl From<fetch::Error> for Error {
    fn from(error: fetch::Error) -> Self {
        match error {
            fetch::Error::Status(404 | 410) => Self::NotFound,
            fetch::Error::Refused(_) => Self::Foreign,
            other => Self::Io(io::Error::other(other)),
        }
    }
}
