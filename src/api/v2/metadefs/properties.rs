//! `/v2/metadefs/namespaces/{namespace}/properties` and `…/properties/{property}`

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::{
    Kind, associations, deleted, deleting, duplicate, namespaces, object, reading, writing,
};
use crate::api::error::Failure;
use crate::api::extract::{At, Document, NoBody};
use crate::api::json::Json;
use crate::api::schema;
use crate::api::wire::metadef::{PropertyList, property, property_view};
use crate::auth::{Context, policy};
use crate::catalog::metadefs::{associations as association_rows, properties as rows};
use crate::catalog::outbox;
use crate::domain::Timestamp;
use crate::domain::metadef::Property;
use crate::notify::payload;
use crate::service::Service;

const KIND: Kind = Kind("property");
const READ_ONLY: [&str; 2] = ["created_at", "updated_at"];

/// `GET /v2/metadefs/namespaces/{namespace}/properties`
pub(in crate::api) async fn list(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(namespace): At<String>,
    _: NoBody,
) -> Result<Response, Failure> {
    let (mut tx, of) = reading(&svc, &ctx, &namespace, policy::get_metadef_properties).await?;
    let properties = rows::list(&mut tx, of).await?;
    Ok(Json(PropertyList::from(properties.as_slice())).into_response())
}

/// `POST /v2/metadefs/namespaces/{namespace}/properties`
pub(in crate::api) async fn create(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(namespace): At<String>,
    Document(body): Document,
) -> Result<Response, Failure> {
    let property = read(body)?;
    let (mut tx, of) = writing(&svc, &ctx, &namespace, policy::add_metadef_property).await?;
    rows::insert(&mut tx, of, &property, Timestamp::now())
        .await
        .map_err(|e| duplicate(e, || KIND.exists(&namespace, &property.name)))?;
    let told = || payload::metadef_property(&namespace, &property, None);
    outbox::note(&mut tx, "metadef_property.create", told).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(property_view(&property))).into_response())
}

/// `GET /v2/metadefs/namespaces/{namespace}/properties/{property}`: with `?resource_type=` the name
/// is the one that type knows, with the prefix.
pub(in crate::api) async fn show(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((namespace, name)): At<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let resource_type = namespaces::resource_type(query)?;
    let (mut tx, of) = reading(&svc, &ctx, &namespace, policy::get_metadef_property).await?;
    let mut wanted = name.as_str();
    if let Some(resource_type) = resource_type {
        let association = association_rows::find(&mut tx, of, &resource_type)
            .await?
            .ok_or_else(|| associations::missing(&namespace, &resource_type))?;
        wanted = name
            .strip_prefix(association.prefix.as_deref().unwrap_or_default())
            .ok_or_else(|| KIND.missing(&namespace, &name))?;
    }
    let property = rows::find(&mut tx, of, wanted)
        .await?
        .ok_or_else(|| KIND.missing(&namespace, wanted))?;
    Ok(Json(property_view(&property)).into_response())
}

/// `PUT /v2/metadefs/namespaces/{namespace}/properties/{property}`
pub(in crate::api) async fn update(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((namespace, name)): At<(String, String)>,
    Document(body): Document,
) -> Result<Response, Failure> {
    let property = read(body)?;
    let (mut tx, of) = writing(&svc, &ctx, &namespace, policy::modify_metadef_property).await?;
    let found = rows::update(&mut tx, of, &name, &property, Timestamp::now())
        .await
        .map_err(|e| duplicate(e, || KIND.exists(&namespace, &property.name)))?;
    if !found {
        return Err(KIND.missing(&namespace, &name));
    }
    let told = || payload::metadef_property(&namespace, &property, Some(&name));
    outbox::note(&mut tx, "metadef_property.update", told).await?;
    tx.commit().await?;
    Ok(Json(property_view(&property)).into_response())
}

/// `DELETE /v2/metadefs/namespaces/{namespace}/properties/{property}`
pub(in crate::api) async fn delete(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((namespace, name)): At<(String, String)>,
    _: NoBody,
) -> Result<Response, Failure> {
    let what = format!("property {name}");
    let (mut tx, of) = deleting(
        &svc,
        &ctx,
        &namespace,
        policy::remove_metadef_property,
        &what,
    )
    .await?;
    let property = rows::find(&mut tx, of.id, &name)
        .await?
        .ok_or_else(|| KIND.missing(&namespace, &name))?;
    if !rows::delete(&mut tx, of.id, &name).await? {
        return Err(KIND.missing(&namespace, &name));
    }
    let told = || {
        let told = payload::metadef_property(&namespace, &property, None);
        payload::deleted(told, Timestamp::now())
    };
    outbox::note(&mut tx, "metadef_property.delete", told).await?;
    deleted(tx).await
}

/// `DELETE /v2/metadefs/namespaces/{namespace}/properties`
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
        policy::remove_metadef_property,
        "its properties",
    )
    .await?;
    rows::delete_all(&mut tx, of.id).await?;
    let told = || payload::namespace(&of.namespace, None);
    outbox::note(&mut tx, "metadef_namespace.delete_properties", told).await?;
    deleted(tx).await
}

fn read(body: Value) -> Result<Property, Failure> {
    let body = object(body, &READ_ONLY, &schema::metadefs::property())?;
    property(body).map_err(Failure::bad)
}
