//! What handlers take from a request.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::Failure;
use crate::auth::Context;
use crate::service::Service;

/// The caller, put there by `middleware::identify`.
impl<S: Sync> FromRequestParts<S> for Context {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Failure::of(StatusCode::UNAUTHORIZED))
    }
}

/// The variable parts of the path; NUL, which PostgreSQL does not store, is no text.
pub(super) struct At<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        if parts.uri.path().contains("%00") {
            return Err(Failure::undecodable());
        }
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(_)) => Err(Failure::undecodable()),
            Err(_) => Err(Failure::of(StatusCode::INTERNAL_SERVER_ERROR)),
        }
    }
}

/// The request has no body, as it should be here.
pub(super) struct NoBody;

impl<S: Sync> FromRequestParts<S> for NoBody {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        if has_body(&parts.method, &parts.headers) {
            return Err(Failure::bad("A body is not expected with this request."));
        }
        Ok(Self)
    }
}

fn has_body(method: &Method, headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let may = [Method::POST, Method::PUT, Method::PATCH].contains(method);
    length.is_some_and(|n| n != "0") || (chunked && may)
}

/// A JSON body, whatever its media type says. Bounded by `api.max_json` in bytes and by the
/// parser in depth; no text in it holds a NUL.
pub(super) struct Document(pub Value);

impl FromRequest<Arc<Service>> for Document {
    type Rejection = Failure;

    async fn from_request(req: Request, svc: &Arc<Service>) -> Result<Self, Failure> {
        let (parts, body) = req.into_parts();
        if !has_body(&parts.method, &parts.headers) && body.is_end_stream() {
            return Err(Failure::bad("Body expected in request."));
        }
        let bytes = read(body, svc.config.api.max_json).await?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Failure::undecodable())?;
        let value = serde_json::from_str(text)
            .map_err(|_| Failure::bad("Malformed JSON in request body."))?;
        match has_nul(&value) {
            true => Err(Failure::undecodable()),
            false => Ok(Self(value)),
        }
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

async fn read(body: Body, max: usize) -> Result<bytes::Bytes, Failure> {
    match Limited::new(body, max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(e) if e.is::<LengthLimitError>() => Err(Failure::of(StatusCode::PAYLOAD_TOO_LARGE)),
        Err(_) => Err(Failure::bad(
            "The request ended before all of its data came.",
        )),
    }
}

/// A header as text; `None` when it is absent.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Failure> {
    headers
        .get(name)
        .map(|value| std::str::from_utf8(value.as_bytes()).map_err(|_| Failure::undecodable()))
        .transpose()
}
