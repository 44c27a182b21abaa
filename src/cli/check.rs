//! `glint check`: whether the tables of images agree with each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use formats::check::{Check, Problem, ProblemKind, check};
use formats::qcow2::{Repair, repair};
use formats::{
    Error, ErrorKind, FileSink, FileSource, Format, HostOffset, Limits, OpenOptions, Sink, Source,
};
use serde::Serialize;

use super::fence::Fence;
use super::output::{self, Output, Paint, Plain};
use super::permit::Permit;
use super::publish::{Existing, publish};
use super::{Exit, input, work};

/// Tell whether the tables of images agree with each other
///
/// The exit code is 0 when nothing is wrong, 1 when an image is damaged or has lost space, and 2
/// when its format has nothing to check. With --repair it is that of what is still wrong
/// afterwards. Files that an image names are opened only where --allow-backing grants them.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Format of the images
    #[arg(short, value_name = "FMT")]
    format: Option<Format>,

    /// Repair a qcow2 image: give back lost space, or all that can be put right
    ///
    /// The image is changed in place, unless --output-file names another; one that another program
    /// has open is left alone.
    #[arg(short, long, value_name = "leaks|all")]
    repair: Option<What>,

    /// Leave the image alone and write the repaired one to this new file
    #[arg(long, value_name = "COPY", requires = "repair")]
    output_file: Option<PathBuf>,

    #[command(flatten)]
    permit: Permit,

    /// Show progress, also where standard error is no terminal
    #[arg(short)]
    progress: bool,

    /// Say nothing where nothing is wrong
    #[arg(short)]
    quiet: bool,

    /// Accepted for qemu-img's sake: nothing is locked here
    #[arg(short = 'U', long, hide = true)]
    force_share: bool,

    #[command(flatten)]
    fence: Fence,

    /// How to print: `json` gives one object for one file, an array for several
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,

    /// Image files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What to repair.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum, Debug)]
enum What {
    /// Lost space alone.
    Leaks,
    /// All that can be.
    All,
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
    fn new(filename: &str, seen: Seen) -> Self {
        let Seen { format, found, .. } = seen;
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
            corruptions_fixed: seen.corruptions_fixed,
            leaks_fixed: seen.leaks_fixed,
            problems: found.problems,
        }
    }
}

/// A file gone through.
struct Seen {
    format: Format,
    found: Check,
    corruptions_fixed: u64,
    leaks_fixed: u64,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    // What repairs writes beside the image, or into it.
    if args.repair.is_some() {
        return verify(args);
    }
    let named = args
        .permit
        .named(args.files.iter().map(AsRef::as_ref).collect());
    args.fence.reading(&named, || verify(args))
}

fn verify(args: &Args) -> anyhow::Result<Exit> {
    if args.output_file.is_some() && args.files.len() > 1 {
        anyhow::bail!("--output-file takes one image");
    }
    let paint = Paint::for_stream(&std::io::stdout());
    let mut worst = Exit::Fine;
    let mut entries = Vec::new();
    for path in &args.files {
        let filename = path.to_string_lossy();
        let done = look(args, path).with_context(|| path.display().to_string());
        let (entry, exit) = match done {
            Ok(seen) => {
                let exit = match seen.found.is_clean() {
                    true => Exit::Fine,
                    false => Exit::Image,
                };
                let is_told = exit != Exit::Fine || !args.quiet;
                if args.output == Output::Human && is_told {
                    let several = args.files.len() > 1;
                    let text = human(several.then_some(filename.as_ref()), &seen, paint);
                    output::data(text.as_bytes())?;
                }
                let report = Report::new(&filename, seen);
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
    match error.downcast_ref::<Error>() {
        Some(e) if e.kind() == ErrorKind::Unsupported => Exit::Ours,
        _ => Exit::of(error),
    }
}

fn look(args: &Args, path: &Path) -> anyhow::Result<Seen> {
    let Some(what) = args.repair else {
        let source: Arc<dyn Source> = Arc::new(input::open(path)?);
        let (format, found) = look_at(args, path, &source)?;
        return Ok(Seen {
            format,
            found,
            corruptions_fixed: 0,
            leaks_fixed: 0,
        });
    };
    let Some(copy) = &args.output_file else {
        let file = super::resize::open_alone(path)?;
        let sink = FileSink::new(file.try_clone().context("sharing the file")?);
        let source: Arc<dyn Source> = Arc::new(FileSource::new(file)?);
        return mend(args, what, path, &source, &sink);
    };
    let original = input::open(path)?;
    publish(copy, Existing::Keep, |file| {
        let sink = FileSink::new(file.try_clone().context("sharing the output")?);
        copied(&original, &sink)?;
        let file = file.try_clone().context("sharing the output")?;
        let source: Arc<dyn Source> = Arc::new(FileSource::new(file)?);
        // Names in it count from where the original lies.
        mend(args, what, path, &source, &sink)
    })
}

fn look_at(args: &Args, path: &Path, source: &Arc<dyn Source>) -> anyhow::Result<(Format, Check)> {
    let format = match args.format {
        Some(format) => format,
        None => input::judge(source, &Limits::default())?.format,
    };
    let options = OpenOptions {
        format: Some(format),
        ..args.permit.means()?.options(Some(path), None)
    };
    let found = work::watched(work::show(args.progress, args.quiet), |progress| {
        check(source, &options, progress)
    })?;
    Ok((format, found))
}

/// Checks, repairs where something is wrong, and tells what is left.
fn mend(
    args: &Args,
    what: What,
    path: &Path,
    source: &Arc<dyn Source>,
    sink: &FileSink,
) -> anyhow::Result<Seen> {
    let (format, before) = look_at(args, path, source)?;
    if format != Format::Qcow2 {
        return Err(Error::unsupported(format, "", "is not repaired: qcow2 is").into());
    }
    let what = match what {
        What::Leaks => Repair::Leaks,
        What::All => Repair::All,
    };
    let found = if before.is_clean() && what == Repair::Leaks {
        before.clone()
    } else {
        let found = work::watched(work::show(args.progress, args.quiet), |progress| {
            repair(source, sink, what, progress)
        })?;
        sink.sync()?;
        found
    };
    Ok(Seen {
        format,
        corruptions_fixed: before.corruptions.saturating_sub(found.corruptions),
        leaks_fixed: before.leaks.saturating_sub(found.leaks),
        found,
    })
}

/// Copies the bytes of a file, and leaves its holes holes.
fn copied(from: &dyn Source, to: &dyn Sink) -> formats::Result<()> {
    const PORTION: u64 = 1 << 20;
    let mut buf = Vec::new();
    let mut at = HostOffset::ZERO;
    while let Some(data) = from.next_data(at)? {
        at = data.start;
        while at < data.end {
            let len = data.end.since(at).min(PORTION);
            buf.resize(len as usize, 0);
            from.read_exact_at(&mut buf, at)?;
            to.write_all_at(&buf, at)?;
            at = HostOffset(at.0 + len);
        }
    }
    to.set_len(from.len())
}

/// The outcome for people, in the words of `qemu-img check`.
fn human(filename: Option<&str>, seen: &Seen, paint: Paint) -> String {
    let found = &seen.found;
    let mut text = String::new();
    if let Some(filename) = filename {
        text += &format!("{}:\n", paint.name(Plain(filename)));
    }
    if seen.corruptions_fixed + seen.leaks_fixed > 0 {
        text += &format!(
            "Repaired: {} errors, {} leaks. What follows was found afterwards.\n",
            seen.corruptions_fixed, seen.leaks_fixed
        );
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
        let mut seen = Seen {
            format: Format::Qcow2,
            found: Check {
                total_units: 128,
                allocated_units: 5,
                end_offset: 917_504,
                ..Check::default()
            },
            corruptions_fixed: 0,
            leaks_fixed: 0,
        };
        let counts = "5/128 = 3.91% allocated, 0.00% fragmented, 0.00% compressed clusters\n\
                      Image end offset: 917504\n";
        assert_eq!(
            human(None, &seen, paint),
            format!("No errors were found on the image.\n{counts}")
        );
        seen.found.leaks = 2;
        seen.found.leaked_bytes = 131_072;
        seen.found.problems.push(Problem {
            kind: ProblemKind::Leak,
            place: "cluster 7".into(),
            message: "is counted\x1b, and nobody uses it".into(),
        });
        assert_eq!(
            human(Some("a"), &seen, paint),
            format!(
                "a:\nleak  cluster 7: is counted\\u{{1b}}, and nobody uses it\n… and 1 more\n2 leaks \
                 were found on the image, 128.00 KiB (131072 bytes): this means waste of space, but \
                 no harm to data.\n{counts}"
            )
        );
    }
}
