//! `/v2/images/{id}/locations`, and the copies of an image in single stores.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::{empty, find, find_for_services, not_found};
use crate::api::error::Failure;
use crate::api::extract::{At, Document, NoBody};
use crate::api::json::Json;
use crate::api::locations::{invalid, is_digest};
use crate::api::wire::LocationView;
use crate::auth::{Context, policy};
use crate::catalog::{images, locations};
use crate::domain::Status;
use crate::ingest;
use crate::service::Service;
use crate::stores::is_http;

/// `GET /v2/images/{id}/locations`: for services.
pub(in crate::api) async fn list(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
) -> Result<Response, Failure> {
    let mut tx = svc.catalog.read().await?;
    let rule = policy::fetch_image_location;
    let image = find_for_services(&mut tx, &ctx, &id, rule).await?;
    let locations = svc.stores.by_weight(&image.locations).into_iter();
    let locations: Vec<_> = locations.map(LocationView::from).collect();
    Ok(Json(locations).into_response())
}

/// `POST /v2/images/{id}/locations`: 202, and a job looks at it.
pub(in crate::api) async fn add(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    Document(body): Document,
) -> Result<Response, Failure> {
    let (url, digest) = parse(&body)?;
    let mut tx = svc.catalog.read().await?;
    let rule = policy::add_image_location;
    let image = find_for_services(&mut tx, &ctx, &id, rule).await?;
    drop(tx);
    if image.status != Status::Queued {
        return Err(Failure::new(
            StatusCode::CONFLICT,
            format!(
                "It's not allowed to add locations if image status is {}.",
                image.status
            ),
        ));
    }
    if !is_http(url) && policy::service_api(&ctx).is_err() {
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            "Only http and https locations may be added.",
        ));
    }
    let store = svc.stores.of_url(url).ok_or_else(|| invalid(url))?;
    svc.fetcher.check(url).await.map_err(|e| {
        tracing::info!(reason = ?e, "a location was refused");
        Failure::bad(format!("URI for location does not pass filtering: {url}"))
    })?;
    ingest::locate(&svc, &image.id, &store.config.id, url, digest, &ctx).await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// Name and value of the digest that is vouched for.
type Digest = (String, String);

/// The URL, and the digest where one is given.
fn parse(body: &Value) -> Result<(&str, Option<Digest>), Failure> {
    let url = body.get("url").and_then(Value::as_str).unwrap_or_default();
    if url.is_empty() {
        return Err(Failure::bad("A location requires a 'url' field."));
    }
    let said = match body.get("validation_data") {
        None => return Ok((url, None)),
        Some(Value::Object(said)) if said.is_empty() => return Ok((url, None)),
        Some(said) => said,
    };
    let field = |name: &str| said.get(name).and_then(Value::as_str);
    let (Some(algo), Some(value)) = (field("os_hash_algo"), field("os_hash_value")) else {
        return Err(Failure::bad(
            "validation_data requires both 'os_hash_algo' and 'os_hash_value'.",
        ));
    };
    if !["md5", "sha1", "sha256", "sha512"].contains(&algo) {
        return Err(Failure::bad(format!(
            "os_hash_algo must be md5, sha1, sha256 or sha512, not {algo}"
        )));
    }
    let value = value.to_ascii_lowercase();
    if !is_digest(algo, &value) {
        return Err(Failure::bad(format!(
            "os_hash_value is not a hexadecimal digest of {algo}"
        )));
    }
    Ok((url, Some((algo.to_owned(), value))))
}

/// `DELETE /v2/stores/{store}/{id}`: the copy in one store.
pub(in crate::api) async fn delete_from_store(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At((store, id)): At<(String, String)>,
    _: NoBody,
) -> Result<Response, Failure> {
    let absent = || not_found(format!("Failed to find image {id}"));
    let conflict = |sentence: String| Failure::new(StatusCode::CONFLICT, sentence);
    if svc.stores.get(&store).is_none() {
        return Err(conflict(format!(
            "The selected store {store} is not available on this node."
        )));
    }
    let mut tx = svc.catalog.write().await?;
    let image = find(&mut tx, &ctx, &id).await?.ok_or_else(absent)?;
    policy::get_image_location(&ctx, &image)?;
    policy::delete_image_location(&ctx, &image)?;
    if image.status != Status::Active {
        return Err(conflict(
            "It's not allowed to remove image data from store if image status is not 'active'"
                .into(),
        ));
    }
    if image.locations.len() == 1 {
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            "Cannot delete image data from the only store containing it. Consider deleting the \
             image instead.",
        ));
    }
    let location = image.locations.iter().find(|l| l.store == store);
    let location =
        location.ok_or_else(|| not_found(format!("Image {id} is not stored on store {store}.")))?;
    locations::doom(&mut tx, &location.id).await?;
    images::change(&mut tx, &image.id, image.status, |_| {}).await?;
    tx.commit().await?;
    tracing::info!(image.id = %image.id, store.id = store, "image {id} is removed from store {store}");
    // Goes on by itself, so that a client that hangs up leaves no bytes behind.
    let sweeper = svc.clone();
    let swept = tokio::spawn(async move { ingest::sweep_doomed(&sweeper).await });
    swept
        .await
        .map_err(|e| ingest::Error::Internal(e.to_string()))?;
    Ok(empty(StatusCode::NO_CONTENT))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bodies_of_wrong_types_are_refused() {
        for bad in [
            json!([]),
            json!({}),
            json!({"url": ""}),
            json!({"url": 7}),
            json!({"url": "u", "validation_data": []}),
            json!({"url": "u", "validation_data": {"os_hash_algo": "md5"}}),
            json!({"url": "u", "validation_data": {"os_hash_algo": "md5", "os_hash_value": "z"}}),
            json!({"url": "u", "validation_data": {"os_hash_algo": "crc", "os_hash_value": "0"}}),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
        let upper = json!({"os_hash_algo": "md5", "os_hash_value": "A".repeat(32)});
        let body = json!({"url": "u", "validation_data": upper});
        let (_, digest) = parse(&body).unwrap();
        assert_eq!(digest.unwrap().1, "a".repeat(32));
    }
}
