use std::ops::Range;
use std::sync::Arc;

use crate::disk::check_range;
use crate::{
    Disk, Extent, ExtentKind, GuestOffset, HostOffset, MAX_EXTENTS, Result, Source, guest_len,
    push_extent,
};

/// A raw image.
pub struct Reader {
    source: Arc<dyn Source>,
}

impl Reader {
    /// The disk whose bytes are those of `source`.
    ///
    /// # Errors
    /// None today; the signature is that of every reader.
    pub fn new(source: Arc<dyn Source>) -> Result<Self> {
        Ok(Self { source })
    }
}

impl Disk for Reader {
    fn virtual_size(&self) -> u64 {
        self.source.len()
    }

    fn unit(&self) -> u64 {
        1 << 20
    }

    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        check_range(range.start, guest_len(&range), self.virtual_size())?;
        let mut at = range.start;
        for _ in 0..MAX_EXTENTS / 2 {
            if at >= range.end {
                break;
            }
            let data = self.source.next_data(HostOffset(at.0))?;
            let start = data
                .as_ref()
                .map_or(range.end, |d| GuestOffset(d.start.0).min(range.end));
            push_extent(
                out,
                Extent {
                    range: at..start,
                    kind: ExtentKind::Zero,
                },
            );
            let end = data.map_or(range.end, |d| GuestOffset(d.end.0).min(range.end));
            push_extent(
                out,
                Extent {
                    range: start..end.max(start),
                    kind: ExtentKind::Data {
                        host: Some(HostOffset(start.0)),
                    },
                },
            );
            at = end.max(start);
        }
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        check_range(at, buf.len() as u64, self.virtual_size())?;
        self.source.read_exact_at(buf, HostOffset(at.0))
    }
}
