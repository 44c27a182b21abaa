//! `glint inspect`: what files are, and whether they are safe.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use formats::container::{self, examine};
use formats::inspect::{Allowance, Finding, Inspection, MemberDisk, Severity, Verdict};
use formats::{ErrorKind, Format, Limits, OpenOptions, Source};
use serde::Serialize;
use serde_json::{Map, Value};

use super::fence::Fence;
use super::output::{self, Output, Paint, Plain, size};
use super::permit::{Means, Permit};
use super::{Exit, input};

/// Tell what image files are, their sizes, and whether they are safe to use
///
/// Only a few megabytes of each file are read; a compressed file is decompressed on the way and
/// described by what it holds. Nothing an image names is opened, unless --allow-backing grants it:
/// then, and with --passphrase-file, the verdict is that of the image with all beneath it.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Image files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    permit: Permit,

    #[command(flatten)]
    fence: Fence,

    /// How to print: `json` gives one object for one file, an array for several
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let named = args
        .permit
        .named(args.files.iter().map(AsRef::as_ref).collect());
    args.fence.reading(&named, || look(args))
}

fn look(args: &Args) -> anyhow::Result<Exit> {
    let paint = Paint::for_stream(&std::io::stdout());
    let means = args.permit.means()?;
    let mut worst = Exit::Fine;
    let mut objects = Vec::new();
    for (n, path) in args.files.iter().enumerate() {
        let filename = path.to_string_lossy();
        let (entry, exit) = match describe(path, &means) {
            Ok(seen) => {
                let exit = match seen.inspection.verdict() {
                    Verdict::Safe => Exit::Fine,
                    Verdict::Unsafe => Exit::Image,
                };
                if args.output == Output::Human {
                    let gap = if n == 0 { "" } else { "\n" };
                    let text = format!("{gap}{}", human(&filename, &seen, paint));
                    output::data(text.as_bytes())?;
                }
                (Entry::Report(Report::new(&filename, seen)), exit)
            }
            Err(e) => {
                output::complain(&e);
                let failed = Entry::Failed {
                    filename: filename.clone().into_owned(),
                    error: format!("{e:#}"),
                };
                (failed, Exit::of(&e))
            }
        };
        worst = worst.max(exit);
        if args.output == Output::Json {
            objects.push(entry);
        }
    }
    if args.output == Output::Json {
        match objects.as_slice() {
            [one] => output::json(one)?,
            all => output::json(&all)?,
        }
    }
    Ok(worst)
}

/// An inspected file.
struct Seen {
    inspection: Inspection,
    /// Bytes that take up room in the file system.
    allocated: u64,
}

fn describe(path: &Path, means: &Means) -> anyhow::Result<Seen> {
    let source: Arc<dyn Source> = Arc::new(input::open(path)?);
    let look = || -> anyhow::Result<Inspection> {
        match means.allowance() {
            nothing if nothing == Allowance::default() => {
                Ok(input::judge(&source, &Limits::default())?)
            }
            _ => opened(&source, path, means),
        }
    };
    let mut inspection = look().with_context(|| path.display().to_string())?;
    inspection.sort_findings();
    Ok(Seen {
        inspection,
        allocated: source.allocated(),
    })
}

/// The judgement of an image that is opened as it would be for reading: what that is allowed is
/// worth no more than a note, and what then stands in the way is a finding.
fn opened(source: &Arc<dyn Source>, path: &Path, means: &Means) -> anyhow::Result<Inspection> {
    let limits = Limits::default();
    let (mut found, source) = examine(source, &container::Context::new(&limits))?;
    let (format, allowed) = (found.format, means.allowance());
    let mut is_allowed = format == Format::Luks && allowed.passphrase;
    for finding in &mut found.findings {
        if finding.severity == Severity::Unsafe && allowed.covers(format, finding) {
            finding.severity = Severity::Note;
            is_allowed = true;
        }
    }
    if !is_allowed || found.verdict() == Verdict::Unsafe {
        return Ok(found);
    }
    let options = OpenOptions {
        format: Some(format),
        ..means.options(Some(path), None)
    };
    match formats::open(source, &options) {
        Err(e) if matches!(e.kind(), ErrorKind::Io | ErrorKind::Usage) => return Err(e.into()),
        Err(e) => found.findings.push(Finding {
            rule: "open",
            severity: Severity::Unsafe,
            place: e.place().to_owned(),
            message: e.message().to_owned(),
        }),
        Ok(_) => {}
    }
    Ok(found)
}

/// What `--output json` prints for one file.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry {
    Report(Report),
    Failed { filename: String, error: String },
}

#[derive(Serialize)]
struct Report {
    filename: String,
    format: Format,
    container_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<&'static str>,
    virtual_size: Option<u64>,
    file_size: u64,
    allocated_size: u64,
    details: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disks: Option<Vec<MemberDisk>>,
    findings: Vec<Finding>,
    verdict: Verdict,
}

impl Report {
    fn new(filename: &str, seen: Seen) -> Self {
        let Seen {
            inspection: i,
            allocated,
        } = seen;
        Self {
            filename: filename.to_owned(),
            verdict: i.verdict(),
            format: i.format,
            container_format: i.container_format,
            compression: i.compression,
            virtual_size: i.virtual_size,
            file_size: i.file_size,
            allocated_size: allocated,
            details: i.details,
            disks: (i.container_format != "bare").then_some(i.disks),
            findings: i.findings,
        }
    }
}

fn human(filename: &str, seen: &Seen, paint: Paint) -> String {
    let i = &seen.inspection;
    let verdict = match i.verdict() {
        Verdict::Safe => paint.good("safe"),
        Verdict::Unsafe => paint.bad("unsafe"),
    };
    let mut text = format!(
        "{}: {}{}, {verdict}\n",
        paint.name(Plain(filename)),
        i.format,
        i.compression
            .map_or_else(String::new, |c| format!(" in {c}"))
    );
    let mut rows = vec![
        (
            "virtual size".to_owned(),
            i.virtual_size.map_or_else(|| "unknown".into(), size),
        ),
        ("file size".to_owned(), size(i.file_size)),
        ("allocated".to_owned(), size(seen.allocated)),
    ];
    rows.extend(i.details.iter().map(|(k, v)| (k.clone(), plain_value(v))));
    for (n, disk) in i.disks.iter().enumerate() {
        let bytes = disk.virtual_size.map_or_else(|| "unknown".into(), size);
        rows.push((
            format!("disk {n}"),
            format!("{}: {}, {bytes}", disk.name, disk.format),
        ));
    }
    let width = rows
        .iter()
        .map(|(label, _)| label.chars().count())
        .max()
        .unwrap_or(0);
    for (label, value) in &rows {
        let label = Plain(label).to_string();
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "  {label:width$}  {}", Plain(value));
    }
    for finding in &i.findings {
        text.push_str(&paint.finding(finding));
        text.push('\n');
    }
    text
}

fn plain_value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_aligned_rows_and_findings_below() {
        let mut details = Map::new();
        details.insert("cluster_size".into(), 65536.into());
        details.insert("backing_file".into(), "/etc/\x1b[31mpasswd".into());
        let seen = Seen {
            inspection: Inspection {
                format: Format::Qcow2,
                container_format: "bare",
                compression: None,
                virtual_size: Some(1 << 30),
                file_size: 196_616,
                details,
                disks: Vec::new(),
                findings: vec![Finding {
                    rule: "backing_file",
                    severity: Severity::Unsafe,
                    place: "header, byte 8".into(),
                    message: "names another file".into(),
                }],
            },
            allocated: 200,
        };
        let paint = Paint::for_stream(&std::fs::File::open("/dev/null").unwrap());
        assert_eq!(
            human("a.qcow2", &seen, paint),
            "\
a.qcow2: qcow2, unsafe
  virtual size  1.00 GiB (1073741824 bytes)
  file size     192.01 KiB (196616 bytes)
  allocated     200 bytes
  cluster_size  65536
  backing_file  /etc/\\u{1b}[31mpasswd
  unsafe   header, byte 8: names another file [backing_file]
"
        );
    }
}
