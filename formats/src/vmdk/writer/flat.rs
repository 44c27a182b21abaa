//! monolithicFlat and twoGbMaxExtentFlat: the disk as it is, in one extent file or several.
//!
//! The extent files lie one after another in the linear space, which is the disk itself.

use super::{Plain, Split};
use crate::copy::{Encode, Part, Payload, Summary, Tables, Target};
use crate::vmdk::layout::SECTOR;
use crate::vmdk::options::WriteOptions;
use crate::{HostOffset, Result, Sink, UnitIndex};

/// Bytes per unit: zeros are left out in pieces of this size, the block of common file systems.
const UNIT: u64 = 4096;

pub(super) struct Writer {
    options: WriteOptions,
    split: Split,
}

impl Writer {
    pub(super) fn new(options: &WriteOptions, split: Split) -> Self {
        Self {
            options: options.clone(),
            split,
        }
    }

    fn window(&self) -> u64 {
        // The descriptor's is as large, and has to hold it.
        (self.split.extent_sectors * SECTOR).max(super::super::layout::MAX_DESCRIPTOR)
    }
}

impl Target for Writer {
    fn unit(&self) -> u64 {
        UNIT
    }

    fn parts(&self) -> Vec<Part> {
        self.split.parts(self.window())
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(Plain))
    }

    fn place(&mut self, n: UnitIndex, _: Payload, _: &mut Tables) -> Result<HostOffset> {
        Ok(HostOffset(n * UNIT))
    }

    fn finish(self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        let window = self.window();
        for n in 0..self.split.count() {
            sink.set_len(n * window + self.split.sectors_of(n) * SECTOR)?;
        }
        let descriptor = self.split.write_descriptor(&self.options, window, sink)?;
        Ok(Summary {
            file_size: self.split.sectors * SECTOR + descriptor,
        })
    }
}
