//! What every request passes, outermost first: [`pages`] (errors become pages),
//! [`observe::count`] (numbers and the log), [`linger`] (a refused upload is read on for a while),
//! [`versions::negotiate`](super::versions) (paths to `/v2/…`), [`identify`] (who asks).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Wake, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tracing::Instrument;

use super::error::Failure;
use super::observe;
use crate::auth::{Context, Identity, Proof, Refusal};
use crate::service::Service;

/// The header that names a request.
pub(super) const REQUEST_ID: &str = "x-openstack-request-id";
/// The verbs that are understood.
pub(super) const KNOWN: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::PATCH,
];
/// `max_request_id_length` of the reference, in bytes.
const MAX_REQUEST_ID: usize = 64;

/// Turns a [`Failure`] into the page that the request's `Accept` asks for.
pub(super) async fn pages(req: Request, next: Next) -> Response {
    let method = req.method().clone();
    let mut accept = HeaderMap::new();
    for value in req.headers().get_all(header::ACCEPT) {
        accept.append(header::ACCEPT, value.clone());
    }
    let mut response = next.run(req).await;
    let Some(failure) = response.extensions_mut().remove::<Failure>() else {
        return response;
    };
    let mut page = failure.page(&method, &accept);
    if let Some(id) = response.headers_mut().remove(REQUEST_ID) {
        page.headers_mut().insert(REQUEST_ID, id);
    }
    page
}

/// Finds out who asks, gives the request its id, and refuses verbs that nobody knows.
pub(super) async fn identify(
    State((svc, identity)): State<(Arc<Service>, Arc<Identity>)>,
    req: Request,
    next: Next,
) -> Response {
    let route = req.extensions().get::<MatchedPath>().cloned();
    let mut response = match request_id(req.headers()) {
        Ok(id) => {
            let span = observe::span(&req, &id);
            identified(&svc, &identity, id, req, next)
                .instrument(span)
                .await
        }
        Err(failure) => failure.into_response(),
    };
    observe::leave_route(route, &mut response);
    response
}

async fn identified(
    svc: &Service,
    identity: &Identity,
    request_id: String,
    mut req: Request,
    next: Next,
) -> Response {
    let token = req.headers().get("x-auth-token").cloned();
    let service = req.headers().get("x-service-token").cloned();
    let proof = Proof {
        token: token.as_ref().map(HeaderValue::as_bytes),
        service: service.as_ref().map(HeaderValue::as_bytes),
    };
    let mut ctx = match identity.of(proof, svc.policies.current()).await {
        Ok(ctx) => ctx,
        Err(Refusal::Unknown) if svc.config.auth.allow_anonymous_access => {
            Context::anonymous(svc.policies.current())
        }
        Err(refusal) => return refused(&refusal, svc).into_response(),
    };
    let header = HeaderValue::from_str(&request_id).ok();
    ctx.request_id = request_id;
    let changes = ![Method::GET, Method::HEAD].contains(req.method());
    let mut response = if ctx.read_only && changes {
        Failure::new(StatusCode::FORBIDDEN, "Read-only access").into_response()
    } else if KNOWN.contains(req.method()) {
        req.extensions_mut().insert(ctx);
        next.run(req).await
    } else {
        Failure::not_implemented(req.method().clone()).into_response()
    };
    if let Some(header) = header {
        response.headers_mut().insert(REQUEST_ID, header);
    }
    response
}

fn refused(refusal: &Refusal, svc: &Service) -> Failure {
    match refusal {
        Refusal::Unknown => {
            let failure = Failure::of(StatusCode::UNAUTHORIZED);
            match svc.config.auth.www_authenticate() {
                Some(uri) => {
                    failure.with(header::WWW_AUTHENTICATE, &format!("Keystone uri=\"{uri}\""))
                }
                None => failure,
            }
        }
        Refusal::Unavailable => {
            Failure::of(StatusCode::SERVICE_UNAVAILABLE).with(header::RETRY_AFTER, "5")
        }
    }
}

/// The caller's id of this request, so that one id follows a call through all services, or a new
/// one.
fn request_id(headers: &HeaderMap) -> Result<String, Failure> {
    let given = headers
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| !id.is_empty());
    match given {
        Some(id) if id.len() > MAX_REQUEST_ID => Err(Failure::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            format!("x-openstack-request-id is too long, max size {MAX_REQUEST_ID}"),
        )),
        Some(id) if id.starts_with("req-") => Ok(id.to_owned()),
        Some(id) => Ok(format!("req-{id}")),
        None => Ok(format!("req-{}", uuid::Uuid::new_v4())),
    }
}

/// Bytes, and time, for which the rest of a refused upload is read on.
const LINGER_BYTES: u64 = 1 << 30;
const LINGER: Duration = Duration::from_secs(60);

/// Keeps reading a body that the handler did not want to the end, within bounds.
///
/// Most clients send all they have before they look at an answer. Were the connection closed under
/// them they would report a broken pipe instead of the reason of the refusal. The answer itself
/// goes out at once; reading on happens beside it.
pub(super) async fn linger(req: Request, next: Next) -> Response {
    let (parts, body) = req.into_parts();
    if body.is_end_stream() {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let body = Lingering {
        waits_for_us: parts.headers.contains_key(header::EXPECT),
        body: Some(body),
    };
    next.run(Request::from_parts(parts, Body::new(body))).await
}

struct Lingering {
    body: Option<Body>,
    /// The client sends nothing until we begin to read (`Expect: 100-continue`), and we have not.
    waits_for_us: bool,
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        wake: &mut Wake<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.waits_for_us = false;
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(wake);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|b| !b.is_end_stream()) else {
            return;
        };
        if self.waits_for_us {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(LINGER, discard(body)));
        }
    }
}

async fn discard(mut body: Body) {
    let mut left = LINGER_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let got = frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(rest) = left.checked_sub(got) else {
            return;
        };
        left = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_bounded_and_prefixed() {
        let of = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, id.parse().unwrap());
            request_id(&headers)
        };
        assert_eq!(of("req-1").unwrap(), "req-1");
        assert_eq!(of("abc").unwrap(), "req-abc");
        assert!(of(&"x".repeat(65)).is_err());
        let new = request_id(&HeaderMap::new()).unwrap();
        assert_eq!(new.len(), "req-".len() + 36);
    }

    /// A stream that counts how often it is asked.
    fn counted(asked: Arc<std::sync::atomic::AtomicUsize>) -> Body {
        Body::from_stream(futures_util::stream::iter((0..5).map(move |_| {
            asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok::<_, std::convert::Infallible>(Bytes::from_static(b"12345"))
        })))
    }

    async fn asked_after_drop(waits_for_us: bool) -> usize {
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        drop(Lingering {
            body: Some(counted(asked.clone())),
            waits_for_us,
        });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        asked.load(std::sync::atomic::Ordering::SeqCst)
    }

    #[tokio::test]
    async fn what_nobody_reads_is_read_to_the_end() {
        assert_eq!(asked_after_drop(false).await, 5);
    }

    #[tokio::test]
    async fn a_client_that_waits_is_not_told_to_go_on() {
        assert_eq!(asked_after_drop(true).await, 0);
    }
}
