//! What an image may be opened with, named one by one. Nothing here turns a judgement off: an
//! unsafe finding gives way to the permission that it asks for, and to no other.

mod folders;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use formats::inspect::Allowance;
use formats::{ErrorKind, OpenOptions, Passphrase};

use super::fence::Named;
pub(super) use folders::{FileId, Folders, plain_path};

/// The permissions of a verb that opens images.
#[derive(clap::Args)]
pub(super) struct Permit {
    /// Let the image read the files it names (backing, parent, data and extent files), as far as
    /// they lie inside this folder; may be repeated
    ///
    /// A name counts from where the image lies. No link and no `..` in it leads out of the folder,
    /// only regular files are read, and an image named so is judged like the one that names it.
    #[arg(long, value_name = "DIR")]
    allow_backing: Vec<PathBuf>,

    /// Open an encrypted image with the passphrase in this file: all its bytes, a line end too
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Permissions made good: folders opened, the passphrase read.
pub(super) struct Means {
    folders: Option<Arc<Folders>>,
    passphrase: Option<Passphrase>,
    /// The passphrase ends as a text does, which may not have been meant.
    ends_line: bool,
}

impl Permit {
    /// The same as it is typed, for an inner process.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let folders = self.allow_backing.iter();
        let folders = folders.flat_map(|dir| ["--allow-backing".into(), dir.into()]);
        let file = self.passphrase_file.iter();
        let file = file.flat_map(|file| ["--passphrase-file".into(), file.into()]);
        folders.chain(file).collect()
    }

    /// All that is read by name for `images`.
    pub(super) fn named<'a>(&'a self, mut images: Vec<&'a Path>) -> Named<'a> {
        images.extend(self.passphrase_file.as_deref());
        Named {
            files: images,
            folders: &self.allow_backing,
        }
    }

    pub(super) fn means(&self) -> anyhow::Result<Means> {
        let folders = match self.allow_backing.as_slice() {
            [] => None,
            dirs => Some(Arc::new(Folders::open(dirs)?)),
        };
        let passphrase = self
            .passphrase_file
            .as_deref()
            .map(passphrase)
            .transpose()?;
        Ok(Means {
            folders,
            ends_line: (passphrase.as_ref()).is_some_and(|p| p.bytes().ends_with(b"\n")),
            passphrase,
        })
    }
}

impl Means {
    /// What is then no reason to refuse an image.
    pub(super) fn allowance(&self) -> Allowance {
        Allowance {
            files: self.folders.is_some(),
            passphrase: self.passphrase.is_some(),
            payload: false,
        }
    }

    /// The options to open the image at `path` with; without one, as from standard input, names
    /// count from the current folder.
    pub(super) fn options(&self, path: Option<&Path>, snapshot: Option<&str>) -> OpenOptions {
        let mut options = OpenOptions {
            passphrase: self.passphrase.clone(),
            snapshot: snapshot.map(str::to_owned),
            ..OpenOptions::default()
        };
        if let Some(folders) = &self.folders {
            options.resolver = Arc::new(folders.beside(path.unwrap_or(Path::new(""))));
        }
        options
    }

    /// The files that images have been granted so far.
    pub(super) fn granted(&self) -> Vec<FileId> {
        self.folders.as_ref().map_or_else(Vec::new, |f| f.granted())
    }

    /// The images of a chain beneath the one opened last, as far as their names are concerned.
    pub(super) fn beneath(&self) -> Vec<String> {
        self.folders.as_ref().map_or_else(Vec::new, |f| f.beneath())
    }

    /// An error of opening, with what may be behind it.
    pub(super) fn explain(&self, error: formats::Error) -> anyhow::Error {
        let is_refused = error.kind() == ErrorKind::Refused;
        let error = anyhow::Error::new(error);
        match self.ends_line && is_refused {
            true => error.context("the passphrase file ends with a line end, which counts"),
            false => error,
        }
    }
}

/// The passphrase in the file at `path`.
pub(super) fn passphrase(path: &Path) -> anyhow::Result<Passphrase> {
    let read = || -> anyhow::Result<Passphrase> {
        let mut bytes = Vec::new();
        let file = File::open(path)?;
        file.take(Passphrase::MAX as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok(Passphrase::new(&bytes)?)
    };
    read().with_context(|| format!("reading the passphrase in {}", path.display()))
}

/// The folder of the image at `path`, without links: names in it count from there.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    // A folder that is gone grants nothing; the name it would have had does no harm.
    fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned())
}

/// The name of an internal snapshot, as `qemu-img convert -l` takes it: itself, or as
/// `snapshot.id=…` or `snapshot.name=…`.
pub(super) fn snapshot(text: &str) -> anyhow::Result<String> {
    let name = match text.split_once('=') {
        Some(("snapshot.id" | "snapshot.name", name)) => name,
        _ => text,
    };
    if name.is_empty() {
        bail!("the name of the snapshot is empty");
    }
    Ok(name.to_owned())
}
