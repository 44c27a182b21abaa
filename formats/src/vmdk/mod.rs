//! VMware virtual disks (VMDK).
//!
//! ```text
//!  monolithicSparse                          streamOptimized
//!  ┌──────────────────────────┐ sector 0    ┌──────────────────────────┐ sector 0
//!  │ sparse header, KDMV      │             │ sparse header, KDMV      │ gdOffset: here, or -1
//!  ├──────────────────────────┤ 1           ├──────────────────────────┤ 1
//!  │ descriptor, text         │             │ descriptor, text         │
//!  ├──────────────────────────┤ rgdOffset   ├──────────────────────────┤ overHead
//!  │ redundant grain directory│             │ lba │ size │ zlib grain  │ one a grain, in any
//!  │ and its grain tables     │             │ lba │ size │ zlib grain  │ order, on sectors
//!  ├──────────────────────────┤ gdOffset    │ …                        │
//!  │ grain directory          │             │ marker 1 + grain table   │ once per 512 grains
//!  │ grain tables             │             │ …                        │
//!  ├──────────────────────────┤ overHead    │ marker 2 + directory     │
//!  │ grains, as the guest     │             │ marker 3 + footer        │ the header again, with
//!  │ sees them                │             │ marker 0, end of stream  │ the true gdOffset
//!  └──────────────────────────┘             └──────────────────────────┘
//! ```
//! Directory and table entries are sector numbers, 32 bits, 0 for "not there". A directory entry
//! names a grain table, a table entry a grain. All fields are little-endian. Other types are a
//! descriptor in a text file of its own that names its extent files: flat ones, sparse ones with
//! the header above, `COWD` ones (vmfsSparse: the same two levels behind another header), or
//! seSparse ones (two levels of 64-bit entries). A delta link names a parent, which its holes
//! fall through to.
//!
//! Specification: VMware, *Virtual Disk Format 5.0*: "The Descriptor File", "Hosted Sparse
//! Extents", "Stream-Optimized Compressed Sparse Extents", "ESX Server Sparse Extents". seSparse
//! is not in it; see `sesparse`.
//!
//! | read | from |
//! | --- | --- |
//! | monolithicSparse, streamOptimized | the file alone |
//! | monolithicFlat, twoGbMaxExtent{Flat,Sparse}, vmfs, vmfsSparse, seSparse, custom | a descriptor, where the resolver grants its extent files |
//! | sparse files whose descriptor names more extents | the same |
//! | delta links of all these | where the resolver grants the parent, and its CID is the one meant |
//!
//! Refused by name: raw devices, extent names that leave the descriptor's folder, seSparse with
//! changes waiting in the journal.

mod check;
mod cowd;
mod descriptor;
mod grains;
mod inspect;
mod layout;
mod options;
mod parse;
mod reach;
mod reader;
mod rules;
mod sesparse;
mod sparse;
mod tables;
mod writer;

pub use check::check;
pub use inspect::Inspector;
pub use options::{AdapterType, Subformat, WriteOptions};
pub use reader::open;
pub use writer::create;
