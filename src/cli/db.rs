//! `glint db`: the catalog's schema.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::{Exit, output};
use crate::server::{self, Place};

/// Look after the catalog's database
#[derive(clap::Args, Debug)]
pub struct DbArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DbCommand,

    /// Where the catalog lies, $XDG_DATA_HOME/glint unless configured
    #[arg(long, value_name = "DIR", global = true)]
    pub data: Option<PathBuf>,

    /// Configuration file
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

/// What to do with the database.
#[derive(Subcommand, Clone, Copy, PartialEq, Eq, Debug)]
pub enum DbCommand {
    /// Bring the schema up to date; harmless when it is
    Sync,
    /// Print the version of the schema
    Version,
}

pub(super) fn run(args: &DbArgs) -> anyhow::Result<Exit> {
    let place = Place {
        data: args.data.clone(),
        config: args.config.clone(),
    };
    let runtime = super::serve::runtime()?;
    match args.command {
        DbCommand::Sync => {
            let version = runtime.block_on(server::db_sync(&place))?;
            output::talk(format_args!("the catalog is at version {version}"));
        }
        DbCommand::Version => {
            let (applied, newest) = runtime.block_on(server::db_version(&place))?;
            output::json(&Version { applied, newest })?;
        }
    }
    Ok(Exit::Fine)
}

/// What `glint db version` prints.
#[derive(Serialize)]
struct Version {
    /// The newest migration applied; `null` before the first `glint db sync`.
    applied: Option<i64>,
    /// The newest this program knows.
    newest: i64,
}
