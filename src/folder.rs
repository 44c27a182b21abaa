//! A folder whose files are opened by name, and nothing outside it: the kernel walks the way from the
//! folder's descriptor and refuses to leave it (`openat2` with `RESOLVE_BENEATH`), whatever links, `..`
//! and renames are underway.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A folder, held open.
pub(crate) struct Folder {
    handle: OwnedFd,
    /// Its path without links, and as it was given: an absolute name may begin with either.
    paths: [PathBuf; 2],
}

impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            // The sandbox has no `open`, the call that `openat` replaced.
            handle: rustix::fs::openat(rustix::fs::CWD, path, flags, Mode::empty())?,
            paths: [fs::canonicalize(path)?, std::path::absolute(path)?],
        })
    }

    /// Its path without links.
    pub(crate) fn path(&self) -> &Path {
        &self.paths[0]
    }

    /// What of the absolute `path` is left inside this folder.
    pub(crate) fn rest(&self, path: &Path) -> Option<PathBuf> {
        let rest = |dir| Some(path.strip_prefix(dir).ok()?.to_owned());
        self.paths.iter().find_map(rest)
    }

    /// Opens what `rest` names inside, for reading. It may be anything but a link out of here.
    pub(crate) fn file(&self, rest: &Path) -> Result<File, Errno> {
        // A pipe nobody writes to would hold up a plain open for ever, before its type is seen.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let confined = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        // The kernel answers so when something was renamed on the way, and asks to try again.
        for _ in 0..8 {
            match rustix::fs::openat2(&self.handle, rest, flags, Mode::empty(), confined) {
                Err(Errno::AGAIN) => {}
                done => return done.map(File::from),
            }
        }
        Err(Errno::AGAIN)
    }
}
