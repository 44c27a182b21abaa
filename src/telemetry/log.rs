//! The log: to standard error, as lines for people or as JSON. Its level can change while we run.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use super::trace;
use crate::config::{Log, LogFormat};

/// The environment variable that goes before the configured level.
const VARIABLE: &str = "GLINT_LOG";

static LEVEL: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// Somebody who listens to events and spans.
pub(super) type Listener = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging, once for the process; `traces` listens besides.
///
/// # Errors
/// When it was started before.
pub(super) fn start(config: &Log, traces: Option<Listener>) -> anyhow::Result<()> {
    let (filter, handle) = reload::Layer::new(filter(config)?);
    let lines = fmt::layer().with_writer(std::io::stderr);
    // The spans of traces say the same in other words.
    let untraced = Targets::new()
        .with_default(LevelFilter::TRACE)
        .with_target(trace::TARGET, LevelFilter::OFF);
    let lines: Listener = match config.format {
        LogFormat::Text => lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
    };
    let lines = lines.with_filter(filter.and(untraced)).boxed();
    tracing_subscriber::registry()
        .with(
            [Some(lines), traces]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>(),
        )
        .try_init()?;
    // Only the first call comes here: the second fails above.
    let _ = LEVEL.set(handle);
    Ok(())
}

/// Logs from now on what `config` says.
///
/// # Errors
/// When the level is no such thing, or nothing is logged yet.
pub fn reload(config: &Log) -> anyhow::Result<()> {
    let handle = LEVEL
        .get()
        .ok_or_else(|| anyhow::anyhow!("nothing is logged"))?;
    handle.reload(filter(config)?)?;
    Ok(())
}

fn filter(config: &Log) -> anyhow::Result<EnvFilter> {
    match std::env::var(VARIABLE) {
        Ok(level) if !level.is_empty() => Ok(EnvFilter::try_new(level)?),
        _ => Ok(EnvFilter::try_new(&config.level)?),
    }
}
