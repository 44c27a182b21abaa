//! `/v2/metadefs/resource_types` and `/v2/metadefs/namespaces/{namespace}/resource_types`

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::{deleted, deleting, duplicate, parse, reading, writing};
use crate::api::error::Failure;
use crate::api::extract::{At, Document, NoBody};
use crate::api::json::Json;
use crate::api::schema;
use crate::api::v2::not_found;
use crate::api::wire::metadef::{
    AssociationBody, AssociationList, AssociationView, ResourceTypeList,
};
use crate::auth::{Context, policy};
use crate::catalog::metadefs::associations as rows;
use crate::catalog::outbox;
use crate::domain::Timestamp;
use crate::notify::payload;
use crate::service::Service;

const READ_ONLY: [&str; 2] = ["created_at", "updated_at"];

/// `GET /v2/metadefs/resource_types`
pub(in crate::api) async fn resource_types(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    _: NoBody,
) -> Result<Response, Failure> {
    policy::list_metadef_resource_types(&ctx)?;
    let mut tx = svc.catalog.read().await?;
    let types = rows::resource_types(&mut tx).await?;
    Ok(Json(ResourceTypeList::from(types.as_slice())).into_response())
}

/// `GET /v2/metadefs/namespaces/{namespace}/resource_types`
pub(in crate::api) async fn list(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(namespace): At<String>,
    _: NoBody,
) -> Result<Response, Failure> {
    let (mut tx, of) = reading(&svc, &ctx, &namespace, policy::get_metadef_resource_type).await?;
    let associations = rows::list(&mut tx, of).await?;
    Ok(Json(AssociationList {
        resource_type_associations: associations.iter().map(AssociationView::from).collect(),
    })
    .into_response())
}

/// `POST /v2/metadefs/namespaces/{namespace}/resource_types`
pub(in crate::api) async fn create(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(namespace): At<String>,
    Document(body): Document,
) -> Result<Response, Failure> {
    let body: AssociationBody = parse(body, &READ_ONLY, &schema::metadefs::resource_type())?;
    let association = body.read(Timestamp::now()).map_err(Failure::bad)?;
    let rule = policy::add_metadef_resource_type_association;
    let (mut tx, of) = writing(&svc, &ctx, &namespace, rule).await?;
    rows::insert(&mut tx, of, &association).await.map_err(|e| {
        duplicate(e, || {
            format!(
                "Namespace={namespace} is associated with resource type={} already.",
                association.resource_type
            )
        })
    })?;
    let told = || payload::metadef_association(&namespace, &association);
    outbox::note(&mut tx, "metadef_resource_type.create", told).await?;
    tx.commit().await?;
    let view = AssociationView::from(&association);
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// `DELETE /v2/metadefs/namespaces/{namespace}/resource_types/{type}`
pub(in crate::api) async fn delete(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((namespace, resource_type)): At<(String, String)>,
    _: NoBody,
) -> Result<Response, Failure> {
    let rule = policy::remove_metadef_resource_type_association;
    let what = format!("its association with {resource_type}");
    let (mut tx, of) = deleting(&svc, &ctx, &namespace, rule, &what).await?;
    let association = rows::find(&mut tx, of.id, &resource_type)
        .await?
        .ok_or_else(|| missing(&namespace, &resource_type))?;
    if !rows::delete(&mut tx, of.id, &resource_type).await? {
        return Err(missing(&namespace, &resource_type));
    }
    let told = || {
        let told = payload::metadef_association(&namespace, &association);
        payload::deleted(told, Timestamp::now())
    };
    outbox::note(&mut tx, "metadef_resource_type.delete", told).await?;
    deleted(tx).await
}

/// 404: the namespace is not for this type.
pub(super) fn missing(namespace: &str, resource_type: &str) -> Failure {
    not_found(format!(
        "Namespace={namespace} is not associated with resource type={resource_type}."
    ))
}
