//! The staging area: private bytes before an import. Not a store: nothing here is ever served.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::domain::ImageId;
use crate::stores::sync_dir;

/// A folder of staged files, named for their images.
#[derive(Clone, Debug)]
pub struct Staging(PathBuf);

impl Staging {
    /// Opens the folder, making it where it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let staging = Self(folder.to_owned());
        fs::create_dir_all(staging.scratch_dir())?;
        Ok(staging)
    }

    /// Where the staged bytes of an image lie.
    #[must_use]
    pub fn path(&self, image: &ImageId) -> PathBuf {
        self.0.join(image.as_str())
    }

    /// Where a conversion of an image's staged bytes is written, by the job with this fencing
    /// number: a worker that lost its lease cannot write into the file of the next.
    #[must_use]
    pub fn output(&self, image: &ImageId, fence: i64) -> PathBuf {
        self.0.join(format!("{image}.{fence}.out"))
    }

    /// Where the job with this fencing number puts what it fetches for an image.
    #[must_use]
    pub fn fetched(&self, image: &ImageId, fence: i64) -> PathBuf {
        self.0.join(format!("{image}.{fence}.in"))
    }

    /// Where that job unpacks it.
    #[must_use]
    pub fn unpacked(&self, image: &ImageId, fence: i64) -> PathBuf {
        self.0.join(format!("{image}.{fence}.raw"))
    }

    /// The images that have staged bytes here, whole or not.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn images(&self) -> io::Result<Vec<ImageId>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let id = name.strip_suffix(".part").unwrap_or(&name);
            found.extend(id.parse::<ImageId>());
        }
        Ok(found)
    }

    /// A file without a name: gone when it is closed.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch(&self) -> io::Result<fs::File> {
        tempfile::tempfile_in(self.scratch_dir())
    }

    /// Where such files are made, beside the staged ones: whoever may write here finds nothing
    /// of an image's by name.
    #[must_use]
    pub fn scratch_dir(&self) -> PathBuf {
        self.0.with_file_name("scratch")
    }

    /// Removes a file; what is not there is removed.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn remove(path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Removes everything that `keep` does not name: for the one process that owns the folder,
    /// when it starts.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn sweep(&self, keep: &[ImageId]) -> io::Result<usize> {
        let mut removed = 0;
        // Where the file system has no unnamed files, a crash may leave some.
        for entry in fs::read_dir(self.scratch_dir())? {
            Self::remove(&entry?.path())?;
        }
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            if !keep.iter().any(|id| name == *id.as_str()) {
                Self::remove(&self.0.join(name))?;
                removed += 1;
            }
        }
        sync_dir(&self.0)?;
        Ok(removed)
    }
}
