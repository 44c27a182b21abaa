//! Disk image formats: what they are, whether they are safe, what a guest would read in them,
//! and how to write them. Synchronous, positioned, shared by threads; no network, no clock, no
//! paths, no `unsafe`.
//!
//! | format | recognised | read | written |
//! | --- | --- | --- | --- |
//! | raw (MBR, GPT; kernels, ramdisks, file systems) | yes | yes | sparse, preallocated |
//! | qcow2 v2, v3 | yes | yes, snapshots by name; others beneath where granted; LUKS with a passphrase | with LUKS, too |
//! | vmdk | yes | monolithicSparse, streamOptimized; others and delta links where extent files and parents are granted | monolithicSparse, streamOptimized, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat |
//! | vhd, vhdx, vdi | yes | yes; differencing where the parent is granted | fixed, dynamic |
//! | iso 9660, UDF | yes | as raw | |
//! | parallels and ploop, bochs, dmg, qcow version 1 | yes | yes | |
//! | luks 1, 2 | yes | with a passphrase | |
//! | qed | yes, refused as an upload | yes | |
//! | sparseimage, android-sparse, cloop, ewf, wim, aff, chd, ciso, partclone, vma, mds, nrg, raw CD sectors | yes, refused | | |
//! | 7z, rar, cab, xar, ar (deb), rpm, zip of none or behind a program; compress, qpress, pbzx, lz4, lzop, lzip, lzma | yes, refused | | |
//! | ova | yes | member by member | OVF 1.1, SHA-256 manifest, streamOptimized disks |
//! | ovf | yes | where its files are granted | |
//! | box (vagrant) | yes | disk by disk | |
//! | docker archives, OCI layouts | yes, images and layers listed | | |
//! | gzip, xz, zstd, bzip2, zip around them | yes | as a stream | gzip, zstd |
//!
//! The way in: [`container::describe`] judges any file, [`open`] gives its [`Disk`], [`create`]
//! and [`copy::copy`] write another.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod address;
mod blocks;
pub mod bochs;
pub mod bytes;
mod chain;
pub mod check;
pub mod codec;
pub mod compare;
pub mod container;
mod content;
pub mod copy;
mod disk;
pub mod dmg;
mod error;
mod extent;
pub mod foreign;
pub mod gpt;
pub mod inspect;
pub mod iso;
mod limits;
pub mod luks;
pub mod map;
pub mod measure;
pub mod parallels;
mod passphrase;
mod probe;
pub mod qcow1;
pub mod qcow2;
pub mod qed;
pub mod raw;
pub mod resolve;
mod sink;
mod source;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;
mod xml;

pub use address::{GuestOffset, HostOffset, UnitIndex, guest_len};
pub use disk::{Disk, check_range};
pub use error::{Error, ErrorKind, Result};
pub use extent::{Extent, ExtentKind, MAX_EXTENTS, push_extent};
pub use limits::Limits;
pub use passphrase::Passphrase;
pub use probe::{CreateOptions, Format, OpenOptions, create, open};
pub use sink::{FileSink, MemorySink, Parts, Sink, StreamSink};
pub use source::{FileSource, Slice, Source, read_up_to};
