//! `glint batch`: many images into one format. Each is converted by a process of its own, as
//! `convert` does it, so that no image reaches another; the cores are shared among those that run.
//!
//! ```text
//!  plan: names → images, each with its output    turns: whose turn it is, and with how many threads
//!  one:  an image, by an inner process           journal: what became of each, in the output folder
//! ```

mod journal;
mod names;
mod one;
mod plan;
mod report;
mod turns;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::Context;
use clap::{ArgMatches, Subcommand as _};
use formats::Format;
use formats::copy::CopyOptions;

use super::convert::Single;
use super::fence::Fence;
use super::output::Output;
use super::permit::Permit;
use super::remote::batches::{self, Command};
use super::{Exit, progress, signals, target, work};
use journal::{Journal, Record, Stamp};
use one::{Inners, Notes, One};
use plan::{Image, Plan};
use report::Report;
use turns::Turns;

/// A batch that is done here, or what is done with those of a service.
pub(super) enum Args {
    Local(Box<Local>),
    Service(Command),
}

impl clap::Args for Args {
    fn augment_args(verb: clap::Command) -> clap::Command {
        Command::augment_subcommands(Local::augment_args(verb))
            .subcommand_required(false)
            .arg_required_else_help(false)
            .args_conflicts_with_subcommands(true)
            .subcommand_negates_reqs(true)
    }

    fn augment_args_for_update(verb: clap::Command) -> clap::Command {
        Self::augment_args(verb)
    }
}

impl clap::FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand() {
            Some(_) => Command::from_arg_matches(matches).map(Self::Service),
            None => Ok(Self::Local(Box::new(Local::from_arg_matches(matches)?))),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Convert many images, and tell what became of each
///
/// Every image is judged and converted as by `convert`; one that fails does not stop the rest. A
/// folder stands for the images in it and below, told by their names, a quoted pattern for what it
/// matches, `@FILE` for the lines of FILE (`@-`: of standard input). The commands are about batches
/// that an image service does.
#[derive(clap::Args)]
pub(super) struct Local {
    /// Format of the outputs
    #[arg(long, short = 'O', value_name = "FMT")]
    to: Format,

    /// Folder for the outputs; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Format that every input must have; `raw` reads the bytes of any file as they are
    #[arg(short, value_name = "FMT")]
    format: Option<Format>,

    #[command(flatten)]
    written: target::Written,

    /// Threads to work with, of all images together; as many as there are cores unless told
    #[arg(short = 'm', value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: Option<u8>,

    /// Do not do again what an earlier batch into the same folder did, where input and output are
    /// unchanged since
    #[arg(long)]
    resume: bool,

    /// Replace files that are there already
    #[arg(long)]
    force: bool,

    /// Call the output of `a.vmdk` `a.vmdk.qcow2`, not `a.qcow2`
    #[arg(long)]
    keep_extension: bool,

    /// Show progress, also where standard error is no terminal
    #[arg(short)]
    progress: bool,

    /// Say nothing but errors
    #[arg(short)]
    quiet: bool,

    #[command(flatten)]
    permit: Permit,

    #[command(flatten)]
    fence: Fence,

    /// How to report: `json` for programs
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,

    /// Images, folders, patterns, lists of them
    #[arg(value_name = "FILE|DIR|PATTERN|@LIST", required = true)]
    from: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    match args {
        Args::Local(args) => convert(args),
        Args::Service(command) => batches::run(command),
    }
}

fn convert(args: &Local) -> anyhow::Result<Exit> {
    let start = Instant::now();
    let making = || format!("making {}", args.out.display());
    fs::create_dir_all(&args.out).with_context(making)?;
    let out = fs::canonicalize(&args.out).with_context(making)?;
    check_request(args)?;
    let names = names::Rule {
        extension: match args.written.wrap {
            None => args.to.to_string(),
            Some(wrap) => format!("{}.{}", args.to, names::of_wrap(wrap)),
        },
        keeps_extension: args.keep_extension,
    };
    let plan = Plan::new(&args.from, &names, &out)?;
    let journal = Journal::open(&out, &output_words(args), args.resume)?;
    let batch = Batch {
        args,
        out: &out,
        plan: &plan,
        journal: Mutex::new(journal),
        lines: Mutex::new(vec![None; plan.images.len()]),
        inners: Inners::default(),
        notes: Notes::default(),
        failed: Mutex::new(None),
    };
    let ended = signals::when_ended({
        let inners = batch.inners.clone();
        move |signal| inners.end(signal)
    })?;
    batch.convert_all()?;
    let ended = ended.get().copied();
    let report = Report::new(&batch, start.elapsed())?;
    let exit = report.print(args.output, args.quiet)?;
    match ended {
        Some(ended) => Err(ended.into()),
        None => Ok(exit),
    }
}

/// Checks what would be wrong with every image alike, before any is touched.
fn check_request(args: &Local) -> anyhow::Result<()> {
    let mut words = output_words(args);
    words.extend(["--", "input", "output"].map(OsString::from));
    Single::check(&words)?;
    args.permit.means()?;
    Ok(())
}

/// What says how the outputs are made, as `convert` takes it.
fn output_words(args: &Local) -> Vec<OsString> {
    let mut words = vec![OsString::from("-O"), args.to.to_string().into()];
    if let Some(format) = args.format {
        words.extend(["-f".into(), format.to_string().into()]);
    }
    for (key, value) in &args.written.options {
        words.extend(["-o".into(), format!("{key}={value}").into()]);
    }
    if args.written.compress {
        words.push("-c".into());
    }
    if let Some(wrap) = args.written.wrap {
        words.push(format!("--wrap={}", names::typed(wrap)).into());
    }
    if let Some(file) = &args.written.output_passphrase_file {
        words.extend(["--output-passphrase-file".into(), file.into()]);
    }
    words
}

/// A batch on its way.
struct Batch<'a> {
    args: &'a Local,
    out: &'a Path,
    plan: &'a Plan,
    journal: Mutex<Journal>,
    /// Where in the journal each image's line is: kept there, so that memory stays small.
    lines: Mutex<Vec<Option<u64>>>,
    inners: Inners,
    notes: Notes,
    /// What stops the batch itself: a journal that cannot be written.
    failed: Mutex<Option<anyhow::Error>>,
}

impl Batch<'_> {
    fn convert_all(&self) -> anyhow::Result<()> {
        let cores = match self.args.threads.and_then(|n| NonZero::new(n.into())) {
            Some(threads) => threads,
            None => CopyOptions::default().threads,
        };
        let weights: Vec<_> = self.plan.images.iter().map(|image| image.weight).collect();
        let turns = Turns::new(cores.get(), &weights);
        let show = work::show(self.args.progress, self.args.quiet);
        progress::shown_by(&|| turns.progress(), show, || {
            thread::scope(|scope| {
                for _ in 0..cores.get().min(weights.len()) {
                    scope.spawn(|| self.take_turns(&turns));
                }
            });
        });
        let failed = lock(&self.failed).take();
        failed.map_or(Ok(()), Err)
    }

    /// Converts one image after another, until there is none or the batch was ended. The thread
    /// outlives the processes that it starts: they die with it.
    fn take_turns(&self, turns: &Turns) {
        while let Some(turn) = turns.next() {
            if self.inners.have_ended() || lock(&self.failed).is_some() {
                return turns.stop();
            }
            let image = &self.plan.images[turn.index];
            let done = self.convert(image, turn.threads, &|percent| {
                turns.reached(&turn, percent);
            });
            turns.finish(&turn);
            match done {
                Ok(Some(line)) => lock(&self.lines)[turn.index] = Some(line),
                Ok(None) => {}
                Err(e) => _ = lock(&self.failed).get_or_insert(e),
            }
        }
    }

    /// Converts an image unless it is done already; answers its line in the journal, or none for
    /// one that was broken off.
    ///
    /// # Errors
    /// Of the journal.
    fn convert(
        &self,
        image: &Image,
        threads: usize,
        reached: &dyn Fn(u64),
    ) -> anyhow::Result<Option<u64>> {
        let one = One {
            args: self.args,
            out: self.out,
            image,
            inputs: &self.plan.inputs,
            notes: &self.notes,
        };
        let before = lock(&self.journal).find(&image.name)?;
        let is_ours = (before.as_ref()).is_some_and(|(_, b)| b.is_of_output(self.out, image));
        if let Some((line, before)) = before
            && is_ours
            && before.is_of_input(image)
        {
            return Ok(Some(line));
        }
        let may_replace = is_ours || self.args.force;
        let work = lock(&self.journal).work().to_owned();
        let to = match one.check(may_replace) {
            Ok(to) => to,
            Err(e) => {
                let mut record = Record::new(image);
                record.failed(&e);
                return lock(&self.journal).append(&record).map(Some);
            }
        };
        lock(&self.journal).append(&Record::begun(image))?;
        let Some(mut record) = one.convert(&to, &work, threads, &self.inners, reached) else {
            return Ok(None);
        };
        if is_ours && !record.is_done() {
            // What an earlier run wrote stays this batch's, to be replaced when it goes well.
            record.keep(Stamp::of(&to).ok());
        }
        lock(&self.journal).append(&record).map(Some)
    }
}

/// No thread leaves a value half changed: one that panicked is as good as one that did not.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The errors of the file system that mean that something is not there.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
