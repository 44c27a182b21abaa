//! A file as it will be.

use std::sync::Arc;

use super::Writes;
use crate::{HostOffset, Result, Source};

/// A file as it will be once some bytes are written.
pub(super) struct Patched {
    inner: Arc<dyn Source>,
    patches: Writes,
    len: u64,
}

impl Patched {
    /// Of `len` bytes at least, no fewer than there are.
    pub(super) fn new(inner: Arc<dyn Source>, len: u64, patches: Writes) -> Self {
        let ends = patches.iter().map(|(at, bytes)| at.0 + bytes.len() as u64);
        Self {
            len: ends.fold(len, u64::max),
            inner,
            patches,
        }
    }
}

impl Source for Patched {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], at: HostOffset) -> Result<()> {
        let there = HostOffset(self.inner.len().max(at.0)).since(at);
        let there = usize::try_from(there).map_or(buf.len(), |n| n.min(buf.len()));
        let end = at.0.saturating_add(buf.len() as u64);
        if end <= self.len {
            let (inside, beyond) = buf.split_at_mut(there);
            self.inner.read_exact_at(inside, at)?;
            beyond.fill(0);
        } else {
            self.inner.read_exact_at(buf, at)?;
        }
        for (start, bytes) in &self.patches {
            let from = at.0.max(start.0);
            let to = end.min(start.0 + bytes.len() as u64);
            if from < to {
                buf[(from - at.0) as usize..(to - at.0) as usize]
                    .copy_from_slice(&bytes[(from - start.0) as usize..(to - start.0) as usize]);
            }
        }
        Ok(())
    }
}
