//! Traces in a build that has none: nobody listens to the spans, and they cost nothing.

use axum::http::HeaderMap;
use tracing::Span;

use super::log::Listener;
use crate::config::Tracing;

/// There is none.
pub(super) enum Exporter {}

impl Exporter {
    pub(super) fn collector(&self) -> &str {
        match *self {}
    }

    pub(super) async fn end(self) {
        match self {}
    }
}

/// Nothing to start: a configuration that asks for traces is refused as a whole.
#[expect(clippy::unnecessary_wraps, reason = "the other build's can fail")]
pub(super) fn start(_: &Tracing) -> anyhow::Result<Option<(Listener, Exporter)>> {
    Ok(None)
}

pub(super) fn accept(_: &Span, _: &HeaderMap) {}

pub(super) fn follow(_: &Span, _: &str) {}

pub(super) fn rename(_: &Span, _: String) {}

pub(super) fn pass_on(_: &Span, _: &mut HeaderMap) {}

pub(super) fn traceparent() -> Option<String> {
    None
}
