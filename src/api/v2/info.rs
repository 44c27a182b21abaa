//! `/v2/info/…`: what this service offers.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::json;

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

/// `GET /v2/info/usage`: empty, as long as no limits are kept in Keystone.
pub(in crate::api) async fn usage() -> Response {
    Json(json!({"usage": {}})).into_response()
}
