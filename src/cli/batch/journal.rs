//! What became of each image, in the folder for outputs: `--resume` reads it, and so does the
//! report. A first line claims the output's name before it is taken; the second tells how it ended,
//! and is written when the output has its name, which it gets when it is durable. What the journal
//! does not tell of is not done.
//!
//! ```text
//!  DIR/.glint-batch/journal.jsonl   the conversion, then lines of images; the last of an image counts
//!  DIR/.glint-batch/work/           folders of inner processes; emptied when a batch begins
//! ```

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::is_absent;
use super::plan::Image;
use crate::cli::Exit;

/// The folder of a batch in that for outputs.
pub(super) const FOLDER: &str = ".glint-batch";

/// Bytes of a line: many times what an image's findings take.
const MAX_LINE: u64 = 1 << 20;

/// The first line: what all the others are worth nothing without.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    version: u32,
    /// The conversion, in the words of `convert`.
    conversion: Vec<String>,
}

/// What became of an image.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    /// The output's name, with all but letters and digits as `%` and two digits.
    key: String,
    input: Option<Stamp>,
    output: Option<Stamp>,
    /// Whether it is on its way, and its name claimed.
    is_begun: bool,
    /// Exit code of its conversion.
    pub(super) exit: i32,
    pub(super) seconds: f64,
    pub(super) source_format: Option<String>,
    pub(super) virtual_size: Option<u64>,
    pub(super) file_size: Option<u64>,
    pub(super) allocated_size: Option<u64>,
    pub(super) error: Option<String>,
    pub(super) findings: Value,
}

/// A file as it was: it is unchanged where all of this is the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Stamp {
    ino: u64,
    size: u64,
    mtime: (i64, i64),
}

impl Stamp {
    pub(super) fn of(path: &Path) -> std::io::Result<Self> {
        Ok(Self::from(&fs::metadata(path)?))
    }
}

impl From<&Metadata> for Stamp {
    fn from(meta: &Metadata) -> Self {
        Self {
            ino: meta.ino(),
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

impl Record {
    /// Of an image that is about to be converted.
    pub(super) fn begun(image: &Image) -> Self {
        Self {
            is_begun: true,
            ..Self::new(image)
        }
    }

    pub(super) fn new(image: &Image) -> Self {
        Self {
            key: key(&image.name),
            input: None,
            output: None,
            is_begun: false,
            exit: Exit::Fine as i32,
            seconds: 0.0,
            source_format: None,
            virtual_size: None,
            file_size: None,
            allocated_size: None,
            error: None,
            findings: Value::Array(Vec::new()),
        }
    }

    /// Notes what was read and what was written.
    pub(super) fn stamp(&mut self, input: Stamp, output: Stamp) {
        (self.input, self.output) = (Some(input), Some(output));
    }

    /// Notes the output that is there although this conversion failed.
    pub(super) fn keep(&mut self, output: Option<Stamp>) {
        self.output = output;
    }

    pub(super) fn is_done(&self) -> bool {
        !self.is_begun && self.exit == Exit::Fine as i32
    }

    /// Whether the file under the output's name is this batch's: the one that it wrote, or one
    /// that it wrote and had no time to tell of.
    pub(super) fn is_of_output(&self, out: &Path, image: &Image) -> bool {
        self.is_begun || is_unchanged(self.output.as_ref(), &out.join(&image.name))
    }

    /// Whether the image was converted as it is now.
    pub(super) fn is_of_input(&self, image: &Image) -> bool {
        self.is_done() && is_unchanged(self.input.as_ref(), &image.path)
    }
}

fn is_unchanged(before: Option<&Stamp>, path: &Path) -> bool {
    before.is_some() && before == Stamp::of(path).ok().as_ref()
}

fn key(name: &Path) -> String {
    percent_encode(name.as_os_str().as_bytes(), NON_ALPHANUMERIC).to_string()
}

/// The journal of a batch, which nobody else writes meanwhile.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    work: PathBuf,
    end: u64,
    /// What lies before was written by an earlier batch.
    begun: u64,
    /// Where the last line of each image is.
    lines: HashMap<String, u64>,
}

impl Journal {
    /// The journal of the outputs in `out`: begun anew, or with what an earlier batch did.
    ///
    /// # Errors
    /// When another batch writes there, or the earlier one made something else.
    pub(super) fn open(out: &Path, words: &[OsString], resume: bool) -> anyhow::Result<Self> {
        let folder = out.join(FOLDER);
        let (path, work) = (folder.join("journal.jsonl"), folder.join("work"));
        let shown = path.display().to_string();
        let opening = || format!("opening {shown}");
        fs::create_dir_all(&folder).with_context(opening)?;
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(opening)?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another batch writes into {}", out.display());
        }
        // Folders of processes that a crash left.
        match fs::remove_dir_all(&work) {
            Err(e) if !is_absent(&e) => return Err(e).context("clearing up after a crash"),
            _ => fs::create_dir(&work).with_context(|| format!("making {}", work.display()))?,
        }
        let words = words.iter().map(|word| word.to_string_lossy().into_owned());
        let head = Head {
            version: 1,
            conversion: words.collect(),
        };
        let mut journal = Self {
            file,
            path,
            work,
            end: 0,
            begun: 0,
            lines: HashMap::new(),
        };
        if resume {
            journal.load(&head)?;
        }
        if journal.end == 0 {
            journal.file.set_len(0).with_context(opening)?;
            journal.append(&head)?;
        }
        journal.begun = journal.end;
        Ok(journal)
    }

    /// Reads what an earlier batch wrote, up to a line that it did not end.
    fn load(&mut self, head: &Head) -> anyhow::Result<()> {
        let reading = || format!("reading {}", self.path.display());
        let mut reader = BufReader::new(&self.file);
        let mut line = Vec::new();
        let mut end = 0;
        loop {
            line.clear();
            let len = reader
                .by_ref()
                .take(MAX_LINE)
                .read_until(b'\n', &mut line)
                .with_context(reading)?;
            if !line.ends_with(b"\n") {
                break;
            }
            if end == 0 {
                match serde_json::from_slice::<Head>(&line) {
                    Ok(earlier) if earlier == *head => {}
                    Ok(earlier) => bail!(
                        "the earlier batch was `{}`: another one needs another folder, or begins \
                         anew without --resume",
                        earlier.conversion.join(" ")
                    ),
                    Err(e) => return Err(e).with_context(reading),
                }
            } else if let Ok(record) = serde_json::from_slice::<Record>(&line) {
                // A line that a crash of the machine spoilt tells of nothing done.
                self.lines.insert(record.key, end);
            }
            end += len as u64;
        }
        self.file.set_len(end).with_context(reading)?;
        self.end = end;
        Ok(())
    }

    /// The folder for those of inner processes.
    pub(super) fn work(&self) -> &Path {
        &self.work
    }

    /// The last line about an image, and where it is.
    pub(super) fn find(&self, name: &Path) -> anyhow::Result<Option<(u64, Record)>> {
        let Some(&line) = self.lines.get(&key(name)) else {
            return Ok(None);
        };
        Ok(Some((line, self.read(line)?)))
    }

    /// Whether the line at `line` was written by an earlier batch.
    pub(super) fn is_earlier(&self, line: u64) -> bool {
        line < self.begun
    }

    /// The record in the line at `line`.
    pub(super) fn read(&self, line: u64) -> anyhow::Result<Record> {
        let read = || -> anyhow::Result<Record> {
            let len = (self.end - line.min(self.end)).min(MAX_LINE);
            let mut reader = BufReader::new(At(&self.file, line)).take(len);
            let mut text = Vec::new();
            reader.read_until(b'\n', &mut text)?;
            Ok(serde_json::from_slice(&text)?)
        };
        read().with_context(|| format!("reading {}", self.path.display()))
    }

    /// Appends a line; answers where it is.
    pub(super) fn append(&mut self, value: &impl Serialize) -> anyhow::Result<u64> {
        let writing = || format!("writing {}", self.path.display());
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.file
            .write_all_at(&line, self.end)
            .with_context(writing)?;
        let at = self.end;
        self.end += line.len() as u64;
        Ok(at)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Each inner process's folder is gone with it; what is left here is an empty one.
        let _ = fs::remove_dir(&self.work);
    }
}

/// A file from an offset on.
struct At<'a>(&'a File, u64);

impl Read for At<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = self.0.read_at(buf, self.1)?;
        self.1 += len as u64;
        Ok(len)
    }
}
