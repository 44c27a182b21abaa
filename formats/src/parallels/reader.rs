use std::ops::Range;
use std::sync::Arc;

use super::layout::{EXTENSION_MAGIC_LEN, Header, LEN, check_extension};
use crate::disk::check_range;
use crate::{
    Disk, Error, Extent, ExtentKind, Format, GuestOffset, HostOffset, Limits, MAX_EXTENTS, Result,
    Source, guest_len, push_extent, read_up_to,
};

/// A Parallels expanding disk.
pub(super) struct Reader {
    source: Arc<dyn Source>,
    size: u64,
    block_size: u64,
    /// The BAT: where each block lies, in units of `bat_unit` bytes; 0 where it is not stored.
    bat: Vec<u32>,
    bat_unit: u64,
}

impl Reader {
    pub(super) fn new(source: Arc<dyn Source>, header: &Header, limits: &Limits) -> Result<Self> {
        let malformed = |message| Error::malformed(Format::Parallels, "bat", message);
        limits.virtual_size(Format::Parallels, header.size)?;
        let len = limits.table(Format::Parallels, "bat", header.bat_len())?;
        let bat = read_up_to(source.as_ref(), HostOffset(LEN), len)?;
        if bat.len() < len {
            return Err(malformed("the file ends within it".into()));
        }
        if let Some(at) = header.extension() {
            let magic = match at.0 < source.len() {
                true => read_up_to(source.as_ref(), at, EXTENSION_MAGIC_LEN as usize)?,
                false => Vec::new(),
            };
            check_extension(at, &magic)?;
        }
        let entries = bat.as_chunks::<4>().0;
        let bat: Vec<_> = entries
            .iter()
            .map(|entry| u32::from_le_bytes(*entry))
            .collect();
        for (n, entry) in (0u64..).zip(&bat) {
            if let Some(block) = header.block(n, *entry)?
                && block.end.0 > source.len()
            {
                return Err(malformed(format!(
                    "block {n} ends at {}, past the end of the file at {}",
                    block.end,
                    HostOffset(source.len())
                )));
            }
        }
        Ok(Self {
            source,
            size: header.size,
            block_size: header.block_size,
            bat,
            bat_unit: header.bat_unit,
        })
    }

    /// The blocks `range` is made of, and where its part of each lies.
    fn pieces(
        &self,
        range: Range<GuestOffset>,
    ) -> impl Iterator<Item = (Range<GuestOffset>, Option<HostOffset>)> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let start = at;
            (start < range.end).then(|| {
                let index = start.0 / self.block_size;
                let block_start = index * self.block_size;
                at = range.end.min(GuestOffset(block_start + self.block_size));
                let entry = usize::try_from(index).ok().and_then(|n| self.bat.get(n));
                let host = entry.filter(|entry| **entry != 0).map(|entry| {
                    // Inside the file, as opening made sure.
                    HostOffset(u64::from(*entry) * self.bat_unit + (start.0 - block_start))
                });
                (start..at, host)
            })
        })
    }
}

impl Disk for Reader {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn unit(&self) -> u64 {
        self.block_size
    }

    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        check_range(range.start, guest_len(&range), self.size)?;
        let most = out.len() + MAX_EXTENTS;
        for (range, host) in self.pieces(range) {
            let kind = match host {
                Some(_) => ExtentKind::Data { host },
                None => ExtentKind::Unallocated,
            };
            push_extent(out, Extent { range, kind });
            if out.len() >= most {
                break;
            }
        }
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        check_range(at, buf.len() as u64, self.size)?;
        let mut rest = &mut buf[..];
        for (range, host) in self.pieces(at..GuestOffset(at.0 + rest.len() as u64)) {
            let (part, after) = rest.split_at_mut(guest_len(&range) as usize);
            rest = after;
            match host {
                Some(host) => self.source.read_exact_at(part, host)?,
                None => part.fill(0),
            }
        }
        Ok(())
    }
}
