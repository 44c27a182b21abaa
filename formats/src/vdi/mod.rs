//! vdi: VirtualBox.
//!
//! ```text
//!  0                 [ header 512: text, signature at 64, sizes, UUIDs ]
//!  offset of blocks  [ block map: one u32 a block ]
//!  offset of data    [ extra ][ block ] [ extra ][ block ] …     slots, in order of allocation
//! ```
//! There is no official document; the structures are those of VirtualBox' `VDICore.h`
//! (`VDIPREHEADER`, `VDIHEADER1PLUS`), version 1.1. All fields are little-endian. A map entry is
//! the number of a slot, `0xffffffff` for a block never written, `0xfffffffe` for one that was
//! discarded and is zero.
//!
//! Read: dynamic and static images of any block size to 256 MiB; undo and differencing images,
//! and any whose parent UUID is not zero, where the parent is granted.
//! Written: dynamic and static images of blocks of 1 MiB.
//! Refused: images with a parent, without it.

mod check;
mod inspect;
mod layout;
mod reader;
mod writer;

pub use check::check;
pub use inspect::Inspector;
pub use reader::open;
pub use writer::{WriteOptions, create};
