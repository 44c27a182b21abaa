//! `/v2/info/…`: what this service offers.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, json};

use crate::api::error::Failure;
use crate::api::extract::NoBody;
use crate::api::json::Json;
use crate::api::wire::{DetailedStore, StoreList, StoreView};
use crate::auth::{Context, policy};
use crate::service::Service;

/// `GET /v2/info/import`
pub(in crate::api) async fn import(State(svc): State<Arc<Service>>, _: NoBody) -> Response {
    Json(json!({
        "import-methods": {
            "description": "Import methods available.",
            "type": "array",
            "value": svc.config.import.methods,
        },
    }))
    .into_response()
}

/// `GET /v2/info/stores`. Stores always have names here, so one store alone is listed too, where
/// the reference answers 404.
pub(in crate::api) async fn stores(State(svc): State<Arc<Service>>, _: NoBody) -> Response {
    let stores = svc.config.stores.iter().map(StoreView::from).collect();
    Json(StoreList { stores }).into_response()
}

/// `GET /v2/info/stores/detail`
pub(in crate::api) async fn stores_detail(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    _: NoBody,
) -> Result<Response, Failure> {
    policy::stores_info_detail(&ctx)?;
    let stores = svc.config.stores.iter().map(DetailedStore::from).collect();
    Ok(Json(StoreList { stores }).into_response())
}

/// `GET /v2/info/usage`: what the caller's project holds of what Keystone's limits allow.
pub(in crate::api) async fn usage(
    State(svc): State<Arc<Service>>,
    ctx: Context,
) -> Result<Response, Failure> {
    let usage = svc.quotas.usage(&svc.catalog, ctx.project.as_deref());
    let each = usage.await?.into_iter();
    let usage: Map<_, _> = each
        .map(|(name, used, limit)| (name.to_owned(), json!({"usage": used, "limit": limit})))
        .collect();
    Ok(Json(json!({ "usage": usage })).into_response())
}
