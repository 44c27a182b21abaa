//! A table read page by page, holes of the file in one step.

use std::sync::{Arc, Mutex, PoisonError};

use super::holes::Remembering;
use crate::source::read_up_to;
use crate::{HostOffset, Result, Source};

/// Bytes of a table read and kept at once.
pub(super) const PAGE: u64 = 64 << 10;

/// A page of a table.
pub(super) struct Page {
    number: u64,
    /// Empty where every byte is `fill`.
    bytes: Vec<u8>,
    /// The byte all of the page consists of.
    pub(super) fill: Option<u8>,
    /// The end of the page in the table; further than one page on, where a hole of the file
    /// tells that all up to there is zero.
    pub(super) end: u64,
}

impl Page {
    /// The entry of index `slot`, which has `len` bytes: 8 or a power of two below.
    pub(super) fn entry(&self, slot: u64, len: u64) -> [u8; 8] {
        let mut entry = [self.fill.unwrap_or(0); 8];
        let start = usize::try_from(slot * len % PAGE).unwrap_or(usize::MAX);
        let found = start
            .checked_add(8.min(len as usize))
            .and_then(|end| self.bytes.get(start..end));
        if let Some(bytes) = found {
            entry[..bytes.len()].copy_from_slice(bytes);
        }
        entry
    }
}

/// A table read page by page. Few are kept: which one a page displaces is decided by its
/// number, for tables are walked in order.
pub(super) struct Pages {
    source: Remembering,
    at: HostOffset,
    len: u64,
    kept: Mutex<Vec<Option<Arc<Page>>>>,
}

impl Pages {
    /// Pages of the `len` bytes at `at`, which lie in `source`.
    pub(super) fn new(source: Arc<dyn Source>, at: HostOffset, len: u64, cache: u64) -> Self {
        let count = (cache / PAGE).clamp(1, len.div_ceil(PAGE).max(1));
        let count = usize::try_from(count).unwrap_or(1);
        Self {
            source: Remembering::new(source),
            at,
            len,
            kept: Mutex::new(vec![None; count]),
        }
    }

    /// The page of this number.
    pub(super) fn page(&self, number: u64) -> Result<Arc<Page>> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = {
            let kept = kept();
            let slot = usize::try_from(number % kept.len() as u64).unwrap_or(0);
            if let Some(page) = &kept[slot]
                && page.number == number
            {
                return Ok(page.clone());
            }
            slot
        };
        let page = Arc::new(self.load(number)?);
        kept()[slot] = Some(page.clone());
        Ok(page)
    }

    fn load(&self, number: u64) -> Result<Page> {
        let start = number * PAGE;
        let end = (start + PAGE).min(self.len);
        let host = HostOffset(self.at.0 + start);
        let data = self.source.next_data(host)?;
        let hole_end = data.map_or(self.len, |d| d.start.since(self.at));
        if hole_end >= end {
            return Ok(Page {
                number,
                bytes: Vec::new(),
                fill: Some(0),
                end: (hole_end - hole_end % PAGE).max(end).min(self.len),
            });
        }
        let len = usize::try_from(end - start).unwrap_or(0);
        let mut bytes = read_up_to(&self.source, host, len)?;
        let fill = bytes
            .first()
            .copied()
            .filter(|first| is_all(&bytes, *first));
        if fill.is_some() {
            bytes = Vec::new();
        }
        Ok(Page {
            number,
            bytes,
            fill,
            end,
        })
    }
}

/// Whether all of `bytes` are `byte`. In chunks, which the compiler turns into wide compares.
fn is_all(bytes: &[u8], byte: u8) -> bool {
    let (chunks, tail) = bytes.as_chunks::<256>();
    let differs = |chunk: &[u8]| chunk.iter().fold(0, |all, b| all | (b ^ byte)) != 0;
    !chunks.iter().any(|chunk| differs(chunk)) && !differs(tail)
}
