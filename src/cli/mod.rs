//! The command line: what was typed becomes what was meant, one file a verb.
//!
//! Data goes to standard output, talk to standard error, and the exit code says whose fault it
//! was (see [`Exit`]). A closed pipe ends the output and nothing else.

mod apart;
mod auth;
mod batch;
mod check;
mod compare;
mod completions;
mod config;
mod convert;
mod create;
mod db;
mod exit;
mod fence;
mod image;
mod info;
mod input;
mod inspect;
mod man;
mod map;
mod measure;
mod output;
mod permit;
mod policy;
mod progress;
mod publish;
mod remote;
mod resize;
mod serve;
mod signals;
mod size;
mod target;
mod work;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use db::{DbArgs, DbCommand};
pub use exit::Exit;
use exit::Told;
pub use serve::ServeArgs;

/// Inspects, converts and serves disk images.
#[derive(Parser)]
#[command(
    name = "glint",
    version,
    arg_required_else_help = true,
    max_term_width = 100
)]
#[command(after_help = "\
Exit codes:
  0  fine
  1  the image is at fault: unreadable, refused, unsafe, damaged, different
  2  the request or this program is: wrong usage, a missing file, a full disk
  or 128 plus the number of the signal that ended it")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

// The verbs. Each is set up when it is the one that was typed: all of them would take longer than
// to inspect an image. Their summaries therefore stand here as well.
#[derive(Subcommand)]
#[command(defer = true)]
enum Command {
    /// Tell what image files are, their sizes, and whether they are safe to use
    Inspect(inspect::Args),
    /// Tell what `qemu-img info` tells, in its words and fields
    Info(info::Args),
    /// Convert a disk image into another format
    Convert(convert::Args),
    /// Convert many images, and tell what became of each
    Batch(batch::Args),
    /// Tell whether the tables of images agree with each other
    Check(check::Args),
    /// Tell whether two images hold the same disk, whatever their formats
    Compare(compare::Args),
    /// Tell what a disk is made of, and where in the file it lies
    Map(map::Args),
    /// Tell how large the file that `convert` writes will be
    Measure(measure::Args),
    /// Create an empty image
    Create(create::Args),
    /// Change the size of the disk in a raw or qcow2 image, in place
    Resize(resize::Args),
    /// Bring images to an image service and back
    Image(remote::Args),
    /// Serve images over HTTP
    Serve(ServeArgs),
    /// Work on the imports of a service whose catalog and stores this machine shares
    Worker(worker::Args),
    /// Look after the catalog's database
    Db(DbArgs),
    /// Make tokens for the authentication mode "static"
    Auth(auth::Args),
    /// Show and try the access rules
    Policy(policy::Args),
    /// Take over the configuration of another image service
    Config(config::Args),
    /// Print the completion script of a shell
    Completions(completions::Args),
    /// Print the manual page
    Man(man::Args),
    /// One conversion for the service, between two open files
    #[command(hide = true)]
    ConvertWorker {
        /// What to do, as JSON
        request: String,
    },
}

/// Runs the program on its own arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and versions come this way too; only real faults are code 2.
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() {
                Exit::Ours
            } else {
                Exit::Fine
            }
            .into();
        }
    };
    let done = match cli.command {
        Command::Inspect(args) => inspect::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Batch(args) => batch::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Map(args) => map::run(&args),
        Command::Measure(args) => measure::run(&args),
        Command::Create(args) => create::run(&args),
        Command::Resize(args) => resize::run(&args),
        Command::Image(args) => remote::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Worker(args) => worker::run(&args),
        Command::Db(args) => db::run(&args),
        Command::Auth(args) => auth::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::ConvertWorker { request } => return crate::convert::worker(&request).into(),
    };
    done.unwrap_or_else(|e| {
        output::complain(&e);
        Exit::of(&e)
    })
    .into()
}

/// The whole command line, for what is generated from it.
fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }

    #[test]
    fn summaries_are_the_same_in_both_places() {
        let quick = super::command();
        let mut whole = quick.clone();
        whole.build();
        for verb in quick.get_subcommands() {
            let full = whole.find_subcommand(verb.get_name()).unwrap();
            let about = |c: &clap::Command| c.get_about().map(ToString::to_string);
            assert_eq!(about(verb), about(full), "{}", verb.get_name());
        }
    }
}
