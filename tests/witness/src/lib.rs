//! Independent readers of disk images, held against ours: qcow2-rs, imago, vmdk-core, vhd and
//! vhdx beside qemu-img.
//!
//! Only clean images are shown to them, and only within the bounds where they are known to be
//! right; where one is known to be wrong a test pins that, so that an upgrade is noticed:
//!
//! | witness | right | wrong, and pinned |
//! | --- | --- | --- |
//! | qcow2-rs 0.1.6 | v2 and v3, plain and zlib clusters of 4 KiB to 2 MiB | encrypted images read as ciphertext |
//! | | | never shown: clusters below 4 KiB (it hangs), damaged images (it crashes) |
//! | imago 0.2.6 | v2 and v3, plain and zlib, every cluster size, chains, external data files; flat vmdk | encrypted images read as ciphertext; zeros for what is cut off a file; no zstd, no extended L2 |
//! | vmdk-core 0.8.4 | monolithicSparse, streamOptimized, split and flat extents | |
//! | vhd 0.1.1 | fixed and dynamic | opens differencing ones never |
//! | vhdx 0.1.0 | fixed and dynamic up to 4 GiB, on a private copy (it writes into the file) | panics above 8 GiB |
//!
//! What neither reads (zstd, extended L2, logs to be played back) qemu-img alone bears witness
//! of, in the tests of `formats`.
