//! What operators see: the log ([`log`]), numbers over time ([`metrics`]), the page they are read
//! from ([`page`]), and what a request or a job spent its time on ([`trace`]).

pub mod log;
pub mod metrics;
#[cfg(feature = "otel")]
mod otel;
#[cfg(not(feature = "otel"))]
#[path = "without_otel.rs"]
mod otel;
pub mod page;
pub mod trace;
pub mod transfer;

use anyhow::Context as _;

pub use metrics::{Metrics, Stage};
pub use transfer::counted;

use crate::config::Config;

/// What has to be ended in order.
#[must_use]
pub struct Telemetry {
    traces: Option<otel::Exporter>,
}

/// Starts the log, and traces where they are asked for; once for the process.
///
/// # Errors
/// When it was started before, or traces are asked for that cannot be had.
pub fn start(config: &Config) -> anyhow::Result<Telemetry> {
    let traces = otel::start(&config.tracing).context("[tracing]")?;
    let (layer, traces) = traces.unzip();
    log::start(&config.log, layer).context("starting the log")?;
    match &traces {
        Some(traces) => tracing::info!("traces go to {}", traces.collector()),
        // Variables are often meant for all programs of a machine: no reason not to start.
        None if cfg!(not(feature = "otel")) && trace::variable("ENDPOINT").is_some() => {
            tracing::warn!(
                "OTEL_EXPORTER_OTLP_ENDPOINT is set, but this glint was built without traces"
            );
        }
        None => {}
    }
    Ok(Telemetry { traces })
}

impl Telemetry {
    /// Sends what has not been sent yet, for a few seconds.
    pub async fn end(self) {
        if let Some(traces) = self.traces {
            traces.end().await;
        }
    }
}
