//! `glint check`: whether the tables of images agree with each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use formats::check::{Check, Problem, ProblemKind, check};
use formats::{ErrorKind, Format, Limits, OpenOptions, Source};
use serde::Serialize;

use super::output::{self, Output, Paint, Plain};
use super::{Exit, input, work};

/// Tell whether the tables of images agree with each other
///
/// The exit code is 0 when nothing is wrong, 1 when an image is damaged or has lost space, and 2
/// when its format has nothing to check. No file that an image names is opened.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Format of the images
    #[arg(short, value_name = "FMT")]
    format: Option<Format>,

    /// Show progress, also where standard error is no terminal
    #[arg(short)]
    progress: bool,

    /// Say nothing where nothing is wrong
    #[arg(short)]
    quiet: bool,

    /// Accepted for qemu-img's sake: nothing is locked here
    #[arg(short = 'U', long, hide = true)]
    force_share: bool,

    /// How to print: `json` gives one object for one file, an array for several
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,

    /// Image files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What `--output json` prints for one file, in qemu-img's words where it has them.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry {
    Report(Box<Report>),
    #[serde(rename_all = "kebab-case")]
    Failed {
        filename: String,
        check_errors: u64,
        error: String,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    filename: String,
    format: &'static str,
    /// Errors that kept the check from going on: none, for then there is an `error`.
    check_errors: u64,
    image_end_offset: u64,
    total_clusters: u64,
    allocated_clusters: u64,
    fragmented_clusters: u64,
    compressed_clusters: u64,
    corruptions: u64,
    leaks: u64,
    leaked_bytes: u64,
    corruptions_fixed: u64,
    leaks_fixed: u64,
    problems: Vec<Problem>,
}

impl Report {
    fn new(filename: &str, format: Format, found: Check) -> Self {
        Self {
            filename: filename.to_owned(),
            format: super::info::qemu_name(format),
            check_errors: 0,
            image_end_offset: found.end_offset,
            total_clusters: found.total_units,
            allocated_clusters: found.allocated_units,
            fragmented_clusters: found.fragmented_units,
            compressed_clusters: found.compressed_units,
            corruptions: found.corruptions,
            leaks: found.leaks,
            leaked_bytes: found.leaked_bytes,
            corruptions_fixed: 0,
            leaks_fixed: 0,
            problems: found.problems,
        }
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let paint = Paint::for_stream(&std::io::stdout());
    let mut worst = Exit::Fine;
    let mut entries = Vec::new();
    for path in &args.files {
        let filename = path.to_string_lossy();
        let done = look(args, path).with_context(|| path.display().to_string());
        let (entry, exit) = match done {
            Ok((format, found)) => {
                let exit = match found.is_clean() {
                    true => Exit::Fine,
                    false => Exit::Image,
                };
                let is_told = exit != Exit::Fine || !args.quiet;
                if args.output == Output::Human && is_told {
                    let several = args.files.len() > 1;
                    let text = human(several.then_some(filename.as_ref()), &found, paint);
                    output::data(text.as_bytes())?;
                }
                let report = Report::new(&filename, format, found);
                (Entry::Report(Box::new(report)), exit)
            }
            Err(e) if e.is::<super::signals::Ended>() => return Err(e),
            Err(e) => {
                output::complain(&e);
                let failed = Entry::Failed {
                    filename: filename.clone().into_owned(),
                    check_errors: 1,
                    error: format!("{e:#}"),
                };
                (failed, exit_of(&e))
            }
        };
        worst = worst.max(exit);
        entries.push(entry);
    }
    if args.output == Output::Json {
        match entries.as_slice() {
            [one] => output::json(one)?,
            all => output::json(&all)?,
        }
    }
    Ok(worst)
}

/// A format without checks is no fault of the image.
fn exit_of(error: &anyhow::Error) -> Exit {
    match error.downcast_ref::<formats::Error>() {
        Some(e) if e.kind() == ErrorKind::Unsupported => Exit::Ours,
        _ => Exit::of(error),
    }
}

fn look(args: &Args, path: &Path) -> anyhow::Result<(Format, Check)> {
    let source: Arc<dyn Source> = Arc::new(input::open(path)?);
    let format = match args.format {
        Some(format) => format,
        None => input::judge(&source, &Limits::default())?.format,
    };
    let options = OpenOptions {
        format: Some(format),
        ..OpenOptions::default()
    };
    let found = work::watched(work::show(args.progress, args.quiet), |progress| {
        check(&source, &options, progress)
    })?;
    Ok((format, found))
}

/// The outcome for people, in the words of `qemu-img check`.
fn human(filename: Option<&str>, found: &Check, paint: Paint) -> String {
    let mut text = String::new();
    if let Some(filename) = filename {
        text += &format!("{}:\n", paint.name(Plain(filename)));
    }
    for problem in &found.problems {
        let kind = match problem.kind {
            ProblemKind::Corruption => paint.bad("corruption"),
            ProblemKind::Leak => "leak".to_owned(),
        };
        text += &format!(
            "{kind}  {}: {}\n",
            Plain(&problem.place),
            Plain(&problem.message)
        );
    }
    let told = found.problems.len() as u64;
    let all = found.corruptions + found.leaks;
    if told > 0 && all > told {
        text += &format!("… and {} more\n", all - told);
    }
    if found.is_clean() {
        text += &format!("{}\n", paint.good("No errors were found on the image."));
    }
    if found.corruptions > 0 {
        text += &format!(
            "{} errors were found on the image: what it holds may be wrong.\n",
            found.corruptions
        );
    }
    if found.leaks > 0 {
        text += &format!(
            "{} leaks were found on the image, {}: this means waste of space, but no harm to data.\n",
            found.leaks,
            output::size(found.leaked_bytes)
        );
    }
    if found.total_units > 0 {
        let share = |part: u64, of: u64| part as f64 * 100.0 / of.max(1) as f64;
        text += &format!(
            "{}/{} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters\n",
            found.allocated_units,
            found.total_units,
            share(found.allocated_units, found.total_units),
            share(found.fragmented_units, found.allocated_units),
            share(found.compressed_units, found.allocated_units),
        );
    }
    if found.end_offset > 0 {
        text += &format!("Image end offset: {}\n", found.end_offset);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_every_problem_and_what_it_means() {
        let paint = Paint::for_stream(&std::fs::File::open("/dev/null").unwrap());
        let mut found = Check {
            total_units: 128,
            allocated_units: 5,
            end_offset: 917_504,
            ..Check::default()
        };
        let counts = "5/128 = 3.91% allocated, 0.00% fragmented, 0.00% compressed clusters\n\
                      Image end offset: 917504\n";
        assert_eq!(
            human(None, &found, paint),
            format!("No errors were found on the image.\n{counts}")
        );
        found.leaks = 2;
        found.leaked_bytes = 131_072;
        found.problems.push(Problem {
            kind: ProblemKind::Leak,
            place: "cluster 7".into(),
            message: "is counted\x1b, and nobody uses it".into(),
        });
        assert_eq!(
            human(Some("a"), &found, paint),
            format!(
                "a:\nleak  cluster 7: is counted\\u{{1b}}, and nobody uses it\n… and 1 more\n2 leaks \
                 were found on the image, 128.00 KiB (131072 bytes): this means waste of space, but \
                 no harm to data.\n{counts}"
            )
        );
    }
}
