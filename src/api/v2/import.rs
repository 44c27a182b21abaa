//! `POST /v2/images/{id}/import`

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value};

use super::{empty, must_find};
use crate::api::error::Failure;
use crate::api::extract::{At, Document, text};
use crate::auth::{Context, policy};
use crate::domain::{Image, Status};
use crate::ingest::{self, ImportRequest};
use crate::service::Service;

/// `POST /v2/images/{id}/import`: 202, and a job does it.
pub(in crate::api) async fn import(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    headers: HeaderMap,
    Document(body): Document,
) -> Result<Response, Failure> {
    let wish = Wish::parse(&body, &svc.config.import.methods)?;
    let mut tx = svc.catalog.read().await?;
    let image = must_find(&mut tx, &ctx, &id).await?;
    drop(tx);
    fits(&image)?;
    policy::modify_image(&ctx, &image)?;
    let header = text(&headers, "x-image-meta-store")?;
    let request = ImportRequest {
        stores: wish.stores(&svc, header)?,
        all_stores_must_succeed: wish.all_stores_must_succeed,
        method: wish.method,
        import_req: body.clone(),
    };
    ingest::import(&svc, &image.id, request, &ctx)
        .await
        .map_err(|e| match e {
            ingest::Error::UnknownStore(store) => unknown_store(&store),
            ingest::Error::NoData => conflict("The image has no staged data"),
            other => other.into(),
        })?;
    Ok(empty(StatusCode::ACCEPTED))
}

fn conflict(sentence: &str) -> Failure {
    Failure::new(StatusCode::CONFLICT, sentence)
}

fn unknown_store(store: &str) -> Failure {
    conflict(&format!("Store for identifier {store} not found"))
}

/// Whether an image is ready for `glance-direct`. Told before the caller's rights are, as in the
/// reference.
fn fits(image: &Image) -> Result<(), Failure> {
    if image.status == Status::Active {
        return Err(conflict(
            "Image with status active cannot be target for import",
        ));
    }
    if image.status != Status::Uploading {
        return Err(conflict(
            "Image needs to be staged before 'glance-direct' method can be used",
        ));
    }
    if image.container_format.is_none() {
        return Err(conflict("'container_format' needs to be set before import"));
    }
    if image.disk_format.is_none() {
        return Err(conflict("'disk_format' needs to be set before import"));
    }
    Ok(())
}

/// What the body asks for.
struct Wish {
    method: String,
    /// `None`: not said.
    stores: Option<Vec<String>>,
    all_stores: bool,
    all_stores_must_succeed: bool,
}

impl Wish {
    fn parse(body: &Value, enabled: &[String]) -> Result<Self, Failure> {
        let body = body
            .as_object()
            .ok_or_else(|| Failure::bad("Request body must be a JSON object."))?;
        let method = body
            .get("method")
            .ok_or_else(|| Failure::bad("Import request requires a 'method' field."))?;
        let name = method
            .get("name")
            .and_then(Value::as_str)
            .ok_or_else(|| Failure::bad("Import request requires a 'name' field."))?;
        if !enabled.iter().any(|m| m == name) {
            return Err(Failure::bad(format!(
                "Unknown import method name '{name}'."
            )));
        }
        let stores = body.get("stores").map(store_names).transpose()?;
        Ok(Self {
            method: name.to_owned(),
            stores,
            all_stores: flag(body, "all_stores", false)?,
            all_stores_must_succeed: flag(body, "all_stores_must_succeed", true)?,
        })
    }

    /// The stores to import to. One that is not known is refused here, before anything happens.
    fn stores(&self, svc: &Service, header: Option<&str>) -> Result<Vec<String>, Failure> {
        let stores = match (&self.stores, header) {
            (stores, header) if self.all_stores => {
                if stores.is_some() || header.is_some() {
                    return Err(Failure::bad(
                        "All_stores parameter can't be used with x-image-meta-store header or \
                         stores parameter",
                    ));
                }
                let all = svc.config.stores.iter().filter(|s| !s.read_only);
                all.map(|s| s.id.clone()).collect()
            }
            (Some(_), Some(_)) => {
                return Err(Failure::bad(
                    "Stores parameter and x-image-meta-store header can't be both specified",
                ));
            }
            (Some(stores), None) => stores.clone(),
            (None, Some(store)) => vec![store.to_owned()],
            (None, None) => vec![svc.stores.default_id().to_owned()],
        };
        match stores.iter().find(|s| svc.stores.get(s).is_none()) {
            Some(unknown) => Err(unknown_store(unknown)),
            None => Ok(stores),
        }
    }
}

fn flag(body: &Map<String, Value>, name: &str, default: bool) -> Result<bool, Failure> {
    match body.get(name) {
        None => Ok(default),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Failure::bad(format!("'{name}' must be boolean value only"))),
    }
}

/// A list of store ids, each once, in order.
fn store_names(value: &Value) -> Result<Vec<String>, Failure> {
    let fault = || Failure::bad("'stores' must be a list of store identifiers");
    let mut names: Vec<String> = Vec::new();
    for name in value.as_array().ok_or_else(fault)? {
        let name = name.as_str().ok_or_else(fault)?;
        if !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    }
    if names.is_empty() {
        return Err(fault());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wish(body: &Value) -> Result<Wish, Failure> {
        Wish::parse(body, &["glance-direct".to_owned()])
    }

    #[test]
    fn bodies_of_wrong_types_are_refused() {
        let direct = json!({"name": "glance-direct"});
        for bad in [
            json!([]),
            json!({}),
            json!({"method": 7}),
            json!({"method": {}}),
            json!({"method": {"name": 7}}),
            json!({"method": {"name": "web-download"}}),
            json!({"method": direct, "stores": "a"}),
            json!({"method": direct, "stores": []}),
            json!({"method": direct, "stores": [1]}),
            json!({"method": direct, "all_stores": "true"}),
            json!({"method": direct, "all_stores_must_succeed": null}),
        ] {
            assert!(wish(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn stores_are_named_once() {
        let body = json!({"method": {"name": "glance-direct"}, "stores": ["b", "a", "b"]});
        let wish = wish(&body).ok().unwrap();
        assert_eq!(wish.stores.unwrap(), ["b", "a"]);
        assert!(wish.all_stores_must_succeed && !wish.all_stores);
    }
}
