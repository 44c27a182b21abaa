//! What operators learn of a request: a number, a span that all log lines of the request carry, and a
//! line of its own.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use tracing::{Instrument, Span};

use super::middleware::{KNOWN, REQUEST_ID};
use crate::service::Service;
use crate::telemetry::trace;

/// The label of requests that no route took.
const NO_ROUTE: &str = "none";

/// Counts a request, traces it and logs it. Sits where errors are not yet pages: those know nothing of routes.
pub(super) async fn count(State(svc): State<Arc<Service>>, req: Request, next: Next) -> Response {
    let since = Instant::now();
    let open = svc.metrics.request();
    let method = req.method().clone();
    let path = req.uri().path().to_owned();
    // Verbs are the client's words; those that nobody knows are one.
    let known = KNOWN.contains(&method) || method == Method::OPTIONS;
    let known = known.then_some(&method);
    let traced = trace::request(known, &req);
    let response = next.run(req).instrument(traced.clone()).await;
    drop(open);

    let took = since.elapsed();
    let code = response.status().as_u16();
    let route = response.extensions().get::<MatchedPath>();
    let route = route.map(MatchedPath::as_str);
    let id = request_id(response.headers());
    trace::answered(&traced, known, route, code, id);
    let verb = known.map_or("other", Method::as_str);
    svc.metrics
        .answered(verb, route.unwrap_or(NO_ROUTE), code, took);
    if svc.config.log.access {
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            target: "glint::access",
            {
                request.id = id,
                http.method = %method,
                http.path = path,
                http.status = code,
                duration_ms,
            },
            "{method} {path} is answered {code}"
        );
    }
    response
}

fn request_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(REQUEST_ID)?.to_str().ok()
}

/// The span of a request. What is logged in it carries its fields.
pub(super) fn span(req: &Request, request_id: &str) -> Span {
    tracing::info_span!(
        "request",
        request.id = request_id,
        http.method = %req.method(),
        http.path = req.uri().path(),
    )
}

/// Leaves the route where [`count`] finds it.
pub(super) fn leave_route(route: Option<MatchedPath>, response: &mut Response) {
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
}
