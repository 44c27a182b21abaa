//! `/v2/batches`, beyond the reference: many images asked for at once.

mod name;
mod plan;

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::{empty, not_found};
use crate::api::error::Failure;
use crate::api::extract::{At, Document};
use crate::api::json::Json;
use crate::api::query;
use crate::api::wire::{BatchPage, BatchView, Plan, own_url};
use crate::auth::{Context, policy};
use crate::catalog::{Tx, batches};
use crate::domain::Timestamp;
use crate::domain::batch::{Batch, ItemState};
use crate::ingest;
use crate::quota::Step;
use crate::service::Service;
use plan::Order;

/// The batch, if the caller may know of it.
async fn find(tx: &mut Tx, ctx: &Context, id: &str) -> Result<Batch, Failure> {
    let found = batches::find(tx, id).await?;
    let batch = found.filter(|b| ctx.is_admin || ctx.owns(b.owner.as_deref()));
    let batch = batch.ok_or_else(|| not_found(format!("No batch found with ID {id}")))?;
    policy::get_batch(ctx, batch.owner.as_deref())?;
    Ok(batch)
}

/// `POST /v2/batches`: 202, and jobs do it.
pub(in crate::api) async fn create(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    headers: HeaderMap,
    Document(body): Document,
) -> Result<Response, Failure> {
    policy::add_batch(&ctx)?;
    let limits = &svc.config.batches;
    let mut plan = plan::parse(body, limits)?;
    let sources: Vec<(u32, Value)> = (1..).zip(std::mem::take(&mut plan.sources)).collect();
    let owner = ctx.project.as_deref();
    let of = count(&sources);
    let Order { parts, manner } = plan::order(&svc, &ctx, owner, &plan, &sources, of).await?;
    let parts = parts.into_iter().collect::<Result<_, _>>()?;
    let step = Step::Batch(of.into());
    svc.quotas.check(&svc.catalog, owner, step).await?;
    let batch = Batch {
        id: uuid::Uuid::new_v4().to_string(),
        owner: ctx.project.clone(),
        user_id: ctx.user.clone(),
        concurrency: plan.concurrency.unwrap_or(limits.concurrency),
        plan: stored(&plan)?,
        created_at: Timestamp::now(),
    };
    ingest::begin_batch(&svc, &batch, parts, &manner, &ctx).await?;
    let id = &batch.id;
    tracing::info!(batch.id = id, items = of, "batch {id} is accepted");
    let url = format!("{}/v2/batches/{id}", own_url(&svc.config, &headers));
    let location = [(header::LOCATION, url)];
    Ok((StatusCode::ACCEPTED, location, shown(&svc, &batch).await?).into_response())
}

fn count(sources: &[(u32, Value)]) -> u32 {
    u32::try_from(sources.len()).unwrap_or(u32::MAX)
}

fn stored(plan: &Plan) -> Result<Value, Failure> {
    let ours = |_| Failure::of(StatusCode::INTERNAL_SERVER_ERROR);
    serde_json::to_value(plan).map_err(ours)
}

async fn shown(svc: &Service, batch: &Batch) -> Result<Response, Failure> {
    let mut tx = svc.catalog.read().await?;
    let items = batches::items(&mut tx, &batch.id).await?;
    let counts = batches::counts(&mut tx, &[&batch.id]).await?;
    let counts = counts.first().copied().unwrap_or_default();
    Ok(Json(BatchView::new(batch, counts, Some(&items))).into_response())
}

/// `GET /v2/batches`: the newest first; all of them for administrators.
pub(in crate::api) async fn list(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let params = query::pairs(&query.unwrap_or_default()).ok_or_else(Failure::undecodable)?;
    policy::get_batches(&ctx)?;
    let said = |name: &str| {
        let mut found = params.iter().rev().filter(|(n, _)| n == name);
        found.next().map(|(_, value)| value.as_str())
    };
    let limits = &svc.config.api;
    let limit = match said("limit") {
        Some(limit) => query::limit(limit).map_err(Failure::bad)?,
        None => limits.limit_default,
    };
    let limit = limit.min(limits.limit_max);
    let mut tx = svc.catalog.read().await?;
    let marker = match said("marker") {
        Some(id) => Some(find(&mut tx, &ctx, id).await?),
        None => None,
    };
    let page = match (ctx.is_admin, ctx.project.as_deref()) {
        (true, _) => batches::list(&mut tx, None, marker.as_ref(), limit).await?,
        (false, None) => Vec::new(),
        (false, owner) => batches::list(&mut tx, owner, marker.as_ref(), limit).await?,
    };
    let ids: Vec<&str> = page.iter().map(|batch| batch.id.as_str()).collect();
    let counts = batches::counts(&mut tx, &ids).await?;
    let params: Vec<_> = said("limit").map(|l| ("limit", l)).into_iter().collect();
    let is_full = limit > 0 && page.len() == limit as usize;
    let last = page.last().filter(|_| is_full);
    let views = page.iter().zip(counts);
    Ok(Json(BatchPage {
        batches: views
            .map(|(batch, counts)| BatchView::new(batch, counts, None))
            .collect(),
        first: query::link("/v2/batches", &params, None),
        next: last.map(|last| query::link("/v2/batches", &params, Some(&last.id))),
    })
    .into_response())
}

/// `GET /v2/batches/{id}`
pub(in crate::api) async fn show(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
) -> Result<Response, Failure> {
    let batch = find(&mut svc.catalog.read().await?, &ctx, &id).await?;
    shown(&svc, &batch).await
}

/// `POST /v2/batches/{id}/cancel`: whatever has not ended ends, and leaves no image.
pub(in crate::api) async fn cancel(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
) -> Result<Response, Failure> {
    let batch = find(&mut svc.catalog.read().await?, &ctx, &id).await?;
    policy::modify_batch(&ctx, batch.owner.as_deref())?;
    if ingest::cancel_batch(&svc, &batch).await? {
        Ok(empty(StatusCode::ACCEPTED))
    } else {
        Err(conflict(format!("Batch {id} has ended already")))
    }
}

/// `POST /v2/batches/{id}/retry`: what failed begins again, with the rights of whoever asks. What
/// cannot be begun at all stays as it is, unless that is everything.
pub(in crate::api) async fn retry(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
) -> Result<Response, Failure> {
    let mut tx = svc.catalog.read().await?;
    let batch = find(&mut tx, &ctx, &id).await?;
    let owner = batch.owner.as_deref();
    policy::modify_batch(&ctx, owner)?;
    let items = batches::items(&mut tx, &id).await?;
    drop(tx);
    let of = u32::try_from(items.len()).unwrap_or(u32::MAX);
    let (failed, tasks): (Vec<_>, Vec<_>) = items
        .into_iter()
        .filter(|item| item.state() == ItemState::Failed)
        .map(|item| ((item.n, item.source), item.task_id))
        .unzip();
    if failed.is_empty() {
        return Err(conflict(format!("Nothing of batch {id} has failed")));
    }
    let plan: Plan = serde_json::from_value(batch.plan.clone())
        .map_err(|_| Failure::of(StatusCode::INTERNAL_SERVER_ERROR))?;
    let Order { parts, manner } = plan::order(&svc, &ctx, owner, &plan, &failed, of).await?;
    let mut refused = None;
    let parts: Vec<_> = parts
        .into_iter()
        .zip(tasks)
        .filter_map(|(part, task)| match part {
            Ok(part) => Some((part, task)),
            Err(why) => {
                refused.get_or_insert(why);
                None
            }
        })
        .collect();
    if let (true, Some(why)) = (parts.is_empty(), refused) {
        return Err(why);
    }
    let step = Step::Batch(parts.len() as u64);
    svc.quotas.check(&svc.catalog, owner, step).await?;
    ingest::retry_batch(&svc, &batch, parts, &manner, &ctx).await?;
    Ok((StatusCode::ACCEPTED, shown(&svc, &batch).await?).into_response())
}

/// `DELETE /v2/batches/{id}`: forgets one that has ended. Its images and tasks stay.
pub(in crate::api) async fn delete(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
) -> Result<Response, Failure> {
    let mut tx = svc.catalog.write().await?;
    let batch = find(&mut tx, &ctx, &id).await?;
    policy::delete_batch(&ctx, batch.owner.as_deref())?;
    let counts = batches::counts(&mut tx, &[&id]).await?;
    if !counts.iter().all(|counts| counts.state().has_ended()) {
        return Err(conflict(format!("Batch {id} has not ended")));
    }
    batches::delete(&mut tx, &id).await?;
    tx.commit().await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

fn conflict(sentence: String) -> Failure {
    Failure::new(StatusCode::CONFLICT, sentence)
}
