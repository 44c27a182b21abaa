use std::sync::Arc;

use super::reader::{Map, parent, read_header, shape};
use crate::blocks::check::{Space, walk};
use crate::blocks::{Block, BlockTable};
use crate::check::Check;
use crate::copy::Progress;
use crate::{ErrorKind, Format, OpenOptions, Result, Source};

/// Checks the block map: slots outside the file, slots of two blocks, slots of none, the number
/// of blocks in use, and the parent's identity where it is granted.
///
/// # Errors
/// `Malformed` when the header is damaged, `Limit` when there are too many slots, `Cancelled`,
/// `Io`.
pub fn check(
    source: &Arc<dyn Source>,
    options: &OpenOptions,
    progress: &Progress,
) -> Result<Check> {
    let header = read_header(source.as_ref())?;
    let mut found = Check::default();
    let file_len = source.len();
    let (map, mut shape) = (Map::new(&header), shape(&header, options.limits.cache));
    let block_size = shape.block_size;
    found.total_units = shape.virtual_size.div_ceil(block_size);
    if header.map_end() > file_len {
        let end = header.map_end();
        let message = format!("ends at {end:#x}, but the file ends at {file_len:#x}");
        found.corruption("block map", message);
        return Ok(found);
    }
    let held = file_len.saturating_sub(map.first).div_ceil(map.stride);
    let slots = held.min(u64::from(header.blocks_in_image));
    let mut space = Space::new(Format::Vdi, slots, &options.limits)?;
    // Blocks past the end of the disk have entries, too.
    shape.virtual_size = u64::from(header.blocks_in_image) * block_size;
    let mut next = None;
    walk(source, &map, &shape, progress, |block, entry| {
        let host = match map.decode(block, &entry) {
            Ok(Block::At(host)) => host,
            Ok(_) => return Ok(()),
            Err(e) => {
                found.error(&e);
                return Ok(());
            }
        };
        let slot = (host.0 - map.first) / map.stride;
        let place = || format!("block map, byte {:#x}", shape.table_at.0 + block * 4);
        let visible = header.disk_size.saturating_sub(block * block_size);
        found.allocated_units += 1;
        found.fragmented_units += u64::from(next.is_some_and(|next| next != slot));
        next = Some(slot + 1);
        if host.0 + visible.min(block_size) > file_len {
            let message = format!("block {block} is at {host}, but the file ends at {file_len:#x}");
            found.corruption(place(), message);
        } else if !space.take(slot..slot + 1) {
            let message = format!("block {block} is in slot {slot}, which is another block's too");
            found.corruption(place(), message);
        }
        Ok(())
    })?;
    if u64::from(header.blocks_allocated) != found.allocated_units {
        found.corruption(
            "header, byte 388",
            format!(
                "blocks allocated is {}, but the block map places {}",
                header.blocks_allocated, found.allocated_units
            ),
        );
    }
    for gap in space.gaps() {
        let [start, end] = [gap.start, gap.end].map(|slot| map.first + slot * map.stride);
        let end = end.min(file_len);
        let message = format!("slots {} to {} hold no block", gap.start, gap.end - 1);
        found.leak(end - start, format!("byte {start:#x}"), message);
    }
    let end = map.first + space.end() * map.stride;
    found.end_offset = if space.end() == 0 {
        header.map_end()
    } else {
        end.min(file_len)
    };
    if header.has_parent()
        && let Err(e) = parent(&header, options)
        && e.kind() != ErrorKind::Refused
    {
        found.error(&e);
    }
    Ok(found)
}
