//! Files that images name: opened inside the folders that were granted, and nowhere else.
//!
//! A name counts from the folder of the image that holds it. Where that leads into a granted
//! folder, the kernel keeps to it (`crate::folder`).

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use formats::resolve::{Granted, Resolver, Wanted};
use formats::{Error, FileSource, Format, Limits};
use rustix::io::Errno;

use crate::folder::Folder;

/// A file whatever its name: device and number.
pub(in crate::cli) type FileId = (u64, u64);

/// Folders whose files images may read.
pub(in crate::cli) struct Folders {
    dirs: Vec<Folder>,
    granted: Mutex<Vec<Grant>>,
}

/// What was granted.
struct Grant {
    id: FileId,
    /// Of an image that another lies on: how people would call it.
    name: Option<String>,
}

impl Folders {
    pub(in crate::cli) fn open(dirs: &[PathBuf]) -> anyhow::Result<Self> {
        let dirs = dirs
            .iter()
            .map(|path| {
                let opened = Folder::open(path);
                opened.with_context(|| format!("--allow-backing {}", path.display()))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            dirs,
            granted: Mutex::default(),
        })
    }

    /// Who answers for the names in the image at `path`.
    pub(super) fn beside(self: &Arc<Self>, path: &Path) -> Beside {
        Beside {
            folders: Arc::clone(self),
            dir: super::folder_of(path),
            shown: path.parent().unwrap_or(Path::new("")).to_owned(),
        }
    }

    pub(super) fn granted(&self) -> Vec<FileId> {
        self.log().iter().map(|grant| grant.id).collect()
    }

    pub(super) fn beneath(&self) -> Vec<String> {
        self.log()
            .iter()
            .filter_map(|grant| grant.name.clone())
            .collect()
    }

    fn log(&self) -> MutexGuard<'_, Vec<Grant>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the regular file that `name` means to an image in `from`, and tells its folder.
    pub(in crate::cli) fn file(&self, from: &Path, name: &str) -> anyhow::Result<(File, PathBuf)> {
        if name.contains('\0') {
            bail!("it is no file name");
        }
        let path = joined(from, Path::new(name));
        let mut error = None;
        for (dir, rest) in self
            .dirs
            .iter()
            .filter_map(|dir| Some((dir, dir.rest(&path)?)))
        {
            match dir.file(&rest) {
                Ok(file) => {
                    if !is_regular(&file) {
                        bail!("it is not a regular file");
                    }
                    let folder = super::folder_of(&dir.path().join(&rest));
                    return Ok((file, folder));
                }
                // Another folder that was granted may hold it.
                Err(e) => error = Some(e),
            }
        }
        match error {
            None => bail!(
                "no --allow-backing folder holds it: it would be {}",
                path.display()
            ),
            Some(Errno::XDEV) => bail!("it leads out of the folder that --allow-backing grants"),
            Some(Errno::NOSYS) => bail!("this kernel cannot confine names to a folder (openat2)"),
            Some(e) => Err(e.into()),
        }
    }
}

/// Files of a folder looked at for a parent that has no name.
const MAX_CANDIDATES: usize = 1000;

impl Folders {
    /// The file name of the vdi in a granted folder whose UUID is `uuid`: that is all an image
    /// says of its parent. Looked for in the folders themselves, not in those inside them.
    fn vdi(&self, uuid: &str) -> Option<PathBuf> {
        let names = |dir: &Folder| {
            let entries = fs::read_dir(dir.path()).into_iter().flatten();
            let names = entries
                .flatten()
                .map(|entry| PathBuf::from(entry.file_name()));
            let is_vdi = |name: &PathBuf| name.extension().is_some_and(|e| e == "vdi");
            let mut names: Vec<_> = names.filter(is_vdi).take(MAX_CANDIDATES).collect();
            names.sort();
            names
        };
        let is_meant = |dir: &Folder, name: &Path| -> formats::Result<bool> {
            let Some(file) = dir.file(name).ok().filter(is_regular) else {
                return Ok(false);
            };
            let found = formats::inspect::inspect(&FileSource::new(file)?, &Limits::default())?;
            let id = found.details.get("uuid_image").and_then(|id| id.as_str());
            Ok(found.format == Format::Vdi && id == Some(uuid))
        };
        self.dirs.iter().find_map(|dir| {
            let mut names = names(dir).into_iter();
            let name = names.find(|name| is_meant(dir, name).unwrap_or(false))?;
            Some(dir.path().join(name))
        })
    }
}

fn is_regular(file: &File) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file())
}

/// The path that QEMU's formats mean by `name`: what stands before a colon says how to reach a
/// file, and a plain file may be said to be one.
///
/// # Errors
/// When it is no file that is meant.
pub(in crate::cli) fn plain_path(name: &str) -> anyhow::Result<&str> {
    match name.split_once(':') {
        Some(("file", path)) => Ok(path),
        Some((protocol, _)) if !protocol.contains('/') => {
            bail!("it names a protocol ({protocol}:), and only plain paths are read")
        }
        _ => Ok(name),
    }
}

/// `name` as seen from the folder `from`, which has no links: so `..` at the beginning of the name
/// is exact, and the rest is left to the kernel.
fn joined(from: &Path, name: &Path) -> PathBuf {
    let mut path = from.to_owned();
    let mut parts = name.components();
    loop {
        let rest = parts.as_path();
        match parts.next() {
            Some(Component::ParentDir) => _ = path.pop(),
            Some(Component::CurDir) => {}
            _ => return path.join(rest),
        }
    }
}

/// Answers the names in one image.
pub(in crate::cli) struct Beside {
    folders: Arc<Folders>,
    /// Where the image lies, without links.
    dir: PathBuf,
    /// The same as it was given.
    shown: PathBuf,
}

impl Resolver for Beside {
    fn resolve(&self, by: Format, wanted: Wanted, name: &str) -> formats::Result<Granted> {
        let refused = |e| Error::refused(by, wanted.name(), format!("{name:?} is not read: {e:#}"));
        let name = match by {
            Format::Qcow1 | Format::Qcow2 | Format::Qed => plain_path(name).map_err(refused)?,
            _ => name,
        };
        let by_name = self.folders.file(&self.dir, name);
        let (file, dir, name) = match by_name {
            Ok((file, dir)) => (file, dir, PathBuf::from(name)),
            Err(e) => {
                let is_uuid = by == Format::Vdi && wanted == Wanted::Parent;
                let uuid = name.trim_start_matches('{').trim_end_matches("}.vdi");
                let Some(path) = is_uuid.then(|| self.folders.vdi(uuid)).flatten() else {
                    return Err(refused(e));
                };
                let shown = path.to_string_lossy();
                let (file, dir) = self.folders.file(&self.dir, &shown).map_err(refused)?;
                (file, dir, path)
            }
        };
        let meta = file.metadata().map_err(|e| refused(e.into()))?;
        let shown = self.shown.join(name);
        let is_image = matches!(wanted, Wanted::Backing | Wanted::Parent);
        self.folders.log().push(Grant {
            id: (meta.dev(), meta.ino()),
            name: is_image.then(|| shown.to_string_lossy().into_owned()),
        });
        Ok(Granted {
            source: Arc::new(FileSource::new(file)?),
            resolver: Arc::new(Self {
                folders: Arc::clone(&self.folders),
                dir,
                shown: shown.parent().unwrap_or(Path::new("")).to_owned(),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn folders(dirs: &[&Path]) -> Folders {
        let dirs: Vec<_> = dirs.iter().map(|dir| (*dir).to_owned()).collect();
        Folders::open(&dirs).unwrap()
    }

    #[test]
    fn only_files_inside_are_opened() {
        let temp = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(temp.path()).unwrap();
        for dir in ["in/sub", "out", "beside"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for file in ["in/a", "in/sub/b", "out/secret"] {
            fs::write(root.join(file), file).unwrap();
        }
        symlink("sub/b", root.join("in/link")).unwrap();
        symlink("../out/secret", root.join("in/away")).unwrap();
        symlink(root.join("out/secret"), root.join("in/far")).unwrap();
        symlink("../out", root.join("in/door")).unwrap();
        symlink("in", root.join("alias")).unwrap();
        let fifo = root.join("in/fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();

        let alias = root.join("alias");
        let folders = folders(&[&alias]);
        let beside = root.join("beside");
        let absolute = |name: &str| root.join(name).to_str().unwrap().to_owned();
        let read = |from: &Path, name: &str| {
            let (mut file, dir) = folders.file(from, name).ok()?;
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            Some((text, dir.strip_prefix(&root).unwrap().to_owned()))
        };
        let inside = |text: &str, dir: &str| Some((text.to_owned(), PathBuf::from(dir)));
        let home = root.join("in");
        assert_eq!(read(&home, "a"), inside("in/a", "in"));
        assert_eq!(read(&home, "./sub/b"), inside("in/sub/b", "in/sub"));
        assert_eq!(read(&home, "sub/../a"), inside("in/a", "in"));
        assert_eq!(read(&home, "link"), inside("in/sub/b", "in"));
        assert_eq!(read(&root.join("in/sub"), "../a"), inside("in/a", "in"));
        assert_eq!(read(&beside, "../in/a"), inside("in/a", "in"));
        assert_eq!(read(&beside, &absolute("in/a")), inside("in/a", "in"));
        assert_eq!(read(&beside, &absolute("alias/a")), inside("in/a", "in"));
        for name in [
            "../out/secret",
            "sub/../../out/secret",
            "away",
            "far",
            "door/secret",
            "missing",
            "sub",
            "fifo",
            "",
            ".",
            "a\0",
            "/etc/hostname",
            "/proc/self/root/etc/hostname",
        ] {
            assert_eq!(read(&home, name), None, "{name:?}");
        }
        assert_eq!(read(&beside, "a"), None);
    }
}
