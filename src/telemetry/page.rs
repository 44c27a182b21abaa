//! `GET /metrics` on a port of its own: whoever reaches it may read it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::catalog::{jobs, outbox};
use crate::service::Service;

/// The page's router.
pub fn router(svc: &Arc<Service>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(svc.clone())
}

async fn metrics(State(svc): State<Arc<Service>>) -> Response {
    // The lengths of the queues are asked for when somebody wants to know. A catalog that is away is
    // no reason to tell nothing.
    if let Err(e) = queues(&svc).await {
        tracing::warn!(error = %e, "the lengths of the queues cannot be told");
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], svc.metrics.text()).into_response()
}

async fn queues(svc: &Service) -> Result<(), crate::catalog::Error> {
    let (ready, claimed) = jobs::depth(&svc.catalog).await?;
    let events = outbox::depth(&svc.catalog).await?;
    svc.metrics.queues(ready, claimed, events);
    Ok(())
}
