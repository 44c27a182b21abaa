//! The command line: what was typed becomes what was meant, one file a verb.
//!
//! Data goes to standard output, talk to standard error, and the exit code says whose fault it
//! was (see [`Exit`]). A closed pipe ends the output and nothing else.

mod completions;
mod convert;
mod db;
mod exit;
mod input;
mod inspect;
mod man;
mod output;
mod progress;
mod serve;
mod signals;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use db::{DbArgs, DbCommand};
pub use exit::Exit;
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
  1  the image is at fault: unreadable, refused, unsafe
  2  the request or this program is: wrong usage, a missing file, a full disk
  or 128 plus the number of the signal that ended it")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Inspect(inspect::Args),
    Convert(convert::Args),
    Serve(ServeArgs),
    Db(DbArgs),
    Completions(completions::Args),
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
        Command::Convert(args) => convert::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Db(args) => db::run(&args),
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
}
