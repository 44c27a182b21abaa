//! What operators see: the log ([`log`]), numbers over time ([`metrics`]), the page they are read
//! from ([`page`]).

pub mod log;
pub mod metrics;
pub mod page;
pub mod transfer;

pub use metrics::{Metrics, Stage};
pub use transfer::counted;
