//! `glint db`: the catalog's schema, and what is loaded into it.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::{Exit, output};
use crate::domain::Timestamp;
use crate::metadefs;
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
#[derive(Subcommand, Clone, PartialEq, Eq, Debug)]
pub enum DbCommand {
    /// Bring the schema up to date; harmless when it is
    Sync,
    /// Print the version of the schema
    Version,
    /// Take back the deletion of an image whose data is still there ([delete] delayed)
    RestoreImage {
        /// The image's id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Load metadata definitions, the stock ones or your own
    LoadMetadefs {
        /// Folder with a .json file for each namespace
        #[arg(value_name = "DIR", required_unless_present = "stock")]
        dir: Option<PathBuf>,

        /// Load the definitions that come with glint
        #[arg(long, conflicts_with = "dir")]
        stock: bool,

        /// Replace namespaces that are there already instead of keeping them
        #[arg(long)]
        replace: bool,
    },
    /// Remove metadata definitions, protected ones too
    UnloadMetadefs {
        /// Namespaces to remove
        #[arg(value_name = "NAMESPACE", required_unless_present = "all")]
        namespaces: Vec<String>,

        /// Remove every namespace
        #[arg(long, conflicts_with = "namespaces")]
        all: bool,
    },
    /// Write metadata definitions to files that load-metadefs reads
    ExportMetadefs {
        /// Folder for the files, made where there is none
        #[arg(value_name = "DIR")]
        dir: PathBuf,

        /// Export this namespace only; may be repeated
        #[arg(long = "namespace", value_name = "NAMESPACE")]
        namespaces: Vec<String>,
    },
    /// Tell whether the schema is up to date, by the exit code: 0 it is, 1 it needs `db sync`
    Check,
    /// Move from Glance: read its database; the images' data stays where it lies
    ImportGlance {
        /// sqlite:FILE, mysql://… or mysql+pymysql://…, as in Glance's configuration
        #[arg(value_name = "URL", env = "GLINT_GLANCE_URL", hide_env_values = true)]
        url: String,

        /// Tell what would be moved, and write nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Forget images deleted long ago, all but their ids, which are never given out again
    Purge {
        /// How long ago they must have been deleted
        #[arg(long, value_name = "N", default_value_t = 30)]
        age_days: u32,
        /// How many at most
        #[arg(long, value_name = "N")]
        max_rows: Option<u64>,
    },
}

pub(super) fn run(args: &DbArgs) -> anyhow::Result<Exit> {
    let place = Place {
        data: args.data.clone(),
        config: args.config.clone(),
    };
    let runtime = super::serve::runtime()?;
    match &args.command {
        DbCommand::Sync => {
            let version = runtime.block_on(server::db_sync(&place))?;
            output::talk(format_args!("the catalog is at version {version}"));
        }
        DbCommand::Version => {
            let version = runtime.block_on(server::db_version(&place))?;
            output::json(&Version {
                applied: version.applied,
                newest: version.newest,
            })?;
        }
        DbCommand::Check => {
            let version = runtime.block_on(server::db_version(&place))?;
            if !version.missing.is_empty() {
                output::talk(format_args!(
                    "the schema is not up to date, run glint db sync: it lacks {:?}",
                    version.missing
                ));
                return Ok(Exit::Image);
            }
            output::talk(format_args!("the schema is up to date"));
        }
        DbCommand::Purge { age_days, max_rows } => {
            let purged = runtime.block_on(server::db_purge(&place, *age_days, *max_rows))?;
            output::json(&Purged { images: purged })?;
        }
        DbCommand::ImportGlance { url, dry_run } => {
            let report = runtime.block_on(server::db_import_glance(&place, url, *dry_run))?;
            output::json(&report)?;
        }
        DbCommand::RestoreImage { id } => {
            let id = id
                .parse()
                .map_err(|_| anyhow::anyhow!("{id} is no image id"))?;
            let is_back = runtime.block_on(server::restore_image(&place, &id))?;
            anyhow::ensure!(is_back, "no image {id} waits for its data to be removed");
            output::talk(format_args!("image {id} is active again"));
        }
        DbCommand::LoadMetadefs { dir, replace, .. } => {
            let now = Timestamp::now();
            let namespaces = match dir {
                Some(dir) => metadefs::read(dir, now)?,
                None => metadefs::stock(now)?,
            };
            let loaded = runtime.block_on(async {
                let catalog = server::open_catalog(&place).await?;
                metadefs::load(&catalog, &namespaces, *replace).await
            })?;
            output::talk(format_args!(
                "namespaces added: {}, replaced: {}, kept: {}",
                loaded.added, loaded.replaced, loaded.kept
            ));
        }
        DbCommand::UnloadMetadefs { namespaces, .. } => {
            let removed = runtime.block_on(async {
                let catalog = server::open_catalog(&place).await?;
                metadefs::unload(&catalog, namespaces).await
            })?;
            output::talk(format_args!("namespaces removed: {removed}"));
        }
        DbCommand::ExportMetadefs { dir, namespaces } => {
            let written = runtime.block_on(async {
                let catalog = server::open_catalog(&place).await?;
                metadefs::export(&catalog, namespaces, dir).await
            })?;
            output::talk(format_args!("namespaces written: {written}"));
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

/// What `glint db purge` prints.
#[derive(Serialize)]
struct Purged {
    /// Images forgotten.
    images: u64,
}
