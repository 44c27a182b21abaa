//! One table from what failed to status and sentence.

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;

use super::Failure;
use crate::auth::policy::Denied;
use crate::{catalog, ingest, quota};

/// When a client may ask again while the catalog's database is away.
const RETRY_AFTER_SECONDS: &str = "5";

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        if denied.hidden {
            return Self::of(StatusCode::NOT_FOUND);
        }
        Self::new(
            StatusCode::FORBIDDEN,
            format!("You are not authorized to complete {} action.", denied.rule),
        )
    }
}

impl From<quota::Error> for Failure {
    fn from(error: quota::Error) -> Self {
        match error {
            quota::Error::Exceeded(exceeded) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, exceeded.0)
            }
            quota::Error::Keystone(trouble) => {
                tracing::error!("no limit can be checked: {}", trouble.story());
                Self::of(StatusCode::SERVICE_UNAVAILABLE).with(RETRY_AFTER, "5")
            }
            quota::Error::Catalog(error) => error.into(),
        }
    }
}

impl From<catalog::Error> for Failure {
    fn from(error: catalog::Error) -> Self {
        use std::error::Error as _;
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        match &error {
            catalog::Error::Conflict(what) => Self::detail(
                StatusCode::CONFLICT,
                format!("{what} was changed by another request meanwhile."),
            ),
            catalog::Error::Unavailable(_) | catalog::Error::Contended(_) => {
                tracing::warn!(%error, cause, "the catalog is not available");
                Self::of(StatusCode::SERVICE_UNAVAILABLE).with(RETRY_AFTER, RETRY_AFTER_SECONDS)
            }
            catalog::Error::Unstorable(_) => {
                tracing::info!(%error, cause, "a request held what is no text");
                Self::undecodable()
            }
            _ => {
                tracing::error!(%error, cause, "a request failed on the catalog");
                Self::of(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

impl From<ingest::Error> for Failure {
    fn from(error: ingest::Error) -> Self {
        use ingest::Error as E;
        match error {
            E::Illegal(illegal) => Self::new(StatusCode::CONFLICT, illegal.to_string()),
            E::Conflict(sentence) => Self::new(StatusCode::CONFLICT, sentence),
            E::Gone => Self::new(
                StatusCode::GONE,
                "The image was deleted while its data was being uploaded.",
            ),
            E::Protected => Self::new(
                StatusCode::FORBIDDEN,
                "The image is protected and cannot be deleted.",
            ),
            E::UnknownStore(store) => Self::bad(format!("Store for identifier {store} not found")),
            E::ReadOnlyStore(store) => Self::new(
                StatusCode::GONE,
                format!("Nothing can be added to store {store}."),
            ),
            E::FormatsUnset(unset) => Self::bad(unset.to_string()),
            E::SizeMismatch { expected, got } => {
                let how = if got > expected {
                    "exceeds"
                } else {
                    "falls short"
                };
                Self::bad(format!(
                    "Size {how}: expected {expected} bytes, got {got} bytes"
                ))
            }
            E::TooLarge { cap } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("Denying attempt to upload image larger than {cap} bytes."),
            ),
            E::Quota(error) => error.into(),
            E::Refused { reason } => Self::media_type(Some("application/octet-stream"), reason),
            E::OtherDigest(sentence) | E::NotImported(sentence) => Self::bad(sentence),
            E::StoreFull => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "There is not enough disk space on the image storage media.",
            ),
            E::NoData => Self::new(StatusCode::NOT_FOUND, "No image data could be found"),
            E::Client(cause) => {
                tracing::info!(error = %cause, "a client broke off");
                Self::bad("The request ended before all of its data came.")
            }
            E::Catalog(error) => error.into(),
            E::StoreUnavailable(cause) => {
                tracing::error!(error = %cause, "a store cannot be used");
                Self::of(StatusCode::SERVICE_UNAVAILABLE)
            }
            E::Internal(cause) => {
                tracing::error!(error = cause, "a request failed");
                Self::of(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}
