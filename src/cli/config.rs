//! `glint config`: configuration files of others.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Subcommand;

use super::{Exit, output};
use crate::config::from_glance;
use crate::config::oslo::OsloFile;

/// Take over the configuration of another image service
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Write our configuration from Glance's; what could not be carried over is named
    FromGlance(FromGlance),
}

#[derive(clap::Args, Debug)]
struct FromGlance {
    /// Glance's configuration, usually /etc/glance/glance-api.conf
    file: PathBuf,

    /// Where to write ours; it holds passwords, and must not be there yet. Standard output if absent
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let Command::FromGlance(wanted) = &args.command;
    let file = OsloFile::load(&wanted.file).map_err(|e| anyhow!(e))?;
    let done = from_glance::translate(&file).map_err(|e| anyhow!(e))?;
    match &wanted.out {
        None => output::data(done.toml.as_bytes())?,
        Some(path) => {
            use std::io::Write as _;
            use std::os::unix::fs::OpenOptionsExt as _;
            std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .and_then(|mut file| file.write_all(done.toml.as_bytes()))
                .with_context(|| format!("writing {}", path.display()))?;
        }
    }
    for note in &done.notes {
        output::talk(output::Plain(note));
    }
    Ok(Exit::Fine)
}
