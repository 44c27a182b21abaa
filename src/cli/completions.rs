//! `glint completions`: shells complete what they are told.

use clap_complete::Shell;

use super::{Exit, output};

/// Print the completion script of a shell
#[derive(clap::Args)]
pub(super) struct Args {
    /// The shell to print it for
    shell: Shell,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "glint", &mut script);
    output::data(&script)?;
    Ok(Exit::Fine)
}
