//! What goes over the wire, in Glance's spelling: serde types and nothing else derives from them.

mod batch;
mod image;
mod location;
mod member;
pub(super) mod metadef;
mod store;
mod task;

use axum::http::{HeaderMap, header};

pub(super) use batch::{BatchPage, BatchView, Plan, SourcePlan};
pub(super) use image::{ImageList, ImageView};
pub(super) use location::LocationView;
pub(super) use member::{MemberList, MemberView};
pub(super) use store::{DetailedStore, StoreList, StoreView};
pub(super) use task::{TaskDetail, TaskEvent, TaskList, TaskPage, TaskStub, TaskView};

use crate::config::Config;

/// The URL that clients reach us by, without a slash at its end.
pub(super) fn own_url(config: &Config, headers: &HeaderMap) -> String {
    if let Some(url) = &config.api.public_endpoint {
        return url.trim_end_matches('/').to_owned();
    }
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    match host {
        Some(host) => format!("http://{host}"),
        None => format!("http://{}", config.api.listen),
    }
}
