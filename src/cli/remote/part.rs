//! A file on its way: written from its beginning on beside the name it will have, and hashed
//! meanwhile. It gets its name when it is whole, right and on the disk.
//!
//! A part is named for the digest that the whole has to have, so that the next download of the same
//! data finds it, and one of other data does not: `disk.img.1f40fc92.part`. What is in it lies
//! there without a gap, for bytes are written in order; how many, its length says.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use tempfile::TempPath;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Error;
use super::record::Digest;
use crate::ingest;
use crate::stores::{sync_dir, write_sparse};

/// Digits of a digest in a part's name.
const DIGITS: usize = 8;
/// Writes that may wait.
const QUEUE: usize = 2;
/// Bytes read at once of what was there already.
const READ: usize = 1 << 20;

/// A part being written, by a thread of its own.
pub(super) struct Part {
    path: PathBuf,
    /// Bytes it had when it was opened.
    start: u64,
    wanted: Option<Digest>,
    /// Bytes to write; none at all are the end of them.
    queue: mpsc::Sender<Vec<Bytes>>,
    writer: JoinHandle<anyhow::Result<Written>>,
}

/// What a writer leaves.
struct Written {
    file: File,
    len: u64,
    /// In hexadecimal.
    digest: Option<String>,
}

impl Part {
    /// Opens the part of `out`, as far as it has come. Without a digest nothing tells whether it is of
    /// the same data: it begins anew then.
    pub(super) async fn open(
        out: &Path,
        wanted: Option<Digest>,
        max: Option<u64>,
    ) -> anyhow::Result<Self> {
        let path = name(out, wanted.as_ref());
        let opened = spawn_blocking({
            let (out, path, goes_on) = (out.to_owned(), path.clone(), wanted.is_some());
            move || {
                let done = open(&path, goes_on, max);
                let (file, start) = done.with_context(|| path.display().to_string())?;
                remove_others(&out, &path);
                anyhow::Ok((file, start))
            }
        });
        let (file, start) = opened.await??;
        let (queue, pieces) = mpsc::channel(QUEUE);
        let digest = wanted.as_ref().map(|d| ingest::Digest::new(d.algo));
        let writer = spawn_blocking({
            let path = path.clone();
            move || write(file, start, digest, pieces).with_context(|| path.display().to_string())
        });
        Ok(Self {
            path,
            start,
            wanted,
            queue,
            writer,
        })
    }

    /// Bytes that were there already.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Writes what follows; `false` where writing has failed, as [`Part::close`] will tell.
    pub(super) async fn write(&self, pieces: Vec<Bytes>) -> bool {
        self.queue.send(pieces).await.is_ok()
    }

    /// Ends the writing, for now.
    pub(super) async fn close(self) -> anyhow::Result<Closed> {
        // Where it cannot be sent, the writer tells why.
        let _ = self.queue.send(Vec::new()).await;
        let written = self.writer.await??;
        Ok(Closed {
            path: self.path,
            start: self.start,
            wanted: self.wanted,
            written,
        })
    }
}

/// A part that is not written any more.
pub(super) struct Closed {
    path: PathBuf,
    start: u64,
    wanted: Option<Digest>,
    written: Written,
}

impl Closed {
    /// Makes it the file `out`, if it is what it has to be. It is removed if it is not.
    pub(super) async fn publish(self, out: &Path, force: bool) -> anyhow::Result<Option<Digest>> {
        if let (Some(wanted), Some(found)) = (&self.wanted, &self.written.digest)
            && wanted.value != *found
        {
            let (algo, wanted) = (wanted.algo.name(), wanted.value.clone());
            let found = found.clone();
            let was_begun_before = self.start > 0;
            self.discard();
            let wrong = Error::Digest {
                algo,
                found,
                wanted,
            };
            // Bytes of an earlier time may be at fault: those are gone now.
            return Err(match was_begun_before {
                true => anyhow::Error::new(Error::Changed).context(wrong.to_string()),
                false => wrong.into(),
            });
        }
        let out = out.to_owned();
        spawn_blocking(move || {
            let done = publish(&self.written, &self.path, &out, force);
            done.with_context(|| out.display().to_string())?;
            Ok(self.wanted)
        })
        .await?
    }

    /// Whether a later download can go on with it.
    pub(super) fn goes_on(&self) -> bool {
        self.wanted.is_some() && self.written.len > 0
    }

    /// Removes it.
    pub(super) fn discard(self) {
        // Whatever fails here: the next download asks what there is.
        let _ = fs::remove_file(&self.path);
    }
}

fn name(out: &Path, wanted: Option<&Digest>) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    if let Some(digest) = wanted {
        name.push(".");
        name.push(&digest.value[..DIGITS]);
    }
    name.push(".part");
    name.into()
}

fn open(path: &Path, goes_on: bool, max: Option<u64>) -> anyhow::Result<(File, u64)> {
    let file = loop {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another download is writing it");
        }
        // Whoever had it may have ended in between, and it has its name now, or none.
        if is_at(&file, path)? {
            break file;
        }
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        bail!("it is not a regular file");
    }
    if goes_on && max.is_none_or(|max| meta.len() <= max) {
        return Ok((file, meta.len()));
    }
    file.set_len(0)?;
    Ok((file, 0))
}

/// Whether `path` still leads to `file`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Removes parts of `out` that are of other data, and that nobody writes.
fn remove_others(out: &Path, ours: &Path) {
    let (Some(folder), Some(name)) = (ours.parent(), out.file_name()) else {
        return;
    };
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    let is_part = |other: &Path| {
        let other = other.file_name().map(std::ffi::OsStr::as_encoded_bytes);
        let digits = other
            .and_then(|other| other.strip_prefix(name.as_encoded_bytes()))
            .and_then(|rest| rest.strip_prefix(b"."))
            .and_then(|rest| rest.strip_suffix(b".part"));
        digits.is_some_and(|d| d.len() == DIGITS && d.iter().all(u8::is_ascii_hexdigit))
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for other in entries.map(|entry| entry.path()) {
        if is_part(&other)
            && other.file_name() != ours.file_name()
            && let Ok(file) = File::open(&other)
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && is_at(&file, &other).is_ok_and(|is_at| is_at)
        {
            let _ = fs::remove_file(other);
        }
    }
}

/// The writer: hashes what there is, then what comes, and writes that. It ends early where nobody
/// waits for it any more.
fn write(
    file: File,
    start: u64,
    mut digest: Option<ingest::Digest>,
    mut queue: mpsc::Receiver<Vec<Bytes>>,
) -> io::Result<Written> {
    if let Some(digest) = &mut digest {
        let mut buffer = vec![0; READ];
        let mut left = (&file).take(start);
        loop {
            match left.read(&mut buffer)? {
                0 => break,
                read => digest.update(&buffer[..read]),
            }
            if queue.is_closed() {
                return Err(ErrorKind::Interrupted.into());
            }
        }
    }
    let mut len = start;
    while let Some(pieces) = queue.blocking_recv().filter(|pieces| !pieces.is_empty()) {
        for piece in pieces {
            write_sparse(&file, &piece, len)?;
            if let Some(digest) = &mut digest {
                digest.update(&piece);
            }
            len += piece.len() as u64;
        }
    }
    // What ends in zeros is shorter until now: whoever goes on goes on from there.
    file.set_len(len)?;
    Ok(Written {
        file,
        len,
        digest: digest.map(ingest::Digest::finish),
    })
}

fn publish(written: &Written, path: &Path, out: &Path, force: bool) -> anyhow::Result<()> {
    written.file.sync_all()?;
    if force {
        fs::rename(path, out)?;
    } else {
        TempPath::try_from_path(path)?
            .persist_noclobber(out)
            .map_err(|e| {
                // The part stays, for a download with --force.
                let _ = e.path.keep();
                match e.error.kind() {
                    ErrorKind::AlreadyExists => anyhow!("it exists, and --force is not given"),
                    _ => e.error.into(),
                }
            })?;
    }
    match out.parent() {
        Some(folder) if folder != Path::new("") => sync_dir(folder)?,
        _ => sync_dir(Path::new("."))?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parts_of_the_same_file_that_nobody_writes_are_removed() {
        let room = tempfile::tempdir().unwrap();
        let at = |name: &str| room.path().join(name);
        for name in [
            "d.img",
            "d.img.0123abcd.part",
            "d.img.aaaaaaaa.part",
            "d.img.bbbbbbbb.part",
            "d.img.notdigit.part",
            "e.img.0123abcd.part",
        ] {
            File::create(at(name)).unwrap();
        }
        let busy = File::open(at("d.img.bbbbbbbb.part")).unwrap();
        flock(&busy, FlockOperation::NonBlockingLockExclusive).unwrap();
        remove_others(&at("d.img"), &at("d.img.aaaaaaaa.part"));
        let mut left: Vec<_> = fs::read_dir(room.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "d.img",
                "d.img.aaaaaaaa.part",
                "d.img.bbbbbbbb.part",
                "d.img.notdigit.part",
                "e.img.0123abcd.part",
            ]
        );
    }
}
