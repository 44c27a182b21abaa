//! `/v2/images/{id}/tags/{tag}`

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::{empty, find, not_found};
use crate::api::error::Failure;
use crate::api::extract::{At, NoBody};
use crate::api::{properties, schema};
use crate::auth::{Context, policy};
use crate::catalog::{Tx, images};
use crate::domain::{Image, Timestamp};
use crate::service::Service;

/// `PUT /v2/images/{id}/tags/{tag}`
pub(in crate::api) async fn add(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((id, tag)): At<(String, String)>,
    _: NoBody,
) -> Result<Response, Failure> {
    let object = [("tags".to_owned(), json!([tag]))].into_iter().collect();
    schema::validate(&schema::image(&svc.config.formats), &object).map_err(Failure::bad)?;
    if properties::has_astral(&tag) {
        return Err(Failure::bad("Param values can't contain 4 byte unicode."));
    }
    let mut tx = svc.catalog.write().await?;
    let before = look_up(&mut tx, &ctx, &id).await?;
    if let Err(at) = before.tags.binary_search(&tag) {
        let mut image = before.clone();
        image.tags.insert(at, tag);
        properties::within_quota(&svc.config.quota, &before, &image)?;
        save(tx, image).await?;
    }
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `DELETE /v2/images/{id}/tags/{tag}`
pub(in crate::api) async fn remove(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((id, tag)): At<(String, String)>,
    _: NoBody,
) -> Result<Response, Failure> {
    let mut tx = svc.catalog.write().await?;
    let mut image = look_up(&mut tx, &ctx, &id).await?;
    let at = image
        .tags
        .binary_search(&tag)
        .map_err(|_| Failure::of(StatusCode::NOT_FOUND))?;
    image.tags.remove(at);
    save(tx, image).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn look_up(tx: &mut Tx, ctx: &Context, id: &str) -> Result<Image, Failure> {
    let image = find(tx, ctx, id)
        .await?
        .ok_or_else(|| not_found(format!("Image {id} not found.")))?;
    policy::modify_image(ctx, &image)?;
    Ok(image)
}

async fn save(mut tx: Tx, mut image: Image) -> Result<(), Failure> {
    image.updated_at = Timestamp::now();
    images::update(&mut tx, &image, image.status).await?;
    Ok(tx.commit().await?)
}
