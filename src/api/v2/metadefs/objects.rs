//! `/v2/metadefs/namespaces/{namespace}/objects` and `…/objects/{object}`

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::{Kind, deleted, deleting, duplicate, parse, reading, writing};
use crate::api::error::Failure;
use crate::api::extract::{At, Document, NoBody};
use crate::api::json::Json;
use crate::api::query;
use crate::api::schema;
use crate::api::wire::metadef::{ObjectBody, ObjectList, ObjectView};
use crate::auth::{Context, policy};
use crate::catalog::metadefs::objects as rows;
use crate::catalog::outbox;
use crate::domain::Timestamp;
use crate::notify::payload;
use crate::service::Service;

const KIND: Kind = Kind("object");
const READ_ONLY: [&str; 4] = ["self", "schema", "created_at", "updated_at"];

/// `GET /v2/metadefs/namespaces/{namespace}/objects`: always all of them. The reference judges the
/// parameters of a page and pages nothing, and its answer has no link to a next one.
pub(in crate::api) async fn list(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(namespace): At<String>,
    RawQuery(query): RawQuery,
    _: NoBody,
) -> Result<Response, Failure> {
    for (name, value) in
        query::pairs(&query.unwrap_or_default()).ok_or_else(Failure::undecodable)?
    {
        let judged = match name.as_str() {
            "limit" => query::limit(&value).map(|_| ()),
            "sort_dir" => query::direction(&value).map(|_| ()),
            _ => Ok(()),
        };
        judged.map_err(Failure::bad)?;
    }
    let (mut tx, of) = reading(&svc, &ctx, &namespace, policy::get_metadef_objects).await?;
    let objects = rows::list(&mut tx, of).await?;
    Ok(Json(ObjectList {
        objects: objects
            .iter()
            .map(|o| ObjectView::new(&namespace, o))
            .collect(),
        schema: "v2/schemas/metadefs/objects",
    })
    .into_response())
}

/// `POST /v2/metadefs/namespaces/{namespace}/objects`
pub(in crate::api) async fn create(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(namespace): At<String>,
    Document(body): Document,
) -> Result<Response, Failure> {
    let body: ObjectBody = parse(body, &READ_ONLY, &schema::metadefs::object())?;
    let object = body.read(Timestamp::now()).map_err(Failure::bad)?;
    let (mut tx, of) = writing(&svc, &ctx, &namespace, policy::add_metadef_object).await?;
    rows::insert(&mut tx, of, &object)
        .await
        .map_err(|e| duplicate(e, || KIND.exists(&namespace, &object.name)))?;
    let told = || payload::metadef_object(&namespace, &object, None);
    outbox::note(&mut tx, "metadef_object.create", told).await?;
    tx.commit().await?;
    let view = ObjectView::new(&namespace, &object);
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// `GET /v2/metadefs/namespaces/{namespace}/objects/{object}`
pub(in crate::api) async fn show(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((namespace, name)): At<(String, String)>,
    _: NoBody,
) -> Result<Response, Failure> {
    let (mut tx, of) = reading(&svc, &ctx, &namespace, policy::get_metadef_object).await?;
    let object = rows::find(&mut tx, of, &name)
        .await?
        .ok_or_else(|| KIND.missing(&namespace, &name))?;
    Ok(Json(ObjectView::new(&namespace, &object)).into_response())
}

/// `PUT /v2/metadefs/namespaces/{namespace}/objects/{object}`
pub(in crate::api) async fn update(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((namespace, name)): At<(String, String)>,
    Document(body): Document,
) -> Result<Response, Failure> {
    let body: ObjectBody = parse(body, &READ_ONLY, &schema::metadefs::object())?;
    let mut object = body.read(Timestamp::now()).map_err(Failure::bad)?;
    let (mut tx, of) = writing(&svc, &ctx, &namespace, policy::modify_metadef_object).await?;
    let before = rows::find(&mut tx, of, &name)
        .await?
        .ok_or_else(|| KIND.missing(&namespace, &name))?;
    object.created_at = before.created_at;
    rows::update(&mut tx, of, &name, &object)
        .await
        .map_err(|e| duplicate(e, || KIND.exists(&namespace, &object.name)))?;
    let told = || payload::metadef_object(&namespace, &object, Some(&name));
    outbox::note(&mut tx, "metadef_object.update", told).await?;
    tx.commit().await?;
    Ok(Json(ObjectView::new(&namespace, &object)).into_response())
}

/// `DELETE /v2/metadefs/namespaces/{namespace}/objects/{object}`
pub(in crate::api) async fn delete(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((namespace, name)): At<(String, String)>,
    _: NoBody,
) -> Result<Response, Failure> {
    let what = format!("object {name}");
    let (mut tx, of) =
        deleting(&svc, &ctx, &namespace, policy::delete_metadef_object, &what).await?;
    let object = rows::find(&mut tx, of.id, &name)
        .await?
        .ok_or_else(|| KIND.missing(&namespace, &name))?;
    if !rows::delete(&mut tx, of.id, &name).await? {
        return Err(KIND.missing(&namespace, &name));
    }
    let told = || {
        let told = payload::metadef_object(&namespace, &object, None);
        payload::deleted(told, Timestamp::now())
    };
    outbox::note(&mut tx, "metadef_object.delete", told).await?;
    deleted(tx).await
}

/// `DELETE /v2/metadefs/namespaces/{namespace}/objects`
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
        policy::delete_metadef_object,
        "its objects",
    )
    .await?;
    rows::delete_all(&mut tx, of.id).await?;
    let told = || payload::namespace(&of.namespace, None);
    outbox::note(&mut tx, "metadef_namespace.delete_objects", told).await?;
    deleted(tx).await
}
