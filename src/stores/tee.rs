//! One pass of bytes into several stores.

use std::sync::Arc;

use formats::Source;
use futures_util::future::{BoxFuture, try_join_all};

use super::{BlobWriter, Chunk, Error, Result};

/// Blobs written side by side, each in a store with a name. One that fails fails them all.
#[derive(Default)]
pub struct Tee {
    writers: Vec<(String, Box<dyn BlobWriter>)>,
    failed: Option<String>,
}

impl Tee {
    /// Adds a blob that has been begun in the store called `store`.
    pub fn add(&mut self, store: &str, writer: Box<dyn BlobWriter>) {
        self.writers.push((store.to_owned(), writer));
    }

    /// The store that failed, where one did.
    #[must_use]
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Makes all of them durable and visible, one after the other.
    ///
    /// # Errors
    /// The first failure with the name of its store; some may be visible then.
    pub async fn commit_all(&mut self) -> Result<(), (String, Error)> {
        for (store, writer) in self.writers.drain(..) {
            writer.commit().await.map_err(|e| (store, e))?;
        }
        Ok(())
    }

    /// Removes what was written, as far as that goes.
    ///
    /// # Errors
    /// The last failure; what it left can be removed by the store.
    pub async fn abort_all(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        for (_, writer) in self.writers.drain(..) {
            if let Err(e) = writer.abort().await {
                outcome = Err(e);
            }
        }
        outcome
    }
}

impl BlobWriter for Tee {
    fn write(&mut self, chunk: Chunk) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let writing = self.writers.iter_mut().map(|(store, writer)| {
                let chunk = chunk.clone();
                async move { writer.write(chunk).await.map_err(|e| (store.clone(), e)) }
            });
            match try_join_all(writing).await {
                Ok(_) => Ok(()),
                Err((store, e)) => {
                    self.failed = Some(store);
                    Err(e)
                }
            }
        })
    }

    /// From the first that can be read back.
    fn read_back(&mut self) -> BoxFuture<'_, Result<Option<Arc<dyn Source>>>> {
        Box::pin(async move {
            for (_, writer) in &mut self.writers {
                if let Some(source) = writer.read_back().await? {
                    return Ok(Some(source));
                }
            }
            Ok(None)
        })
    }

    fn commit(mut self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move { self.commit_all().await.map_err(|(_, e)| e) })
    }

    fn abort(mut self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move { self.abort_all().await })
    }
}
