//! The copy engine: one disk into one target, in parallel, with the same bytes whatever the
//! number of threads.
//!
//! ```text
//!  plan (next run of data) ─► N threads: read ► encode units ─► window ─► place in order
//!                                            ─► N threads: seal ─► one of them: write in order
//! ```
//! Only extents that hold data are read. Units are encoded by many threads, but given their
//! places in guest order under one lock, where placing is arithmetic only. Whoever finds nobody
//! writing writes what is next in order, and goes on until there is nothing: a file takes one
//! write at a time, so that a second thread would wait, and burn what it waits. Memory is bounded
//! by the window, whatever the virtual size.

mod engine;
mod plan;
mod progress;

pub use engine::{CopyOptions, copy};
pub use progress::Progress;

use std::ops::Range;

use crate::{HostOffset, Result, Sink, UnitIndex};

/// Encodes units for a [`Target`]. One a thread, so that it can own its compressor.
pub trait Encode: Send {
    /// Encodes unit `n`, whose bytes are `data` (a whole unit; the last one is short where the
    /// disk ends within it). Whatever [`Shape::Packed`] counts is appended to `packed`.
    ///
    /// # Errors
    /// What the codec met.
    fn encode(&mut self, n: UnitIndex, data: &[u8], packed: &mut Vec<u8>) -> Result<Shape>;

    /// The last step before `bytes` are written at `at`: for what depends on the place, such as
    /// encryption. They are one or more units that follow each other, of one kind: all verbatim
    /// or all packed. Called outside the order, by many threads.
    fn seal(&mut self, at: HostOffset, bytes: &mut [u8]) {
        let _ = (at, bytes);
    }

    /// Bytes of memory that it works in, at most, where that is a MiB or more.
    fn memory(&self) -> u64 {
        0
    }
}

/// What became of a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// All zeros: not stored.
    Zero,
    /// Stored as it is.
    Verbatim,
    /// Stored as this many bytes appended to `packed`.
    Packed(usize),
}

/// A unit's bytes on the way to their place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// Bytes as the guest sees them.
    Verbatim(u64),
    /// Encoded bytes.
    Packed(u64),
}

/// Finished tables on their way to the sink.
pub type Tables = Vec<(HostOffset, Vec<u8>)>;

/// One file of an image that is several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Its plain name; all lie in one folder.
    pub name: String,
    /// Where its bytes are written, its first byte first; it may stay shorter.
    pub range: Range<HostOffset>,
}

/// An image being written. Arithmetic only until [`finish`](Target::finish).
pub trait Target: Send {
    /// Bytes of a unit; a power of two.
    fn unit(&self) -> u64;

    /// Bytes that get their place together, once one unit of them is placed: a block of several
    /// units. A multiple of [`unit`](Target::unit).
    fn block(&self) -> u64 {
        self.unit()
    }

    /// The files of an image that is several, in the order they are to appear under their
    /// names: the one that makes them an image comes last. Their ranges ascend and lie apart in
    /// the space this target writes to, where [`Sink::set_len`] ends the file in whose range
    /// that length lies; [`Parts`](crate::Parts) is such a sink. None for an image in one file.
    fn parts(&self) -> Vec<Part> {
        Vec::new()
    }

    /// The bytes in front of the first unit, of an image that can be written to a
    /// [sequential](Sink::is_sequential) sink: all else is placed in ascending order, and
    /// [`finish`](Target::finish) goes back for nothing but these same bytes. `None`: it cannot.
    fn preamble(&self) -> Option<Vec<u8>> {
        None
    }

    /// A new encoder, for one thread.
    ///
    /// # Errors
    /// When the codec cannot be set up.
    fn encoder(&self) -> Result<Box<dyn Encode>>;

    /// Gives unit `n` its place. Called in ascending order, by one caller at a time; units never
    /// named are zero. Tables that are complete because `n` has moved past them go to `tables`,
    /// so that memory stays flat.
    ///
    /// # Errors
    /// `Limit` when the format cannot address that much.
    fn place(&mut self, n: UnitIndex, payload: Payload, tables: &mut Tables) -> Result<HostOffset>;

    /// Writes the last tables, and the header last of all. Not yet durable: the caller syncs.
    ///
    /// # Errors
    /// What the sink met.
    fn finish(self: Box<Self>, sink: &dyn Sink) -> Result<Summary>;
}

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Bytes of the file, or of all of them.
    pub file_size: u64,
}
