//! What inspectors see in the first bytes of a table: blocks that are not there, or lie on each other.

use std::ops::Range;

use super::{Block, BlockTable, inside};
use crate::{Error, Result};

/// Checks the blocks that the first bytes of a table place in a file of `file_len` bytes, for
/// inspectors.
///
/// # Errors
/// `Malformed` for the first entry that makes no sense or lies outside the file, and when the
/// blocks have more bytes than the file: then some share theirs, and a small file becomes a
/// disk full of data.
pub(crate) fn check_blocks<T: BlockTable>(
    table: &T,
    bytes: &[u8],
    block_size: u64,
    virtual_size: u64,
    file_len: u64,
) -> Result<()> {
    let mut placed = 0u64;
    for block in 0..virtual_size.div_ceil(block_size) {
        let entry = usize::try_from(table.slot(block) * T::ENTRY)
            .ok()
            .and_then(|at| bytes.get(at..)?.get(..T::ENTRY as usize));
        let Some(entry) = entry else {
            break;
        };
        if let Block::At(host) | Block::Partial(host) = table.decode(block, entry)? {
            let visible = block_size.min(virtual_size - block * block_size);
            inside::<T>(block, host, visible, file_len)?;
            placed = placed.saturating_add(visible);
        }
    }
    if placed > file_len {
        return Err(Error::malformed(
            T::FORMAT,
            T::NAME,
            format!("places {placed} bytes of blocks in a file of {file_len}: they overlap"),
        ));
    }
    Ok(())
}

/// The first two things in a file that share bytes of it, as far as the first bytes of a table
/// tell: blocks, each with the `lead` bytes before it that are its own, and `structures`. For
/// inspectors.
pub(crate) fn find_overlap<T: BlockTable>(
    table: &T,
    bytes: &[u8],
    block_size: u64,
    virtual_size: u64,
    lead: u64,
    structures: &[(&'static str, Range<u64>)],
) -> Option<String> {
    let name = |n: usize, block: u64| match structures.get(n) {
        Some((name, _)) => (*name).to_owned(),
        None => format!("block {block}"),
    };
    let mut spans: Vec<_> = structures
        .iter()
        .enumerate()
        .map(|(n, (_, range))| (range.start, range.end, n, 0))
        .collect();
    for block in 0..virtual_size.div_ceil(block_size) {
        let at = usize::try_from(table.slot(block) * T::ENTRY).ok()?;
        let Some(entry) = bytes.get(at..).and_then(|b| b.get(..T::ENTRY as usize)) else {
            break;
        };
        if let Ok(Block::At(host) | Block::Partial(host)) = table.decode(block, entry) {
            let visible = block_size.min(virtual_size - block * block_size);
            let (start, end) = (host.0.saturating_sub(lead), host.0.saturating_add(visible));
            spans.push((start, end, structures.len(), block));
        }
    }
    spans.sort_unstable();
    let pair = spans.windows(2).find(|pair| pair[1].0 < pair[0].1)?;
    let [(_, _, n, block), (at, _, m, other)] = [pair[0], pair[1]];
    let (first, second) = (name(n, block), name(m, other));
    Some(format!(
        "{first} and {second} share bytes of the file from {at:#x}"
    ))
}
