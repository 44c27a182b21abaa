use std::ops::Range;
use std::sync::Arc;

use super::layout::MIB;
use super::reader::{Bat, Parts};
use crate::blocks::check::{Space, walk};
use crate::blocks::{Block, BlockTable, Shape};
use crate::bytes::le64;
use crate::check::Check;
use crate::copy::Progress;
use crate::{ErrorKind, Format, HostOffset, OpenOptions, Result, Source};

/// Checks copies of headers and region tables, the log, and the BAT: blocks and sector bitmaps
/// outside the file, over structures or over each other, space in which a block would fit and
/// none is, and the parent's identity where it is granted. A log that was never played back is
/// first played back in memory.
///
/// # Errors
/// `Malformed` when there is no sound header, region table or metadata, `Limit` when the file is
/// too large, `Cancelled`, `Io`.
pub fn check(
    source: &Arc<dyn Source>,
    options: &OpenOptions,
    progress: &Progress,
) -> Result<Check> {
    let parts = Parts::read(source.clone(), options)?;
    let mut found = Check::default();
    for (place, doubt) in &parts.doubts {
        found.corruption(*place, doubt.as_str());
    }
    if !parts.is_plain {
        let message = "was not played back: the disk was not detached cleanly";
        found.corruption("log", message);
    }
    let bat = Bat::new(&parts.metadata, &parts.regions)?;
    let file_len = parts.source.len();
    let shape = parts.shape(options.limits.cache);
    found.total_units = shape.virtual_size.div_ceil(shape.block_size);
    let end = shape.table_at.0 + bat.table_len();
    if end > file_len {
        found.corruption(
            "BAT",
            format!("ends at {end:#x}, but the file ends at {file_len:#x}"),
        );
        return Ok(found);
    }
    let units = file_len.div_ceil(MIB);
    let mut audit = Audit {
        space: Space::new(Format::Vhdx, units, &options.limits)?,
        kept: Space::new(Format::Vhdx, units, &options.limits)?,
        has_parent: parts.metadata.parent.is_some(),
        first: u64::MAX,
        is_partial: false,
        next: None,
        file_len,
        bat,
        shape,
        found,
    };
    for range in &parts.regions.taken {
        audit.space.take(in_mib(range));
    }
    let (bat, shape) = (Bat::new(&parts.metadata, &parts.regions)?, &parts.shape(0));
    walk(&parts.source, &bat, shape, progress, |slot, entry| {
        audit.entry(slot, entry);
        Ok(())
    })?;
    let mut found = audit.finish();
    if let Err(e) = parts.parent(options)
        && e.kind() != ErrorKind::Refused
    {
        found.error(&e);
    }
    Ok(found)
}

fn in_mib(range: &Range<u64>) -> Range<u64> {
    range.start / MIB..range.end.div_ceil(MIB)
}

/// What is known of the file while its BAT is gone through.
struct Audit {
    /// By MiB of the file: in use.
    space: Space,
    /// By MiB of the file: set aside for a block that holds no data now.
    kept: Space,
    has_parent: bool,
    /// The MiB where the first block in use or kept is.
    first: u64,
    /// Whether a block of the present chunk is stored in part.
    is_partial: bool,
    /// Where the next block would follow the last.
    next: Option<u64>,
    file_len: u64,
    bat: Bat,
    shape: Shape,
    found: Check,
}

impl Audit {
    fn entry(&mut self, slot: u64, entry: [u8; 8]) {
        if self.bat.is_bitmap(slot) {
            self.bitmap(slot, entry);
            return;
        }
        let block = self.bat.block_from(slot);
        let size = self.shape.block_size;
        if block >= self.found.total_units {
            // The last chunk is as long as the others, where it has a bitmap.
            return;
        }
        let host = match self.bat.decode(block, &entry) {
            Ok(Block::At(host)) => host,
            Ok(Block::Partial(host)) => {
                self.is_partial = true;
                host
            }
            Ok(Block::Zero | Block::Unallocated) => {
                let start = le64(&entry, 0).unwrap_or(0) & !(MIB - 1);
                if start > 0 {
                    let end = start.saturating_add(size);
                    self.first = self.first.min(start / MIB);
                    self.kept.take(in_mib(&(start..end)));
                }
                return;
            }
            Err(e) => {
                self.found.error(&e);
                return;
            }
        };
        self.first = self.first.min(host.0 / MIB);
        self.found.allocated_units += 1;
        let is_next = self.next.is_none_or(|next| next == host.0);
        self.found.fragmented_units += u64::from(!is_next);
        self.next = host.0.checked_add(size);
        let visible = (self.shape.virtual_size - block * size).min(size);
        self.stored(slot, entry, &format!("block {block}"), host, visible, size);
    }

    fn bitmap(&mut self, slot: u64, entry: [u8; 8]) {
        let chunk = self.bat.chunk_of(slot);
        let is_partial = std::mem::take(&mut self.is_partial);
        match self.bat.decode_bitmap(chunk, &entry) {
            Err(e) => self.found.error(&e),
            Ok(None) if is_partial => {
                let message = format!(
                    "chunk {chunk} has blocks that are stored in part, but no sector bitmap"
                );
                self.found.corruption(self.place(slot), message);
            }
            Ok(None) => {}
            Ok(Some(_)) if !self.has_parent => {
                let message = format!("chunk {chunk} has a sector bitmap, but the disk no parent");
                self.found.corruption(self.place(slot), message);
            }
            Ok(Some(host)) => {
                let what = format!("the sector bitmap of chunk {chunk}");
                self.stored(slot, entry, &what, host, MIB, MIB);
            }
        }
    }

    /// Takes the `size` bytes at `host`, `needed` of which must be in the file.
    fn stored(
        &mut self,
        slot: u64,
        entry: [u8; 8],
        what: &str,
        host: HostOffset,
        needed: u64,
        size: u64,
    ) {
        let reserved = le64(&entry, 0).unwrap_or(0) & (MIB - 8);
        if reserved != 0 {
            let message = format!("the entry of {what} has the reserved bits {reserved:#x} set");
            self.found.corruption(self.place(slot), message);
        }
        let end = host.0.saturating_add(size);
        if host.0.saturating_add(needed) > self.file_len {
            let message = format!(
                "{what} is at {host}, but the file ends at {:#x}",
                self.file_len
            );
            self.found.corruption(self.place(slot), message);
        } else if !self.space.take(in_mib(&(host.0..end))) {
            let message = format!("{what} is at {host}, where something else is, too");
            self.found.corruption(self.place(slot), message);
        }
    }

    fn place(&self, slot: u64) -> String {
        format!("BAT, byte {:#x}", self.shape.table_at.0 + slot * 8)
    }

    fn finish(self) -> Check {
        let (mut space, mut found) = (self.space, self.found);
        found.end_offset = (space.end() * MIB).min(self.file_len);
        space.join(&self.kept);
        // Less than a block is left between others for their alignment, and room before the
        // first one for the structures to grow.
        let least = self.shape.block_size / MIB;
        let is_lost = |gap: &Range<u64>| gap.start > self.first && gap.end - gap.start >= least;
        for gap in space.gaps().filter(is_lost) {
            let (start, end) = (gap.start * MIB, (gap.end * MIB).min(self.file_len));
            let message = format!("nothing uses the space up to {end:#x}");
            found.leak(end - start, format!("byte {start:#x}"), message);
        }
        found
    }
}
