//! `glint image`: images of an image service, brought there and back. Ours or any other that speaks
//! the image API v2: what only ours can do is asked for, and done without where it cannot.
//!
//! ```text
//!  account: where and as whom    session: requests, tokens, bounded answers    tries: once more
//!  record: what the service knows of an image
//!  download: parts, in order ─► part: hashed, written with holes, named when it is whole
//!  upload: what is meant    made: the image it is for    local: the file and its digest    state: what --resume goes on with
//!    ├─► tus: in parts that go on where they broke off    plain: in one, for other services
//!    └─► import: of what is staged or what a URL names, followed by its events
//! ```

mod account;
pub(super) mod batches;
mod clouds;
mod download;
mod import;
mod local;
mod made;
mod part;
mod plain;
mod record;
mod session;
mod state;
mod tries;
mod tus;
mod upload;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::sync::Notify;

pub(super) use session::Error;

use super::output::{self, Output};
use super::progress::{self, Show};
use super::{Exit, serve, signals, work};

/// Bring images to an image service and back
///
/// The service and the account are named as for the OpenStack clients: OS_AUTH_URL, OS_USERNAME,
/// OS_PASSWORD, OS_PROJECT_NAME, OS_USER_DOMAIN_NAME, OS_PROJECT_DOMAIN_NAME, or
/// OS_APPLICATION_CREDENTIAL_ID and _SECRET; or OS_CLOUD of clouds.yaml; or OS_TOKEN, or nothing, with
/// OS_IMAGE_ENDPOINT.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Upload a file as an image's data, checked against the digest that comes back
    Upload(Box<upload::Args>),
    /// Download an image's data, checked against its digest
    Download(download::Args),
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Upload(args) => upload::run(args),
        Command::Download(args) => download::run(args),
    }
}

/// How data goes, and what is told of it.
#[derive(clap::Args)]
struct Way {
    /// Parts that are on their way at once
    #[arg(short = 'm', long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    parallel: u8,

    /// Show progress, also where standard error is no terminal
    #[arg(short)]
    progress: bool,

    /// Say nothing but errors
    #[arg(short)]
    quiet: bool,

    /// How to sum up
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,
}

impl Way {
    fn show(&self) -> Show {
        work::show(self.progress, self.quiet)
    }

    /// Tells what was done.
    fn sum_up(
        &self,
        report: &impl Serialize,
        in_words: impl FnOnce() -> String,
    ) -> anyhow::Result<Exit> {
        match self.output {
            Output::Json => output::json(report)?,
            Output::Human if self.quiet => {}
            Output::Human => output::data(in_words().as_bytes())?,
        }
        Ok(Exit::Fine)
    }
}

/// What threads get to end what they are at.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Bytes of a transfer: how many are done, of how many.
#[derive(Default)]
struct Meter {
    done: AtomicU64,
    /// 0 where it is not known.
    total: AtomicU64,
    /// What is being done, where that is not always the same.
    doing: Mutex<String>,
}

impl Meter {
    fn start(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    fn add(&self, bytes: usize) {
        self.count(bytes as u64);
    }

    fn count(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back what was counted and does not count after all.
    fn sub(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn say(&self, doing: String) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing;
    }

    fn said(&self) -> String {
        let doing = self.doing.lock();
        doing.unwrap_or_else(PoisonError::into_inner).clone()
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
    let done = progress::told_by(&|| meter.read(), &|| meter.said(), show, || {
        runtime.block_on(async {
            tokio::select! {
                done = work => done,
                () = stop.notified() => Err((*ended.get().context("ended by nobody")?).into()),
            }
        })
    });
    // Whatever thread is still at work need not be waited for: a kill does no harm either.
    runtime.shutdown_timeout(LAST_MOMENT);
    done
}
