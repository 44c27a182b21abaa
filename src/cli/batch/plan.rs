//! From what was typed to images, each with the output that is to be.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use walkdir::WalkDir;

use super::journal::FOLDER;
use super::names::{self, Rule};
use crate::cli::input;
use crate::cli::permit::FileId;

/// Images in a batch: what their names take up stays below a quarter of the memory it may use.
const MAX_IMAGES: usize = 200_000;
/// Bytes of a line of a list, as long as a path can be.
const MAX_LINE: u64 = 4096;
/// Folders below a folder.
const MAX_DEPTH: usize = 64;
/// What an image weighs beside its bytes: the start of a process.
const BASE_WEIGHT: u64 = 1 << 20;

/// All images.
pub(super) struct Plan {
    pub(super) images: Vec<Image>,
    /// The inputs: no output may replace one.
    pub(super) inputs: HashSet<FileId>,
}

/// One image.
pub(super) struct Image {
    pub(super) path: PathBuf,
    /// The output, below the folder for outputs.
    pub(super) name: PathBuf,
    /// Bytes to go through, as far as the file system tells.
    pub(super) weight: u64,
}

impl Plan {
    /// The images that `from` names, in that order. None is opened; one that is not there fails
    /// when its turn comes.
    ///
    /// # Errors
    /// What is wrong with the request as a whole: a folder or list that cannot be read, a pattern
    /// that matches nothing, two inputs for one output.
    pub(super) fn new(from: &[PathBuf], rule: &Rule, out: &Path) -> anyhow::Result<Self> {
        let mut planner = Planner {
            rule,
            out,
            taken: HashMap::new(),
            plan: Self {
                images: Vec::new(),
                inputs: HashSet::new(),
            },
        };
        for path in from {
            planner.typed(path)?;
        }
        Ok(planner.plan)
    }
}

struct Planner<'a> {
    rule: &'a Rule,
    out: &'a Path,
    /// Outputs and the images that they are of.
    taken: HashMap<PathBuf, usize>,
    plan: Plan,
}

impl Planner<'_> {
    fn typed(&mut self, path: &Path) -> anyhow::Result<()> {
        match path.as_os_str().as_bytes() {
            [b'@', list @ ..] => self.list(&names::path(list)),
            _ => self.named(path),
        }
    }

    /// The lines of a list, each a file, a folder or a pattern.
    fn list(&mut self, path: &Path) -> anyhow::Result<()> {
        let reading = || format!("reading the list {}", path.display());
        let mut lines: Box<dyn BufRead> = match path.as_os_str() == "-" {
            true => Box::new(io::stdin().lock()),
            false => {
                // Opened as images are: a pipe nobody writes to holds up nothing.
                let file = input::open(path).with_context(reading)?;
                Box::new(BufReader::new(
                    file.file().try_clone().with_context(reading)?,
                ))
            }
        };
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded = lines.by_ref().take(MAX_LINE + 1);
            if bounded.read_until(b'\n', &mut line).with_context(reading)? == 0 {
                return Ok(());
            }
            let name = line.strip_suffix(b"\n").unwrap_or(&line);
            let name = name.strip_suffix(b"\r").unwrap_or(name);
            if name.len() as u64 >= MAX_LINE {
                bail!("{}: a line is longer than a path can be", reading());
            }
            if !name.is_empty() {
                self.named(&names::path(name))?;
            }
        }
    }

    /// A file, a folder, or a pattern for such.
    fn named(&mut self, path: &Path) -> anyhow::Result<()> {
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => self.folder(path),
            Ok(meta) => self.image(path, path.file_name().map(Path::new), Some(&meta)),
            Err(_) => match path.to_str() {
                Some(text) if text.contains(['*', '?', '[']) => self.pattern(text),
                _ => self.image(path, path.file_name().map(Path::new), None),
            },
        }
    }

    fn pattern(&mut self, pattern: &str) -> anyhow::Result<()> {
        let mut is_empty = true;
        for path in glob::glob(pattern).with_context(|| format!("the pattern {pattern:?}"))? {
            let path = path.context("reading a folder")?;
            is_empty = false;
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => self.folder(&path)?,
                meta => self.image(&path, path.file_name().map(Path::new), meta.ok().as_ref())?,
            }
        }
        if is_empty {
            bail!("nothing matches {pattern:?}");
        }
        Ok(())
    }

    /// What is in a folder and below, links not followed.
    fn folder(&mut self, folder: &Path) -> anyhow::Result<()> {
        let outputs = self.out.to_owned();
        let entries = WalkDir::new(folder)
            .max_depth(MAX_DEPTH)
            .sort_by_file_name()
            .into_iter()
            // What this batch writes is not its input, unless that is the folder named.
            .filter_entry(|entry| {
                let is_own = entry.file_type().is_dir()
                    && (entry.file_name() == FOLDER
                        || fs::canonicalize(entry.path()).is_ok_and(|path| path == outputs));
                entry.depth() == 0 || !is_own
            });
        for entry in entries {
            let entry = entry?;
            if !entry.file_type().is_file() || !names::is_image(entry.file_name()) {
                continue;
            }
            let meta = entry.metadata()?;
            let relative = entry.path().strip_prefix(folder)?;
            self.image(entry.path(), Some(relative), Some(&meta))?;
        }
        Ok(())
    }

    fn image(
        &mut self,
        path: &Path,
        relative: Option<&Path>,
        meta: Option<&Metadata>,
    ) -> anyhow::Result<()> {
        let Some(relative) = relative else {
            bail!("{} names no file", path.display());
        };
        let name = self.rule.output(relative);
        if let Some(&other) = self.taken.get(&name) {
            let other = &self.plan.images[other].path;
            let same =
                |meta: &Metadata| fs::metadata(other).is_ok_and(|other| id(&other) == id(meta));
            if other == path || meta.is_some_and(same) {
                return Ok(());
            }
            bail!(
                "{} and {} would both become {}: --keep-extension, or their common folder as the \
                 input, tells them apart",
                other.display(),
                path.display(),
                name.display()
            );
        }
        if self.plan.images.len() == MAX_IMAGES {
            bail!("more than {MAX_IMAGES} images: divide them");
        }
        self.plan.inputs.extend(meta.map(id));
        let bytes = meta.map_or(0, |meta| meta.len().min(meta.blocks().saturating_mul(512)));
        self.taken.insert(name.clone(), self.plan.images.len());
        self.plan.images.push(Image {
            path: path.to_owned(),
            name,
            weight: bytes.saturating_add(BASE_WEIGHT),
        });
        Ok(())
    }
}

fn id(meta: &Metadata) -> FileId {
    (meta.dev(), meta.ino())
}
