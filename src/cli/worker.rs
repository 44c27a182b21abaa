//! `glint worker`: does the jobs of a service, beside it or on another machine.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::Exit;
use super::serve::{address, runtime};
use crate::server::{self, Place};

/// Work on the imports of a service whose catalog and stores this machine shares
///
/// It takes the configuration of the service. With the same data folder it also does what the service
/// has staged; on another machine that takes a folder that both see ([import] shared_staging).
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Configuration file: that of the service
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where files on their way lie, the configured data folder unless given
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Jobs worked on at once, one a core unless given
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// Address of the page of metrics, [metrics] worker_listen unless given
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let place = Place {
        data: args.data.clone(),
        config: args.config.clone(),
    };
    let metrics = args.metrics.as_deref();
    let metrics = metrics.map(|text| address("--metrics", text)).transpose()?;
    runtime()?.block_on(server::work(&place, args.jobs, metrics))?;
    Ok(Exit::Fine)
}
