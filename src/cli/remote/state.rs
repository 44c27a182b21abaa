//! What is remembered of an upload, for `--resume` after this program was ended: a small file in the
//! user's folder for such things, named for the file and the service. It holds nothing secret.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;

use super::local::Stamp;
use crate::stores::sync_dir;

/// Bytes of such a file at most.
const MAX: u64 = 1 << 20;
/// Parts of a file at most: a service has a bound on the uploads of one image.
pub(super) const MOST_PARTS: u64 = 128;

/// An upload on its way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) file: Stamp,
    /// The image's id.
    pub(super) image: String,
    /// Whether we made the image, and so may remove it.
    pub(super) is_ours: bool,
    /// What the image was made as.
    pub(super) disk_format: Option<String>,
    pub(super) container_format: Option<String>,
    /// Bytes of a part.
    pub(super) part: u64,
    /// Ids of the uploads of the parts that were begun.
    pub(super) uploads: Vec<Option<String>>,
}

/// How many parts of `part` bytes a file of `size` bytes has; one is the file alone.
pub(super) fn parts_of(size: u64, part: u64) -> usize {
    let parts = size.div_ceil(part.max(1)).max(1);
    usize::try_from(parts).unwrap_or(usize::MAX)
}

impl State {
    /// Whether it can be one that we wrote.
    fn is_sound(&self) -> bool {
        self.part > 0 && self.uploads.len() == parts_of(self.file.size, self.part)
    }
}

/// Where it is remembered, and what is.
pub(super) struct Memory {
    /// `None` where there is no place for it.
    path: Option<PathBuf>,
    state: Mutex<State>,
    /// Whose turn it is to write the file: kept to the end of the write, whoever still waits for that.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Where the upload of a file to a service is remembered.
pub(super) fn place(file: &Path, service: &str) -> Option<PathBuf> {
    let from = |name| {
        let value = std::env::var_os(name).filter(|v| !v.is_empty());
        value.map(PathBuf::from)
    };
    let base = from("XDG_STATE_HOME").or_else(|| Some(from("HOME")?.join(".local/state")))?;
    let mut hash = Sha256::new();
    hash.update(file.as_os_str().as_encoded_bytes());
    hash.update([0]);
    hash.update(service.as_bytes());
    let digits = hash.finalize()[..12]
        .iter()
        .fold(String::new(), |mut text, byte| {
            use std::fmt::Write as _;
            let _ = write!(text, "{byte:02x}");
            text
        });
    Some(base.join("glint/uploads").join(digits + ".json"))
}

/// What is remembered at `path`; nothing that cannot be read counts. Blocks.
pub(super) fn recall(path: &Path) -> io::Result<Option<State>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut text = Vec::new();
    file.take(MAX).read_to_end(&mut text)?;
    let state = serde_json::from_slice(&text).ok();
    Ok(state.filter(State::is_sound))
}

impl Memory {
    pub(super) fn new(path: Option<PathBuf>, state: State) -> Self {
        Self {
            path,
            state: Mutex::new(state),
            turn: Arc::default(),
        }
    }

    /// Whether there is a place where it is remembered.
    pub(super) fn is_kept(&self) -> bool {
        self.path.is_some()
    }

    pub(super) fn state(&self) -> State {
        self.lock().clone()
    }

    /// The upload of part `n`, if it was begun.
    pub(super) fn upload(&self, n: usize) -> Option<String> {
        self.lock().uploads.get(n).cloned().flatten()
    }

    /// Notes what is the upload of part `n`, durably.
    pub(super) async fn note(&self, n: usize, upload: Option<String>) -> anyhow::Result<()> {
        if let Some(slot) = self.lock().uploads.get_mut(n) {
            *slot = upload;
        }
        self.save().await
    }

    /// Makes durable what is known.
    pub(super) async fn save(&self) -> anyhow::Result<()> {
        let Some(path) = self.path.clone() else {
            return Ok(());
        };
        let turn = self.turn.clone().lock_owned().await;
        let state = self.state();
        spawn_blocking(move || {
            let _turn = turn;
            save(&path, &state).with_context(|| format!("noting the upload in {}", path.display()))
        })
        .await?
    }

    /// Forgets it: the upload is over.
    pub(super) async fn forget(&self) -> anyhow::Result<()> {
        let Some(path) = self.path.clone() else {
            return Ok(());
        };
        let _turn = self.turn.lock().await;
        spawn_blocking(move || {
            for path in [draft_of(&path), path] {
                match fs::remove_file(path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
                    _ => {}
                }
            }
            Ok(())
        })
        .await?
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn save(path: &Path, state: &State) -> io::Result<()> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    fs::create_dir_all(folder)?;
    let draft = draft_of(path);
    let mut file = File::create(&draft)?;
    file.write_all(&serde_json::to_vec(state)?)?;
    file.sync_data()?;
    fs::rename(draft, path)?;
    sync_dir(folder)
}

/// Where a note of ours is before it counts: always the same name, so that a kill leaves one at most.
fn draft_of(path: &Path) -> PathBuf {
    path.with_extension(format!("{}.draft", std::process::id()))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::local::Local;
    use super::*;

    /// The state of an upload of a file in `room`, in three parts.
    fn state(room: &Path) -> State {
        let file = room.join("disk.img");
        fs::write(&file, [1; 10]).unwrap();
        State {
            file: Local::open(&file).unwrap().stamp,
            image: "i".into(),
            is_ours: true,
            disk_format: None,
            container_format: None,
            part: 4,
            uploads: vec![Some("u".into()), None, None],
        }
    }

    #[tokio::test]
    async fn the_last_note_counts_and_nothing_comes_after_the_end() {
        let room = tempfile::tempdir().unwrap();
        let at = room.path().join("state.json");
        let memory = Memory::new(Some(at.clone()), state(room.path()));
        let note = |n| memory.note(n, Some(n.to_string()));
        tokio::try_join!(note(0), note(1), note(2)).unwrap();
        assert_eq!(recall(&at).unwrap(), Some(memory.state()));
        // Nobody waits for this one, but it may be under way.
        let _ = note(1).now_or_never();
        fs::write(draft_of(&at), "what a kill left").unwrap();
        memory.forget().await.unwrap();
        assert_eq!(recall(&at).unwrap(), None);
        assert!(!draft_of(&at).exists());
    }

    #[test]
    fn what_was_noted_comes_back_and_nonsense_does_not() {
        let room = tempfile::tempdir().unwrap();
        let state = state(room.path());
        let at = room.path().join("a/folder/state.json");
        assert_eq!(recall(&at).unwrap(), None);
        save(&at, &state).unwrap();
        assert_eq!(recall(&at).unwrap().as_ref(), Some(&state));
        for (part, uploads) in [(0, 1), (4, 2)] {
            let uploads = vec![None; uploads];
            let wrong = State {
                part,
                uploads,
                ..state.clone()
            };
            save(&at, &wrong).unwrap();
            assert_eq!(recall(&at).unwrap(), None);
        }
        fs::write(&at, "{").unwrap();
        assert_eq!(recall(&at).unwrap(), None);
    }
}
