//! Work in the background: the durable queue's runner, the import job, and the sweep.

mod import;
mod runner;
mod sweep;

pub use import::ImportJob;
pub(crate) use import::{FAILED, IMPORTING};
pub use runner::work;
pub(crate) use sweep::recover;
pub use sweep::sweep;
