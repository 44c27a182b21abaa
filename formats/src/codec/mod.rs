//! Codecs, each behind a few small functions: whole units in memory (clusters, grains), and
//! streams of any length.

pub mod deflate;
mod frames;
mod parallel;
mod parts;
pub mod stream;
pub mod unit;
mod xz;
mod zip;
pub mod zstd;
