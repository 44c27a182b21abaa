//! `/v2/images/{id}/members`: the projects a shared image is shared with.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::{find, not_found};
use crate::api::error::Failure;
use crate::api::extract::{At, Document, NoBody};
use crate::api::json::Json;
use crate::api::wire::{MemberList, MemberView};
use crate::auth::{Context, policy};
use crate::catalog::{self, Tx, members};
use crate::domain::{Image, ImageId, Member, MemberStatus, Timestamp, Visibility};
use crate::service::Service;

/// Longest id of a project, in characters.
const MAX_ID: usize = 255;

/// `GET /v2/images/{id}/members`: all for the owner, their own row for a member.
pub(in crate::api) async fn list(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    _: NoBody,
) -> Result<Response, Failure> {
    let mut tx = svc.catalog.read().await?;
    let image = look_up(&mut tx, &ctx, &id).await?;
    let mut members = members::list(&mut tx, &image.id).await?;
    policy::get_members(&ctx, &image, own_among(&ctx, &members))?;
    only_shared(&image, "list")?;
    members.retain(|m| policy::get_member(&ctx, &image, &m.project).is_ok());
    Ok(Json(MemberList {
        members: members
            .iter()
            .map(|m| MemberView::new(&image.id, m))
            .collect(),
        schema: "/v2/schemas/members",
    })
    .into_response())
}

/// `POST /v2/images/{id}/members`
pub(in crate::api) async fn add(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    Document(body): Document,
) -> Result<Response, Failure> {
    let project = new_member(&body)?;
    let mut tx = svc.catalog.write().await?;
    let image = look_up(&mut tx, &ctx, &id).await?;
    policy::add_member(&ctx, &image)?;
    only_shared(&image, "create")?;
    let attempted = members::list(&mut tx, &image.id).await?.len() + 1;
    let max = svc.config.quota.members;
    if usize::try_from(max).is_ok_and(|max| attempted > max) {
        return Err(Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "The limit has been exceeded on the number of allowed image members for this \
                 image. Attempted: {attempted}, Maximum: {max}"
            ),
        ));
    }
    let added = members::insert(&mut tx, &image.id, project, Timestamp::now()).await;
    let member = added.map_err(|e| match e {
        catalog::Error::Conflict(_) => Failure::new(
            StatusCode::CONFLICT,
            format!("Member {project} is duplicated for image {id}"),
        ),
        other => other.into(),
    })?;
    tx.commit().await?;
    tracing::info!(image.id = %image.id, member = project, "image {id} is shared");
    Ok(Json(MemberView::new(&image.id, &member)).into_response())
}

/// `GET /v2/images/{id}/members/{member}`
pub(in crate::api) async fn show(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((id, project)): At<(String, String)>,
    _: NoBody,
) -> Result<Response, Failure> {
    let mut tx = svc.catalog.read().await?;
    let image = look_up(&mut tx, &ctx, &id).await?;
    let member = must_find(&mut tx, &image.id, &project).await?;
    // Who may not know of a member is told that there is none.
    policy::get_member(&ctx, &image, &project).map_err(|_| no_member(&image.id, &project))?;
    Ok(Json(MemberView::new(&image.id, &member)).into_response())
}

/// `PUT /v2/images/{id}/members/{member}`
pub(in crate::api) async fn update(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((id, project)): At<(String, String)>,
    Document(body): Document,
) -> Result<Response, Failure> {
    let status = new_status(&body)?;
    let mut tx = svc.catalog.write().await?;
    let image = look_up(&mut tx, &ctx, &id).await?;
    let member = must_find(&mut tx, &image.id, &project).await?;
    policy::modify_member(&ctx, &image, &project)?;
    only_shared(&image, "update")?;
    let now = Timestamp::now();
    members::set_status(&mut tx, &image.id, &project, status, now).await?;
    tx.commit().await?;
    let member = Member {
        status,
        updated_at: now,
        ..member
    };
    Ok(Json(MemberView::new(&image.id, &member)).into_response())
}

/// `DELETE /v2/images/{id}/members/{member}`
pub(in crate::api) async fn remove(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((id, project)): At<(String, String)>,
    _: NoBody,
) -> Result<Response, Failure> {
    let mut tx = svc.catalog.write().await?;
    let image = look_up(&mut tx, &ctx, &id).await?;
    policy::delete_member(&ctx, &image)?;
    only_shared(&image, "delete")?;
    if !members::delete(&mut tx, &image.id, &project).await? {
        return Err(no_member(&image.id, &project));
    }
    tx.commit().await?;
    tracing::info!(image.id = %image.id, member = project, "image {id} is no longer shared");
    // Without a media type, unlike other empty answers (09-members.http, "remove").
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn look_up(tx: &mut Tx, ctx: &Context, id: &str) -> Result<Image, Failure> {
    find(tx, ctx, id)
        .await?
        .ok_or_else(|| not_found(format!("Image {id} not found.")))
}

async fn must_find(tx: &mut Tx, image: &ImageId, project: &str) -> Result<Member, Failure> {
    members::find(tx, image, project)
        .await?
        .ok_or_else(|| no_member(image, project))
}

fn no_member(image: &ImageId, project: &str) -> Failure {
    not_found(format!(
        "{project} not found in the member list of the image {image}."
    ))
}

/// The caller's project, where it is one of the members.
fn own_among<'m>(ctx: &Context, members: &'m [Member]) -> Option<&'m str> {
    let own = members.iter().find(|m| ctx.owns(Some(&m.project)));
    own.map(|m| m.project.as_str())
}

fn only_shared(image: &Image, verb: &str) -> Result<(), Failure> {
    if image.visibility == Visibility::Shared {
        return Ok(());
    }
    Err(Failure::new(
        StatusCode::FORBIDDEN,
        format!("Not allowed to {verb} members for image {}.", image.id),
    ))
}

fn new_member(body: &Value) -> Result<&str, Failure> {
    let project = body
        .get("member")
        .ok_or_else(|| Failure::bad("Member to be added not specified"))?;
    match project.as_str() {
        Some("") => Err(Failure::bad("Member can't be empty")),
        Some(id) if id.chars().count() > MAX_ID => Err(Failure::bad(format!(
            "Member to be added is longer than {MAX_ID} characters"
        ))),
        Some(id) if crate::api::properties::has_astral(id) => Err(Failure::bad(
            "Member ids can't contain 4 byte unicode characters.",
        )),
        Some(id) => Ok(id),
        None => Err(Failure::bad("Member to be added must be a string")),
    }
}

fn new_status(body: &Value) -> Result<MemberStatus, Failure> {
    let status = body
        .get("status")
        .ok_or_else(|| Failure::bad("Status not specified"))?;
    status.as_str().and_then(|s| s.parse().ok()).ok_or_else(|| {
        Failure::bad("Incorrect request: Status must be \"pending\", \"accepted\" or \"rejected\".")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bodies_of_wrong_types_are_refused() {
        let long = "m".repeat(256);
        for bad in [
            json!([]),
            json!("member"),
            json!({}),
            json!({"member": ""}),
            json!({"member": 7}),
            json!({"member": null}),
            json!({"member": long}),
            json!({"member": "\u{1f600}"}),
        ] {
            assert!(new_member(&bad).is_err(), "{bad}");
        }
        assert_eq!(new_member(&json!({"member": "m"})).ok(), Some("m"));
        for bad in [
            json!([]),
            json!({}),
            json!({"status": 1}),
            json!({"status": ""}),
        ] {
            assert!(new_status(&bad).is_err(), "{bad}");
        }
    }
}
