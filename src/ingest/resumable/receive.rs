//! A request's bytes: written behind those that are there, made durable, then told.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;

use super::{Error, Turn, blocking, expiry, made};
use crate::catalog::resumables;
use crate::domain::{HashAlgo, Resumable};
use crate::ingest::Body;
use crate::ingest::intake::Digest;
use crate::service::Service;

/// Bytes written at once.
const BATCH: usize = 1 << 20;
/// Bytes after which what came is made durable, so that a crash loses no more.
const CHECKPOINT: u64 = 64 << 20;
/// How long a client may send nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// The digest that the bytes of a request have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checksum {
    /// Which hash.
    pub algo: HashAlgo,
    /// In lower-case hexadecimal.
    pub value: String,
}

/// How a request's bytes ended.
enum End {
    Whole,
    Broken(io::Error),
    /// Somebody else wants to go on.
    Stopped,
    /// There were more than the upload has room for.
    TooMuch,
}

/// Takes the bytes of a request that follow those of `upload`; answers how many are durable then.
/// What came of a request that broke off is kept, unless it was to have a `checksum`.
///
/// # Errors
/// `Checksum`, `TooMuch`, `Gone`, or the disk or the catalog failed; `upload` says then, too, what
/// is durable.
pub async fn receive(
    svc: &Service,
    turn: &mut Turn,
    upload: &mut Resumable,
    body: Body,
    checksum: Option<&Checksum>,
) -> Result<(), Error> {
    let path = svc.resumable.path(&upload.id);
    let had = upload.received;
    let file = blocking(move || {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        if had == 0 {
            made(&path)?;
        }
        Ok((file.metadata()?.len() >= had).then_some(file))
    });
    let Some(file) = file.await? else {
        // The disk has lost what we told: there is nothing to go on with.
        super::remove(svc, upload).await?;
        return Err(Error::Gone);
    };
    let mut writing = Writing {
        svc,
        upload,
        file,
        at: had,
        digest: checksum.map(|checksum| Digest::new(checksum.algo)),
    };
    let end = writing.all(turn, body).await?;
    if let (Some(checksum), Some(digest)) = (checksum, writing.digest.take()) {
        match end {
            End::Whole if digest.finish() == checksum.value => {}
            End::Broken(e) => return Err(super::super::Error::Client(e).into()),
            End::TooMuch => {}
            End::Whole | End::Stopped => return Err(Error::Checksum),
        }
    }
    match end {
        End::TooMuch => Err(Error::TooMuch {
            size: writing.upload.size,
        }),
        End::Whole => writing.save().await,
        End::Broken(e) => {
            writing.save().await?;
            Err(super::super::Error::Client(e).into())
        }
        End::Stopped => {
            writing.save().await?;
            Err(Error::Busy)
        }
    }
}

struct Writing<'a> {
    svc: &'a Service,
    upload: &'a mut Resumable,
    file: File,
    /// Bytes written.
    at: u64,
    digest: Option<Digest>,
}

impl Writing<'_> {
    async fn all(&mut self, turn: &mut Turn, mut body: Body) -> Result<End, Error> {
        let mut batch: Vec<Bytes> = Vec::new();
        let mut held = 0;
        loop {
            let piece = tokio::select! {
                piece = tokio::time::timeout(PATIENCE, body.next()) => {
                    piece.unwrap_or_else(|_| Some(Err(io::ErrorKind::TimedOut.into())))
                }
                () = turn.wanted() => {
                    self.write(std::mem::take(&mut batch)).await?;
                    return Ok(End::Stopped);
                }
            };
            let end = match piece {
                Some(Ok(piece)) => {
                    held += piece.len();
                    let room = self.upload.size - self.at;
                    if held as u64 > room {
                        return Ok(End::TooMuch);
                    }
                    batch.push(piece);
                    None
                }
                Some(Err(e)) => Some(End::Broken(e)),
                None => Some(End::Whole),
            };
            if held >= BATCH || end.is_some() {
                held = 0;
                self.write(std::mem::take(&mut batch)).await?;
            }
            if let Some(end) = end {
                return Ok(end);
            }
            // What may turn out to be another must not be told.
            if self.digest.is_none() && self.at - self.upload.received >= CHECKPOINT {
                self.save().await?;
            }
        }
    }

    async fn write(&mut self, batch: Vec<Bytes>) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let (file, mut at) = (self.file.try_clone()?, self.at);
        let mut digest = self.digest.take();
        (self.at, self.digest) = blocking(move || {
            for piece in batch {
                file.write_all_at(&piece, at)?;
                at += piece.len() as u64;
                if let Some(digest) = &mut digest {
                    digest.update(&piece);
                }
            }
            Ok((at, digest))
        })
        .await?;
        Ok(())
    }

    /// Makes durable what is written, and tells.
    async fn save(&mut self) -> Result<(), Error> {
        let file = self.file.try_clone()?;
        blocking(move || file.sync_data()).await?;
        let expires_at = expiry(self.svc);
        let mut tx = self.svc.catalog.write().await?;
        let (from, to) = (self.upload.received, self.at);
        resumables::advance(&mut tx, &self.upload.id, (from, to), expires_at).await?;
        tx.commit().await?;
        (self.upload.received, self.upload.expires_at) = (to, expires_at);
        Ok(())
    }
}
