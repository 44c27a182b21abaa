//! Handlers, a file a resource.

pub(super) mod actions;
pub(super) mod data;
pub(super) mod images;
pub(super) mod import;
pub(super) mod info;
pub(super) mod metadefs;
pub(super) mod schemas;
pub(super) mod tags;
pub(super) mod tasks;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::error::Failure;
use crate::auth::{Context, policy};
use crate::catalog::{Tx, images as rows};
use crate::domain::{Image, ImageId};

/// The image called `id`, if there is one that the caller may know of.
async fn find(tx: &mut Tx, ctx: &Context, id: &str) -> Result<Option<Image>, Failure> {
    let Ok(id) = id.parse::<ImageId>() else {
        return Ok(None);
    };
    let image = rows::find(tx, &id).await?;
    Ok(image.filter(|image| policy::visible(ctx, image)))
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
