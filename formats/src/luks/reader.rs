//! Reading.

use std::ops::Range;
use std::sync::Arc;

use super::sectors::Sectors;
use crate::disk::check_range;
use crate::{Disk, Extent, ExtentKind, GuestOffset, Result, Source, guest_len, push_extent};

/// The payload, decrypted.
pub(super) struct Reader {
    pub(super) source: Arc<dyn Source>,
    pub(super) sectors: Sectors,
    /// Bytes of whole sectors, all inside the source.
    pub(super) virtual_size: u64,
}

impl Disk for Reader {
    fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    fn unit(&self) -> u64 {
        1 << 20
    }

    /// All of it is data: what was never written decrypts to noise, and a guest sees that.
    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        check_range(range.start, guest_len(&range), self.virtual_size)?;
        let kind = ExtentKind::Data { host: None };
        push_extent(out, Extent { range, kind });
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        check_range(at, buf.len() as u64, self.virtual_size)?;
        self.sectors.read(self.source.as_ref(), buf, at.0)
    }
}
