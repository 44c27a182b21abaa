//! Checking the BAT against the file and itself.

use std::sync::Arc;

use super::descriptor::is_descriptor;
use super::layout::{self, EXTENSION_MAGIC_LEN, Header, check_extension};
use crate::check::Check;
use crate::copy::Progress;
use crate::{Error, Format, HostOffset, OpenOptions, Result, Source, read_up_to};

/// Checks the BAT: blocks outside the file, two blocks in one place, and what lies behind the
/// last one.
///
/// # Errors
/// `Malformed` and `Unsupported` by the header; `Usage` for the descriptor of a bundle, which has
/// no table; `Limit`, `Cancelled`, `Io`.
pub fn check(
    source: &Arc<dyn Source>,
    options: &OpenOptions,
    progress: &Progress,
) -> Result<Check> {
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, super::HEAD as usize)?;
    if is_descriptor(&head) {
        return Err(Error::usage(
            "a descriptor has no table: check the images that it names",
        ));
    }
    let header = Header::parse(&head)?;
    let file_len = source.len();
    let len = options
        .limits
        .table(Format::Parallels, "bat", header.bat_len())?;
    let mut found = Check {
        total_units: header.bat_entries.into(),
        ..Check::default()
    };
    if header.bat_end() > file_len {
        let end = header.bat_end();
        let message = format!("ends at {end:#x}, but the file ends at {file_len:#x}");
        found.corruption("bat", message);
        return Ok(found);
    }
    if let Some(at) = header.extension() {
        let magic = match at.0 < file_len {
            true => read_up_to(source.as_ref(), at, EXTENSION_MAGIC_LEN as usize)?,
            false => Vec::new(),
        };
        if let Err(e) = check_extension(at, &magic) {
            found.error(&e);
        }
    }
    let mut bat = vec![0; len];
    source.read_exact_at(&mut bat, HostOffset(layout::LEN))?;
    progress.start(len as u64);
    let blocks = place_blocks(&header, &bat, file_len, &mut found);
    if progress.is_cancelled() {
        return Err(Error::cancelled());
    }
    progress.reached(len as u64);
    check_overlaps(blocks, &mut found);

    let last = match found.allocated_units {
        0 => header.bat_end(),
        _ => found.end_offset,
    };
    // The format extension has a place of its own, and so have bitmaps that it names.
    let behind = file_len.saturating_sub(last);
    if header.extension().is_none() && found.allocated_units != 0 && behind >= header.block_size {
        let message = format!("nothing uses the {behind} bytes behind the last block");
        found.leak(behind, format!("byte {last:#x}"), message);
    }
    Ok(found)
}

fn place_of(block: u64) -> String {
    format!("bat, byte {:#x}", layout::LEN + block * 4)
}

/// Where each block begins and ends that lies in the file, and its number; counts them all.
fn place_blocks(
    header: &Header,
    bat: &[u8],
    file_len: u64,
    found: &mut Check,
) -> Vec<(HostOffset, HostOffset, u64)> {
    let mut blocks = Vec::new();
    let mut next = None;
    for (n, entry) in (0u64..).zip(bat.as_chunks::<4>().0) {
        let entry = u32::from_le_bytes(*entry);
        if entry != 0 {
            let at = u64::from(entry) * header.bat_unit;
            found.allocated_units += 1;
            found.fragmented_units += u64::from(next.is_some_and(|next| next != at));
            next = Some(at + header.block_size);
        }
        match header.block(n, entry) {
            Ok(None) => {}
            Ok(Some(block)) if block.end.0 > file_len => {
                let (end, limit) = (block.end, HostOffset(file_len));
                let message = format!("block {n} ends at {end}, but the file ends at {limit}");
                found.corruption(place_of(n), message);
            }
            Ok(Some(block)) => {
                let end = (block.start.0 + header.block_size).min(file_len);
                found.end_offset = found.end_offset.max(end);
                blocks.push((block.start, HostOffset(end), n));
            }
            Err(e) => found.corruption(place_of(n), e.message()),
        }
    }
    blocks
}

fn check_overlaps(mut blocks: Vec<(HostOffset, HostOffset, u64)>, found: &mut Check) {
    blocks.sort_unstable();
    for pair in blocks.windows(2) {
        let [(_, end, one), (at, _, other)] = [pair[0], pair[1]];
        if at < end {
            let message = format!("block {other} is at {at}, where block {one} is, too");
            found.corruption(place_of(other), message);
        }
    }
}
