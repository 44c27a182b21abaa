//! `/v2/tasks`, which administrators watch, and `GET /v2/images/{id}/tasks`.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::{must_find, not_found};
use crate::api::error::Failure;
use crate::api::extract::{At, Document, NoBody};
use crate::api::json::Json;
use crate::api::wire::{TaskDetail, TaskList, TaskPage, TaskStub, TaskView, own_url};
use crate::api::{properties, query, schema};
use crate::auth::{Context, policy};
use crate::catalog::{Direction, TaskKey, TaskQuery, tasks};
use crate::domain::{Image, ImageId, TaskStatus, Timestamp};
use crate::ingest;
use crate::quota::Step;
use crate::service::Service;

/// The tasks of an image: all for its owner and administrators, their own project's for others.
pub(in crate::api) async fn of_image(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    _: NoBody,
) -> Result<Response, Failure> {
    let mut tx = svc.catalog.read().await?;
    let image = must_find(&mut tx, &ctx, &id).await?;
    policy::get_image(&ctx, &image)?;
    let all = ctx.is_admin || ctx.owns(image.owner.as_deref());
    let mut tasks = tasks::list_of_image(&mut tx, &image.id, Timestamp::now()).await?;
    tasks.retain(|task| all || ctx.owns(task.owner.as_deref()));
    Ok(Json(TaskList {
        tasks: tasks.iter().map(TaskView::from).collect(),
    })
    .into_response())
}

/// `GET /v2/tasks`
pub(in crate::api) async fn list(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let params = query::pairs(&query.unwrap_or_default()).ok_or_else(Failure::undecodable)?;
    let (mut question, marker) = parse(&params, &svc)?;
    policy::tasks_api_access(&ctx)?;
    let mut tx = svc.catalog.read().await?;
    if let Some(id) = marker {
        let found = tasks::find(&mut tx, id).await?;
        question.marker =
            Some(found.ok_or_else(|| Failure::bad(format!("Could not find task {id}")))?);
    }
    let page = match question.limit {
        0 => Vec::new(),
        _ => tasks::list(&mut tx, &question, Timestamp::now()).await?,
    };
    let params: Vec<_> = params
        .iter()
        .filter(|(name, _)| name != "marker")
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let is_full = page.len() == question.limit as usize;
    let last = page.last().filter(|_| is_full);
    Ok(Json(TaskPage {
        tasks: page.iter().map(TaskStub::from).collect(),
        first: query::link("/v2/tasks", &params, None),
        schema: "/v2/schemas/tasks",
        next: last.map(|last| query::link("/v2/tasks", &params, Some(&last.id))),
    })
    .into_response())
}

/// The question, and the marker's id. What is no filter of tasks is passed over.
fn parse<'p>(
    params: &'p [(String, String)],
    svc: &Service,
) -> Result<(TaskQuery, Option<&'p str>), Failure> {
    let limits = &svc.config.api;
    let mut question = TaskQuery {
        status: None,
        kind: None,
        sort: (TaskKey::CreatedAt, Direction::Desc),
        marker: None,
        limit: limits.limit_default.min(limits.limit_max),
    };
    let mut marker = None;
    for (name, value) in params {
        match name.as_str() {
            "limit" => {
                let limit = query::limit(value).map_err(Failure::bad)?;
                question.limit = limit.min(limits.limit_max);
            }
            "marker" => marker = Some(value.as_str()),
            "status" => {
                let status: Result<TaskStatus, ()> = value.parse();
                let fault = |()| Failure::bad(format!("Invalid status value: {value}"));
                question.status = Some(status.map_err(fault)?);
            }
            "type" => {
                if !TYPES.contains(&value.as_str()) {
                    return Err(Failure::bad(format!("Invalid type value: {value}")));
                }
                question.kind = Some(value.clone());
            }
            "sort_key" => {
                question.sort.0 = match value.as_str() {
                    "id" => TaskKey::Id,
                    "type" => TaskKey::Type,
                    "status" => TaskKey::Status,
                    "created_at" => TaskKey::CreatedAt,
                    "updated_at" => TaskKey::UpdatedAt,
                    "expires_at" => TaskKey::ExpiresAt,
                    _ => return Err(Failure::bad("Sort key supplied was not valid.")),
                };
            }
            "sort_dir" => question.sort.1 = query::direction(value).map_err(Failure::bad)?,
            _ => {}
        }
    }
    Ok((question, marker))
}

const TYPES: [&str; 3] = ["import", "api_image_import", "location_import"];

/// `GET /v2/tasks/{id}`
pub(in crate::api) async fn show(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
) -> Result<Response, Failure> {
    policy::tasks_api_access(&ctx)?;
    let mut tx = svc.catalog.read().await?;
    let now = Timestamp::now();
    let task = tasks::find(&mut tx, &id).await?;
    let task = task.filter(|t| t.expires_at.is_none_or(|at| at > now));
    let task = task.ok_or_else(|| not_found(format!("Could not find task {id}")))?;
    Ok(Json(TaskDetail::from(&task)).into_response())
}

/// `DELETE /v2/tasks/{id}`: never.
pub(in crate::api) async fn delete() -> Failure {
    Failure::never(
        "GET",
        "This operation is currently not permitted on Glance Tasks. They are auto deleted after \
         reaching the time based on their expires_at property.",
    )
}

/// `POST /v2/tasks`: the old way to import from the web. Unlike the reference's it minds the rules
/// for URLs (OSSN-0105).
pub(in crate::api) async fn create(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    headers: HeaderMap,
    Document(body): Document,
) -> Result<Response, Failure> {
    let Value::Object(body) = body else {
        return Err(Failure::bad("Request body must be a JSON object."));
    };
    for required in ["type", "input"] {
        if !body.contains_key(required) {
            return Err(Failure::bad(format!("Task {required} is required")));
        }
    }
    schema::validate(&schema::task(), &body).map_err(Failure::bad)?;
    policy::tasks_api_access(&ctx)?;
    if body["type"] != "import" {
        return Err(Failure::bad(format!(
            "Tasks of type {} are made by the service alone",
            body["type"].as_str().unwrap_or_default()
        )));
    }
    let input = body["input"].clone();
    let uri = input["import_from"].as_str().unwrap_or("None");
    svc.fetcher.check(uri).await.map_err(|e| {
        tracing::info!(reason = ?e, "a URL was refused");
        Failure::bad(format!("Invalid location: {uri}"))
    })?;
    let image = new_image(&svc, &ctx, &input)?;
    let owner = image.owner.as_deref();
    svc.quotas
        .check(&svc.catalog, owner, Step::Create(1))
        .await?;
    let task = ingest::import_new(&svc, &image, uri, &input, &ctx).await?;
    let url = format!("{}/v2/tasks/{}", own_url(&svc.config, &headers), task.id);
    let location = [(header::LOCATION, url)];
    Ok((StatusCode::CREATED, location, Json(TaskDetail::from(&task))).into_response())
}

/// The image that a legacy import makes: as if it had been created with the properties given.
fn new_image(svc: &Service, ctx: &Context, input: &Value) -> Result<Image, Failure> {
    let mut body = match &input["image_properties"] {
        Value::Null => Map::new(),
        Value::Object(properties) => properties.clone(),
        _ => return Err(Failure::bad("image_properties must be an object")),
    };
    body.entry("disk_format")
        .or_insert_with(|| input["import_from_format"].clone());
    body.entry("container_format")
        .or_insert_with(|| json!("bare"));
    properties::refuse_links(&body)?;
    schema::validate(&schema::image(&svc.config.formats), &body).map_err(Failure::bad)?;
    let mut image = Image::new(ImageId::random(), ctx.project.clone(), Timestamp::now());
    let blank = image.clone();
    body.remove("id");
    body.remove("owner");
    let caller = properties::Caller {
        ctx,
        protections: &svc.protections,
    };
    properties::fill(&caller, &mut image, body)?;
    policy::add_image(ctx, image.owner.as_deref())?;
    policy::publish(ctx, &image)?;
    properties::within_quota(&svc.config.quota, &blank, &image)?;
    Ok(image)
}
