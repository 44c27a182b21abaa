//! Files in a folder. A blob is written under a temporary name, made durable, then renamed, and
//! the folder made durable too: what is visible survives a power cut. Runs of zeros stay holes.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};

use formats::bytes::is_zero;
use formats::{FileSource, Source};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::read::read_stream;
use super::{BlobStore, BlobWriter, Bytestream, Chunk, Error, LocalFiles, Result};

/// Zeros are left out in pieces of this size, aligned in the file.
const HOLE: usize = 4096;
/// Chunks waiting to be written, at most.
const QUEUE: usize = 2;
/// Bytes that are sent to the disk at once while more come.
const STRETCH: u64 = 64 << 20;

/// A folder of blobs.
#[derive(Debug)]
pub struct FileStore {
    folder: PathBuf,
}

impl FileStore {
    /// Opens the folder, making it where it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            folder: fs::canonicalize(folder)?,
        })
    }

    /// The file of a URL, which must be one of ours: a plain name in our folder.
    fn path(&self, url: &str) -> Result<PathBuf> {
        let path = Path::new(url.strip_prefix("file://").ok_or(Error::Foreign)?);
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .ok_or(Error::Foreign)?;
        if path.parent() != Some(&self.folder) || !is_plain(name) {
            return Err(Error::Foreign);
        }
        Ok(path.to_owned())
    }
}

fn is_plain(name: &str) -> bool {
    !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

/// Where a file is written before it has its name.
fn part_of(path: &Path) -> PathBuf {
    path.with_added_extension("part")
}

/// Makes the names in a folder durable.
///
/// # Errors
/// When the file system fails.
pub fn sync_dir(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Runs blocking work on a thread where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work)
        .await
        .map_err(|e| Error::Io(io::Error::other(e)))?
}

impl BlobStore for FileStore {
    fn url(&self, name: &str) -> String {
        format!("file://{}", self.folder.join(name).display())
    }

    fn begin<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Box<dyn BlobWriter>>> {
        async move {
            let path = self.path(url)?;
            let writer = FileWriter::create(path).await?;
            Ok(Box::new(writer) as Box<dyn BlobWriter>)
        }
        .boxed()
    }

    fn open<'a>(&'a self, url: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytestream>> {
        async move {
            let path = self.path(url)?;
            let file = blocking(move || Ok(File::open(path)?)).await?;
            Ok(read_stream(Arc::new(file), range))
        }
        .boxed()
    }

    fn stat<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<u64>> {
        async move {
            let path = self.path(url)?;
            blocking(move || Ok(fs::metadata(path)?.len())).await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let path = self.path(url)?;
            let folder = self.folder.clone();
            blocking(move || {
                for path in [part_of(&path), path] {
                    match fs::remove_file(path) {
                        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
                        _ => {}
                    }
                }
                Ok(sync_dir(&folder)?)
            })
            .await
        }
        .boxed()
    }

    fn local(&self) -> Option<&dyn LocalFiles> {
        Some(self)
    }
}

impl LocalFiles for FileStore {
    fn link(&self, from: &Path, url: &str) -> Result<bool> {
        let path = self.path(url)?;
        match fs::hard_link(from, &path) {
            Ok(()) => {}
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::CrossesDevices
                        | io::ErrorKind::Unsupported
                        | io::ErrorKind::TooManyLinks
                        | io::ErrorKind::PermissionDenied
                ) =>
            {
                return Ok(false);
            }
            Err(e) => return Err(e.into()),
        }
        File::open(path)?.sync_all()?;
        sync_dir(&self.folder)?;
        Ok(true)
    }

    fn open_file(&self, url: &str) -> Result<File> {
        Ok(File::open(self.path(url)?)?)
    }
}

/// Writes a file on a thread of its own.
pub struct FileWriter {
    path: PathBuf,
    queue: Option<mpsc::Sender<Command>>,
    /// The thread's end: its first failure, if it met one.
    ended: Option<oneshot::Receiver<Result<()>>>,
}

enum Command {
    Write(Chunk),
    ReadBack(oneshot::Sender<Result<FileSource>>),
    Commit(oneshot::Sender<Result<()>>),
}

impl FileWriter {
    /// Begins the file that will be called `path`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn create(path: PathBuf) -> Result<Self> {
        let part = part_of(&path);
        let file = blocking(move || {
            Ok(File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(part)?)
        })
        .await?;
        let (queue, commands) = mpsc::channel(QUEUE);
        let (end, ended) = oneshot::channel();
        let to = path.clone();
        thread::Builder::new()
            .name("file-writer".into())
            .spawn(move || {
                // Nobody waits for the end when the writer was dropped.
                let _ = end.send(serve(&file, &to, commands));
            })?;
        Ok(Self {
            path,
            queue: Some(queue),
            ended: Some(ended),
        })
    }

    async fn send(&mut self, command: Command) -> Result<()> {
        let queue = self.queue.as_ref().ok_or_else(ended_early)?;
        if queue.send(command).await.is_ok() {
            return Ok(());
        }
        self.queue = None;
        match self.ended.take() {
            Some(ended) => match ended.await {
                Ok(Err(e)) => Err(e),
                _ => Err(ended_early()),
            },
            None => Err(ended_early()),
        }
    }

    async fn ask<T>(
        &mut self,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        match answer.await {
            Ok(result) => result,
            // The thread failed on an earlier chunk: that is the error to tell.
            Err(_) => match self.ended.take() {
                Some(ended) => Err(ended
                    .await
                    .ok()
                    .and_then(Result::err)
                    .unwrap_or_else(ended_early)),
                None => Err(ended_early()),
            },
        }
    }
}

fn ended_early() -> Error {
    Error::Io(io::Error::other("the writing thread has ended"))
}

/// The writing thread: until the queue is closed or something fails. A large file is made durable while
/// it comes, on another thread: whoever waits for its end waits for little.
fn serve(file: &File, path: &Path, mut commands: mpsc::Receiver<Command>) -> Result<()> {
    let (mut len, mut sent) = (0, 0);
    thread::scope(|scope| {
        let mut syncing = None;
        while let Some(command) = commands.blocking_recv() {
            match command {
                Command::Write(chunk) => {
                    for piece in chunk.iter() {
                        write_sparse(file, piece, len)?;
                        len += piece.len() as u64;
                    }
                    let is_busy = syncing
                        .as_ref()
                        .is_some_and(|s: &Syncing<'_>| !s.is_finished());
                    if len - sent >= STRETCH && !is_busy {
                        settle(syncing.take())?;
                        let thread = thread::Builder::new().name("file-syncer".into());
                        // Where there is no thread to be had, the end takes longer.
                        syncing = thread.spawn_scoped(scope, || file.sync_data()).ok();
                        sent = len;
                    }
                }
                Command::ReadBack(reply) => {
                    file.set_len(len)?;
                    let source = FileSource::new(file.try_clone()?);
                    let _ = reply.send(source.map_err(|e| Error::Io(io::Error::other(e))));
                }
                Command::Commit(reply) => {
                    let settled = settle(syncing.take());
                    let _ = reply.send(settled.and_then(|()| commit(file, path, len)));
                    return Ok(());
                }
            }
        }
        Ok(())
    })
}

type Syncing<'a> = ScopedJoinHandle<'a, io::Result<()>>;

/// Waits for its end. The kernel tells of what did not reach the disk once, to whoever asks first.
fn settle(syncing: Option<Syncing<'_>>) -> Result<()> {
    let Some(syncing) = syncing else {
        return Ok(());
    };
    let ended = syncing.join();
    Ok(ended.map_err(|_| io::Error::other("the syncing thread has died"))??)
}

fn commit(file: &File, path: &Path, len: u64) -> Result<()> {
    file.set_len(len)?;
    file.sync_all()?;
    fs::rename(part_of(path), path)?;
    if let Some(folder) = path.parent() {
        sync_dir(folder)?;
    }
    Ok(())
}

/// Writes `bytes` at `at` into a new file, leaving out zeros block by block of the file: what is
/// never written reads as zero.
pub(crate) fn write_sparse(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let lead = (HOLE - at as usize % HOLE) % HOLE;
    let (lead, rest) = bytes.split_at(lead.min(bytes.len()));
    let (mut start, mut end) = (0, 0);
    for block in std::iter::once(lead).chain(rest.chunks(HOLE)) {
        if is_zero(block) {
            file.write_all_at(&bytes[start..end], at + start as u64)?;
            end += block.len();
            start = end;
        } else {
            end += block.len();
        }
    }
    file.write_all_at(&bytes[start..end], at + start as u64)
}

impl BlobWriter for FileWriter {
    fn write(&mut self, chunk: Chunk) -> BoxFuture<'_, Result<()>> {
        self.send(Command::Write(chunk)).boxed()
    }

    fn read_back(&mut self) -> BoxFuture<'_, Result<Option<Arc<dyn Source>>>> {
        async move {
            let source = self.ask(Command::ReadBack).await?;
            Ok(Some(Arc::new(source) as Arc<dyn Source>))
        }
        .boxed()
    }

    fn commit(mut self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        async move { self.ask(Command::Commit).await }.boxed()
    }

    fn abort(mut self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        async move {
            self.queue = None;
            if let Some(ended) = self.ended.take() {
                let _ = ended.await;
            }
            let part = part_of(&self.path);
            blocking(move || match fs::remove_file(part) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
                _ => Ok(()),
            })
            .await
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use bytes::Bytes;
    use futures_util::TryStreamExt;

    use super::*;

    fn chunk(parts: &[&[u8]]) -> Chunk {
        parts.iter().map(|p| Bytes::copy_from_slice(p)).collect()
    }

    async fn read(store: &FileStore, url: &str, range: Range<u64>) -> Vec<u8> {
        let parts: Vec<Bytes> = store
            .open(url, range)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        parts.concat()
    }

    #[tokio::test]
    async fn a_blob_is_invisible_until_it_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        let url = store.url("blob-1");
        let mut writer = store.begin(&url).await.unwrap();
        writer.write(chunk(&[b"hello ", b"world"])).await.unwrap();
        assert!(matches!(store.stat(&url).await, Err(Error::NotFound)));
        let back = writer.read_back().await.unwrap().unwrap();
        assert_eq!(
            formats::read_up_to(back.as_ref(), formats::HostOffset(6), 9).unwrap(),
            b"world"
        );
        writer.commit().await.unwrap();
        assert_eq!(store.stat(&url).await.unwrap(), 11);
        assert_eq!(read(&store, &url, 3..8).await, b"lo wo");
        store.delete(&url).await.unwrap();
        store.delete(&url).await.unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn an_abort_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        let mut writer = store.begin(&store.url("blob")).await.unwrap();
        writer.write(chunk(&[b"x"])).await.unwrap();
        writer.abort().await.unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn zeros_become_holes_whatever_the_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        let mut want = vec![0; 3 << 20];
        want[5] = 1;
        want[1_500_000..1_500_100].fill(7);
        want[(3 << 20) - 1] = 9;
        for size in [1000, 4096, 70_001] {
            let url = store.url("blob");
            let mut writer = store.begin(&url).await.unwrap();
            for part in want.chunks(size) {
                writer.write(chunk(&[part])).await.unwrap();
            }
            writer.commit().await.unwrap();
            assert_eq!(
                read(&store, &url, 0..3 << 20).await,
                want,
                "pieces of {size}"
            );
            let used = fs::metadata(dir.path().join("blob")).unwrap().blocks() * 512;
            assert!(used < 1 << 20, "{used} bytes used, pieces of {size}");
            store.delete(&url).await.unwrap();
        }
    }

    #[tokio::test]
    async fn urls_of_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        let other = format!("file://{}/../etc", dir.path().display());
        for url in [
            "file:///etc/passwd",
            "http://x/y",
            &other,
            &store.url(".hidden"),
        ] {
            assert!(
                matches!(store.stat(url).await, Err(Error::Foreign)),
                "{url}"
            );
        }
    }
}
