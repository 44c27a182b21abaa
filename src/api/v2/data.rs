//! `/v2/images/{id}/file` and `/v2/images/{id}/stage`: bytes in and out, never held whole.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, TryStreamExt};
use serde_json::json;

use super::import::injects;
use super::{derived, empty, must_find, not_found};
use crate::api::connections::Peer;
use crate::api::error::Failure;
use crate::api::extract::{At, NoBody, text};
use crate::api::range::{self, Refused};
use crate::api::{orders, query};
use crate::auth::{Context, policy};
use crate::catalog::{self, outbox};
use crate::convert::Form;
use crate::derive::{Order, Wish};
use crate::domain::{Image, Status};
use crate::ingest::{self, Announced, ImportRequest};
use crate::notify::payload;
use crate::quota::Step;
use crate::service::Service;
use crate::telemetry::counted;
use crate::telemetry::metrics::Direction;

pub(super) const OCTETS: &str = "application/octet-stream";
/// The event of a download that ended.
const SEND: &str = "image.send";

/// `PUT /v2/images/{id}/file`
pub(in crate::api) async fn upload(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let announced = announced(&headers)?;
    let size = announced.size;
    let image = look_up(&svc, &ctx, &id).await?;
    policy::upload_image(&ctx, &image)?;
    let store = match text(&headers, "x-image-meta-store")? {
        Some(store) => store,
        None => svc.stores.default_id(),
    };
    if svc.stores.get(store).is_none() {
        return Err(ingest::Error::UnknownStore(store.to_owned()).into());
    }
    let owner = image.owner.as_deref();
    let step = Step::Upload(size);
    svc.quotas.check(&svc.catalog, owner, step).await?;
    let body = counted(&svc.metrics, Direction::In, stream(body), |_| {});
    publish(&svc, &ctx, &image, body, announced, store).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Makes `body` the image's data, in `store`: converted and injected like an import where uploads
/// are to be.
pub(super) async fn publish(
    svc: &Arc<Service>,
    ctx: &Context,
    image: &Image,
    body: ingest::Body,
    announced: Announced,
    store: &str,
) -> Result<(), ingest::Error> {
    let stores = vec![store.to_owned()];
    let import = &svc.config.import;
    let form = Form::of(&svc.config, &stores, None).map_err(ingest::Error::NotImported)?;
    if import.convert_on_upload && (form.is_some() || import.decompress) {
        let request = ImportRequest {
            import_req: json!({"method": {"name": "upload"}}),
            stores,
            all_stores_must_succeed: true,
            inject: injects(svc, ctx),
            ..ImportRequest::default()
        };
        ingest::upload_converting(svc, &image.id, body, announced, request, ctx).await
    } else {
        ingest::upload(svc, &image.id, body, announced, store).await
    }
}

/// `PUT /v2/images/{id}/stage`
pub(in crate::api) async fn stage(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    if !svc
        .config
        .import
        .methods
        .iter()
        .any(|m| m == "glance-direct")
    {
        return Err(Failure::of(StatusCode::NOT_FOUND));
    }
    let announced = announced(&headers)?;
    let image = look_up(&svc, &ctx, &id).await?;
    policy::modify_image(&ctx, &image)?;
    let owner = image.owner.as_deref();
    svc.quotas.check(&svc.catalog, owner, Step::Stage).await?;
    let body = counted(&svc.metrics, Direction::In, stream(body), |_| {});
    ingest::stage(&svc, &image.id, body, announced).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) async fn look_up(svc: &Service, ctx: &Context, id: &str) -> Result<Image, Failure> {
    let mut tx = svc.catalog.read().await?;
    must_find(&mut tx, ctx, id).await
}

/// Checks the media type; answers what the client says of its data. For the bytes to come its
/// `x-openstack-image-size` counts before `Content-Length`, of which 0 says nothing.
fn announced(headers: &HeaderMap) -> Result<Announced, Failure> {
    let kind = text(headers, header::CONTENT_TYPE.as_str())?;
    if kind != Some(OCTETS) {
        let sentence = format!("Invalid content type {}", kind.unwrap_or("None"));
        return Err(Failure::media_type(kind, sentence));
    }
    let digest = orders::expected_header(headers)?;
    if let Some(size) = text(headers, "x-openstack-image-size")? {
        let size = size.trim().parse().map_err(|_| {
            Failure::bad(format!(
                "Invalid image size {size}: it must be a number of bytes"
            ))
        })?;
        return Ok(Announced {
            size: Some(size),
            digest,
        });
    }
    let length = text(headers, header::CONTENT_LENGTH.as_str())?;
    let size = length.and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    Ok(Announced { size, digest })
}

pub(super) fn stream(body: Body) -> ingest::Body {
    body.into_data_stream().map_err(io::Error::other).boxed()
}

/// What others are told once a download has ended.
struct Told {
    svc: Arc<Service>,
    image: String,
    owner: Option<String>,
    ctx: Context,
    peer: Option<String>,
}

impl Told {
    /// Notes `image.send`, beside the answer: it is over.
    fn tell(self, bytes: u64) {
        let wanted = self.svc.catalog.events().is_some_and(|e| e.wants(SEND));
        if wanted && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = self.note(bytes).await {
                    tracing::error!(image.id = self.image, %error, "a download could not be told");
                }
            });
        }
    }

    async fn note(&self, bytes: u64) -> Result<(), catalog::Error> {
        let sent = payload::Sent {
            image: &self.image,
            owner: self.owner.as_deref(),
            user: self.ctx.user.as_deref(),
            project: self.ctx.project.as_deref(),
            address: self.peer.as_deref(),
            bytes,
        };
        let mut tx = self.svc.catalog.write().await?;
        outbox::note(&mut tx, SEND, || payload::sent(&sent)).await?;
        tx.commit().await
    }
}

/// `GET /v2/images/{id}/file`
pub(in crate::api) async fn download(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    peer: Option<Extension<Peer>>,
    _: NoBody,
) -> Result<Response, Failure> {
    let query = query.unwrap_or_default();
    let query = query::pairs(&query).ok_or_else(Failure::undecodable)?;
    let prefer = preferred(&query);
    let image = look_up(&svc, &ctx, &id).await?;
    policy::download_image(&ctx, &image)?;
    if !prefer.is_empty() {
        policy::download_from_store(&ctx, &image)?;
    }
    if let Some(unknown) = prefer.iter().find(|id| svc.stores.get(id).is_none()) {
        return Err(ingest::Error::UnknownStore(unknown.clone()).into());
    }
    unless_deactivated(&ctx, &image)?;
    let size = match image.size {
        Some(size) if !image.locations.is_empty() => size,
        _ => return Ok(StatusCode::NO_CONTENT.into_response()),
    };
    let told = Told {
        svc: svc.clone(),
        image: image.id.to_string(),
        owner: image.owner.clone(),
        ctx,
        peer: peer.map(|Extension(Peer(address))| address.ip().to_string()),
    };
    if let Some(wish) = Wish::parse(&query, &image)? {
        let order = Order::new(&svc, vec![image], wish)?;
        return derived::send(&svc, order, &headers, move |n| told.tell(n)).await;
    }
    let range = range::requested(&headers, size).map_err(refused)?;
    let wanted = range.clone().unwrap_or(0..size);
    let length = wanted.end - wanted.start;
    let body = match ingest::download(&svc, &image, wanted, &prefer).await {
        Ok(body) => body,
        Err(ingest::Error::NoData) => {
            tracing::error!(image.id = %image.id, "the data of image {} is missing", image.id);
            return Err(not_found(format!(
                "Image {id} has no data that can be found"
            )));
        }
        Err(e) => return Err(e.into()),
    };

    let body = counted(&svc.metrics, Direction::Out, body, move |n| told.tell(n));
    let mut response = Response::new(Body::from_stream(body));
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(OCTETS));
    answer.insert(header::CONTENT_LENGTH, length.into());
    // Of the whole image, even where a part is sent, and hexadecimal: clients rely on both
    // (05-download.http).
    if let Some(checksum) = image.hashes.and_then(|h| h.checksum?.parse().ok()) {
        answer.insert(HeaderName::from_static("content-md5"), checksum);
    }
    if let Some(range) = range {
        let part = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        if let Ok(part) = part.parse() {
            answer.insert(header::CONTENT_RANGE, part);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// `HEAD /v2/images/{id}/file` of an image in another form. As it is stored the reference has none.
pub(in crate::api) async fn look_at(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let query = query.unwrap_or_default();
    let query = query::pairs(&query).ok_or_else(Failure::undecodable)?;
    if !Wish::is_any(&query) {
        return Err(Failure::method(Method::HEAD, "GET, PUT"));
    }
    let image = look_up(&svc, &ctx, &id).await?;
    policy::download_image(&ctx, &image)?;
    unless_deactivated(&ctx, &image)?;
    let wish = Wish::parse(&query, &image)?;
    if image.size.is_none() || image.locations.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    match wish {
        None => Ok(derived::describe(Body::empty(), image.size)),
        Some(wish) => derived::tell(&svc, &Order::new(&svc, vec![image], wish)?).await,
    }
}

pub(super) fn unless_deactivated(ctx: &Context, image: &Image) -> Result<(), Failure> {
    if image.status == Status::Deactivated && !ctx.is_admin {
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            "The requested image has been deactivated. Image data download is forbidden.",
        ));
    }
    Ok(())
}

/// `?prefer=a,b`: the stores to read from, best first.
fn preferred(query: &[(String, String)]) -> Vec<String> {
    let list = query.iter().find(|(name, _)| name == "prefer");
    let list = list.map_or("", |(_, value)| value);
    let ids = list.split(',').map(str::trim).filter(|id| !id.is_empty());
    ids.map(str::to_owned).collect()
}

pub(super) fn refused(why: Refused) -> Failure {
    match why {
        Refused::Several => Failure::bad(
            "Requests with multiple ranges are not supported in Glance. You may make multiple \
             single-range requests instead.",
        ),
        Refused::Unsatisfiable(sentence) => {
            Failure::detail(StatusCode::RANGE_NOT_SATISFIABLE, sentence)
        }
    }
}
