//! How far a job is: what it says goes into its task, once a second at most.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::runner::Failure;
use crate::catalog::{self, tasks};
use crate::domain::Timestamp;
use crate::service::Service;
use crate::stores::Bytestream;

/// How often the task is told.
const EVERY: Duration = Duration::from_secs(1);

/// What a job is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Bytes come from elsewhere.
    Fetching,
    /// A digest is made.
    Verifying,
    /// A wrapper is taken off.
    Decompressing,
    /// It is found out what the bytes are.
    Inspecting,
    /// They become another format.
    Converting,
    /// They go into the stores.
    Storing,
}

impl Phase {
    const fn name(self) -> &'static str {
        match self {
            Self::Fetching => "fetching",
            Self::Verifying => "verifying",
            Self::Decompressing => "decompressing",
            Self::Inspecting => "inspecting",
            Self::Converting => "converting",
            Self::Storing => "storing",
        }
    }
}

/// Counts what a job moves.
#[derive(Default)]
pub(super) struct Meter(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None` before the first phase.
    now: Option<Now>,
    is_news: bool,
}

struct Now {
    phase: Phase,
    begun: Instant,
    input: Count,
    output: Count,
    /// A file that is being written elsewhere: as long as it is, so much is written.
    written: Option<PathBuf>,
}

/// Bytes of one side.
#[derive(Clone, Copy, Default)]
struct Count {
    done: u64,
    expected: Option<u64>,
}

impl Count {
    fn show(self) -> Value {
        json!({"done": self.done, "expected": self.expected})
    }
}

impl Meter {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A phase begins in which so many bytes are read and written, where that is known.
    pub(super) fn begin(&self, phase: Phase, input: Option<u64>, output: Option<u64>) {
        let count = |expected| Count { done: 0, expected };
        let mut state = self.state();
        state.is_news = true;
        state.now = Some(Now {
            phase,
            begun: Instant::now(),
            input: count(input),
            output: count(output),
            written: None,
        });
    }

    /// What this phase writes is the file at `path`.
    pub(super) fn writes(&self, path: &Path) {
        if let Some(now) = &mut self.state().now {
            now.written = Some(path.to_owned());
        }
    }

    /// So much is read, of so much where that is known.
    pub(super) fn has_read(&self, done: u64, expected: Option<u64>) {
        self.count(|now| {
            now.input.done = done;
            now.input.expected = expected.or(now.input.expected);
        });
    }

    /// So much more is read, and written as it is where `as_it_is`.
    pub(super) fn moved(&self, bytes: u64, as_it_is: bool) {
        self.count(|now| {
            now.input.done += bytes;
            if as_it_is {
                now.output.done += bytes;
            }
        });
    }

    fn count(&self, count: impl FnOnce(&mut Now)) {
        let mut state = self.state();
        if let Some(now) = &mut state.now {
            count(now);
            state.is_news = true;
        }
    }

    /// Counts what passes.
    pub(super) fn count_in(self: &Arc<Self>, bytes: Bytestream, as_it_is: bool) -> Bytestream {
        let this = self.clone();
        let seen = move |piece: &std::io::Result<bytes::Bytes>| {
            if let Ok(piece) = piece {
                this.moved(piece.len() as u64, as_it_is);
            }
        };
        bytes.inspect(seen).boxed()
    }

    /// A sentence and the numbers, where they are not told yet.
    fn news(&self) -> Option<(String, Value)> {
        let mut state = self.state();
        if !std::mem::take(&mut state.is_news) {
            return None;
        }
        state.now.as_mut().map(Now::tell)
    }

    /// Tells the task `id` for as long as this is polled.
    pub(super) async fn tell(&self, svc: &Service, id: &str) -> Failure {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let Some((message, progress)) = self.news() else {
                continue;
            };
            // A missed report is no harm.
            if let Err(e) = note(svc, id, &message, &progress).await {
                tracing::debug!(job.id = id, error = %e, "progress could not be noted");
            }
            svc.told.notify_waiters();
        }
    }
}

async fn note(svc: &Service, id: &str, message: &str, progress: &Value) -> catalog::Result<()> {
    let mut tx = svc.catalog.write().await?;
    tasks::report(&mut tx, id, message, progress, Timestamp::now()).await?;
    tx.commit().await
}

impl Now {
    fn tell(&mut self) -> (String, Value) {
        if let Some(path) = &self.written {
            use std::os::unix::fs::MetadataExt as _;
            let allocated = path.metadata().map(|m| m.blocks() * 512);
            self.output.done = allocated.unwrap_or(self.output.done);
        }
        let numbers = self.numbers(self.begun.elapsed());
        let percent = &numbers["percent"];
        let sentence = match self.phase {
            Phase::Fetching | Phase::Storing => format!("Copied {} MiB", self.input.done >> 20),
            Phase::Verifying => "Verifying".into(),
            Phase::Inspecting => "Inspecting".into(),
            Phase::Decompressing | Phase::Converting => {
                let name = self.phase.name();
                let name = format!("{}{}", name[..1].to_ascii_uppercase(), &name[1..]);
                match percent.as_u64() {
                    Some(percent) => format!("{name}: {percent} %"),
                    None => name,
                }
            }
        };
        (sentence, numbers)
    }

    /// After this long.
    fn numbers(&self, elapsed: Duration) -> Value {
        let Count { done, expected } = self.input;
        let percent = expected.map(|all| match all {
            0 => 100,
            all => done.min(all).saturating_mul(100) / all,
        });
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        // The first moments say nothing yet.
        let rate = (millis >= 500).then(|| done.saturating_mul(1000) / millis);
        let eta = match (rate, expected) {
            (Some(rate), Some(all)) if rate > 0 => Some(all.saturating_sub(done).div_ceil(rate)),
            _ => None,
        };
        json!({
            "phase": self.phase.name(),
            "input": self.input.show(),
            "output": self.output.show(),
            "percent": percent,
            "rate": rate,
            "eta": eta,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_from_bytes_and_time() {
        let meter = Meter::default();
        assert!(meter.news().is_none(), "nothing has begun");
        meter.begin(Phase::Fetching, Some(10 << 20), None);
        meter.moved(4 << 20, true);
        let (message, _) = meter.news().unwrap();
        assert_eq!(message, "Copied 4 MiB");
        assert!(meter.news().is_none(), "nothing new");
        let state = meter.state();
        let numbers = state.now.as_ref().unwrap().numbers(Duration::from_secs(2));
        let want = json!({
            "phase": "fetching",
            "input": {"done": 4 << 20, "expected": 10 << 20},
            "output": {"done": 4 << 20, "expected": null},
            "percent": 40, "rate": 2 << 20, "eta": 3,
        });
        assert_eq!(numbers, want);
    }

    #[test]
    fn what_is_unknown_is_not_made_up() {
        let meter = Meter::default();
        meter.begin(Phase::Converting, None, None);
        meter.has_read(7, None);
        let (message, numbers) = meter.news().unwrap();
        assert_eq!(message, "Converting");
        assert_eq!(numbers["percent"], Value::Null);
        assert_eq!(numbers["eta"], Value::Null);
        meter.has_read(7, Some(0));
        let (message, numbers) = meter.news().unwrap();
        assert_eq!(
            (message.as_str(), &numbers["percent"]),
            ("Converting: 100 %", &json!(100))
        );
    }
}
