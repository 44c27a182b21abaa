//! `/v2/cache` and its older forms. This service keeps no cache, so there is none to look after:
//! whoever may ask is told so, as by a reference whose cache is off.

use axum::http::StatusCode;

use crate::api::error::Failure;
use crate::api::extract::NoBody;
use crate::auth::Context;
use crate::auth::policy::{self, Denied};

macro_rules! off {
    ($($name:ident $rule:ident)*) => {$(
        pub(in crate::api) async fn $name(ctx: Context, _: NoBody) -> Failure {
            there_is_none(policy::$rule(&ctx))
        }
    )*};
}

off! {
    list cache_list
    queue cache_image
    delete cache_delete
    clean cache_clean
    prune cache_prune
    nodes list_cached_nodes
    manage manage_image_cache
}

fn there_is_none(verdict: Result<(), Denied>) -> Failure {
    match verdict {
        Ok(()) => Failure::new(
            StatusCode::NOT_FOUND,
            "Caching via API is not supported at this site.",
        ),
        Err(denied) => denied.into(),
    }
}
