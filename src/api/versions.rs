//! The version pages, and the way from what a client asks for to `/v2/…`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::json::Json;
use super::tus;
use super::wire::own_url;
use crate::service::Service;

/// The minor versions of the API that this service speaks, newest first, as the reference lists
/// them with several stores and without a cache (`image-api.md` 14): 2.14, 2.16 and 2.18 are about
/// the cache. What else 2.18 adds is here.
const SPOKEN: [u32; 16] = [17, 15, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];

#[derive(Serialize)]
struct Versions {
    versions: Vec<Version>,
}

#[derive(Serialize)]
struct Version {
    id: String,
    status: &'static str,
    links: [Link; 1],
}

#[derive(Clone, Serialize)]
struct Link {
    rel: &'static str,
    href: String,
}

fn page(svc: &Service, headers: &HeaderMap, status: StatusCode) -> Response {
    let link = Link {
        rel: "self",
        href: format!("{}/v2/", own_url(&svc.config, headers)),
    };
    let versions = SPOKEN
        .iter()
        .map(|minor| Version {
            id: format!("v2.{minor}"),
            status: if *minor == SPOKEN[0] {
                "CURRENT"
            } else {
                "SUPPORTED"
            },
            links: [link.clone()],
        })
        .collect();
    (status, Json(Versions { versions })).into_response()
}

/// Answers what has no version, and takes everything else to `/v2/…`.
pub(super) async fn negotiate(
    State(svc): State<Arc<Service>>,
    mut req: Request,
    next: Next,
) -> Response {
    // Answered before anybody is asked who they are, as preflights need it (19-limits-errors.http,
    // "OPTIONS").
    if req.method() == Method::OPTIONS {
        let mut response = StatusCode::OK.into_response();
        if tus::is_upload(req.uri().path()) {
            tus::tell_abilities(response.headers_mut(), svc.config.quota.image_size_cap);
        }
        return response;
    }
    let path = req.uri().path();
    match path {
        "/healthcheck" | "/openapi.json" => return next.run(req).await,
        // And whatever is below it, as in the reference.
        _ if path == "/versions" || path.starts_with("/versions/") => {
            return page(&svc, req.headers(), StatusCode::OK);
        }
        _ => {}
    }
    let by_media_type = req
        .headers()
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .and_then(|accept| accept.strip_prefix("application/vnd.openstack.images-"));
    let (version, rest) = match by_media_type {
        Some(version) => (version, path),
        None => {
            let path = path.strip_prefix('/').unwrap_or(path);
            path.split_at(path.find('/').unwrap_or(path.len()))
        }
    };
    if !is_spoken(version) {
        return page(&svc, req.headers(), StatusCode::MULTIPLE_CHOICES);
    }
    match below_v2(req.uri(), rest) {
        Some(uri) => *req.uri_mut() = uri,
        None => return page(&svc, req.headers(), StatusCode::MULTIPLE_CHOICES),
    }
    next.run(req).await
}

/// `v2`, or a minor version not newer than ours.
fn is_spoken(version: &str) -> bool {
    match version.strip_prefix("v2") {
        Some("") => true,
        Some(minor) => minor
            .strip_prefix('.')
            .filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|n| n.parse::<u32>().ok())
            .is_some_and(|n| n <= SPOKEN[0]),
        None => false,
    }
}

fn below_v2(uri: &Uri, rest: &str) -> Option<Uri> {
    let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(format!("/v2{rest}{query}")).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_are_spoken() {
        for yes in ["v2", "v2.0", "v2.9", "v2.14", "v2.17"] {
            assert!(is_spoken(yes), "{yes}");
        }
        for no in ["", "v1", "v2.", "v2.99", "v2.+1", "v20", "v3", "images"] {
            assert!(!is_spoken(no), "{no}");
        }
    }

    #[test]
    fn paths_keep_their_query() {
        let uri: Uri = "/v2.9/images?a=%20b".parse().unwrap();
        assert_eq!(below_v2(&uri, "/images").unwrap(), "/v2/images?a=%20b");
    }
}
