//! `/v2/metadefs/namespaces` and `/v2/metadefs/namespaces/{namespace}`

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{allowed, duplicate, namespace, parse, visible};
use crate::api::error::Failure;
use crate::api::extract::{At, Document, NoBody};
use crate::api::json::Json;
use crate::api::v2::not_found;
use crate::api::wire::metadef::{NamespaceBody, NamespaceList, NamespaceView, namespace_path};
use crate::api::wire::own_url;
use crate::api::{query, schema};
use crate::auth::{Context, policy};
use crate::catalog::metadefs::{self as rows, NamespaceKey, NamespaceQuery, associations};
use crate::catalog::{Direction, Viewer, outbox};
use crate::domain::metadef::{Contents, Namespace};
use crate::domain::{Timestamp, Visibility};
use crate::notify::payload;
use crate::service::Service;

const READ_ONLY: [&str; 4] = ["self", "schema", "created_at", "updated_at"];
const PATH: &str = "/v2/metadefs/namespaces";
/// Resource types of one filter at most.
const MAX_TYPES: usize = 1000;

/// `POST /v2/metadefs/namespaces`
pub(in crate::api) async fn create(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    headers: HeaderMap,
    Document(body): Document,
) -> Result<Response, Failure> {
    let body: NamespaceBody = parse(body, &READ_ONLY, &schema::metadefs::namespace())?;
    let (namespace, contents) = body
        .read(ctx.project.clone(), Timestamp::now())
        .map_err(Failure::bad)?;
    policy::add_metadef_namespace(&ctx)?;
    may_be_public(&ctx, &namespace)?;

    let mut tx = svc.catalog.write().await?;
    let exists = || {
        format!(
            "The metadata definition namespace={} already exists.",
            namespace.name
        )
    };
    if rows::namespaces::find(&mut tx, &namespace.name)
        .await?
        .is_some()
    {
        return Err(Failure::new(StatusCode::CONFLICT, exists()));
    }
    // What is in it goes into the same transaction: a fault half way leaves nothing.
    rows::insert(&mut tx, &namespace, &contents)
        .await
        .map_err(|e| {
            duplicate(e, || {
                format!(
                    "Two parts of namespace {} have the same name.",
                    namespace.name
                )
            })
        })?;
    let told = || payload::namespace(&namespace, None);
    outbox::note(&mut tx, "metadef_namespace.create", told).await?;
    tx.commit().await?;

    let view = NamespaceView::created(&namespace, &contents);
    let mut response = (StatusCode::CREATED, Json(view)).into_response();
    let url = own_url(&svc.config, &headers) + &namespace_path(&namespace.name);
    if let Ok(url) = HeaderValue::try_from(url) {
        response.headers_mut().insert(header::LOCATION, url);
    }
    Ok(response)
}

fn may_be_public(ctx: &Context, namespace: &Namespace) -> Result<(), Failure> {
    if namespace.visibility == Visibility::Public && !ctx.is_admin {
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            "Only an administrator makes a namespace public.",
        ));
    }
    Ok(())
}

/// `GET /v2/metadefs/namespaces`
pub(in crate::api) async fn list(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let params = query::pairs(&query.unwrap_or_default()).ok_or_else(Failure::undecodable)?;
    let default = svc.config.api.limit_default.min(svc.config.api.limit_max);
    let mut listing = NamespaceQuery {
        viewer: Viewer {
            project: ctx.project.clone(),
            is_admin: ctx.is_admin,
        },
        visibility: None,
        resource_types: Vec::new(),
        sort: (NamespaceKey::CreatedAt, Direction::Desc),
        after: None,
        limit: default,
    };
    let mut marker = None;
    for (name, value) in &params {
        match name.as_str() {
            "limit" => {
                let limit = query::limit(value).map_err(Failure::bad)?;
                listing.limit = limit.min(svc.config.api.limit_max);
            }
            "marker" => marker = Some(value.as_str()),
            "sort_key" => listing.sort.0 = sort_key(value)?,
            "sort_dir" => listing.sort.1 = query::direction(value).map_err(Failure::bad)?,
            "visibility" => listing.visibility = Some(visibility(value)?),
            "resource_types" => {
                listing.resource_types = value.split(',').map(str::to_owned).collect();
            }
            _ => {}
        }
    }
    if listing.resource_types.len() > MAX_TYPES {
        return Err(Failure::bad(format!(
            "More than {MAX_TYPES} resource types are not supported."
        )));
    }
    policy::get_metadef_namespaces(&ctx)?;

    let mut tx = svc.catalog.read().await?;
    if let Some(marker) = marker {
        listing.after = Some(namespace(&mut tx, &ctx, marker).await?);
    }
    let found = rows::namespaces::list(&mut tx, &listing).await?;
    let mut page = Vec::with_capacity(found.len());
    for found in found {
        let contents = Contents {
            associations: associations::list(&mut tx, found.id).await?,
            ..Contents::default()
        };
        page.push((found.namespace, contents));
    }
    let mut shown: Vec<(&str, &str)> = Vec::new();
    for (name, value) in params.iter().filter(|(name, _)| name != "marker") {
        shown.retain(|(earlier, _)| earlier != name);
        shown.push((name, value));
    }
    let last = page.last().filter(|_| page.len() == listing.limit as usize);
    Ok(Json(NamespaceList {
        next: last.map(|(last, _)| query::link(PATH, &shown, Some(&last.name))),
        first: query::link(PATH, &shown, None),
        namespaces: page.iter().map(|(n, c)| NamespaceView::new(n, c)).collect(),
        schema: "/v2/schemas/metadefs/namespaces",
    })
    .into_response())
}

fn visibility(name: &str) -> Result<Visibility, Failure> {
    match name {
        "public" => Ok(Visibility::Public),
        "private" => Ok(Visibility::Private),
        _ => Err(Failure::bad(format!("Invalid visibility value: {name}"))),
    }
}

fn sort_key(name: &str) -> Result<NamespaceKey, Failure> {
    Ok(match name {
        "namespace" => NamespaceKey::Name,
        "display_name" => NamespaceKey::DisplayName,
        "description" => NamespaceKey::Description,
        "visibility" => NamespaceKey::Visibility,
        "protected" => NamespaceKey::Protected,
        "owner" => NamespaceKey::Owner,
        "created_at" => NamespaceKey::CreatedAt,
        "updated_at" => NamespaceKey::UpdatedAt,
        _ => return Err(Failure::bad(format!("Invalid sort key: {name}."))),
    })
}

/// `GET /v2/metadefs/namespaces/{namespace}`
pub(in crate::api) async fn show(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(name): At<String>,
    RawQuery(query): RawQuery,
    _: NoBody,
) -> Result<Response, Failure> {
    let resource_type = resource_type(query)?;
    let mut tx = svc.catalog.read().await?;
    let found = allowed(&mut tx, &ctx, &name, policy::get_metadef_namespace).await?;
    let mut contents = rows::contents(&mut tx, found.id).await?;
    if let Some(wanted) = resource_type {
        let association = contents
            .associations
            .iter()
            .find(|a| a.resource_type == wanted)
            .ok_or_else(|| super::associations::missing(&name, &wanted))?;
        if let Some(prefix) = association.prefix.clone() {
            contents.prefix(&prefix);
        }
    }
    Ok(Json(NamespaceView::new(&found.namespace, &contents)).into_response())
}

/// The `resource_type` parameter.
pub(super) fn resource_type(query: Option<String>) -> Result<Option<String>, Failure> {
    let params = query::pairs(&query.unwrap_or_default()).ok_or_else(Failure::undecodable)?;
    let mut named = params.into_iter().filter(|(n, _)| n == "resource_type");
    Ok(named.next_back().map(|(_, value)| value))
}

/// `PUT /v2/metadefs/namespaces/{namespace}`: replaces what the namespace says of itself; what is in
/// it stays.
pub(in crate::api) async fn update(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(name): At<String>,
    Document(body): Document,
) -> Result<Response, Failure> {
    let body: NamespaceBody = parse(body, &READ_ONLY, &schema::metadefs::namespace())?;
    let mut tx = svc.catalog.write().await?;
    let found = allowed(&mut tx, &ctx, &name, policy::modify_metadef_namespace).await?;
    let (mut namespace, _) = body
        .read(ctx.project.clone(), Timestamp::now())
        .map_err(Failure::bad)?;
    may_be_public(&ctx, &namespace)?;
    namespace.created_at = found.namespace.created_at;
    rows::namespaces::update(&mut tx, found.id, &namespace)
        .await
        .map_err(|e| {
            duplicate(e, || {
                format!(
                    "The metadata definition namespace={} already exists.",
                    namespace.name
                )
            })
        })?;
    let told = || payload::namespace(&namespace, Some(&name));
    outbox::note(&mut tx, "metadef_namespace.update", told).await?;
    tx.commit().await?;
    Ok(Json(NamespaceView::new(&namespace, &Contents::default())).into_response())
}

/// `DELETE /v2/metadefs/namespaces/{namespace}`
pub(in crate::api) async fn delete(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(name): At<String>,
    _: NoBody,
) -> Result<Response, Failure> {
    let mut tx = svc.catalog.write().await?;
    // The reference has other words here than elsewhere (17-metadefs.http, "delete it again").
    if visible(&mut tx, &ctx, &name).await?.is_none() {
        return Err(not_found(format!("Namespace {name} not found")));
    }
    let rule = policy::delete_metadef_namespace;
    let found = super::deletable(&mut tx, &ctx, &name, rule, "it").await?;
    rows::namespaces::delete(&mut tx, found.id).await?;
    let told = || payload::deleted(payload::namespace(&found.namespace, None), Timestamp::now());
    outbox::note(&mut tx, "metadef_namespace.delete", told).await?;
    super::deleted(tx).await
}
