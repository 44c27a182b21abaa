//! `glint serve`: the image service.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use anyhow::Context;

use super::Exit;
use crate::server::{self, Place};

/// Serve images over HTTP
#[derive(clap::Args, Debug)]
pub struct ServeArgs {
    /// Address to listen at, 127.0.0.1:9292 unless configured
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,

    /// Where the catalog and the images lie, $XDG_DATA_HOME/glint unless configured
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<Exit> {
    let listen = args.listen.as_deref();
    let listen = listen.map(|text| address("--listen", text)).transpose()?;
    let place = Place {
        data: args.data.clone(),
        config: args.config.clone(),
    };
    runtime()?.block_on(server::serve(&place, listen))?;
    Ok(Exit::Fine)
}

/// An address to listen at; a name is looked up, so that `localhost:9292` works.
pub(super) fn address(flag: &str, text: &str) -> anyhow::Result<SocketAddr> {
    text.to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .with_context(|| format!("{flag} {text} is no HOST:PORT"))
}

/// A runtime with a thread a core.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting threads")
}
