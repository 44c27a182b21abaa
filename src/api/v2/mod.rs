//! Handlers, a file a resource.

pub(super) mod actions;
pub(super) mod appliances;
pub(super) mod batches;
pub(super) mod cache;
pub(super) mod data;
mod derived;
pub(super) mod images;
pub(super) mod import;
pub(super) mod info;
pub(super) mod locations;
pub(super) mod members;
pub(super) mod metadefs;
pub(super) mod schemas;
pub(super) mod tags;
pub(super) mod task_events;
pub(super) mod tasks;
pub(super) mod upload;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::error::Failure;
use crate::auth::policy::Denied;
use crate::auth::{Context, policy};
use crate::catalog::{self, Tx, images as rows};
use crate::domain::{Image, ImageId, Visibility};

/// The image called `id`, if there is one that the caller may know of.
async fn find(tx: &mut Tx, ctx: &Context, id: &str) -> Result<Option<Image>, Failure> {
    let Ok(id) = id.parse::<ImageId>() else {
        return Ok(None);
    };
    let Some(image) = rows::find(tx, &id).await? else {
        return Ok(None);
    };
    let visible = policy::visible(ctx, &image) || is_member(tx, ctx, &image).await?;
    Ok(visible.then_some(image))
}

/// The image called `id`, for a caller who may see it or whom `rule` allows what services may:
/// those act on images of all projects.
async fn find_for_services(
    tx: &mut Tx,
    ctx: &Context,
    id: &str,
    rule: fn(&Context, &Image) -> Result<(), Denied>,
) -> Result<Image, Failure> {
    let absent = || not_found(format!("No image found with ID {id}"));
    let image = match id.parse() {
        Ok(id) => rows::find(tx, &id).await?.ok_or_else(absent)?,
        Err(_) => return Err(absent()),
    };
    let is_visible = policy::visible(ctx, &image) || is_member(tx, ctx, &image).await?;
    match rule(ctx, &image) {
        Ok(()) => Ok(image),
        Err(denied) if is_visible => Err(denied.into()),
        Err(_) => Err(absent()),
    }
}

/// Whether the image is shared with the caller's project, whatever that says to it.
async fn is_member(tx: &mut Tx, ctx: &Context, image: &Image) -> catalog::Result<bool> {
    match &ctx.project {
        Some(project) if image.visibility == Visibility::Shared => {
            let member = catalog::members::find(tx, &image.id, project).await?;
            Ok(member.is_some())
        }
        _ => Ok(false),
    }
}

/// The same, or 404.
async fn must_find(tx: &mut Tx, ctx: &Context, id: &str) -> Result<Image, Failure> {
    find(tx, ctx, id)
        .await?
        .ok_or_else(|| not_found(format!("No image found with ID {id}")))
}

fn not_found(sentence: String) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, sentence)
}

/// An answer without content, as the reference sends it: with a media type all the same.
fn empty(status: StatusCode) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/html; charset=UTF-8")];
    (status, kind).into_response()
}
