//! A durable file made a blob.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::task::spawn_blocking;

use super::{BlobStore, Bytestream, Error, Result, read_stream};

/// Makes the first `size` bytes of the durable file at `path` the blob at `url`: links it where
/// the store can, else copies it, by way of `pass`. Answers whether it is a link. The file stays.
///
/// # Errors
/// When the store or the file system fails.
pub async fn put_file(
    blobs: &Arc<dyn BlobStore>,
    url: &str,
    path: &Path,
    size: u64,
    pass: impl FnOnce(Bytestream) -> Bytestream,
) -> Result<bool> {
    let (store, from, to) = (blobs.clone(), path.to_owned(), url.to_owned());
    let linked = spawn_blocking(move || match store.local() {
        Some(local) => local.link(&from, &to),
        None => Ok(false),
    });
    if linked.await.map_err(|e| Error::Io(io::Error::other(e)))?? {
        return Ok(true);
    }
    let file = Arc::new(File::open(path)?);
    let mut writer = blobs.begin(url).await?;
    let mut body = pass(read_stream(file, 0..size));
    while let Some(piece) = body.next().await {
        let written = match piece {
            Ok(piece) => writer.write([piece].into()).await,
            Err(e) => Err(e.into()),
        };
        if let Err(e) = written {
            writer.abort().await?;
            return Err(e);
        }
    }
    writer.commit().await?;
    Ok(false)
}
