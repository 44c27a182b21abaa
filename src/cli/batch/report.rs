//! What became of all images: a table for people, an object for programs. Both are read off the
//! journal line by line, in the order of the images.

use std::io::{self, BufWriter, Write};
use std::sync::MutexGuard;
use std::time::Duration;

use anyhow::Context;
use indicatif::HumanBytes;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::journal::{Journal, Record};
use super::plan::Image;
use super::{Batch, lock};
use crate::cli::Exit;
use crate::cli::output::{self, Output, Paint, Plain};

/// The report of a batch that has come to its end.
pub(super) struct Report<'a> {
    batch: &'a Batch<'a>,
    journal: MutexGuard<'a, Journal>,
    lines: MutexGuard<'a, Vec<Option<u64>>>,
    took: Duration,
    counts: Counts,
    exit: Exit,
}

/// How many images ended how.
#[derive(Clone, Copy, Default, Serialize)]
struct Counts {
    done: usize,
    unchanged: usize,
    failed: usize,
    not_done: usize,
}

/// How an image ended.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Done,
    /// By an earlier batch.
    Unchanged,
    Failed,
    /// A signal ended the batch before.
    NotDone,
}

#[derive(Serialize)]
struct Document<'a> {
    output_folder: String,
    format: String,
    #[serde(serialize_with = "entries")]
    images: &'a Report<'a>,
    #[serde(flatten)]
    counts: Counts,
    seconds: f64,
}

/// An image, as programs read it.
#[derive(Serialize)]
struct Entry {
    filename: String,
    output: String,
    status: Status,
    #[serde(flatten)]
    told: Option<Told>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Told {
    Done {
        source_format: Option<String>,
        virtual_size: Option<u64>,
        file_size: Option<u64>,
        allocated_size: Option<u64>,
        seconds: f64,
    },
    Failed {
        error: Option<String>,
        findings: Value,
        exit_code: i32,
    },
}

fn entries<S: Serializer>(report: &&Report<'_>, to: S) -> Result<S::Ok, S::Error> {
    let entries = (0..report.lines.len()).map(|n| report.entry(n));
    // An error among them is found when it is its turn to be written.
    to.collect_seq(entries.map(|entry| Fallible(entry.map_err(|e| format!("{e:#}")))))
}

struct Fallible(Result<Entry, String>);

impl Serialize for Fallible {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Ok(entry) => entry.serialize(to),
            Err(e) => Err(S::Error::custom(e)),
        }
    }
}

impl<'a> Report<'a> {
    /// # Errors
    /// When the journal cannot be read.
    pub(super) fn new(batch: &'a Batch<'a>, took: Duration) -> anyhow::Result<Self> {
        let mut report = Self {
            batch,
            journal: lock(&batch.journal),
            lines: lock(&batch.lines),
            took,
            counts: Counts::default(),
            exit: Exit::Fine,
        };
        for n in 0..report.lines.len() {
            let record = report.record(n)?;
            let counts = &mut report.counts;
            match report.journal.status(report.lines[n], record.as_ref()) {
                Status::Done => counts.done += 1,
                Status::Unchanged => counts.unchanged += 1,
                Status::Failed => counts.failed += 1,
                Status::NotDone => counts.not_done += 1,
            }
            let exit = record.map(|record| record.exit).and_then(Exit::from_code);
            report.exit = report.exit.max(exit.unwrap_or(Exit::Fine));
        }
        Ok(report)
    }

    /// Prints it; answers the worst end of an image.
    pub(super) fn print(&self, output: Output, quiet: bool) -> anyhow::Result<Exit> {
        match output {
            Output::Json => output::json_in_pieces(&Document {
                output_folder: self.batch.out.to_string_lossy().into_owned(),
                format: self.batch.args.to.to_string(),
                images: self,
                counts: self.counts,
                seconds: self.took.as_secs_f64(),
            })?,
            Output::Human => self.table(quiet)?,
        }
        Ok(self.exit)
    }

    fn record(&self, n: usize) -> anyhow::Result<Option<Record>> {
        self.lines[n]
            .map(|line| self.journal.read(line))
            .transpose()
    }

    fn image(&self, n: usize) -> &Image {
        &self.batch.plan.images[n]
    }

    fn entry(&self, n: usize) -> anyhow::Result<Entry> {
        let record = self.record(n)?;
        let status = self.journal.status(self.lines[n], record.as_ref());
        Ok(Entry {
            filename: self.image(n).path.to_string_lossy().into_owned(),
            output: self.image(n).name.to_string_lossy().into_owned(),
            status,
            told: record.map(|record| match record.is_done() {
                true => Told::Done {
                    source_format: record.source_format,
                    virtual_size: record.virtual_size,
                    file_size: record.file_size,
                    allocated_size: record.allocated_size,
                    seconds: record.seconds,
                },
                false => Told::Failed {
                    error: record.error,
                    findings: record.findings,
                    exit_code: record.exit,
                },
            }),
        })
    }

    /// A line an image on standard output, and what went wrong on standard error.
    fn table(&self, quiet: bool) -> anyhow::Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        let paint = Paint::for_stream(&io::stdout());
        let mut write = || -> anyhow::Result<()> {
            let writing = "writing to standard output";
            for n in 0..self.lines.len() {
                let record = self.record(n)?;
                if let Some(record) = &record {
                    self.complain(n, record);
                }
                if !quiet {
                    let line = self.line(n, record.as_ref(), paint);
                    writeln!(out, "{line}").context(writing)?;
                }
            }
            if !quiet {
                writeln!(out, "{}", self.sum()).context(writing)?;
            }
            out.flush().context(writing)
        };
        match write() {
            Err(e) if is_closed(&e) => Ok(()),
            done => done,
        }
    }

    fn line(&self, n: usize, record: Option<&Record>, paint: Paint) -> String {
        let (word, what) = match (self.journal.status(self.lines[n], record), record) {
            (Status::Failed, _) => (paint.bad("failed   "), String::new()),
            (Status::NotDone, _) | (_, None) => ("not done ".into(), String::new()),
            (Status::Unchanged, _) => ("unchanged".into(), String::new()),
            (Status::Done, Some(record)) => {
                let size = |size: Option<u64>| HumanBytes(size.unwrap_or(0));
                let what = format!(
                    "  {} virtual, {} on disk, {:.1} s",
                    size(record.virtual_size),
                    size(record.allocated_size),
                    record.seconds
                );
                (paint.good("done     "), what)
            }
        };
        let image = self.image(n);
        let from = image.path.to_string_lossy();
        let to = image.name.to_string_lossy();
        format!("{word}  {} → {}{what}", Plain(&from), Plain(&to))
    }

    fn sum(&self) -> String {
        let counts = &self.counts;
        let mut words = vec![format!("{} done", counts.done)];
        for (count, word) in [
            (counts.unchanged, "unchanged"),
            (counts.failed, "failed"),
            (counts.not_done, "not done"),
        ] {
            if count > 0 {
                words.push(format!("{count} {word}"));
            }
        }
        format!("{}, {:.1} s", words.join(", "), self.took.as_secs_f64())
    }

    /// Tells on standard error what went wrong with an image.
    fn complain(&self, n: usize, record: &Record) {
        let Some(error) = &record.error else { return };
        let path = self.image(n).path.to_string_lossy();
        let paint = Paint::for_stream(&io::stderr());
        // Most of them name the file at fault already.
        let name = match error.contains(path.as_ref()) {
            true => String::new(),
            false => format!("{}: ", Plain(&path)),
        };
        output::talk(format_args!(
            "{} {name}{}",
            paint.bad("error:"),
            Plain(error)
        ));
        for finding in record.findings.as_array().into_iter().flatten() {
            let field = |name| finding.get(name).and_then(Value::as_str).unwrap_or("");
            output::talk(format_args!(
                "  {}  {}: {} [{}]",
                Plain(field("severity")),
                Plain(field("place")),
                Plain(field("message")),
                Plain(field("rule"))
            ));
        }
    }
}

impl Journal {
    fn status(&self, line: Option<u64>, record: Option<&Record>) -> Status {
        match (line, record) {
            (Some(_), Some(record)) if !record.is_done() => Status::Failed,
            (Some(line), Some(_)) if self.is_earlier(line) => Status::Unchanged,
            (Some(_), Some(_)) => Status::Done,
            _ => Status::NotDone,
        }
    }
}

fn is_closed(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
