//! Uploads that go on where they were broken off: an image's data in several requests, or in
//! several uploads that are put together.
//!
//! ```text
//!  create ─► row ─► receive, again and again: bytes to the file, fsync, then `received` in the row
//!                     └─► all are here ─► read once, from its beginning, by whoever publishes it
//! ```
//! A client is told what is durable, so it goes on from there whatever died. Digests are made when
//! the data is complete and published: it is read for that anyway, as any upload's is.

mod receive;
mod turns;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt, stream};

pub use receive::{Checksum, receive};
pub use turns::Turn;

use super::{Body, Staging};
use crate::catalog::{self, images, resumables};
use crate::domain::{Event, Expected, Image, Part, Resumable, Timestamp};
use crate::quota;
use crate::service::Service;
use crate::stores::{read_stream, sync_dir};

/// Uploads of one image that are not done, at most.
pub const MAX_UPLOADS: usize = 256;
/// Bytes of what a client may say of an upload.
pub const MAX_METADATA: usize = 8 << 10;
/// Uploads swept in one transaction.
const BATCH: u32 = 100;

/// Why an upload does not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As for any upload.
    #[error(transparent)]
    Ingest(#[from] super::Error),
    /// It is gone, or has expired.
    #[error("there is no such upload")]
    Gone,
    /// Another request has it, and does not let go.
    #[error("another request is at work on this upload")]
    Busy,
    /// The process that has its bytes is another one.
    #[error("the data of this upload is with another process of the service")]
    Elsewhere,
    /// It has other bytes than the request thinks.
    #[error("the upload has {has} bytes, not {said}")]
    Offset {
        /// Bytes it has.
        has: u64,
        /// Bytes the request said.
        said: u64,
    },
    /// More bytes came than it was to have.
    #[error("the upload ends after {size} bytes")]
    TooMuch {
        /// Bytes it was to have.
        size: u64,
    },
    /// The bytes of the request have not the digest that it said.
    #[error("the checksum of this request is another")]
    Checksum,
    /// So many are not allowed.
    #[error("more than {MAX_UPLOADS} uploads of one image are under way")]
    TooMany,
    /// Parts cannot be put together like this.
    #[error("{0}")]
    Parts(&'static str),
}

impl From<catalog::Error> for Error {
    fn from(error: catalog::Error) -> Self {
        match error {
            catalog::Error::Conflict(_) => Self::Gone,
            other => Self::Ingest(other.into()),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        Self::Ingest(match full.contains(&error.kind()) {
            true => super::Error::StoreFull,
            false => super::Error::Internal(format!("the folder for uploads: {error}")),
        })
    }
}

/// The folder for uploads: a file each, named for its row.
pub struct Resumables {
    folder: PathBuf,
    /// Its name among those of a shared catalog: only the process that has it takes turns there.
    host: Option<String>,
    turns: turns::Turns,
}

impl Resumables {
    /// Opens the folder, making it where it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: &Path, host: Option<String>) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            host,
            turns: turns::Turns::default(),
        })
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    /// The turn of a request at an upload; whoever is at it is asked to stop.
    ///
    /// # Errors
    /// `Busy` when it does not in time.
    pub async fn turn(&self, id: &str) -> Result<Turn, Error> {
        self.turns.take(id).await.ok_or(Error::Busy)
    }
}

/// What is to be uploaded.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The store that the data goes to.
    pub store: String,
    /// What it is of.
    pub part: Part,
    /// Its bytes.
    pub size: u64,
    /// What the client says of it.
    pub metadata: String,
    /// The digest it must have.
    pub expected: Option<Expected>,
    /// What it is put together from, where it is.
    pub parts: Vec<String>,
}

/// Begins an upload of `image`'s data. The image waits for it, queued, until all bytes are here.
///
/// # Errors
/// When the image cannot take data now, or its owner may not have that much.
pub async fn create(svc: &Service, image: &Image, wish: Wish) -> Result<Resumable, Error> {
    let cap = svc.config.quota.image_size_cap;
    if wish.size > cap {
        return Err(super::Error::TooLarge { cap }.into());
    }
    let upload = Resumable {
        id: uuid::Uuid::new_v4().simple().to_string(),
        image: image.id.clone(),
        owner: image.owner.clone(),
        host: svc.resumable.host.clone(),
        store: wish.store,
        part: wish.part,
        size: wish.size,
        received: match wish.part {
            Part::Joined => wish.size,
            Part::Whole | Part::Part => 0,
        },
        done: false,
        metadata: wish.metadata,
        expected: wish.expected,
        parts: wish.parts,
        expires_at: expiry(svc),
    };
    let mut tx = svc.catalog.write().await?;
    // Its row is locked from here on: two requests do not count each other past the bounds.
    let image = images::find(&mut tx, &image.id).await?;
    let image = image.ok_or(super::Error::Gone)?;
    let begun = image.status.apply(Event::UploadStarted);
    begun.map_err(super::Error::from)?;
    image.has_formats().map_err(super::Error::from)?;
    if resumables::count(&mut tx, &image.id).await? >= MAX_UPLOADS {
        return Err(Error::TooMany);
    }
    // What a joined one will have its parts have counted.
    if let (Some(owner), Part::Whole | Part::Part) = (&upload.owner, upload.part) {
        let pending = resumables::pending(&mut tx, owner).await?;
        let wanted = pending.saturating_add(upload.size);
        let allowed = svc.quotas.allowance(&mut tx, Some(owner), Some(wanted));
        allowed.await.map_err(super::Error::from)?;
    }
    resumables::insert(&mut tx, &upload).await?;
    tx.commit().await?;
    Ok(upload)
}

/// The upload `id` of `image`, as it is now: to be asked in one's [`Turn`].
///
/// # Errors
/// `Gone`, or `Elsewhere`.
pub async fn find(svc: &Service, image: &Image, id: &str) -> Result<Resumable, Error> {
    let mut tx = svc.catalog.read().await?;
    let upload = resumables::find(&mut tx, id).await?;
    let is_there = |u: &Resumable| u.image == image.id && u.expires_at > Timestamp::now();
    let upload = upload.filter(is_there).ok_or(Error::Gone)?;
    match upload.host == svc.resumable.host {
        true => Ok(upload),
        false => Err(Error::Elsewhere),
    }
}

/// Checks that these are some uploads, each named once: nobody takes turns with himself.
///
/// # Errors
/// `Parts`
pub fn are_distinct(ids: &[String]) -> Result<(), Error> {
    let different: HashSet<_> = ids.iter().collect();
    if ids.is_empty() || ids.len() > MAX_UPLOADS || different.len() < ids.len() {
        return Err(Error::Parts("Name each part once"));
    }
    Ok(())
}

/// The uploads that are to be put together as one, in this order.
///
/// # Errors
/// `Parts` when one is no part, not complete, or named twice.
pub async fn parts(svc: &Service, image: &Image, ids: &[String]) -> Result<Vec<Resumable>, Error> {
    are_distinct(ids)?;
    let mut parts = Vec::with_capacity(ids.len());
    for id in ids {
        let part = find(svc, image, id).await?;
        if part.part != Part::Part || !part.is_complete() {
            return Err(Error::Parts(
                "Only partial uploads that are complete can be put together",
            ));
        }
        parts.push(part);
    }
    Ok(parts)
}

/// The data of an upload that is complete, from its parts where it is joined.
///
/// # Errors
/// `Gone` when bytes are lost, or as for [`parts`].
pub async fn data(svc: &Service, image: &Image, upload: &Resumable) -> Result<Body, Error> {
    let uploads = match upload.part {
        Part::Joined => parts(svc, image, &upload.parts).await?,
        Part::Whole | Part::Part => vec![upload.clone()],
    };
    let mut files = Vec::with_capacity(uploads.len());
    for upload in uploads.iter().filter(|upload| upload.size > 0) {
        let (path, size) = (svc.resumable.path(&upload.id), upload.size);
        let opened = blocking(move || {
            let file = File::open(path)?;
            let len = file.metadata()?.len();
            Ok((len >= size).then_some(file))
        });
        let file = opened.await?.ok_or(Error::Gone)?;
        files.push((Arc::new(file), size));
    }
    let files = stream::iter(files);
    Ok(files
        .flat_map(|(file, size)| read_stream(file, 0..size))
        .boxed())
}

/// The image has the data of `upload`. Its parts are not needed any more; the upload itself is
/// remembered for a client that missed the answer.
///
/// # Errors
/// When the catalog fails: the upload is then as before, and the image has the data.
pub async fn finish(svc: &Service, upload: &Resumable) -> Result<(), Error> {
    let mut tx = svc.catalog.write().await?;
    resumables::finish(&mut tx, &upload.id).await?;
    resumables::delete(&mut tx, &upload.parts).await?;
    tx.commit().await?;
    remove_files(svc, with_parts(upload)).await
}

/// Forgets an upload, its parts, and their bytes.
///
/// # Errors
/// When the catalog or the file system fails: what is left then is swept.
pub async fn remove(svc: &Service, upload: &Resumable) -> Result<(), Error> {
    let ids = with_parts(upload);
    let mut tx = svc.catalog.write().await?;
    resumables::delete(&mut tx, &ids).await?;
    tx.commit().await?;
    remove_files(svc, ids).await
}

fn with_parts(upload: &Resumable) -> Vec<String> {
    upload.parts.iter().chain([&upload.id]).cloned().collect()
}

async fn remove_files(svc: &Service, ids: Vec<String>) -> Result<(), Error> {
    let paths: Vec<_> = ids.iter().map(|id| svc.resumable.path(id)).collect();
    blocking(move || paths.iter().try_for_each(|path| Staging::remove(path))).await?;
    Ok(())
}

/// Forgets what nobody goes on with, and what belongs to images that are deleted; then removes
/// files without a row.
pub(crate) async fn sweep(svc: &Service, now: Timestamp) -> catalog::Result<()> {
    loop {
        let mut tx = svc.catalog.write().await?;
        let over = resumables::over(&mut tx, now, BATCH).await?;
        resumables::delete_over(&mut tx, &over, now).await?;
        tx.commit().await?;
        if over.is_empty() {
            break;
        }
        tracing::info!(
            uploads = over.len(),
            "forgot uploads that nobody went on with"
        );
    }
    let folder = svc.resumable.folder.clone();
    let swept = async {
        let listed = blocking(move || {
            let entries = fs::read_dir(folder)?;
            let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            // What else lies there is none of ours.
            let ours = names.filter(|name| name.as_ref().map_or(true, |name| is_id(name)));
            ours.collect::<io::Result<Vec<_>>>()
        });
        for names in listed.await?.chunks(BATCH as usize) {
            let mut tx = svc.catalog.read().await?;
            let kept: HashSet<_> = resumables::with_bytes(&mut tx, names)
                .await?
                .into_iter()
                .collect();
            drop(tx);
            let orphans = names.iter().filter(|name| !kept.contains(*name));
            remove_files(svc, orphans.cloned().collect()).await?;
        }
        Ok::<_, Error>(())
    };
    match swept.await {
        Err(Error::Ingest(super::Error::Catalog(e))) => Err(e),
        Err(e) => {
            tracing::warn!(error = %e, "the folder for uploads could not be swept");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Whether a file may be an upload's, by its name.
fn is_id(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

fn expiry(svc: &Service) -> Timestamp {
    let hours = svc.config.import.upload_hours;
    Timestamp::now().plus_seconds(hours.saturating_mul(3600))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(io::Error::other).flatten()?)
}

/// Makes the name of a new file durable.
fn made(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_dir)
}

impl From<quota::Error> for Error {
    fn from(error: quota::Error) -> Self {
        Self::Ingest(error.into())
    }
}
