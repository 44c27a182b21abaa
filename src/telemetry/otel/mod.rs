//! Sends spans to a collector: OTLP over HTTP, as protobuf.
//!
//! A span that ends is put into a queue of bounded length, or dropped where that is full: nobody waits. A
//! thread of its own empties the queue in batches.

mod context;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{self, Sampler, SdkTracerProvider, SpanData};
use reqwest::Url;
use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;

pub(super) use context::{accept, follow, pass_on, rename, traceparent};

use super::log::Listener;
use super::trace::{TARGET, variable};
use crate::config::Tracing;

/// How long the last spans may take to be sent.
const END: Duration = Duration::from_secs(5);

/// What sends.
pub(super) struct Exporter {
    provider: SdkTracerProvider,
    collector: String,
}

impl Exporter {
    /// Where the spans go.
    pub(super) fn collector(&self) -> &str {
        &self.collector
    }

    /// Sends what has not been sent yet.
    pub(super) async fn end(self) {
        let sent = move || self.provider.shutdown_with_timeout(END);
        match tokio::task::spawn_blocking(sent).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(error = %e, "the last traces were not sent"),
            Err(e) => tracing::warn!(error = %e, "the last traces were not sent"),
        }
    }
}

/// What listens to spans, and what sends them. `None` where nobody asked for traces.
///
/// # Errors
/// When the environment asks for what is not there.
pub(super) fn start(config: &Tracing) -> anyhow::Result<Option<(Listener, Exporter)>> {
    if is_disabled()? {
        return Ok(None);
    }
    let Some(collector) = collector(config)? else {
        return Ok(None);
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(collector.as_str())
        .build()?;
    let shown = shown(&collector);
    let mut provider = SdkTracerProvider::builder()
        .with_resource(resource(config))
        .with_batch_exporter(Watched {
            exporter,
            collector: shown.clone(),
            is_away: AtomicBool::new(false),
        });
    // What the environment says of sampling has been read already.
    if set("OTEL_TRACES_SAMPLER").is_none() {
        let root = Sampler::TraceIdRatioBased(config.sample_ratio);
        provider = provider.with_sampler(Sampler::ParentBased(Box::new(root)));
    }
    let provider = provider.build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("glint"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target(TARGET, Level::INFO))
        .boxed();
    let collector = shown;
    Ok(Some((
        layer,
        Exporter {
            provider,
            collector,
        },
    )))
}

/// Whether the environment wants no traces.
fn is_disabled() -> anyhow::Result<bool> {
    if let Some(protocol) = variable("PROTOCOL")
        && protocol != "http/protobuf"
    {
        bail!("OTEL_EXPORTER_OTLP_PROTOCOL is {protocol:?}, allowed http/protobuf");
    }
    let is_off = set("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"));
    match set("OTEL_TRACES_EXPORTER").as_deref() {
        Some("none") => Ok(true),
        None | Some("otlp") => Ok(is_off),
        Some(other) => bail!("OTEL_TRACES_EXPORTER is {other:?}, allowed otlp and none"),
    }
}

/// A variable of the environment that is not empty.
fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The URL that takes spans. One that is meant for traces alone is used as it is.
fn collector(config: &Tracing) -> anyhow::Result<Option<Url>> {
    let parse = |text: &str, name: &str| {
        let url = Url::parse(text).ok();
        url.filter(|url| ["http", "https"].contains(&url.scheme()))
            .with_context(|| format!("{name} is {text:?}, allowed http:// and https:// URLs"))
    };
    let traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    if let Some(url) = set(traces) {
        return parse(&url, traces).map(Some);
    }
    let all = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let base = match (set(all), &config.endpoint) {
        (Some(base), _) => parse(&base, all)?,
        (None, Some(base)) => parse(base, "endpoint")?,
        (None, None) => return Ok(None),
    };
    let mut url = base.clone();
    url.set_path(&format!("{}/v1/traces", base.path().trim_end_matches('/')));
    Ok(Some(url))
}

/// What people are shown of a URL: nothing secret, and nothing that looks like our own URL.
fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{host}:{port}{}", url.path())
}

/// Who we say we are.
fn resource(config: &Tracing) -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name(config.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match set("OTEL_SERVICE_NAME") {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}

/// An exporter that says once that its collector is away, and once that it is back.
#[derive(Debug)]
struct Watched {
    exporter: SpanExporter,
    collector: String,
    is_away: AtomicBool,
}

impl trace::SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let collector = &self.collector;
        let sent = self.exporter.export(batch).await;
        match &sent {
            Ok(()) if self.is_away.swap(false, Ordering::Relaxed) => {
                tracing::info!("the collector at {collector} takes traces again");
            }
            Err(e) if !self.is_away.swap(true, Ordering::Relaxed) => tracing::warn!(
                error = %e,
                "the collector at {collector} takes no traces: they are dropped until it does"
            ),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
