//! Raw: the file is the disk. Holes of the file are holes of the disk.
//!
//! A file whose length is no multiple of 512 bytes keeps its length: what is not there is not
//! invented (qemu-img rounds up with zeros).

mod reader;
mod writer;

pub use reader::Reader;
pub use writer::{Preallocation, WriteOptions, Writer};
