//! The file that is uploaded: which one it is, what is in it, and its digest.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use formats::inspect::Allowance;
use formats::{Format, Limits, Source};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::cli::{image, input};
use crate::domain::HashAlgo;
use crate::ingest;

/// Bytes hashed at once.
const READ: usize = 4 << 20;
/// How far the digest may be ahead of what is sent: near enough to find it in memory.
const AHEAD: u64 = 64 << 20;

/// A file, opened.
#[derive(Clone)]
pub(super) struct Local {
    pub(super) file: Arc<File>,
    pub(super) stamp: Stamp,
}

/// Which file it is, and in what state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// From the root of the file system.
    pub(super) path: PathBuf,
    /// Bytes.
    pub(super) size: u64,
    device: u64,
    inode: u64,
    /// Seconds and nanoseconds of the last change.
    changed: (i64, i64),
}

/// What a file is, in Glance's words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Formats {
    pub(super) disk: String,
    pub(super) container: String,
}

impl Local {
    /// Opens a file. Blocks.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        // A pipe nobody writes to would hold up a plain open for ever.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::options()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
        let path = path.canonicalize()?;
        let stamp = Stamp::of(&file, path)?;
        let file = Arc::new(file);
        Ok(Self { file, stamp })
    }

    pub(super) fn size(&self) -> u64 {
        self.stamp.size
    }

    /// Whether the file is still as it was when it was opened. Blocks.
    pub(super) fn is_unchanged(&self) -> anyhow::Result<bool> {
        Ok(Stamp::of(&self.file, self.stamp.path.clone())? == self.stamp)
    }
}

impl Stamp {
    fn of(file: &File, path: PathBuf) -> anyhow::Result<Self> {
        let meta = file.metadata()?;
        if !meta.is_file() {
            bail!("not a regular file");
        }
        Ok(Self {
            path,
            size: meta.len(),
            device: meta.dev(),
            inode: meta.ino(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// What the file at `path` is, by looking at it. What no service should take is refused right here.
/// Blocks.
pub(super) fn formats(path: &Path) -> anyhow::Result<Formats> {
    let source: Arc<dyn Source> = Arc::new(input::open(path)?);
    let found = input::judge(&source, &Limits::default())?;
    image::admit(None, &found, Allowance::default())?;
    if let Some(compression) = found.compression {
        bail!("it is {compression}-compressed: say --disk-format, of what it is to be");
    }
    let disk = match found.format {
        // The archive is the container; of what its disks are Glance says vmdk.
        Format::Ova => "vmdk",
        // A partition table is the content of a raw disk.
        Format::Gpt => "raw",
        Format::Parallels => "ploop",
        other => other.name(),
    };
    let container = found.container_format;
    Ok(Formats {
        disk: disk.to_owned(),
        container: container.to_owned(),
    })
}

/// Whether the file at `path` is compressed as a whole, which a service may undo. Blocks.
pub(super) fn is_compressed(path: &Path) -> anyhow::Result<bool> {
    let source: Arc<dyn Source> = Arc::new(input::open(path)?);
    let found = input::judge(&source, &Limits::default())?;
    Ok(found.compression.is_some())
}

/// The digest of a file, in hexadecimal, not far ahead of `sent`: so it is read from its disk once.
pub(super) async fn digest(
    file: Arc<File>,
    size: u64,
    algo: HashAlgo,
    mut sent: watch::Receiver<u64>,
) -> anyhow::Result<String> {
    let mut digest = ingest::Digest::new(algo);
    let mut buffer = vec![0; READ];
    let mut at = 0;
    while at < size {
        // Where nobody sends any more, nobody waits for a digest either.
        sent.wait_for(|sent| at < sent.saturating_add(AHEAD))
            .await?;
        let len = READ.min(usize::try_from(size - at).unwrap_or(READ));
        let file = file.clone();
        (digest, buffer) = spawn_blocking(move || {
            file.read_exact_at(&mut buffer[..len], at)?;
            digest.update(&buffer[..len]);
            std::io::Result::Ok((digest, buffer))
        })
        .await?
        .context("reading the file for its digest")?;
        at += len as u64;
    }
    Ok(digest.finish())
}
