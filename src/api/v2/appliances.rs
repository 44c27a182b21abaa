//! `/v2/appliances/{id}`: the disks of one machine, and all of them in one archive.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::data::unless_deactivated;
use super::{derived, find, not_found};
use crate::api::error::Failure;
use crate::api::extract::{At, NoBody};
use crate::api::json::Json;
use crate::api::query;
use crate::api::wire::ImageView;
use crate::appliance;
use crate::auth::{Context, policy};
use crate::catalog::appliances;
use crate::derive::{Order, Wish};
use crate::domain::{Image, Status};
use crate::service::Service;

/// `GET /v2/appliances/{id}`: its images, those the caller may see, in the order of its hardware.
pub(in crate::api) async fn show(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    _: NoBody,
) -> Result<Response, Failure> {
    let (images, _) = images_of(&svc, &ctx, &id).await?;
    let views: Vec<_> = images
        .iter()
        .map(|image| ImageView::new(image, &ctx, &svc))
        .collect();
    let link = format!("/v2/appliances/{}", id.to_ascii_lowercase());
    let answer = json!({
        "id": id.to_ascii_lowercase(),
        "images": views,
        "self": link,
        "file": format!("{link}/file"),
    });
    Ok(Json(answer).into_response())
}

/// `GET /v2/appliances/{id}/file`: all disks in one OVA.
pub(in crate::api) async fn download(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    _: NoBody,
) -> Result<Response, Failure> {
    let query = query.unwrap_or_default();
    let mut query = query::pairs(&query).ok_or_else(Failure::undecodable)?;
    if !query.iter().any(|(name, _)| name == "container_format") {
        query.push(("container_format".into(), "ova".into()));
    }
    let (images, is_whole) = images_of(&svc, &ctx, &id).await?;
    if !is_whole {
        let sentence = "Not every disk of the appliance can be seen: it is not sent in part";
        return Err(Failure::new(StatusCode::CONFLICT, sentence));
    }
    for image in &images {
        policy::download_image(&ctx, image)?;
        unless_deactivated(&ctx, image)?;
        if !matches!(image.status, Status::Active | Status::Deactivated) {
            let sentence = format!("Image {} of the appliance is {}", image.id, image.status);
            return Err(Failure::new(StatusCode::CONFLICT, sentence));
        }
    }
    let wish = match images.first() {
        Some(first) => Wish::parse(&query, first)?,
        None => None,
    };
    let wish = wish.filter(Wish::is_archive).ok_or_else(|| {
        Failure::bad("container_format: an appliance is sent as ova, of images that are none")
    })?;
    derived::send(&svc, Order::new(&svc, images, wish)?, &headers, |_| {}).await
}

/// The images of an appliance that the caller may see, and whether these are all.
async fn images_of(svc: &Service, ctx: &Context, id: &str) -> Result<(Vec<Image>, bool), Failure> {
    let absent = || not_found(format!("No appliance found with ID {id}"));
    let mut tx = svc.catalog.read().await?;
    let first = find(&mut tx, ctx, id).await?.ok_or_else(absent)?;
    policy::get_image(ctx, &first)?;
    let all = appliances::images_of(&mut tx, &first.id).await?;
    let ordered = appliance::ordered(&first.id, all).ok_or_else(absent)?;
    let count = ordered.len();
    let mut seen = Vec::with_capacity(count);
    for image in ordered {
        // Each by the rules of its own.
        if find(&mut tx, ctx, image.id.as_str()).await?.is_some()
            && policy::get_image(ctx, &image).is_ok()
        {
            seen.push(image);
        }
    }
    let is_whole = seen.len() == count;
    Ok((seen, is_whole))
}
