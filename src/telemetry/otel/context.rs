//! Which trace a span belongs to, between processes: the headers of W3C Trace Context.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: &str = "traceparent";
/// Bytes of either header at most: every span of a trace carries them until it is sent. It is what the
/// specification wants passed on at least.
const MAX_HEADER: usize = 512;

/// Makes `span` part of the trace that a request came with.
pub(in crate::telemetry) fn accept(span: &Span, headers: &HeaderMap) {
    continue_in(span, &Received(headers));
}

/// Makes `span` part of the trace that [`traceparent`] wrote down.
pub(in crate::telemetry) fn follow(span: &Span, traceparent: &str) {
    continue_in(span, &Noted(traceparent));
}

fn continue_in(span: &Span, carrier: &dyn Extractor) {
    let context = TraceContextPropagator::new().extract(carrier);
    if context.has_active_span() {
        // It fails where nobody listens to the span: then there is nothing to join.
        let _ = span.set_parent(context);
    }
}

/// Gives `span` another name, of which it has the better one only in the end.
pub(in crate::telemetry) fn rename(span: &Span, name: String) {
    span.context().span().update_name(name);
}

/// Tells whoever gets `headers` which trace they belong to.
pub(in crate::telemetry) fn pass_on(span: &Span, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&span.context(), &mut Sent(headers));
}

/// The trace we are in, for [`follow`]; `None` where we are in none.
pub(in crate::telemetry) fn traceparent() -> Option<String> {
    let mut headers = HeaderMap::new();
    TraceContextPropagator::new().inject_context(&Context::current(), &mut Sent(&mut headers));
    Some(headers.get(TRACEPARENT)?.to_str().ok()?.to_owned())
}

struct Received<'a>(&'a HeaderMap);

impl Extractor for Received<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key)?.to_str().ok()?;
        (value.len() <= MAX_HEADER).then_some(value)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Noted<'a>(&'a str);

impl Extractor for Noted<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

struct Sent<'a>(&'a mut HeaderMap);

impl Injector for Sent<'_> {
    fn set(&mut self, key: &str, value: String) {
        if value.is_empty() {
            return;
        }
        if let (Ok(name), Ok(value)) = (key.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}
