//! `/v2/images` and `/v2/images/{id}`.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::{FromRequest, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::{empty, find, must_find, not_found};
use crate::api::error::Failure;
use crate::api::extract::{At, Document, NoBody, text};
use crate::api::json::Json;
use crate::api::patch::{self, Dialect};
use crate::api::wire::{ImageList, ImageView, own_url};
use crate::api::{locations, properties, query, schema};
use crate::auth::protections::Act;
use crate::auth::{Context, policy};
use crate::catalog::{self, Filter, ListQuery, Viewer, images, locations as rows};
use crate::domain::{Image, ImageId, Timestamp};
use crate::ingest;
use crate::quota::Step;
use crate::service::Service;

/// `POST /v2/images`
pub(in crate::api) async fn create(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    headers: HeaderMap,
    Document(body): Document,
) -> Result<Response, Failure> {
    let Value::Object(body) = body else {
        return Err(Failure::bad("Request body must be a JSON object."));
    };
    properties::refuse_links(&body)?;
    schema::validate(&schema::image(&svc.config.formats), &body).map_err(Failure::bad)?;
    let owner = match body.get("owner") {
        Some(owner) => owner.as_str().map(str::to_owned),
        None => ctx.project.clone(),
    };
    let id = match body.get("id").and_then(Value::as_str) {
        Some(id) => id.parse().map_err(|_| Failure::bad("Invalid image id"))?,
        None => ImageId::random(),
    };
    let mut image = Image::new(id, owner, Timestamp::now());
    let blank = image.clone();
    let caller = properties::Caller {
        ctx: &ctx,
        protections: &svc.protections,
    };
    properties::fill(&caller, &mut image, body)?;
    authorise_creation(&ctx, &image)?;
    properties::within_quota(&svc.config.quota, &blank, &image)?;

    let owner = image.owner.as_deref();
    svc.quotas
        .check(&svc.catalog, owner, Step::Create(1))
        .await?;

    let mut tx = svc.catalog.write().await?;
    match images::insert(&mut tx, &image).await {
        Ok(()) => tx.commit().await?,
        Err(catalog::Error::Conflict(_)) => {
            return Err(Failure::new(
                StatusCode::CONFLICT,
                format!("Image ID {} already exists!", image.id),
            ));
        }
        Err(e) => return Err(e.into()),
    }
    tracing::info!(image.id = %image.id, "image {} is created", image.id);

    let mut response = (
        StatusCode::CREATED,
        Json(ImageView::new(&image, &ctx, &svc)),
    )
        .into_response();
    let url = format!("{}/v2/images/{}", own_url(&svc.config, &headers), image.id);
    let methods = svc.config.import.methods.join(",");
    let stores: Vec<_> = svc.config.stores.iter().map(|s| s.id.as_str()).collect();
    for (name, value) in [
        (header::LOCATION, url),
        (
            HeaderName::from_static("openstack-image-import-methods"),
            methods,
        ),
        (
            HeaderName::from_static("openstack-image-store-ids"),
            stores.join(","),
        ),
    ] {
        if let Ok(value) = HeaderValue::try_from(value)
            && !value.is_empty()
        {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

fn authorise_creation(ctx: &Context, image: &Image) -> Result<(), Failure> {
    let owner = image.owner.as_deref();
    if let Err(denied) = policy::add_image(ctx, owner) {
        if owner == ctx.project.as_deref() {
            return Err(denied.into());
        }
        let sentence = format!(
            "You are not permitted to create images owned by '{}'",
            owner.unwrap_or("None")
        );
        return Err(Failure::detail(StatusCode::FORBIDDEN, sentence));
    }
    Ok(policy::publish(ctx, image)?)
}

/// `GET /v2/images`
pub(in crate::api) async fn list(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let params = query::pairs(&query.unwrap_or_default()).ok_or_else(Failure::undecodable)?;
    let listing = query::parse(params, &svc.config.api).map_err(Failure::bad)?;
    policy::get_images(&ctx)?;

    let mut tx = svc.catalog.read().await?;
    let marker = match &listing.marker {
        Some(id) => {
            let marker = find(&mut tx, &ctx, id).await?;
            Some(marker.ok_or_else(|| Failure::bad(format!("No image found with ID {id}")))?)
        }
        None => None,
    };
    // A property that the caller may not read has no value to be guessed.
    let readable = |filter: &Filter| match filter {
        Filter::Property(name, _) if !svc.protections.allows(Act::Read, name, &ctx) => {
            Filter::Nothing
        }
        filter => filter.clone(),
    };
    let question = ListQuery {
        viewer: Viewer {
            project: ctx.project.clone(),
            is_admin: ctx.is_admin,
        },
        visibility: listing.visibility,
        members: listing.members,
        hidden: listing.hidden,
        filters: listing.filters.iter().map(readable).collect(),
        sort: listing.sort.clone(),
        marker,
        limit: listing.limit,
    };
    let page = match listing.limit {
        0 => Vec::new(),
        _ => images::list(&mut tx, &question).await?,
    };
    let full = page.len() == listing.limit as usize;
    let next = page
        .last()
        .filter(|_| full)
        .map(|last| listing.next(last.id.as_str()));
    Ok(Json(ImageList {
        images: page
            .iter()
            .filter(|image| policy::get_image(&ctx, image).is_ok())
            .map(|image| ImageView::new(image, &ctx, &svc))
            .collect(),
        first: listing.first(),
        schema: "/v2/schemas/images",
        next,
    })
    .into_response())
}

/// `GET /v2/images/{id}`
pub(in crate::api) async fn show(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    _: NoBody,
) -> Result<Response, Failure> {
    let mut tx = svc.catalog.read().await?;
    let image = must_find(&mut tx, &ctx, &id).await?;
    policy::get_image(&ctx, &image)?;
    Ok(Json(ImageView::new(&image, &ctx, &svc)).into_response())
}

/// `PATCH /v2/images/{id}`: all of the changes, or none.
pub(in crate::api) async fn update(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    request: Request,
) -> Result<Response, Failure> {
    let dialect = dialect(request.headers())?;
    let Document(body) = Document::from_request(request, &svc).await?;
    let changes = patch::parse(dialect, &body).map_err(Failure::bad)?;
    let schema = schema::image(&svc.config.formats);
    for change in &changes {
        properties::refuse_change(change)?;
        if let patch::Op::Add(value) | patch::Op::Replace(value) = &change.op
            && change.name != "locations"
        {
            let object = [(change.name.clone(), value.clone())].into_iter().collect();
            schema::validate(&schema, &object).map_err(Failure::bad)?;
        }
    }

    // Stores are asked before the catalog is held, and for nobody who may not change the image.
    let mut steps = VecDeque::new();
    if changes.iter().any(|change| change.name == "locations") {
        let mut tx = svc.catalog.read().await?;
        let image = must_find(&mut tx, &ctx, &id).await?;
        drop(tx);
        policy::modify_image(&ctx, &image)?;
        for change in changes.iter().filter(|change| change.name == "locations") {
            steps.push_back(locations::prepare(&svc, change).await?);
        }
    }

    let mut tx = svc.catalog.write().await?;
    let before = must_find(&mut tx, &ctx, &id).await?;
    policy::modify_image(&ctx, &before)?;
    let mut image = before.clone();
    let mut moved = locations::Outcome::default();
    let caller = properties::Caller {
        ctx: &ctx,
        protections: &svc.protections,
    };
    for change in changes {
        if change.name != "locations" {
            properties::apply(&caller, &mut image, change, dialect)?;
        } else if let Some(step) = steps.pop_front() {
            locations::apply(&svc, &ctx, &mut image, step, &mut moved)?;
        }
    }
    properties::within_quota(&svc.config.quota, &before, &image)?;
    let growth = held(&image).saturating_sub(held(&before));
    if growth > 0 {
        let owner = image.owner.as_deref();
        svc.quotas.fits(&mut tx, owner, growth).await?;
    }
    if image != before {
        image.updated_at = Timestamp::now();
        images::update(&mut tx, &image, before.status).await?;
        for (n, location) in (0..).zip(&moved.added) {
            let made = Timestamp(image.updated_at.0 + n);
            rows::insert_active(&mut tx, &image.id, location, made).await?;
        }
        for location in &moved.changed {
            rows::set_metadata(&mut tx, location).await?;
        }
        for id in &moved.removed {
            rows::doom(&mut tx, id).await?;
        }
        tx.commit().await?;
    }
    if !moved.removed.is_empty() {
        let sweeper = svc.clone();
        tokio::spawn(async move { ingest::sweep_doomed(&sweeper).await });
    }
    Ok(Json(ImageView::new(&image, &ctx, &svc)).into_response())
}

/// Bytes that count against what the image's project may hold: every copy.
fn held(image: &Image) -> u64 {
    let copies = u64::try_from(image.locations.len()).unwrap_or(u64::MAX);
    image.size.unwrap_or(0).saturating_mul(copies)
}

fn dialect(headers: &HeaderMap) -> Result<Dialect, Failure> {
    let sent = text(headers, header::CONTENT_TYPE.as_str())?;
    let kind = sent.and_then(|s| s.split(';').next()).map(str::trim);
    kind.and_then(Dialect::of).ok_or_else(|| {
        let sentence = format!(
            "Image PATCH expects Content-Type one of: {}",
            Dialect::MEDIA_TYPES
        );
        Failure::media_type(sent, sentence).with(
            HeaderName::from_static("accept-patch"),
            Dialect::MEDIA_TYPES,
        )
    })
}

/// `DELETE /v2/images/{id}`
pub(in crate::api) async fn delete(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    _: NoBody,
) -> Result<Response, Failure> {
    let mut tx = svc.catalog.read().await?;
    let image = find(&mut tx, &ctx, &id)
        .await?
        .ok_or_else(|| not_found(format!("Failed to find image {id} to delete")))?;
    drop(tx);
    policy::delete_image(&ctx, &image)?;
    ingest::delete(&svc, &image.id).await.map_err(|e| match e {
        ingest::Error::Protected => Failure::new(
            StatusCode::FORBIDDEN,
            format!("Image {id} is protected and cannot be deleted."),
        ),
        ingest::Error::Illegal(illegal) => Failure::bad(illegal.to_string()),
        ingest::Error::Gone => not_found(format!("Failed to find image {id} to delete")),
        other => other.into(),
    })?;
    Ok(empty(StatusCode::NO_CONTENT))
}
