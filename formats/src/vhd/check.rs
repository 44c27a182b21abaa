use std::ops::Range;
use std::sync::Arc;

use super::header::{DynamicHeader, HEADER_LEN};
use super::layout::{FOOTER_LEN, SECTOR};
use super::reader::{Parts, Table};
use crate::blocks::check::walk;
use crate::blocks::{Block, BlockTable, Shape};
use crate::check::Check;
use crate::copy::Progress;
use crate::{ErrorKind, Format, HostOffset, OpenOptions, Result, Source};

/// Checks the copies of the footer and the block allocation table: blocks outside the file, over
/// structures or over each other, space in which a block would fit and none is, and the parent's
/// identity where it is granted.
///
/// # Errors
/// `Malformed` when there is no sound footer or dynamic header, `Limit` when the blocks are too
/// many, `Cancelled`, `Io`.
pub fn check(
    source: &Arc<dyn Source>,
    options: &OpenOptions,
    progress: &Progress,
) -> Result<Check> {
    let parts = Parts::read(source.as_ref())?;
    let mut found = Check::default();
    if let Some(doubt) = &parts.footers.doubt {
        found.corruption("footer", doubt.as_str());
    }
    let file_len = source.len();
    found.end_offset = file_len;
    let Some(header) = &parts.header else {
        // The size field counts for others than the creator.
        let used = parts.virtual_size.max(parts.footers.footer.current_size);
        let rest = (file_len - parts.footers.at_end).saturating_sub(used);
        if rest > 0 {
            let message = format!("{rest} bytes stand between the disk's end and the footer");
            found.leak(rest, format!("byte {used:#x}"), message);
        }
        return Ok(found);
    };
    let (table, shape) = (parts.table(header), parts.shape(header, 0));
    found.total_units = shape.virtual_size.div_ceil(shape.block_size);
    let end = header.table_offset.saturating_add(found.total_units * 4);
    if end > file_len {
        let message = format!("ends at {end:#x}, but the file ends at {file_len:#x}");
        found.corruption(Table::NAME, message);
        return Ok(found);
    }
    let structures = structures(&parts, header, file_len);
    for (n, (name, range)) in structures.iter().enumerate() {
        let mut others = structures[..n].iter();
        if let Some((other, _)) = others.find(|(_, other)| overlap(range, other)) {
            let message = format!("is at {:#x}, over the {other}", range.start);
            found.corruption(*name, message);
        }
    }
    let mut audit = Audit {
        bitmap_size: header.bitmap_size(),
        shape,
        structures,
        blocks: Vec::new(),
        next: None,
        file_len,
        found,
    };
    let shape = parts.shape(header, 0);
    let max = options.limits.max_table / size_of::<Placed>() as u64;
    walk(source, &table, &shape, progress, |block, entry| {
        if audit.blocks.len() as u64 >= max {
            let bytes = max
                .saturating_add(1)
                .saturating_mul(size_of::<Placed>() as u64);
            options.limits.table(Format::Vhd, "list of blocks", bytes)?;
        }
        match table.decode(block, &entry) {
            Ok(Block::At(host) | Block::Partial(host)) => audit.block(block, host),
            Ok(Block::Zero | Block::Unallocated) => {}
            Err(e) => audit.found.error(&e),
        }
        Ok(())
    })?;
    let mut found = audit.finish();
    let is_differencing = table.is_differencing;
    if is_differencing
        && let Err(e) = parts.parent(source.as_ref(), header, options)
        && e.kind() != ErrorKind::Refused
    {
        found.error(&e);
    }
    Ok(found)
}

/// A structure and its bytes in the file.
type Structure = (&'static str, Range<u64>);

/// Everything but blocks, in the order of the file.
fn structures(parts: &Parts, header: &DynamicHeader, file_len: u64) -> Vec<Structure> {
    let footer_at = file_len - parts.footers.at_end;
    let header_at = parts.footers.footer.data_offset;
    let table_len = u64::from(header.max_table_entries) * 4;
    let mut all = vec![
        ("footer copy", 0..FOOTER_LEN as u64),
        (
            "dynamic header",
            header_at..header_at.saturating_add(HEADER_LEN as u64),
        ),
        (
            Table::NAME,
            header.table_offset..header.table_offset.saturating_add(table_len),
        ),
        ("footer", footer_at..file_len),
    ];
    let locators = header.parent_locators.iter();
    all.extend(locators.map(|locator| {
        let end = locator.offset.saturating_add(locator.space);
        ("parent locator", locator.offset..end)
    }));
    all.retain(|(_, range)| !range.is_empty());
    all.sort_by_key(|(_, range)| range.start);
    all
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// A block and the sector its bitmap starts at.
struct Placed {
    sector: u32,
    block: u32,
}

/// What is known of the file while its table is gone through.
struct Audit {
    bitmap_size: u64,
    shape: Shape,
    structures: Vec<Structure>,
    blocks: Vec<Placed>,
    /// Where the next block would follow the last.
    next: Option<u64>,
    file_len: u64,
    found: Check,
}

impl Audit {
    /// Bytes of `block`, its bitmap among them, that must be in the file.
    fn span(&self, placed: &Placed) -> Range<u64> {
        let start = u64::from(placed.sector) * SECTOR;
        let rest = self.shape.virtual_size - u64::from(placed.block) * self.shape.block_size;
        start..start + self.bitmap_size + rest.min(self.shape.block_size)
    }

    fn place(&self, block: u64) -> String {
        format!(
            "{}, byte {:#x}",
            Table::NAME,
            self.shape.table_at.0 + block * 4
        )
    }

    fn block(&mut self, block: u64, host: HostOffset) {
        let start = host.0 - self.bitmap_size;
        // Both come from fields of 32 bits.
        let placed = Placed {
            sector: (start / SECTOR) as u32,
            block: block as u32,
        };
        let span = self.span(&placed);
        self.found.allocated_units += 1;
        let is_next = self.next.is_none_or(|next| next == start);
        self.found.fragmented_units += u64::from(!is_next);
        self.next = Some(host.0 + self.shape.block_size);
        if span.end > self.file_len {
            let message = format!(
                "block {block} is at {host}, but the file ends at {:#x}",
                self.file_len
            );
            self.found.corruption(self.place(block), message);
            return;
        }
        let mut structures = self.structures.iter();
        if let Some((name, _)) = structures.find(|(_, range)| overlap(range, &span)) {
            let message = format!("block {block} is at {start:#x}, over the {name}");
            self.found.corruption(self.place(block), message);
        }
        self.blocks.push(placed);
    }

    /// Finds blocks over each other and gaps, once all are known.
    fn finish(mut self) -> Check {
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.sort_unstable_by_key(|placed| (placed.sector, placed.block));
        for pair in blocks.windows(2) {
            let span = self.span(&pair[1]);
            if overlap(&self.span(&pair[0]), &span) {
                let (first, second) = (pair[0].block, pair[1].block);
                let message = format!("blocks {first} and {second} overlap at {:#x}", span.start);
                self.found.corruption(self.place(second.into()), message);
            }
        }
        // Less than a block is left between others for their alignment.
        let least = self.bitmap_size + self.shape.block_size;
        let structures = std::mem::take(&mut self.structures);
        let mut structures = structures.into_iter().map(|(_, range)| range).peekable();
        let mut spans = blocks.iter().map(|placed| self.span(placed)).peekable();
        let mut leaks = Vec::new();
        let mut end = 0;
        loop {
            let is_structure = match (structures.peek(), spans.peek()) {
                (Some(a), Some(b)) => a.start <= b.start,
                (a, _) => a.is_some(),
            };
            let next = if is_structure {
                structures.next()
            } else {
                spans.next()
            };
            let start = next.as_ref().map_or(self.file_len, |range| range.start);
            let start = start.min(self.file_len);
            if start.saturating_sub(end) >= least {
                leaks.push(end..start);
            }
            let Some(range) = next else { break };
            end = end.max(range.end);
        }
        drop(spans);
        for gap in leaks {
            let message = format!("nothing uses the space up to {:#x}", gap.end);
            let place = format!("byte {:#x}", gap.start);
            self.found.leak(gap.end - gap.start, place, message);
        }
        self.found
    }
}
