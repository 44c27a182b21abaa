//! Where the output goes: beside its final name until it is complete. An image in several
//! files is made in a folder there.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use formats::copy::Part;
use formats::{Error, FileSink, HostOffset, Parts, Sink};
use tempfile::{NamedTempFile, TempDir};

use crate::cli::permit::FileId;

/// Where the output goes.
pub(super) struct Place {
    path: PathBuf,
    pub(super) dir: PathBuf,
    /// The file there now.
    existing: Option<fs::Metadata>,
    /// What is read.
    inputs: Vec<FileId>,
}

/// The output while it is written; dropped, it is removed.
pub(super) enum Draft {
    One(NamedTempFile),
    Several { folder: TempDir, parts: Vec<Part> },
}

impl Draft {
    pub(super) fn sink(&self) -> anyhow::Result<Box<dyn Sink + '_>> {
        match self {
            Self::One(file) => {
                let file = file.as_file().try_clone().context("sharing the output")?;
                Ok(Box::new(FileSink::new(file)))
            }
            Self::Several { folder, parts } => {
                let ranges = parts.iter().map(|part| part.range.clone()).collect();
                Ok(Box::new(Parts::new(ranges, |n| {
                    let name = &parts[n].name;
                    let file = File::options()
                        .write(true)
                        .create(true)
                        .truncate(false)
                        .open(folder.path().join(name))
                        .map_err(|e| Error::io(format!("opening {name}"), e))?;
                    Ok(Arc::new(FileSink::new(file)))
                })))
            }
        }
    }
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
            inputs: Vec::new(),
        })
    }

    /// The name of the file to write.
    pub(super) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Checks that none of `inputs` is replaced, now and by the files of [`begin`](Self::begin).
    pub(super) fn check_keeps(&mut self, inputs: Vec<FileId>) -> anyhow::Result<()> {
        self.inputs.extend(inputs);
        self.check_replaces(&self.path, self.existing.as_ref())
    }

    /// Checks that `path` may be replaced: it is a file, and not the input.
    fn check_replaces(&self, path: &Path, existing: Option<&fs::Metadata>) -> anyhow::Result<()> {
        match existing {
            Some(existing) if !existing.is_file() => {
                bail!("{} is not a regular file", path.display())
            }
            Some(existing) if self.inputs.contains(&(existing.dev(), existing.ino())) => {
                bail!("{} is the input too", path.display())
            }
            _ => Ok(()),
        }
    }

    /// Files beside the output, removed again unless committed: one, or `parts`.
    pub(super) fn begin(&self, parts: Vec<Part>) -> anyhow::Result<Draft> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".glint-").suffix(".part");
        let making = || format!("making a file in {}", self.dir.display());
        if parts.is_empty() {
            let file = builder
                // What the umask leaves of this, as for any new file.
                .permissions(Permissions::from_mode(0o666))
                .tempfile_in(&self.dir)
                .map_err(without_path)
                .with_context(making)?;
            return Ok(Draft::One(file));
        }
        for part in &parts {
            let path = self.dir.join(&part.name);
            self.check_replaces(&path, fs::symlink_metadata(&path).ok().as_ref())?;
        }
        let folder = builder
            .tempdir_in(&self.dir)
            .map_err(without_path)
            .with_context(making)?;
        Ok(Draft::Several { folder, parts })
    }

    /// Renames what is complete into place; answers the bytes it takes up. Like `cp` and qemu-img
    /// it leaves it to the kernel when they reach the disk.
    pub(super) fn commit(&self, draft: Draft) -> anyhow::Result<u64> {
        let (folder, parts) = match draft {
            Draft::One(file) => {
                let draft = file.into_temp_path();
                let bytes = replace(&draft, &self.path)?;
                // Nothing is left to be removed.
                let _ = draft.keep();
                return Ok(bytes);
            }
            Draft::Several { folder, parts } => (folder, parts),
        };
        let mut done: Vec<PathBuf> = Vec::new();
        let mut bytes = 0;
        for part in &parts {
            let to = self.dir.join(&part.name);
            match replace(&folder.path().join(&part.name), &to) {
                Ok(more) => bytes += more,
                Err(e) => {
                    // Extents without their descriptor are of no use.
                    for path in done {
                        let _ = fs::remove_file(path);
                    }
                    return Err(e);
                }
            }
            done.push(to);
        }
        Ok(bytes)
    }
}

/// Renames `from` to `to`; answers the bytes it takes up.
fn replace(from: &Path, to: &Path) -> anyhow::Result<u64> {
    let rename = || {
        if let Ok(existing) = fs::metadata(to) {
            // A private image stays private.
            fs::set_permissions(from, existing.permissions())?;
        }
        fs::rename(from, to)?;
        Ok(fs::metadata(to)?.blocks() * 512)
    };
    rename()
        .map_err(without_path)
        .with_context(|| format!("writing {}", to.display()))
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
pub(super) struct Written<'a> {
    sink: Box<dyn Sink + 'a>,
    failed: AtomicBool,
}

impl<'a> Written<'a> {
    pub(super) fn new(sink: Box<dyn Sink + 'a>) -> Self {
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

impl Sink for Written<'_> {
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
