//! QED, QEMU's enhanced disk: read, because old images are still about; never written.
//!
//! ```text
//!  0          header ┬ name of the backing file, inside the header's clusters   little-endian
//!  │ l1_table_offset └ opened where a resolver grants it
//!  ▼
//!  L1 table   table_size clusters of host offsets, 0 for none
//!  ▼
//!  L2 table   likewise: 0 falls through to the backing file, 1 reads as zeros, else a cluster
//!  ▼
//!  cluster    4 KiB to 64 MiB, as the guest sees it
//! ```
//! QEMU `docs/interop/qed_spec.rst`. There are no refcounts: an image that was not closed
//! properly (NEED_CHECK) may hold clusters nobody uses, and reads as well as any.
//!
//! The format is no longer developed and holds nothing qcow2 does not: an inspection refuses it as
//! a whole (rule `banned`), for image services that keep images for others. Reading one to
//! convert it is the way out.
//!
//! Of a backing file the header says only whether it is raw (BACKING_FORMAT_NO_PROBE). Any other
//! format would have to be guessed from bytes that a guest may have written, so that an image
//! without that bit is refused: flatten it with the program that made it.

mod check;
mod inspect;
mod layout;
mod reader;

use std::sync::Arc;

pub use check::check;
pub use inspect::Inspector;

use crate::{Disk, OpenOptions, Result, Source};

/// Opens the disk in `source`.
///
/// # Errors
/// `Malformed`; `Unsupported` for unknown features; `Refused` for a backing file that is not
/// granted or whose format is not known; `Limit`; `Io`.
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    reader::open(source, options)
}
