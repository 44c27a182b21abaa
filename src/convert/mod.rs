//! Conversion: what becomes what ([`decide`]), the one engine that does it ([`run`]), and the
//! worker process the service runs it in ([`supervise`], [`worker`]), confined by [`sandbox`].

mod decide;
mod form;
mod ordered;
mod part;
mod proto;
mod run;
pub mod sandbox;
mod supervise;
mod worker;

pub use decide::{Plan, decide, unpack};
pub use form::Form;
pub use part::part;
pub use proto::{Line, Request, Step};
pub use run::{Opened, Selector, open};
pub use supervise::{Running, start, supervise};
pub use worker::worker;

/// Why a conversion failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image is at fault; the sentence is for its owner.
    #[error("{0}")]
    Image(String),
    /// We are.
    #[error("{0}")]
    Ours(String),
}

impl From<formats::Error> for Error {
    fn from(error: formats::Error) -> Self {
        use std::error::Error as _;

        use formats::ErrorKind as K;
        let text = match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        match error.kind() {
            // Usage: a target that cannot hold the disk, a disk that is not in the archive.
            K::Malformed | K::Unsupported | K::Refused | K::Limit | K::Usage => Self::Image(text),
            _ => Self::Ours(text),
        }
    }
}
