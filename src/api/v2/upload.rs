//! `/v2/images/{id}/upload`: an image's data by tus 1.0, in requests that go on where the one
//! before was broken off. The last one is answered as `PUT …/file` is: when the image is active, or
//! with what is wrong with the data.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use super::data::{look_up, publish, stream};
use crate::api::error::Failure;
use crate::api::extract::{At, NoBody, text};
use crate::api::wire::own_url;
use crate::api::{orders, tus};
use crate::auth::{Context, policy};
use crate::catalog::images;
use crate::domain::{Image, Part, Resumable, Status};
use crate::ingest::resumable::{self, Error, Turn, Wish};
use crate::ingest::{self, Announced};
use crate::quota::Step;
use crate::service::Service;
use crate::telemetry::counted;
use crate::telemetry::metrics::Direction;

/// `POST /v2/images/{id}/upload`: a new upload, with its first bytes if the client likes.
pub(in crate::api) async fn create(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let request = Request { svc, ctx, headers };
    in_full(async move { request.create(&id, body).await }).await
}

/// `HEAD /v2/images/{id}/upload/{upload}`: where to go on.
pub(in crate::api) async fn show(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((id, upload)): At<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let request = Request { svc, ctx, headers };
    in_full(async move { request.show(&id, &upload).await }).await
}

/// `PATCH /v2/images/{id}/upload/{upload}`: more bytes.
pub(in crate::api) async fn append(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((id, upload)): At<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let request = Request { svc, ctx, headers };
    in_full(async move { request.append(&id, &upload, body).await }).await
}

/// `DELETE /v2/images/{id}/upload/{upload}`: none of it.
pub(in crate::api) async fn remove(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((id, upload)): At<(String, String)>,
    headers: HeaderMap,
    _: NoBody,
) -> Result<Response, Failure> {
    let request = Request { svc, ctx, headers };
    in_full(async move { request.remove(&id, &upload).await }).await
}

struct Request {
    svc: Arc<Service>,
    ctx: Context,
    headers: HeaderMap,
}

/// Does the work of a request to its end, also when its client hangs up: it could not be told
/// otherwise how far it got.
async fn in_full(
    work: impl Future<Output = Result<Response, Failure>> + Send + 'static,
) -> Result<Response, Failure> {
    let done = tokio::spawn(work.in_current_span()).await;
    let failed = |e: tokio::task::JoinError| Err(ingest::Error::Internal(e.to_string()).into());
    tus::said(done.unwrap_or_else(failed))
}

impl Request {
    /// The image, for a caller who may upload its data.
    async fn image(&self, id: &str) -> Result<Image, Failure> {
        tus::spoken(&self.headers)?;
        let image = look_up(&self.svc, &self.ctx, id).await?;
        policy::upload_image(&self.ctx, &image)?;
        Ok(image)
    }

    async fn create(&self, id: &str, body: Body) -> Result<Response, Failure> {
        let (svc, headers) = (&self.svc, &self.headers);
        let image = self.image(id).await?;
        let store = text(headers, "x-image-meta-store")?.unwrap_or(svc.stores.default_id());
        match svc.stores.get(store) {
            None => return Err(ingest::Error::UnknownStore(store.into()).into()),
            Some(s) if s.config.read_only => {
                return Err(ingest::Error::ReadOnlyStore(store.into()).into());
            }
            Some(_) => {}
        }
        let (part, parts) = tus::concat(headers)?;
        let mut turns = Vec::new();
        let size = match part {
            Part::Joined => {
                resumable::are_distinct(&parts)?;
                for part in &parts {
                    turns.push(svc.resumable.turn(part).await?);
                }
                let parts = resumable::parts(svc, &image, &parts).await?;
                let sizes = parts.iter().map(|part| part.size);
                sizes.fold(0, u64::saturating_add)
            }
            Part::Whole | Part::Part => tus::length(headers)?,
        };
        if part != Part::Joined {
            let step = Step::Upload(Some(size));
            let owner = image.owner.as_deref();
            svc.quotas.check(&svc.catalog, owner, step).await?;
        }
        let wish = Wish {
            store: store.to_owned(),
            part,
            size,
            metadata: tus::metadata(headers)?,
            expected: orders::expected_header(headers)?,
            parts,
        };
        let mut upload = resumable::create(svc, &image, wish).await?;
        if let Err(e) = self.begin(&image, &mut upload, body).await {
            // Its client does not know where it is. Parts are still what they are.
            upload.parts.clear();
            resumable::remove(svc, &upload).await?;
            return Err(e);
        }
        let path = format!("/v2/images/{}/upload", image.id);
        let mut response = StatusCode::CREATED.into_response();
        let answer = response.headers_mut();
        tus::tell(answer, &upload, &path);
        let url = format!("{}{path}/{}", own_url(&svc.config, headers), upload.id);
        if let Ok(url) = url.parse() {
            answer.insert(header::LOCATION, url);
        }
        Ok(response)
    }

    /// Takes what came with the creation.
    async fn begin(
        &self,
        image: &Image,
        upload: &mut Resumable,
        body: Body,
    ) -> Result<(), Failure> {
        let mut turn = self.svc.resumable.turn(&upload.id).await?;
        let kind = text(&self.headers, header::CONTENT_TYPE.as_str())?;
        if kind == Some(tus::OCTETS) && upload.part != Part::Joined {
            self.take(&mut turn, upload, body).await?;
        }
        self.complete(image, upload).await
    }

    async fn show(&self, id: &str, upload: &str) -> Result<Response, Failure> {
        let image = self.image(id).await?;
        let _turn = self.svc.resumable.turn(upload).await?;
        let upload = resumable::find(&self.svc, &image, upload).await?;
        // All bytes are here and nobody was told what became of them.
        self.complete(&image, &upload).await?;
        let mut response = StatusCode::OK.into_response();
        let answer = response.headers_mut();
        tus::tell(answer, &upload, &format!("/v2/images/{}/upload", image.id));
        answer.insert(
            header::CACHE_CONTROL,
            header::HeaderValue::from_static("no-store"),
        );
        Ok(response)
    }

    async fn append(&self, id: &str, upload: &str, body: Body) -> Result<Response, Failure> {
        let image = self.image(id).await?;
        let kind = text(&self.headers, header::CONTENT_TYPE.as_str())?;
        if kind != Some(tus::OCTETS) {
            let sentence = format!("Invalid content type {}", kind.unwrap_or("None"));
            return Err(Failure::media_type(kind, sentence));
        }
        let said = tus::offset(&self.headers)?;
        let mut turn = self.svc.resumable.turn(upload).await?;
        let mut upload = resumable::find(&self.svc, &image, upload).await?;
        if upload.part == Part::Joined {
            let sentence = "An upload put together from others takes no bytes.";
            return Err(Failure::new(StatusCode::FORBIDDEN, sentence));
        }
        if said != upload.received {
            let has = upload.received;
            return Err(Error::Offset { has, said }.into());
        }
        if !upload.is_complete() {
            self.take(&mut turn, &mut upload, body).await?;
        }
        self.complete(&image, &upload).await?;
        let mut response = StatusCode::NO_CONTENT.into_response();
        let path = format!("/v2/images/{}/upload", image.id);
        tus::tell(response.headers_mut(), &upload, &path);
        Ok(response)
    }

    async fn remove(&self, id: &str, upload: &str) -> Result<Response, Failure> {
        let image = self.image(id).await?;
        let _turn = self.svc.resumable.turn(upload).await?;
        let upload = resumable::find(&self.svc, &image, upload).await?;
        resumable::remove(&self.svc, &upload).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// Takes the bytes of this request.
    async fn take(
        &self,
        turn: &mut Turn,
        upload: &mut Resumable,
        body: Body,
    ) -> Result<(), Failure> {
        let checksum = tus::checksum(&self.headers)?;
        let length = text(&self.headers, header::CONTENT_LENGTH.as_str())?;
        let length = length.and_then(|n| n.parse().ok()).unwrap_or(0);
        if upload.size - upload.received < length {
            let size = upload.size;
            return Err(Error::TooMuch { size }.into());
        }
        let body = counted(&self.svc.metrics, Direction::In, stream(body), |_| {});
        resumable::receive(&self.svc, turn, upload, body, checksum.as_ref()).await?;
        Ok(())
    }

    /// Makes what is complete the image's data, unless it is only a part, or is that already.
    async fn complete(&self, image: &Image, upload: &Resumable) -> Result<(), Failure> {
        if upload.done || upload.part == Part::Part || !upload.is_complete() {
            return Ok(());
        }
        let svc = &self.svc;
        let body = resumable::data(svc, image, upload).await?;
        let announced = Announced {
            size: Some(upload.size),
            digest: upload.expected.clone(),
        };
        let published = publish(svc, &self.ctx, image, body, announced, &upload.store).await;
        match published {
            Ok(()) => {}
            Err(ingest::Error::Illegal(_)) if self.has_already(image, upload).await? => {}
            Err(e) => {
                if is_final(&e) {
                    resumable::remove(svc, upload).await?;
                }
                return Err(e.into());
            }
        }
        resumable::finish(svc, upload).await?;
        Ok(())
    }

    /// Whether the image has got the very data of an upload: we died before that was noted.
    async fn has_already(&self, image: &Image, upload: &Resumable) -> Result<bool, Failure> {
        let svc = &self.svc;
        let mut tx = svc.catalog.read().await?;
        let now = images::find(&mut tx, &image.id).await?;
        drop(tx);
        let now = now.filter(|i| i.status == Status::Active && i.size == Some(upload.size));
        let Some(hashes) = now.and_then(|image| image.hashes) else {
            return Ok(false);
        };
        let Ok(algo) = hashes.algo.parse() else {
            return Ok(false);
        };
        let body = resumable::data(svc, image, upload).await?;
        let (_, ours) = ingest::digest(body, algo).await?;
        Ok(ours.value == hashes.value)
    }
}

/// Whether the data is at fault: sent again it would be refused again.
const fn is_final(error: &ingest::Error) -> bool {
    use ingest::Error as E;
    matches!(
        error,
        E::Refused { .. } | E::OtherDigest(_) | E::NotImported(_) | E::TooLarge { .. } | E::Gone
    )
}
