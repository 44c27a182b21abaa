//! Traces: what a request or a job spent its time on, as spans in the words of OpenTelemetry's
//! conventions.
//!
//! They are spans of `tracing` with a target of their own. The log does not hear of them; whoever sends
//! them to a collector is in `otel`, a feature of the build. Without it, and without a collector, a span
//! costs the look at a flag. What clients wrote is cut short in them. Numbers are `i64`: of others the layer
//! makes texts.

use axum::extract;
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode, header};
use reqwest::{Request, Url};
use tracing::field::Empty;
use tracing::{Span, info_span};

use super::otel;

/// The target of all spans of traces.
pub(super) const TARGET: &str = "glint::trace";
/// Bytes of a client's words at most.
const MAX_WORDS: usize = 1024;

/// What the environment says of traces: `OTEL_EXPORTER_OTLP_TRACES_<name>`, or the same for all
/// signals.
pub(super) fn variable(name: &str) -> Option<String> {
    let of = |name: String| std::env::var(name).ok().filter(|value| !value.is_empty());
    of(format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
        .or_else(|| of(format!("OTEL_EXPORTER_OTLP_{name}")))
}

/// A request up to the head of its answer, in the trace that it came with. `method` is a known one.
pub fn request(method: Option<&Method>, req: &extract::Request) -> Span {
    let span = info_span!(
        target: TARGET,
        "request",
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method.map_or("_OTHER", Method::as_str),
        http.response.status_code = Empty,
        http.route = Empty,
        url.scheme = "http",
        url.path = cut(req.uri().path()),
        server.address = Empty,
        server.port = Empty,
        request.id = Empty,
        "error.type" = Empty,
    );
    if span.is_disabled() {
        return span;
    }
    let host = req.headers().get(header::HOST);
    let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    if let Some(host) = host {
        span.record("server.address", cut(host.host()));
        span.record("server.port", host.port_u16().map(i64::from));
    }
    otel::accept(&span, req.headers());
    span
}

/// A request was answered.
pub fn answered(
    span: &Span,
    method: Option<&Method>,
    route: Option<&str>,
    code: u16,
    request_id: Option<&str>,
) {
    if span.is_disabled() {
        return;
    }
    let method = method.map_or("HTTP", Method::as_str);
    let name = match route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    };
    otel::rename(span, name);
    span.record("http.route", route);
    span.record("request.id", request_id);
    span.record("http.response.status_code", i64::from(code));
    if code >= 500 {
        failed(span, &code.to_string());
    }
}

fn failed(span: &Span, kind: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", kind);
}

/// One attempt at a job; in the trace of the request it follows from, as [`origin`] wrote it down.
pub fn job(kind: &str, id: &str, attempt: i64, origin: Option<&str>) -> Span {
    let span = info_span!(
        target: TARGET,
        "job",
        otel.name = format!("job {kind}"),
        otel.kind = "consumer",
        otel.status_code = Empty,
        job.id = id,
        job.kind = kind,
        job.attempt = attempt,
        "error.type" = Empty,
    );
    if let Some(origin) = origin
        && !span.is_disabled()
    {
        otel::follow(&span, origin);
    }
    span
}

/// A job ended otherwise than it should: `why` is one of a few words.
pub fn job_failed(span: &Span, why: &str) {
    failed(span, why);
}

/// The trace we are in, for jobs that follow from it.
#[must_use]
pub fn origin() -> Option<String> {
    otel::traceparent()
}

/// A part of a request or a job.
pub(super) fn stage(name: &'static str) -> Span {
    info_span!(target: TARGET, "stage", otel.name = name)
}

/// A transaction with a database of this kind. Those that belong to nothing (looks at the queue) are
/// no traces.
pub fn transaction(name: &'static str, system: &'static str) -> Span {
    if Span::current().is_none() {
        return Span::none();
    }
    info_span!(
        target: TARGET,
        "transaction",
        otel.name = name,
        otel.kind = "client",
        db.system.name = system,
    )
}

/// A call to another service. The path and the query of its URL may be secrets, and are not told.
pub fn call(method: &Method, url: &Url) -> Span {
    info_span!(
        target: TARGET,
        "call",
        otel.name = method.as_str(),
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = method.as_str(),
        http.response.status_code = Empty,
        server.address = url.host_str().map(cut),
        server.port = url.port_or_known_default().map(i64::from),
        "error.type" = Empty,
    )
}

/// Tells a service which trace a call to it belongs to. Meant for our own operator's services alone:
/// what others learn of traces is that two calls belong together.
pub fn pass_on(span: &Span, request: &mut Request) {
    if !span.is_disabled() {
        otel::pass_on(span, request.headers_mut());
    }
}

/// A call was answered, or was not.
pub fn called(span: &Span, status: Option<StatusCode>) {
    let Some(status) = status else {
        return failed(span, "unanswered");
    };
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_client_error() || status.is_server_error() {
        failed(span, status.as_str());
    }
}

fn cut(words: &str) -> &str {
    &words[..words.floor_char_boundary(MAX_WORDS)]
}
