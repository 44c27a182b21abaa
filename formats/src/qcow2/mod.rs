//! qcow2, versions 2 and 3 (QEMU, `docs/interop/qcow2`).
//!
//! ```text
//!  0          header ┬ header extensions ┬ name of the backing file      first cluster
//!                    │                   └ refused, unless a resolver grants it
//!  │ l1_table_offset │ refcount_table_offset
//!  ▼                 ▼
//!  L1 table          refcount table         arrays of host offsets, big-endian
//!  │ one entry       │ one entry
//!  ▼ a cluster       ▼ a cluster
//!  L2 table          refcount block         1 << refcount_order bits for each host cluster
//!  │ one entry a guest cluster (extended L2: and 32 subclusters)
//!  ├► data cluster           as the guest sees it, on a cluster border
//!  ├► compressed cluster     raw deflate or zstd, at any byte, up to its last sector
//!  └► zero, unallocated      nothing stored; unallocated falls through to the backing file
//! ```
//! Everything is allocated in clusters of 512 bytes to 2 MiB, in any order. Read are all cluster
//! sizes, refcount widths, both compressions, extended L2, internal snapshots by name, and, where
//! a [`Resolver`] grants them, backing files of a recorded format and external data files; with a
//! passphrase, LUKS encryption of version 1. Refused are encryption with AES alone, images marked
//! corrupt and unknown incompatible features. Bitmaps are listed.
//!
//! Written are both versions with all their options but names of other files, in one pass and in
//! guest order (see [`create`]), and with preallocation as arithmetic has it:
//! ```text
//!  header │ refcount table │ L1 │ L2, its data …, L2, its data … │ refcount block │ L2 … │ block
//!  header │ refcount table │ L1 │ all refcount blocks │ all L2 tables │ all clusters of the guest
//! ```
//!
//! [`Resolver`]: crate::resolve::Resolver

mod allocate;
mod bitmaps;
mod cache;
mod census;
mod check;
mod clusters;
mod counts;
mod crypt;
mod entries;
mod extensions;
mod image;
mod inspect;
mod layout;
mod options;
mod plan;
mod preallocate;
mod reader;
mod refcounts;
mod repair;
mod report;
mod resize;
mod rules;
mod shape;
mod snapshots;
mod tables;
mod writer;

use std::sync::Arc;

pub(crate) use check::check;
pub use crypt::Encryption;
pub use inspect::Inspector;
pub use layout::Compression;
pub use options::{Preallocation, Version, WriteOptions};
pub use repair::{Repair, repair};
pub use resize::resize;

use crate::copy::Target;
use crate::{Disk, OpenOptions, Result, Source};

/// Opens the disk in `source`.
///
/// # Errors
/// `Malformed` for broken structures, `Unsupported` for unknown features, `Refused` for
/// encryption that the passphrase does not open and whatever the resolver does not grant, `Usage` for a snapshot that is not there,
/// `Limit`, `Io`.
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    reader::open(source, options)
}

/// Starts an image of `virtual_size` bytes, rounded up to whole sectors of 512 bytes: qemu
/// would not see the rest of the last one.
///
/// # Errors
/// `Usage` when the options contradict each other, or clusters of the size chosen cannot address
/// that much.
pub fn create(options: &WriteOptions, virtual_size: u64) -> Result<Box<dyn Target>> {
    options.check()?;
    let luks = options
        .encryption
        .as_ref()
        .map(crypt::Luks::new)
        .transpose()?;
    let luks_len = luks.as_ref().map_or(0, crypt::Luks::len);
    let shape = shape::Shape::new(options, virtual_size, luks_len)?;
    Ok(match options.preallocation {
        Preallocation::Off => Box::new(writer::Writer::new(options, shape, luks)),
        _ => Box::new(preallocate::Writer::new(options, shape)?),
    })
}
