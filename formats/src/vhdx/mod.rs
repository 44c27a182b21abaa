//! vhdx: Hyper-V, second generation.
//!
//! ```text
//!  0        [ file identifier ]                         "vhdxfile", creator
//!  64 KiB   [ header 1 ]   128 KiB [ header 2 ]         the one with the higher sequence number counts
//!  192 KiB  [ region table 1 ]   256 KiB [ region table 2 ]   copies of each other
//!  1 MiB…   [ log ]               a ring of 4 KiB sectors: writes to the structures below
//!           [ metadata region ]   table 64 KiB, then items: sizes, disk id, parent locator
//!           [ BAT region ]        one u64 a block, and one more after each chunk of blocks
//!           [ block ] [ block ] … at multiples of 1 MiB
//! ```
//! \[MS-VHDX\]: 2.2 header section (2.2.2 headers, 2.2.3 region tables), 2.3 log, 2.5 BAT,
//! 2.6 metadata region. All fields are little-endian; checksums are CRC-32C.
//!
//! Read: fixed and dynamic disks of 512 and 4096-byte sectors to 64 TiB. A log that was never
//! played back is played back in memory: every read after that of the headers goes through it.
//! Differencing disks where the parent is granted: sector bitmaps, blocks of them in the BAT,
//! decide which sectors fall through.
//! Written: fixed and dynamic, of both sizes of sectors, with an empty log.
//! Refused: differencing disks without their parent, unknown regions and items that are marked as
//! required.

mod check;
mod inspect;
mod layout;
mod log;
mod metadata;
mod reader;
mod region;
mod replay;
mod writer;

pub use check::check;
pub use inspect::Inspector;
pub use reader::open;
pub use writer::{WriteOptions, create};
