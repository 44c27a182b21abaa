//! Where the output goes: beside its final name until it is complete. An image in several
//! files is made in a folder there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use formats::copy::Part;
use formats::{Error, FileSink, HostOffset, Parts, Sink};
use tempfile::{TempDir, TempPath};

use crate::cli::apart;
use crate::cli::permit::FileId;
use crate::cli::publish::Existing;

/// Where the output goes.
pub(in crate::cli) struct Place {
    path: PathBuf,
    dir: PathBuf,
    /// The folder of an inner process, which writes there and leaves the rest to the outer.
    apart: Option<PathBuf>,
    /// The file there now.
    existing: Option<fs::Metadata>,
    /// What is to become of files that are there.
    policy: Existing,
    /// What is read.
    inputs: Vec<FileId>,
}

/// The output while it is written, in a folder beside its place.
pub(in crate::cli) struct Draft {
    folder: Folder,
    /// The files of an image of several, else none.
    parts: Vec<Part>,
    name: String,
}

enum Folder {
    /// Dropped, it is removed.
    Ours(TempDir),
    /// Of the outer process.
    Given(PathBuf),
}

impl Draft {
    fn folder(&self) -> &Path {
        match &self.folder {
            Folder::Ours(folder) => folder.path(),
            Folder::Given(folder) => folder,
        }
    }

    fn names(&self) -> Vec<&str> {
        match self.parts.as_slice() {
            [] => vec![&self.name],
            parts => parts.iter().map(|part| part.name.as_str()).collect(),
        }
    }

    pub(in crate::cli) fn sink(&self) -> anyhow::Result<Box<dyn Sink + '_>> {
        let open = |name: &str| {
            File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(self.folder().join(name))
        };
        if self.parts.is_empty() {
            let file = open(&self.name).context("making the output")?;
            return Ok(Box::new(FileSink::new(file)));
        }
        let ranges = self.parts.iter().map(|part| part.range.clone()).collect();
        Ok(Box::new(Parts::new(ranges, move |n| {
            let name = &self.parts[n].name;
            let file = open(name).map_err(|e| Error::io(format!("opening {name}"), e))?;
            Ok(Arc::new(FileSink::new(file)))
        })))
    }

    /// Bytes it takes up.
    fn allocated(&self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for name in self.names() {
            let meta = fs::metadata(self.folder().join(name)).context("looking at the output")?;
            bytes += meta.blocks() * 512;
        }
        Ok(bytes)
    }
}

impl Place {
    /// The place at `path`; in an inner process with its folder `apart`.
    pub(in crate::cli) fn new(path: &Path, apart: Option<PathBuf>) -> anyhow::Result<Self> {
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
            apart,
            existing,
            policy: Existing::Replace,
            inputs: Vec::new(),
        })
    }

    /// The same place, where `policy` says what becomes of files that are there.
    pub(in crate::cli) fn with_existing(self, policy: Existing) -> Self {
        Self { policy, ..self }
    }

    /// The folder it lies in.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A folder for files that nobody else sees.
    pub(super) fn scratch(&self) -> &Path {
        self.apart.as_deref().unwrap_or(&self.dir)
    }

    /// The name of the file to write.
    pub(in crate::cli) fn name(&self) -> String {
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
            Some(_) if self.policy == Existing::Keep => {
                bail!("{} exists, and --force is not given", path.display())
            }
            _ => Ok(()),
        }
    }

    /// Files beside the output, removed again unless committed: one, or `parts`.
    pub(in crate::cli) fn begin(&self, parts: Vec<Part>) -> anyhow::Result<Draft> {
        for part in &parts {
            let path = self.dir.join(&part.name);
            self.check_replaces(&path, fs::symlink_metadata(&path).ok().as_ref())?;
        }
        let folder = match &self.apart {
            Some(folder) => Folder::Given(folder.clone()),
            None => Folder::Ours(apart::make_folder(&self.dir)?),
        };
        Ok(Draft {
            folder,
            parts,
            name: self.name(),
        })
    }

    /// Takes over what an inner process made in `folder`.
    pub(super) fn take_over(&self, folder: TempDir, parts: Vec<Part>) -> anyhow::Result<()> {
        self.publish(&Draft {
            folder: Folder::Ours(folder),
            parts,
            name: self.name(),
        })
    }

    /// Renames what is complete into place, unless that is for the outer process to do; answers
    /// the bytes it takes up. Like `cp` and qemu-img it leaves it to the kernel when they reach
    /// the disk.
    pub(in crate::cli) fn commit(&self, draft: &Draft) -> anyhow::Result<u64> {
        let bytes = draft.allocated()?;
        if let Folder::Ours(_) = draft.folder {
            self.publish(draft)?;
        }
        Ok(bytes)
    }

    fn publish(&self, draft: &Draft) -> anyhow::Result<()> {
        if draft.parts.is_empty() {
            return put(&draft.folder().join(&draft.name), &self.path, self.policy);
        }
        let mut done: Vec<PathBuf> = Vec::new();
        for name in draft.names() {
            let to = self.dir.join(name);
            if let Err(e) = put(&draft.folder().join(name), &to, self.policy) {
                // Extents without their descriptor are of no use.
                for path in done {
                    let _ = fs::remove_file(path);
                }
                return Err(e);
            }
            done.push(to);
        }
        Ok(())
    }
}

/// Renames the regular file `from` to `to`.
fn put(from: &Path, to: &Path, policy: Existing) -> anyhow::Result<()> {
    let rename = || {
        // An inner process made it, and may have been led to make something else.
        if !fs::symlink_metadata(from)?.is_file() {
            return Err(io::Error::other("what was made is no regular file"));
        }
        if policy == Existing::Keep {
            return Ok(TempPath::try_from_path(from)?.persist_noclobber(to)?);
        }
        if let Ok(existing) = fs::metadata(to) {
            // A private image stays private.
            fs::set_permissions(from, existing.permissions())?;
        }
        fs::rename(from, to)
    };
    rename()
        .map_err(without_path)
        .with_context(|| format!("writing {}", to.display()))
}

/// What went wrong, without the temporary name it went wrong with: that means nothing to whoever
/// reads it.
pub(in crate::cli) fn without_path(error: io::Error) -> io::Error {
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

    fn reserve(&self, len: u64) -> formats::Result<()> {
        self.noted(self.sink.reserve(len))
    }

    fn sync(&self) -> formats::Result<()> {
        self.noted(self.sink.sync())
    }
}
