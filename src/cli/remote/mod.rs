//! `glint image`: images of an image service, brought there and back. Ours or any other that speaks
//! the image API v2: what only ours can do is asked for, and done without where it cannot.
//!
//! ```text
//!  account: where and as whom    session: requests, tokens, bounded answers    tries: once more
//!  record: what the service knows of an image
//!  download: parts, in order ─► part: hashed, written with holes, named when it is whole
//! ```

mod account;
mod download;
mod part;
mod record;
mod session;
mod tries;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use tokio::sync::Notify;

pub(super) use session::Error;

use super::progress::{self, Show};
use super::{Exit, serve, signals};

/// Bring images to an image service and back
///
/// The service and the account are named as for the OpenStack clients: OS_AUTH_URL, OS_USERNAME,
/// OS_PASSWORD, OS_PROJECT_NAME, OS_USER_DOMAIN_NAME, OS_PROJECT_DOMAIN_NAME, or
/// OS_APPLICATION_CREDENTIAL_ID and _SECRET; or OS_TOKEN, or nothing, with OS_IMAGE_ENDPOINT.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Download an image's data, checked against its digest
    Download(download::Args),
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Download(args) => download::run(args),
    }
}

/// Bytes of a transfer: how many are done, of how many.
#[derive(Default)]
struct Meter {
    done: AtomicU64,
    total: AtomicU64,
}

impl Meter {
    fn start(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    fn add(&self, bytes: usize) {
        self.done.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        (
            self.done.load(Ordering::Relaxed),
            self.total.load(Ordering::Relaxed),
        )
    }
}

/// Does `work`, showing what `meter` says; a signal ends it where it is.
fn watched<T>(
    meter: &Meter,
    show: Show,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let stop = Arc::new(Notify::new());
    let ended = signals::when_ended({
        let stop = stop.clone();
        move |_| stop.notify_one()
    })?;
    let runtime = serve::runtime()?;
    progress::shown_by(&|| meter.read(), show, || {
        runtime.block_on(async {
            tokio::select! {
                done = work => done,
                () = stop.notified() => Err((*ended.get().context("ended by nobody")?).into()),
            }
        })
    })
}
