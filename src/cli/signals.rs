//! Signals that end the program: turned into an orderly end, so that nothing half-written stays
//! behind.

use std::fs;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use anyhow::Context;
use formats::copy::Progress;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::Exit;

/// A signal that ended the work.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("ended by {name}")]
pub(super) struct Ended {
    name: &'static str,
    kind: SignalKind,
    pub(super) exit: Exit,
}

impl Ended {
    /// Of those that end the program in an orderly way: the one with this number.
    pub(super) fn by(signal: i32) -> Option<Self> {
        let is_it = |ending: &Self| ending.kind.as_raw_value() == signal;
        ENDINGS.into_iter().find(is_it)
    }

    /// The signal itself.
    pub(super) fn signal(&self) -> Option<Signal> {
        Signal::from_named_raw(self.kind.as_raw_value())
    }
}

const ENDINGS: [Ended; 3] = [
    Ended {
        name: "SIGHUP",
        kind: SignalKind::hangup(),
        exit: Exit::HungUp,
    },
    Ended {
        name: "SIGINT",
        kind: SignalKind::interrupt(),
        exit: Exit::Interrupted,
    },
    Ended {
        name: "SIGTERM",
        kind: SignalKind::terminate(),
        exit: Exit::Terminated,
    },
];

/// Cancels `progress` at the first of these signals, and then tells which it was.
pub(super) fn cancel(progress: Arc<Progress>) -> anyhow::Result<Arc<OnceLock<Ended>>> {
    when_ended(move |_| progress.cancel())
}

/// Acts at the first of these signals, and tells which it was. One that was ignored when the
/// program began (`nohup`, a script's `trap ''`) stays ignored.
pub(super) fn when_ended(
    act: impl FnOnce(Option<Signal>) + Send + 'static,
) -> anyhow::Result<Arc<OnceLock<Ended>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("listening for signals")?;
    let ignored = ignored();
    let mut signals = Vec::new();
    {
        let _entered = runtime.enter();
        for ending in ENDINGS {
            if ignored & 1 << (ending.kind.as_raw_value() - 1) == 0 {
                let listener = signal(ending.kind)
                    .with_context(|| format!("listening for {}", ending.name))?;
                signals.push((ending, listener));
            }
        }
    }
    let ended = Arc::new(OnceLock::new());
    let first = ended.clone();
    std::thread::spawn(move || {
        let ending = runtime.block_on(poll_fn(|cx| {
            for (ending, listener) in &mut signals {
                if listener.poll_recv(cx).is_ready() {
                    return Poll::Ready(*ending);
                }
            }
            Poll::Pending
        }));
        let _ = first.set(ending);
        act(ending.signal());
    });
    Ok(ended)
}

/// The signals ignored by this process, bit 0 for signal 1. Where the kernel does not tell: none.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
