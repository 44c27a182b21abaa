//! vhd: Virtual PC and the first Hyper-V.
//!
//! ```text
//!  fixed     [ the guest's bytes … ][ footer 512 ]
//!
//!  dynamic   [ footer copy 512 ][ dynamic header 1024 ][ block allocation table ]
//!            [ sector bitmap ][ block ] [ sector bitmap ][ block ] … [ footer 512 ]
//! ```
//! Microsoft, *Virtual Hard Disk Image Format Specification*, version 1.0 (2006): "Hard Disk
//! Footer Format", "Dynamic Disk Header Format", "Block Allocation Table and Data Blocks".
//! All fields are big-endian. A table entry is the sector where a block's bitmap starts.
//!
//! Read: fixed and dynamic, to 2040 GiB. The sector bitmap of a dynamic disk says which sectors
//! were ever written; the others hold zeros, so it is not looked at (qemu and Hyper-V agree).
//! Differencing disks where the parent is granted: there the bitmap decides which sectors fall
//! through. The size is that of the geometry for disks of Virtual PC and qemu, of the size field
//! for all others, and for those whose geometry is at its maximum.
//! Written: fixed and dynamic, as qemu-img does: to a size that geometry can express unless
//! forced; fixed to whole MiB for Azure.
//! Refused: differencing disks without their parent, and copies of the footer that contradict
//! each other.

mod check;
mod header;
mod inspect;
mod layout;
mod reader;
mod writer;

pub use check::check;
pub use inspect::Inspector;
pub use reader::open;
pub use writer::{WriteOptions, create};
