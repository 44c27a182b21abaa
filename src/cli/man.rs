//! `glint man`: the manual, from the same words as the help.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use super::{Exit, output};

/// Print the manual page
#[derive(clap::Args)]
pub(super) struct Args {
    /// Write the pages of all commands into this folder instead
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.out {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(super::command()).render(&mut page)?;
            output::data(&page)?;
        }
        Some(dir) => {
            let wrote = || format!("writing manual pages into {}", dir.display());
            fs::create_dir_all(dir).with_context(wrote)?;
            clap_mangen::generate_to(super::command(), dir).with_context(wrote)?;
        }
    }
    Ok(Exit::Fine)
}
