//! `POST /v2/images/{id}/actions/…`

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{empty, must_find};
use crate::api::error::Failure;
use crate::api::extract::{At, NoBody};
use crate::auth::Context;
use crate::auth::policy::{self, Verdict};
use crate::catalog::images;
use crate::domain::{Event, Image, Timestamp};
use crate::service::Service;

/// `POST /v2/images/{id}/actions/deactivate`
pub(in crate::api) async fn deactivate(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    _: NoBody,
) -> Result<Response, Failure> {
    act(&svc, &ctx, &id, Event::Deactivate, policy::deactivate).await
}

/// `POST /v2/images/{id}/actions/reactivate`
pub(in crate::api) async fn reactivate(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    _: NoBody,
) -> Result<Response, Failure> {
    act(&svc, &ctx, &id, Event::Reactivate, policy::reactivate).await
}

async fn act(
    svc: &Service,
    ctx: &Context,
    id: &str,
    event: Event,
    rule: fn(&Context, &Image) -> Verdict,
) -> Result<Response, Failure> {
    let mut tx = svc.catalog.write().await?;
    let mut image = must_find(&mut tx, ctx, id).await?;
    rule(ctx, &image)?;
    let before = image.status;
    image.status = before.apply(event).map_err(|_| {
        let verb = if event == Event::Deactivate {
            "deactivate"
        } else {
            "reactivate"
        };
        let sentence = format!("Not allowed to {verb} image in status '{before}'");
        Failure::new(StatusCode::FORBIDDEN, sentence)
    })?;
    if image.status != before {
        image.updated_at = Timestamp::now();
        images::update(&mut tx, &image, before).await?;
        tx.commit().await?;
    }
    Ok(empty(StatusCode::NO_CONTENT))
}
