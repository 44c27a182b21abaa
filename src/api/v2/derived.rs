//! Images in another form than they are stored in: `?disk_format=`, `?container_format=`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE, RETRY_AFTER,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::stream;

use super::data::{OCTETS, refused};
use crate::api::error::Failure;
use crate::api::range;
use crate::derive::{Error, Order};
use crate::service::Service;
use crate::telemetry::counted;
use crate::telemetry::metrics::Direction;

/// When whoever found all conversions busy may ask again.
const RETRY_AFTER_SECONDS: &str = "10";

/// The bytes ordered, or the range of them that `headers` ask for; `told` hears how many went out.
pub(super) async fn send(
    svc: &Arc<Service>,
    order: Order,
    headers: &HeaderMap,
    told: impl FnOnce(u64) + Send + 'static,
) -> Result<Response, Failure> {
    let derivation = order.begin(svc).await?;
    let asks_for_part = headers.contains_key(RANGE) || headers.contains_key(CONTENT_RANGE);
    let size = derivation.size(asks_for_part).await?;
    // Where the size is not known there are no ranges, and all is sent (RFC 9110 14.2).
    let range = match size {
        Some(size) => range::requested(headers, size).map_err(refused)?,
        None => None,
    };
    let body = derivation.read(svc, range.clone()).await?;
    let body = counted(&svc.metrics, Direction::Out, body, told);
    let mut response = describe(Body::from_stream(body), size);
    if let (Some(range), Some(size)) = (range, size) {
        let answer = response.headers_mut();
        answer.insert(CONTENT_LENGTH, (range.end - range.start).into());
        let part = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        if let Ok(part) = part.parse() {
            answer.insert(CONTENT_RANGE, part);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// What is known of the bytes ordered, with none of them made.
pub(super) async fn tell(svc: &Service, order: &Order) -> Result<Response, Failure> {
    // An empty body would say that there are no bytes.
    let untold = Body::from_stream(stream::empty::<Result<bytes::Bytes, Infallible>>());
    Ok(describe(untold, order.size(svc).await?))
}

pub(super) fn describe(body: Body, size: Option<u64>) -> Response {
    let mut response = Response::new(body);
    let answer = response.headers_mut();
    answer.insert(CONTENT_TYPE, HeaderValue::from_static(OCTETS));
    if let Some(size) = size {
        answer.insert(CONTENT_LENGTH, size.into());
        answer.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    response
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Wish(sentence) => Self::bad(sentence),
            Error::Unfit(sentence) => Self::new(StatusCode::CONFLICT, sentence),
            Error::Off => Self::new(StatusCode::FORBIDDEN, error.to_string()),
            Error::NoData => Self::new(StatusCode::NOT_FOUND, error.to_string()),
            Error::Busy => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
                .with(RETRY_AFTER, RETRY_AFTER_SECONDS),
            Error::Unavailable => {
                Self::of(StatusCode::SERVICE_UNAVAILABLE).with(RETRY_AFTER, RETRY_AFTER_SECONDS)
            }
            Error::Ours(cause) => {
                tracing::error!(error = cause, "a conversion on demand failed");
                Self::of(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}
