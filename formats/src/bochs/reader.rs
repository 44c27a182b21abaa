use std::ops::Range;
use std::sync::Arc;

use super::{Header, SECTOR};
use crate::disk::check_range;
use crate::{
    Disk, Error, Extent, ExtentKind, Format, GuestOffset, HostOffset, Limits, MAX_EXTENTS, Result,
    Source, guest_len, push_extent, read_up_to,
};

/// Catalog entry of an extent that is not stored.
const UNALLOCATED: u32 = u32::MAX;

/// A Bochs disk.
pub(super) struct Reader {
    source: Arc<dyn Source>,
    disk_size: u64,
    /// Bytes of an extent.
    extent_size: u64,
    /// The slot of each extent, which is its bitmap and then its bytes; all ones where it is not
    /// stored.
    slots: Vec<u32>,
    /// Where the slots begin.
    first: u64,
    /// Bytes of a bitmap, whole sectors.
    bitmap_len: u64,
}

impl Reader {
    pub(super) fn new(source: Arc<dyn Source>, header: &Header, limits: &Limits) -> Result<Self> {
        let malformed = |message: String| Error::malformed(Format::Bochs, "catalog", message);
        limits.virtual_size(Format::Bochs, header.disk_size)?;
        let len = header.catalog_len(limits)?;
        let catalog = read_up_to(source.as_ref(), HostOffset(header.size.into()), len)?;
        if catalog.len() < len {
            return Err(malformed("the file ends within it".into()));
        }
        let first = u64::from(header.size) + len as u64;
        let bitmap_len = u64::from(header.bitmap_size).next_multiple_of(SECTOR);
        let extent_size = u64::from(header.extent_size);
        let slot_len = bitmap_len + extent_size;
        let entries = catalog.as_chunks::<4>().0;
        let slots: Vec<_> = entries
            .iter()
            .map(|entry| u32::from_le_bytes(*entry))
            .collect();
        let count = source.len().saturating_sub(first) / slot_len;
        // A bit each: never more than the file has room for.
        let mut taken = vec![0_u8; usize::try_from(count.div_ceil(8)).unwrap_or(usize::MAX)];
        for (n, slot) in slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| **slot != UNALLOCATED)
        {
            if u64::from(*slot) >= count {
                let message = format!("extent {n} is in slot {slot}, past the end of the file");
                return Err(malformed(message));
            }
            let (byte, bit) = (&mut taken[*slot as usize / 8], 1 << (slot % 8));
            if *byte & bit != 0 {
                let message = format!("extent {n} is in slot {slot}, as is one before it");
                return Err(malformed(message));
            }
            *byte |= bit;
        }
        Ok(Self {
            source,
            disk_size: header.disk_size,
            extent_size,
            slots,
            first,
            bitmap_len,
        })
    }

    /// Where the bitmap of an extent lies, where it is stored.
    fn slot(&self, index: u64) -> Option<HostOffset> {
        let slot = *self.slots.get(usize::try_from(index).ok()?)?;
        // Inside the file, as opening made sure.
        let at = self.first + u64::from(slot) * (self.bitmap_len + self.extent_size);
        (slot != UNALLOCATED).then_some(HostOffset(at))
    }

    /// Calls `each` for the runs `range` is made of, until it says stop.
    fn walk(
        &self,
        range: Range<GuestOffset>,
        mut each: impl FnMut(Range<GuestOffset>, Option<HostOffset>) -> Result<bool>,
    ) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let index = at.0 / self.extent_size;
            let start = index * self.extent_size;
            let end = range.end.min(GuestOffset(start + self.extent_size));
            let Some(slot) = self.slot(index) else {
                if !each(at..end, None)? {
                    return Ok(());
                }
                at = end;
                continue;
            };
            let first = (at.0 - start) / SECTOR;
            let last = (end.0 - 1 - start) / SECTOR;
            // At most 2 KiB: one bit a sector of 8 MiB.
            let mut bitmap = vec![0; (last / 8 - first / 8 + 1) as usize];
            self.source
                .read_exact_at(&mut bitmap, HostOffset(slot.0 + first / 8))?;
            let is_set = |sector: u64| {
                let byte = bitmap[(sector / 8 - first / 8) as usize];
                byte >> (sector % 8) & 1 != 0
            };
            while at < end {
                let sector = (at.0 - start) / SECTOR;
                let set = is_set(sector);
                let next = (sector + 1..=last).find(|&s| is_set(s) != set);
                let stop = next.map_or(end, |s| GuestOffset(start + s * SECTOR));
                let host = set.then(|| HostOffset(slot.0 + self.bitmap_len + (at.0 - start)));
                if !each(at..stop, host)? {
                    return Ok(());
                }
                at = stop;
            }
        }
        Ok(())
    }
}

impl Disk for Reader {
    fn virtual_size(&self) -> u64 {
        self.disk_size
    }

    fn unit(&self) -> u64 {
        self.extent_size
    }

    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        check_range(range.start, guest_len(&range), self.disk_size)?;
        let most = out.len() + MAX_EXTENTS;
        self.walk(range, |range, host| {
            let kind = match host {
                Some(_) => ExtentKind::Data { host },
                None => ExtentKind::Unallocated,
            };
            push_extent(out, Extent { range, kind });
            Ok(out.len() < most)
        })
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        check_range(at, buf.len() as u64, self.disk_size)?;
        let range = at..GuestOffset(at.0 + buf.len() as u64);
        let mut rest = buf;
        self.walk(range, |range, host| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(guest_len(&range) as usize);
            rest = after;
            match host {
                Some(host) => self.source.read_exact_at(part, host)?,
                None => part.fill(0),
            }
            Ok(true)
        })
    }
}
