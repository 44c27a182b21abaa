//! The staging area: private bytes before an import. Not a store: nothing here is ever served.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::domain::ImageId;

/// A folder of staged files, named for their images, and one for files nobody else sees.
#[derive(Clone, Debug)]
pub struct Staging {
    folder: PathBuf,
    scratch: PathBuf,
}

/// What a staged file is, by its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// The image.
    pub image: ImageId,
    /// The fencing number of the job whose file it is; `None` for what was staged.
    pub fence: Option<i64>,
}

impl Named {
    fn parse(name: &str) -> Option<Self> {
        let (image, rest) = name.split_once('.').unwrap_or((name, ""));
        let image = image.parse().ok()?;
        let fence = match rest {
            "" | "part" => None,
            rest => Some(rest.split('.').next()?.parse().ok()?),
        };
        Some(Self { image, fence })
    }
}

impl Staging {
    /// Opens the folders, making what is missing.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn open(folder: &Path, scratch: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let staging = Self {
            folder: folder.to_owned(),
            scratch: scratch.to_owned(),
        };
        fs::create_dir_all(scratch)?;
        fs::create_dir_all(staging.derived_dir())?;
        Ok(staging)
    }

    /// Where the staged bytes of an image lie.
    #[must_use]
    pub fn path(&self, image: &ImageId) -> PathBuf {
        self.folder.join(image.as_str())
    }

    /// Where a conversion of an image's staged bytes is written, by the job with this fencing
    /// number: a worker that lost its lease cannot write into the file of the next.
    #[must_use]
    pub fn output(&self, image: &ImageId, fence: i64) -> PathBuf {
        self.folder.join(format!("{image}.{fence}.out"))
    }

    /// Where the job with this fencing number puts what it fetches for an image.
    #[must_use]
    pub fn fetched(&self, image: &ImageId, fence: i64) -> PathBuf {
        self.folder.join(format!("{image}.{fence}.in"))
    }

    /// Where that job unpacks it.
    #[must_use]
    pub fn unpacked(&self, image: &ImageId, fence: i64) -> PathBuf {
        self.folder.join(format!("{image}.{fence}.raw"))
    }

    /// The files here with what they are; `None` for what is none of ours.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn files(&self) -> io::Result<Vec<(PathBuf, Option<Named>)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let named = Named::parse(&entry.file_name().to_string_lossy());
            found.push((entry.path(), named));
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

    /// A file for what a conversion on demand gives: gone when it is dropped, or at the next start.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn derived(&self) -> io::Result<tempfile::NamedTempFile> {
        tempfile::Builder::new()
            .prefix("derived")
            .tempfile_in(self.derived_dir())
    }

    /// Where those are made: nobody confined may write here.
    fn derived_dir(&self) -> PathBuf {
        self.scratch.with_file_name("derived")
    }

    /// Where such files are made, beside the staged ones: whoever may write here finds nothing
    /// of an image's by name.
    #[must_use]
    pub fn scratch_dir(&self) -> &Path {
        &self.scratch
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

    /// Removes what conversions on demand left at a crash, and scratch files where the file system
    /// has no unnamed ones.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn clear_scratch(&self) -> io::Result<()> {
        for folder in [&self.scratch, &self.derived_dir()] {
            for entry in fs::read_dir(folder)? {
                Self::remove(&entry?.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_whose_it_is() {
        let id = ImageId::random();
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::open(&dir.path().join("a"), &dir.path().join("b")).unwrap();
        for (path, fence) in [
            (staging.path(&id), None),
            (staging.path(&id).with_added_extension("part"), None),
            (staging.output(&id, 7), Some(7)),
            (staging.unpacked(&id, 8), Some(8)),
            (
                staging.fetched(&id, 9).with_added_extension("part"),
                Some(9),
            ),
        ] {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let want = Named {
                image: id.clone(),
                fence,
            };
            assert_eq!(Named::parse(&name), Some(want), "{name}");
        }
        for other in ["lost+found", "", "x.7.out"] {
            assert_eq!(Named::parse(other), None, "{other}");
        }
        assert_eq!(Named::parse(&format!("{id}.x.out")), None);
    }
}
