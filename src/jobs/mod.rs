//! Work in the background: the durable queue's runner, the import job, and the sweep.

mod import;
mod locate;
mod meter;
pub(crate) mod payload;
mod runner;
mod running;
mod sweep;

pub(crate) use import::{FAILED, IMPORTING, LOCK};
pub use import::{ImportJob, Source, Token};
pub(crate) use locate::REFUSED;
pub use locate::{HashJob, LocateJob};
pub use runner::work;
pub use running::Running;
pub(crate) use sweep::recover;
pub use sweep::{clear_up, sweep};
