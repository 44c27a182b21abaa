//! Files that appear under their names only when they are complete.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// What to do about a file that is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Existing {
    /// Leave it alone and fail.
    Keep,
    /// Take its place, and its mode.
    Replace,
}

/// Writes the file at `path` by `write`.
pub(super) fn publish<T>(
    path: &Path,
    existing: Existing,
    write: impl FnOnce(&File) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    // Through a link: the file it leads to is meant, not the link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let wrote = || format!("writing {}", path.display());
    let before = fs::metadata(&path).ok();
    match &before {
        Some(meta) if !meta.is_file() => bail!("{} is not a regular file", path.display()),
        Some(_) if existing == Existing::Keep => {
            bail!("{} exists, and --force is not given", path.display())
        }
        _ => {}
    }
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir.to_owned(),
        _ => PathBuf::from("."),
    };
    let file = tempfile::Builder::new()
        .prefix(".glint-")
        .suffix(".part")
        // What the umask leaves of this, as for any new file.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(&dir)
        .map_err(|e| match e.get_ref().and_then(|e| e.source()) {
            // Without the temporary name, which means nothing to whoever reads it.
            Some(cause) => anyhow::Error::msg(cause.to_string()),
            None => e.into(),
        })
        .with_context(|| format!("making a file in {}", dir.display()))?;
    let done = write(file.as_file())?;
    if let Some(before) = before {
        file.as_file()
            .set_permissions(before.permissions())
            .with_context(wrote)?;
    }
    let published = match existing {
        Existing::Keep => file.persist_noclobber(&path),
        Existing::Replace => file.persist(&path),
    };
    published.map_err(|e| e.error).with_context(wrote)?;
    Ok(done)
}
