//! `/v2/metadefs/namespaces/{namespace}/tags` and `…/tags/{tag}`

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use super::{Kind, deleted, deleting, duplicate, parse, reading, writing};
use crate::api::error::Failure;
use crate::api::extract::{At, Document, NoBody, text};
use crate::api::json::Json;
use crate::api::wire::metadef::{TagBody, TagList, TagView, tag};
use crate::api::{query, schema};
use crate::auth::{Context, policy};
use crate::catalog::metadefs::{TagKey, TagQuery, tags as rows};
use crate::catalog::{Direction, outbox};
use crate::domain::Timestamp;
use crate::notify::payload;
use crate::service::Service;

const KIND: Kind = Kind("tag");
const READ_ONLY: [&str; 2] = ["created_at", "updated_at"];

/// `GET /v2/metadefs/namespaces/{namespace}/tags`
pub(in crate::api) async fn list(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(namespace): At<String>,
    RawQuery(query): RawQuery,
    _: NoBody,
) -> Result<Response, Failure> {
    let params = query::pairs(&query.unwrap_or_default()).ok_or_else(Failure::undecodable)?;
    let limits = &svc.config.api;
    let mut listing = TagQuery {
        sort: (TagKey::CreatedAt, Direction::Desc),
        after: None,
        limit: limits.limit_default.min(limits.limit_max),
    };
    for (name, value) in params {
        match name.as_str() {
            "limit" => {
                let limit = query::limit(&value).map_err(Failure::bad)?;
                listing.limit = limit.min(limits.limit_max);
            }
            "marker" => listing.after = Some(value),
            "sort_key" => listing.sort.0 = sort_key(&value)?,
            "sort_dir" => listing.sort.1 = query::direction(&value).map_err(Failure::bad)?,
            _ => {}
        }
    }
    let (mut tx, of) = reading(&svc, &ctx, &namespace, policy::get_metadef_tags).await?;
    if let Some(marker) = &listing.after
        && rows::find(&mut tx, of, marker).await?.is_none()
    {
        return Err(KIND.missing(&namespace, marker));
    }
    let tags = rows::list(&mut tx, of, &listing).await?;
    Ok(Json(TagList::from(tags.as_slice())).into_response())
}

fn sort_key(name: &str) -> Result<TagKey, Failure> {
    Ok(match name {
        "name" => TagKey::Name,
        "created_at" => TagKey::CreatedAt,
        "updated_at" => TagKey::UpdatedAt,
        _ => return Err(Failure::bad(format!("Invalid sort key: {name}."))),
    })
}

/// `POST /v2/metadefs/namespaces/{namespace}/tags`: replaces all tags, or adds to them where
/// `X-Openstack-Append` says so.
pub(in crate::api) async fn create_several(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(namespace): At<String>,
    headers: HeaderMap,
    Document(body): Document,
) -> Result<Response, Failure> {
    let append = text(&headers, "x-openstack-append")?
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
    let now = Timestamp::now();
    let tags = several(body)?
        .into_iter()
        .map(|item| {
            let body: TagBody = parse(item, &READ_ONLY, &schema::metadefs::tag())?;
            body.read(now).map_err(Failure::bad)
        })
        .collect::<Result<Vec<_>, _>>()?;

    let (mut tx, of) = writing(&svc, &ctx, &namespace, policy::add_metadef_tags).await?;
    if !append {
        rows::delete_all(&mut tx, of).await?;
    }
    for tag in &tags {
        rows::insert(&mut tx, of, tag)
            .await
            .map_err(|e| duplicate(e, || exists(&namespace, &tag.name)))?;
        let told = || payload::metadef_tag(&namespace, tag, None);
        outbox::note(&mut tx, "metadef_tag.create", told).await?;
    }
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(TagList::from(tags.as_slice()))).into_response())
}

/// The items of `{"tags": […]}`.
fn several(body: Value) -> Result<Vec<Value>, Failure> {
    let Value::Object(mut body) = body else {
        return Err(Failure::bad("Request body must be a JSON object."));
    };
    let tags = body.shift_remove("tags");
    match (tags, only(&body)) {
        (Some(Value::Array(tags)), None) => Ok(tags),
        (_, Some(other)) => Err(Failure::bad(format!(
            "Only tags can be given here, not {other}."
        ))),
        _ => Err(Failure::bad("Request body must hold a list of tags.")),
    }
}

/// A key that is neither a link nor the schema's, which clients may send back.
fn only(body: &Map<String, Value>) -> Option<&String> {
    body.keys()
        .find(|key| !["first", "next", "schema"].contains(&key.as_str()))
}

/// `DELETE /v2/metadefs/namespaces/{namespace}/tags`
pub(in crate::api) async fn delete_all(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(namespace): At<String>,
    _: NoBody,
) -> Result<Response, Failure> {
    let (mut tx, of) = deleting(
        &svc,
        &ctx,
        &namespace,
        policy::delete_metadef_tags,
        "its tags",
    )
    .await?;
    rows::delete_all(&mut tx, of.id).await?;
    let told = || payload::namespace(&of.namespace, None);
    outbox::note(&mut tx, "metadef_namespace.delete_tags", told).await?;
    deleted(tx).await
}

/// `GET /v2/metadefs/namespaces/{namespace}/tags/{tag}`
pub(in crate::api) async fn show(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((namespace, name)): At<(String, String)>,
    _: NoBody,
) -> Result<Response, Failure> {
    let (mut tx, of) = reading(&svc, &ctx, &namespace, policy::get_metadef_tag).await?;
    let tag = rows::find(&mut tx, of, &name)
        .await?
        .ok_or_else(|| KIND.missing(&namespace, &name))?;
    Ok(Json(TagView::from(&tag)).into_response())
}

/// `POST /v2/metadefs/namespaces/{namespace}/tags/{tag}`
pub(in crate::api) async fn create(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((namespace, name)): At<(String, String)>,
    _: NoBody,
) -> Result<Response, Failure> {
    let tag = tag(name, Timestamp::now()).map_err(Failure::bad)?;
    let (mut tx, of) = writing(&svc, &ctx, &namespace, policy::add_metadef_tag).await?;
    rows::insert(&mut tx, of, &tag)
        .await
        .map_err(|e| duplicate(e, || exists(&namespace, &tag.name)))?;
    let told = || payload::metadef_tag(&namespace, &tag, None);
    outbox::note(&mut tx, "metadef_tag.create", told).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(TagView::from(&tag))).into_response())
}

/// `PUT /v2/metadefs/namespaces/{namespace}/tags/{tag}`
pub(in crate::api) async fn update(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((namespace, name)): At<(String, String)>,
    Document(body): Document,
) -> Result<Response, Failure> {
    let body: TagBody = parse(body, &READ_ONLY, &schema::metadefs::tag())?;
    let mut tag = body.read(Timestamp::now()).map_err(Failure::bad)?;
    let (mut tx, of) = writing(&svc, &ctx, &namespace, policy::modify_metadef_tag).await?;
    let before = rows::find(&mut tx, of, &name)
        .await?
        .ok_or_else(|| KIND.missing(&namespace, &name))?;
    tag.created_at = before.created_at;
    rows::update(&mut tx, of, &name, &tag)
        .await
        .map_err(|e| duplicate(e, || exists(&namespace, &tag.name)))?;
    let told = || payload::metadef_tag(&namespace, &tag, Some(&name));
    outbox::note(&mut tx, "metadef_tag.update", told).await?;
    tx.commit().await?;
    Ok(Json(TagView::from(&tag)).into_response())
}

/// `DELETE /v2/metadefs/namespaces/{namespace}/tags/{tag}`
pub(in crate::api) async fn delete(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((namespace, name)): At<(String, String)>,
    _: NoBody,
) -> Result<Response, Failure> {
    let what = format!("tag {name}");
    let (mut tx, of) = deleting(&svc, &ctx, &namespace, policy::delete_metadef_tag, &what).await?;
    let tag = rows::find(&mut tx, of.id, &name)
        .await?
        .ok_or_else(|| KIND.missing(&namespace, &name))?;
    if !rows::delete(&mut tx, of.id, &name).await? {
        return Err(KIND.missing(&namespace, &name));
    }
    let told = || {
        let told = payload::metadef_tag(&namespace, &tag, None);
        payload::deleted(told, Timestamp::now())
    };
    outbox::note(&mut tx, "metadef_tag.delete", told).await?;
    deleted(tx).await
}

/// The reference's sentence, which tells of the collation of some of its databases; here names that
/// differ in case are different names (17-metadefs.http, "tag again").
fn exists(namespace: &str, name: &str) -> String {
    format!(
        "A metadata tag with name={name} already exists in namespace={namespace}. (Please note \
         that metadata tag names are case insensitive)."
    )
}
