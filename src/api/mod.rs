//! The image API over HTTP: the only part that speaks it. [`router`] is the table of contents;
//! handlers in `v2` extract, authorise, look up, do, answer. What goes over the wire is in `wire`,
//! what went wrong in `error`.
//!
//! ```text
//!  request ─► pages ─► count ─► linger ─► negotiate ─► identify ─► handler ─► catalog, ingest
//!             errors   metrics  reads on  /v2.9/… to   token to    Context
//!             to pages log      for a bit /v2/…        Context
//! ```
//!
//! The measure is Glance on the wire: statuses, headers, sentences and even spacing are those of
//! the golden samples in `fixtures/wire`, replayed by `tests/api`.

mod connections;
mod cors;
mod error;
mod extract;
mod health;
mod json;
mod locations;
pub mod metadefs;
mod middleware;
mod observe;
mod openapi;
mod orders;
mod patch;
mod properties;
mod python;
mod query;
mod range;
mod router;
mod schema;
mod tus;
mod v2;
mod versions;
mod wire;

pub use connections::serve;
pub use router::{router, router_for};
