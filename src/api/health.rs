//! `/healthcheck`: asked by load balancers, so nobody has to say who they are.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::service::Service;

/// `GET /healthcheck`: 503 once the operator has put the file there that takes us out of service.
pub(super) async fn check(State(svc): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let is_disabled = match &svc.config.api.healthcheck_disable_file {
        Some(path) => tokio::fs::try_exists(path).await.unwrap_or(false),
        None => false,
    };
    let (status, reason) = if is_disabled {
        (StatusCode::SERVICE_UNAVAILABLE, "DISABLED BY FILE")
    } else {
        (StatusCode::OK, "OK")
    };
    let accept = headers.get(header::ACCEPT).map(HeaderValue::as_bytes);
    let wants = |kind: &str| accept.is_some_and(|a| a.starts_with(kind.as_bytes()));
    let (kind, body) = if wants("application/json") {
        (
            "application/json",
            format!(
                "{{\n    \"detailed\": false,\n    \"reasons\": [\n        \"{reason}\"\n    ]\n}}"
            ),
        )
    } else if wants("text/html") {
        (
            "text/html; charset=UTF-8",
            format!(
                "<HTML>\n<HEAD><TITLE>Healthcheck Status</TITLE></HEAD>\n<BODY>\n\n<H2>Result of 1 \
                 checks:</H2>\n<TABLE bgcolor=\"#ffffff\" border=\"1\">\n<TBODY>\n<TR>\n\n<TH>\n\
                 Reason\n</TH>\n</TR>\n<TR>\n    <TD>{reason}</TD>\n</TR>\n</TBODY>\n</TABLE>\n\
                 <HR></HR>\n\n</BODY>\n</HTML>"
            ),
        )
    } else {
        ("text/plain; charset=UTF-8", reason.to_owned())
    };
    (status, [(header::CONTENT_TYPE, kind)], body).into_response()
}
