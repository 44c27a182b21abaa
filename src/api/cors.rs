//! Requests from pages of other origins (`image-api.md` 15): Horizon uploads straight from the
//! browser. Preflights are answered before anybody is asked who they are.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::config::Cors;
use crate::service::Service;

/// Headers every page may send.
const SIMPLE: [&str; 8] = [
    "accept",
    "accept-language",
    "content-type",
    "cache-control",
    "content-language",
    "expires",
    "last-modified",
    "pragma",
];

/// Answers preflights, and tells the browser who may read the answer.
pub(super) async fn share(State(svc): State<Arc<Service>>, req: Request, next: Next) -> Response {
    let rules = &svc.config.cors;
    let Some(origin) = allowed_origin(rules, req.headers()) else {
        return next.run(req).await;
    };
    let wanted = req.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match wanted {
        Some(method) if req.method() == Method::OPTIONS => {
            let mut answer = StatusCode::OK.into_response();
            let asked = req.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS);
            if !preflight(rules, method, asked, answer.headers_mut()) {
                return answer;
            }
            answer
        }
        _ => {
            let mut answer = next.run(req).await;
            let exposed = rules.expose_headers.join(",");
            set(
                answer.headers_mut(),
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                &exposed,
            );
            answer
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if rules.allow_credentials {
        set(headers, header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    }
    response
}

/// The origin of the request, where it may ask.
fn allowed_origin(rules: &Cors, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let text = origin.to_str().ok()?;
    let is_allowed = rules.allowed_origins.iter().any(|o| o == "*" || o == text);
    is_allowed.then(|| origin.clone())
}

/// What a preflight is told; false where the request that follows it is not allowed.
fn preflight(
    rules: &Cors,
    method: &HeaderValue,
    asked: Option<&HeaderValue>,
    answer: &mut HeaderMap,
) -> bool {
    let method = method.to_str().unwrap_or_default();
    if !rules.allow_methods.iter().any(|m| m == method) {
        return false;
    }
    let asked = asked.and_then(|a| a.to_str().ok()).unwrap_or_default();
    let is_allowed = |name: &str| {
        SIMPLE.iter().any(|s| s.eq_ignore_ascii_case(name))
            || rules
                .allow_headers
                .iter()
                .any(|h| h.eq_ignore_ascii_case(name))
    };
    let names: Vec<_> = asked
        .split(',')
        .map(str::trim)
        .filter(|n| !n.is_empty())
        .collect();
    if !names.iter().all(|name| is_allowed(name)) {
        return false;
    }
    set(answer, header::ACCESS_CONTROL_ALLOW_METHODS, method);
    if !names.is_empty() {
        set(
            answer,
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            &names.join(","),
        );
    }
    set(
        answer,
        header::ACCESS_CONTROL_MAX_AGE,
        &rules.max_age.to_string(),
    );
    true
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preflights_are_held_against_the_rules() {
        let rules = Cors::default();
        let ask = |method: &'static str, headers: &'static str| {
            let mut answer = HeaderMap::new();
            let asked = HeaderValue::from_static(headers);
            let method = HeaderValue::from_static(method);
            preflight(&rules, &method, Some(&asked), &mut answer)
        };
        assert!(ask("PUT", "content-type, x-auth-token"));
        assert!(ask("GET", ""));
        assert!(!ask("PUT", "x-evil"));
        assert!(!ask("BREW", ""));
    }

    #[test]
    fn only_named_origins_are_shared_with() {
        let mut rules = Cors::default();
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ORIGIN,
            HeaderValue::from_static("https://a.example"),
        );
        assert!(allowed_origin(&rules, &headers).is_none());
        rules.allowed_origins = vec!["https://b.example".into()];
        assert!(allowed_origin(&rules, &headers).is_none());
        rules.allowed_origins.push("https://a.example".into());
        assert!(allowed_origin(&rules, &headers).is_some());
    }
}
