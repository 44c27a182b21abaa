//! Where the output goes: beside its final name until it is complete.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use formats::{FileSink, HostOffset, Sink};
use tempfile::NamedTempFile;

/// Where the output goes.
pub(super) struct Place {
    path: PathBuf,
    pub(super) dir: PathBuf,
    /// The file there now.
    existing: Option<fs::Metadata>,
}

impl Place {
    pub(super) fn new(path: &Path) -> anyhow::Result<Self> {
        // Through a link: the file it leads to is replaced, not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let existing = fs::metadata(&path).ok();
        if existing.as_ref().is_some_and(|m| !m.is_file()) {
            bail!("{} is not a regular file", path.display());
        }
        if path.file_name().is_none() {
            bail!("{} names no file to write", path.display());
        }
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        let is_dir = fs::metadata(&dir)
            .with_context(|| format!("opening {}", dir.display()))?
            .is_dir();
        if !is_dir {
            bail!("{} is not a directory", dir.display());
        }
        Ok(Self {
            path,
            dir,
            existing,
        })
    }

    pub(super) fn check_differs(&self, input: &File) -> anyhow::Result<()> {
        let input = input.metadata().context("reading file attributes")?;
        match &self.existing {
            Some(output) if (output.dev(), output.ino()) == (input.dev(), input.ino()) => {
                bail!("{} is the input too", self.path.display())
            }
            _ => Ok(()),
        }
    }

    /// A file beside the output, removed again unless committed.
    pub(super) fn begin(&self) -> anyhow::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(".glint-")
            .suffix(".part")
            // What the umask leaves of this, as for any new file.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&self.dir)
            .map_err(without_path)
            .with_context(|| format!("making a file in {}", self.dir.display()))
    }

    /// Renames a complete file into place; answers the bytes it takes up. Like `cp` and qemu-img
    /// it leaves it to the kernel when they reach the disk.
    pub(super) fn commit(&self, file: NamedTempFile) -> anyhow::Result<u64> {
        let wrote = || format!("writing {}", self.path.display());
        if let Some(existing) = &self.existing {
            // A private image stays private.
            file.as_file()
                .set_permissions(existing.permissions())
                .with_context(wrote)?;
        }
        let file = file
            .persist(&self.path)
            .map_err(|e| e.error)
            .with_context(wrote)?;
        Ok(file.metadata().with_context(wrote)?.blocks() * 512)
    }
}

/// What went wrong, without the temporary name it went wrong with: that means nothing to whoever
/// reads it.
pub(super) fn without_path(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|e| e.source());
    cause
        .and_then(|e| e.downcast_ref::<io::Error>()?.raw_os_error())
        .map_or(error, io::Error::from_raw_os_error)
}

/// The output, which remembers whether it was at fault: an error is to name the right file.
pub(super) struct Written {
    sink: FileSink,
    failed: AtomicBool,
}

impl Written {
    pub(super) fn new(sink: FileSink) -> Self {
        Self {
            sink,
            failed: AtomicBool::new(false),
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn noted(&self, done: formats::Result<()>) -> formats::Result<()> {
        if done.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        done
    }
}

impl Sink for Written {
    fn write_all_at(&self, bytes: &[u8], at: HostOffset) -> formats::Result<()> {
        self.noted(self.sink.write_all_at(bytes, at))
    }

    fn set_len(&self, len: u64) -> formats::Result<()> {
        self.noted(self.sink.set_len(len))
    }

    fn sync(&self) -> formats::Result<()> {
        self.noted(self.sink.sync())
    }
}
