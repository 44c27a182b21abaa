//! Batches.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::batch::{Batch, Counts, Item, ItemState};

/// What `POST /v2/batches` takes; kept with the batch, for whoever retries.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Plan {
    /// Where images come from. A text is a URL.
    #[serde(default, skip_serializing)]
    pub(in crate::api) sources: Vec<Value>,
    /// What they are called, with `{…}` for what differs.
    #[serde(default = "stem")]
    pub(in crate::api) name: String,
    /// As in the body of an import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::api) convert: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::api) stores: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::api) concurrency: Option<u32>,
    /// As in the body that creates an image.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(in crate::api) properties: Map<String, Value>,
}

fn stem() -> String {
    "{stem}".into()
}

/// Where one image comes from: one of the first three, and what is to be said of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::api) struct SourcePlan {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) disk_format: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) container_format: Option<String>,
    /// As in the body of an import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) expected: Option<Value>,
}

/// A batch.
#[derive(Serialize)]
pub(in crate::api) struct BatchView<'a> {
    id: &'a str,
    status: &'static str,
    owner: Option<&'a str>,
    user_id: Option<&'a str>,
    created_at: String,
    concurrency: u32,
    counts: CountsView,
    plan: &'a Value,
    #[serde(rename = "self")]
    link: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Vec<ItemView<'a>>>,
}

#[derive(Serialize)]
struct CountsView {
    waiting: u64,
    running: u64,
    done: u64,
    failed: u64,
    cancelled: u64,
}

#[derive(Serialize)]
struct ItemView<'a> {
    n: u32,
    source: &'a Value,
    name: Option<&'a str>,
    state: &'static str,
    /// Where there is one, or will be.
    image_id: Option<&'a str>,
    task_id: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    os_glint_progress: Option<&'a Value>,
}

impl<'a> BatchView<'a> {
    /// With `items`, or as lists show it.
    pub(in crate::api) fn new(batch: &'a Batch, counts: Counts, items: Option<&'a [Item]>) -> Self {
        Self {
            id: &batch.id,
            status: counts.state().name(),
            owner: batch.owner.as_deref(),
            user_id: batch.user_id.as_deref(),
            created_at: batch.created_at.to_string(),
            concurrency: batch.concurrency,
            counts: CountsView {
                waiting: counts.waiting,
                running: counts.running,
                done: counts.done,
                failed: counts.failed,
                cancelled: counts.cancelled,
            },
            plan: &batch.plan,
            link: format!("/v2/batches/{}", batch.id),
            items: items.map(|items| items.iter().map(ItemView::from).collect()),
        }
    }
}

impl<'a> From<&'a Item> for ItemView<'a> {
    fn from(item: &'a Item) -> Self {
        let state = item.state();
        let has_image = !matches!(state, ItemState::Failed | ItemState::Cancelled);
        Self {
            n: item.n,
            source: &item.source,
            name: item.name.as_deref(),
            state: state.name(),
            image_id: has_image.then(|| item.image_id.as_str()),
            task_id: &item.task_id,
            message: &item.message,
            os_glint_progress: item.progress.as_ref(),
        }
    }
}

/// A page of batches.
#[derive(Serialize)]
pub(in crate::api) struct BatchPage<'a> {
    pub(in crate::api) batches: Vec<BatchView<'a>>,
    pub(in crate::api) first: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) next: Option<String>,
}
