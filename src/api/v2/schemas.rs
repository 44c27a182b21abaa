//! `/v2/schemas/…`

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::api::extract::NoBody;
use crate::api::json::Json;
use crate::api::schema;
use crate::service::Service;

/// `GET /v2/schemas/image`
pub(in crate::api) async fn image(State(svc): State<Arc<Service>>, _: NoBody) -> Response {
    Json(schema::image(&svc.config.formats)).into_response()
}

/// `GET /v2/schemas/images`
pub(in crate::api) async fn images(State(svc): State<Arc<Service>>, _: NoBody) -> Response {
    Json(schema::images(&svc.config.formats)).into_response()
}

/// `GET /v2/schemas/member`
pub(in crate::api) async fn member(_: NoBody) -> Response {
    Json(schema::member()).into_response()
}

/// `GET /v2/schemas/members`
pub(in crate::api) async fn members(_: NoBody) -> Response {
    Json(schema::members()).into_response()
}

/// `GET /v2/schemas/task`
pub(in crate::api) async fn task(_: NoBody) -> Response {
    Json(schema::task()).into_response()
}

/// `GET /v2/schemas/tasks`
pub(in crate::api) async fn tasks(_: NoBody) -> Response {
    Json(schema::tasks()).into_response()
}

/// A schema that no configuration changes.
macro_rules! fixed {
    ($($name:ident: $path:literal),* $(,)?) => {$(
        #[doc = concat!("`GET /v2/schemas/metadefs/", $path, "`")]
        pub(in crate::api) async fn $name(_: NoBody) -> Response {
            Json(schema::metadefs::$name()).into_response()
        }
    )*};
}

/// `/v2/schemas/metadefs/…`
pub(in crate::api) mod metadefs {
    use super::{IntoResponse, Json, NoBody, Response, schema};

    fixed!(
        namespace: "namespace", namespaces: "namespaces",
        object: "object", objects: "objects",
        property: "property", properties: "properties",
        tag: "tag", tags: "tags",
        resource_type: "resource_type", resource_types: "resource_types",
    );
}
