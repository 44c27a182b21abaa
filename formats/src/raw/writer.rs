use crate::bytes::is_zero;
use crate::copy::{Encode, Payload, Shape, Summary, Tables, Target};
use crate::{HostOffset, Result, Sink, UnitIndex};

/// Bytes per unit: zeros are left out in pieces of this size, the block of common file systems.
const UNIT: u64 = 4096;

/// Writes a sparse raw image.
pub struct Writer {
    virtual_size: u64,
}

impl Writer {
    /// A raw image of `virtual_size` bytes.
    #[must_use]
    pub fn new(virtual_size: u64) -> Self {
        Self { virtual_size }
    }
}

struct Encoder;

impl Encode for Encoder {
    fn encode(&mut self, _: UnitIndex, data: &[u8], _: &mut Vec<u8>) -> Result<Shape> {
        Ok(if is_zero(data) {
            Shape::Zero
        } else {
            Shape::Verbatim
        })
    }
}

impl Target for Writer {
    fn unit(&self) -> u64 {
        UNIT
    }

    fn preamble(&self) -> Option<Vec<u8>> {
        Some(Vec::new())
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(Encoder))
    }

    fn place(&mut self, n: UnitIndex, _: Payload, _: &mut Tables) -> Result<HostOffset> {
        Ok(HostOffset(n * UNIT))
    }

    fn finish(self: Box<Self>, sink: &dyn Sink) -> Result<Summary> {
        sink.set_len(self.virtual_size)?;
        Ok(Summary {
            file_size: self.virtual_size,
        })
    }
}
