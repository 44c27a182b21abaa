//! Files of the server's own that images are made from: those in the folders of `[batches]
//! source_dirs`, and no others.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tokio::task::spawn_blocking;

use crate::folder::Folder;

/// The folders.
#[derive(Clone)]
pub struct Folders(Arc<[Folder]>);

/// Why a file is not read, for clients: nothing here tells what lies outside the folders.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// It is in none of the folders, or is no regular file.
    #[error("it is no file in a folder that batches may read from")]
    Outside,
    /// It is there, and we may not read it, or the disk fails.
    #[error("it cannot be read")]
    Unreadable,
}

impl Folders {
    /// Holds the folders open.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn open(dirs: &[PathBuf]) -> anyhow::Result<Self> {
        let open = |dir: &PathBuf| Folder::open(dir).with_context(|| dir.display().to_string());
        Ok(Self(dirs.iter().map(open).collect::<anyhow::Result<_>>()?))
    }

    /// Opens the regular file at the absolute `path`; its size in bytes comes with it.
    ///
    /// # Errors
    /// [`Refused`]
    pub async fn file(&self, path: &str) -> Result<(File, u64), Refused> {
        let (folders, path) = (self.clone(), PathBuf::from(path));
        let opened = spawn_blocking(move || folders.open_file(&path)).await;
        opened.unwrap_or(Err(Refused::Unreadable))
    }

    fn open_file(&self, path: &Path) -> Result<(File, u64), Refused> {
        let mut refused = Refused::Outside;
        for folder in self.0.iter() {
            let Some(rest) = folder.rest(path) else {
                continue;
            };
            match folder.file(&rest) {
                Ok(file) => {
                    let meta = file.metadata().map_err(|_| Refused::Unreadable)?;
                    if meta.is_file() {
                        return Ok((file, meta.len()));
                    }
                }
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::XDEV) => {}
                Err(e) => {
                    tracing::warn!(path = %path.display(), error = %e, "a file of a batch cannot be opened");
                    refused = Refused::Unreadable;
                }
            }
        }
        Err(refused)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_files_in_the_folders_are_opened() {
        let temp = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(temp.path()).unwrap();
        fs::create_dir_all(root.join("in/sub")).unwrap();
        for file in ["in/a", "in/sub/b", "secret"] {
            fs::write(root.join(file), file).unwrap();
        }
        symlink("../secret", root.join("in/away")).unwrap();
        symlink("sub/b", root.join("in/link")).unwrap();
        let folders = Folders::open(&[root.join("in")]).unwrap();
        let open = |path: &str| folders.open_file(&root.join(path)).map(|(_, size)| size);
        assert_eq!(open("in/a"), Ok(4));
        assert_eq!(open("in/sub/b"), Ok(8));
        assert_eq!(open("in/link"), Ok(8));
        for path in [
            "secret",
            "in/../secret",
            "in/away",
            "in",
            "in/sub",
            "in/none",
            "/etc/passwd",
        ] {
            assert_eq!(open(path), Err(Refused::Outside), "{path}");
        }
        let none = Folders::open(&[]).unwrap();
        assert_eq!(
            none.open_file(&root.join("in/a")).map(|_| ()),
            Err(Refused::Outside)
        );
        assert!(Folders::open(&[root.join("none")]).is_err());
    }
}
