//! `glint batch submit|status|cancel|retry`: batches that a service does.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use super::account::Account;
use super::session::{self, Session};
use super::tries::Tries;
use super::{Error, Meter, watched};
use crate::cli::output::{self, Output, Plain};
use crate::cli::{Exit, work};

/// Bytes of a plan at most: what a service takes unless it is told otherwise.
const MAX_PLAN: u64 = 1 << 20;
/// Pages of a list that are asked for, at most.
const MAX_PAGES: usize = 10_000;
/// How often a batch is looked at whose end is waited for.
const LOOK: Duration = Duration::from_secs(1);

// What is done with a service's batches. The verb's own words about itself stay.
#[derive(clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// Have a service make many images, as a plan says
    ///
    /// PLAN is TOML with the fields that `POST /v2/batches` takes (docs/batches.md). The service and the
    /// account are named as for `glint image`.
    Submit(Submit),
    /// Tell how far a batch of a service is; without an ID, which batches there are
    Status(Status),
    /// End what has not ended of a batch of a service
    Cancel(Cancel),
    /// Begin again with what failed of a batch of a service
    Retry(Retry),
}

#[derive(clap::Args)]
pub(in crate::cli) struct Submit {
    #[command(flatten)]
    way: Way,

    /// Wait until it has ended; the exit code is 1 where not all of it is done
    #[arg(long)]
    wait: bool,

    /// What to make of what
    #[arg(value_name = "PLAN.toml")]
    plan: PathBuf,
}

#[derive(clap::Args)]
pub(in crate::cli) struct Status {
    #[command(flatten)]
    way: Way,

    /// Wait until it has ended; the exit code is 1 where not all of it is done
    #[arg(long, requires = "id")]
    wait: bool,

    /// Id of the batch
    #[arg(value_name = "ID")]
    id: Option<String>,
}

#[derive(clap::Args)]
pub(in crate::cli) struct Cancel {
    #[command(flatten)]
    way: Way,

    /// Id of the batch
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(clap::Args)]
pub(in crate::cli) struct Retry {
    #[command(flatten)]
    way: Way,

    /// Wait until it has ended; the exit code is 1 where not all of it is done
    #[arg(long)]
    wait: bool,

    /// Id of the batch
    #[arg(value_name = "ID")]
    id: String,
}

/// Which service, and how its answers are shown.
#[derive(clap::Args)]
struct Way {
    #[command(flatten)]
    account: Account,

    /// Say nothing but errors
    #[arg(short)]
    quiet: bool,

    /// How to report: `json` for what the service answers
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,
}

/// A batch, as a service shows it.
#[derive(Deserialize)]
struct Batch {
    id: String,
    status: String,
    counts: Counts,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Counts {
    waiting: u64,
    running: u64,
    done: u64,
    failed: u64,
    cancelled: u64,
}

#[derive(Deserialize)]
struct Item {
    n: u32,
    name: Option<String>,
    state: String,
    image_id: Option<String>,
    message: String,
}

#[derive(Deserialize)]
struct Page {
    batches: Vec<Value>,
    next: Option<String>,
}

/// Does it.
///
/// # Errors
/// What is wrong with the plan, what the service refuses, or that it cannot be reached.
pub(in crate::cli) fn run(command: &Command) -> anyhow::Result<Exit> {
    // Before signals are taken over: one ends a read that waits for somebody to write.
    let plan = match command {
        Command::Submit(args) => read(&args.plan)?.to_string(),
        _ => String::new(),
    };
    let show = work::show(false, true);
    watched(&Meter::default(), show, async {
        match command {
            Command::Submit(args) => {
                let session = Session::open(&args.way.account, 0).await?;
                let fill = |r: RequestBuilder| {
                    let kind = HeaderValue::from_static("application/json");
                    r.header(CONTENT_TYPE, kind).body(plan.clone())
                };
                let batch: Value = session.json(Method::POST, "/v2/batches", fill).await?;
                args.way.end(&session, batch, args.wait).await
            }
            Command::Retry(args) => {
                let session = Session::open(&args.way.account, 0).await?;
                let path = format!("{}/retry", path(&args.id)?);
                let batch: Value = session.json(Method::POST, &path, |r| r).await?;
                args.way.end(&session, batch, args.wait).await
            }
            Command::Status(args) => {
                let session = Session::open(&args.way.account, 0).await?;
                match &args.id {
                    None => args.way.list(&session).await,
                    Some(id) => {
                        let batch: Value = session.json(Method::GET, &path(id)?, |r| r).await?;
                        args.way.end(&session, batch, args.wait).await
                    }
                }
            }
            Command::Cancel(args) => {
                let session = Session::open(&args.way.account, 0).await?;
                let at = path(&args.id)?;
                let target = format!("{at}/cancel");
                session::fine(session.ask(Method::POST, &target, |r| r).await?).await?;
                let batch: Value = session.json(Method::GET, &at, |r| r).await?;
                args.way.end(&session, batch, false).await
            }
        }
    })
}

/// Where a batch is found.
fn path(id: &str) -> anyhow::Result<String> {
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        bail!("{id:?} is no id of a batch");
    }
    Ok(format!("/v2/batches/{id}"))
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let shown = || path.display().to_string();
    let file = File::open(path).with_context(shown)?;
    let mut text = String::new();
    let read = file.take(MAX_PLAN + 1).read_to_string(&mut text);
    if read.with_context(shown)? as u64 > MAX_PLAN {
        bail!("{}: a plan has at most {MAX_PLAN} bytes", path.display());
    }
    toml::from_str(&text).with_context(shown)
}

impl Way {
    /// Tells of a batch, having waited for its end where that `waits`.
    async fn end(&self, session: &Session, mut answer: Value, waits: bool) -> anyhow::Result<Exit> {
        let mut batch = batch(&answer)?;
        let mut told = BTreeSet::new();
        let mut tries = Tries::default();
        let path = path(&batch.id)?;
        if waits && !batch.has_ended() && !self.quiet {
            output::talk(format_args!("batch {}", Plain(&batch.id)));
        }
        while waits && !batch.has_ended() {
            if self.output == Output::Human && !self.quiet {
                batch.tell_news(&mut told);
            }
            tokio::time::sleep(LOOK).await;
            match session.json(Method::GET, &path, |r| r).await {
                Ok(found) => {
                    tries.succeeded();
                    answer = found;
                    batch = self::batch(&answer)?;
                }
                Err(e) => tries.again(e).await?,
            }
        }
        match self.output {
            Output::Json => output::json(&answer)?,
            Output::Human if self.quiet => {}
            Output::Human => output::data(batch.in_words().as_bytes())?,
        }
        Ok(if waits && batch.status != "done" {
            Exit::Image
        } else {
            Exit::Fine
        })
    }

    async fn list(&self, session: &Session) -> anyhow::Result<Exit> {
        let mut all = Vec::new();
        let mut seen = BTreeSet::new();
        let mut next = Some("/v2/batches".to_owned());
        while let Some(path) = next.filter(|path| path.starts_with("/v2/batches")) {
            if seen.len() >= MAX_PAGES || !seen.insert(path.clone()) {
                return Err(Error::nonsense("its list of batches has no end").into());
            }
            let page: Page = session.json(Method::GET, &path, |r| r).await?;
            if page.batches.is_empty() {
                break;
            }
            all.extend(page.batches);
            next = page.next;
        }
        match self.output {
            Output::Json => output::json(&json!({ "batches": all }))?,
            Output::Human => {
                let mut text = String::new();
                for one in &all {
                    let _ = writeln!(text, "{}", batch(one)?.summary());
                }
                output::data(text.as_bytes())?;
            }
        }
        Ok(Exit::Fine)
    }
}

fn batch(answer: &Value) -> Result<Batch, Error> {
    Batch::deserialize(answer).map_err(|e| Error::nonsense(e.to_string()))
}

impl Batch {
    fn has_ended(&self) -> bool {
        ["done", "failed", "cancelled"].contains(&self.status.as_str())
    }

    fn summary(&self) -> String {
        let counts = &self.counts;
        let mut text = format!("{}  {}", Plain(&self.id), Plain(&self.status));
        for (count, what) in [
            (counts.done, "done"),
            (counts.running, "running"),
            (counts.waiting, "waiting"),
            (counts.failed, "failed"),
            (counts.cancelled, "cancelled"),
        ] {
            if count > 0 {
                let _ = write!(text, ", {count} {what}");
            }
        }
        text
    }

    fn in_words(&self) -> String {
        let mut text = String::new();
        for item in &self.items {
            let _ = writeln!(text, "{}", item.in_words());
        }
        text + &self.summary() + "\n"
    }

    /// Tells on standard error which items have ended since the last time.
    fn tell_news(&self, told: &mut BTreeSet<u32>) {
        for item in &self.items {
            let has_ended = !["waiting", "running"].contains(&item.state.as_str());
            if has_ended && told.insert(item.n) {
                output::talk(item.in_words());
            }
        }
    }
}

impl Item {
    fn in_words(&self) -> String {
        let name = self.name.as_deref().unwrap_or_default();
        let rest = match (self.state.as_str(), &self.image_id) {
            ("done" | "waiting", Some(id)) => id,
            _ => &self.message,
        };
        let (state, name, rest) = (Plain(&self.state), Plain(name), Plain(rest));
        format!("{:<9}  {name}  {rest}", state.to_string())
            .trim_end()
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_told_in_lines() {
        let answer = json!({
            "id": "b", "status": "failed",
            "counts": {"waiting": 0, "running": 0, "done": 1, "failed": 1, "cancelled": 0},
            "items": [
                {"n": 1, "name": "a", "state": "done", "image_id": "i", "message": "Copied 1 MiB"},
                {"n": 2, "name": "\u{1b}[2J", "state": "failed", "image_id": null, "message": "why"},
            ],
        });
        assert_eq!(
            batch(&answer).unwrap().in_words(),
            "done       a  i\nfailed     \\u{1b}[2J  why\nb  failed, 1 done, 1 failed\n"
        );
        assert!(batch(&json!({"id": "b"})).is_err());
    }

    #[test]
    fn an_id_leads_nowhere_else() {
        assert_eq!(path("6a97-b").unwrap(), "/v2/batches/6a97-b");
        for id in ["", "..", "a/b", "a?b", "a%2f"] {
            assert!(path(id).is_err(), "{id}");
        }
    }
}
