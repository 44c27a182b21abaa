//! Checksums made right again, so that damage gets past them, to what they protect.

use sha2::{Digest, Sha256};

use super::sparse::Sparse;

fn le32(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u32::from_le_bytes(*field))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u64::from_be_bytes(*field))
}

/// vhd: the footer at both ends, and the dynamic header where the footer has it.
pub(crate) fn vhd(file: &mut [u8]) {
    let Some(tail) = file.len().checked_sub(512) else {
        return;
    };
    let header = be64(file, tail + 16);
    for (at, len, field) in [(0, 512, 64), (tail, 512, 64), (header as usize, 1024, 36)] {
        let Some(part) = at.checked_add(len).and_then(|end| file.get_mut(at..end)) else {
            continue;
        };
        if part.starts_with(b"conectix") || part.starts_with(b"cxsparse") {
            part[field..field + 4].fill(0);
            let sum = part.iter().fold(0u32, |sum, b| sum + u32::from(*b));
            part[field..field + 4].copy_from_slice(&(!sum).to_be_bytes());
        }
    }
}

/// vhdx: both headers, both region tables, and what looks like an entry of the log.
pub(crate) fn vhdx(file: &mut Sparse) {
    for (at, len) in [(64, 4), (128, 4), (192, 64), (256, 64)] {
        seal(file, at << 10, len << 10);
    }
    let header = file.get(128 << 10, 512);
    let (len, start) = (le32(&header, 68), be64(&header, 72).swap_bytes());
    let sectors = u64::from(len.min(1 << 20)) / 4096;
    let Some(end) = start.checked_add(sectors * 4096) else {
        return;
    };
    for at in (start..end).step_by(4096) {
        let head = file.get(at, 64);
        if head.starts_with(b"loge") {
            let len = u64::from(le32(&head, 8)).min(64 << 10);
            if at + len <= end {
                seal(file, at, len as usize);
            }
        }
    }
}

/// Sets the CRC-32C at byte 4 of what begins at `at`.
fn seal(file: &mut Sparse, at: u64, len: usize) {
    file.put(&[0; 4], at + 4);
    let mut crc = u32::MAX;
    for byte in file.get(at, len) {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    file.put(&(!crc).to_le_bytes(), at + 4);
}

/// gpt: both headers and their entries, in blocks of 512 bytes.
pub(crate) fn gpt(file: &mut Sparse) {
    let last = formats::Source::len(file).saturating_sub(512);
    for at in [512, last] {
        let header = file.get(at, 512);
        if !header.starts_with(b"EFI PART") {
            continue;
        }
        let size = (le32(&header, 12) as usize).clamp(92, 512);
        let entries = be64(&header, 72).swap_bytes().saturating_mul(512);
        let bytes = u64::from(le32(&header, 80)) * u64::from(le32(&header, 84));
        let entries = file.get(entries, bytes.min(64 << 10) as usize);
        file.put(&crc32fast::hash(&entries).to_le_bytes(), at + 88);
        file.put(&[0; 4], at + 16);
        let crc = crc32fast::hash(&file.get(at, size));
        file.put(&crc.to_le_bytes(), at + 16);
    }
}

/// luks: the digests of version 2, and the work either version asks for made little.
pub(crate) fn luks(file: &mut Sparse) {
    let head = file.get(0, 4096);
    if head.get(6..8) == Some(&[0, 1]) {
        for at in [164].into_iter().chain((0..8).map(|n| 208 + 48 * n + 4)) {
            let iterations = [0, 0, head[at + 2] & 0xf, head[at + 3]];
            file.put(&iterations, at as u64);
        }
        return;
    }
    let size = be64(&head, 8).clamp(4096, 1 << 20);
    for at in [0, size] {
        let mut copy = file.get(at, size as usize);
        if copy.len() < 4096 {
            return;
        }
        for (key, digits) in [("iterations", 4), ("time", 1), ("memory", 3), ("cpus", 1)] {
            shorten(&mut copy, format!("\"{key}\":").as_bytes(), digits);
        }
        copy[448..512].fill(0);
        let digest = Sha256::digest(&copy);
        copy[448..480].copy_from_slice(&digest);
        // As long as it has no zeros that are not there.
        for (n, sector) in copy.chunks(512).enumerate() {
            if sector.iter().any(|b| *b != 0) {
                file.put(sector, at + 512 * n as u64);
            }
        }
    }
}

/// Leaves numbers behind `key` so many digits.
fn shorten(text: &mut [u8], key: &[u8], most: usize) {
    let mut at = 0;
    while let Some(found) = text[at..].windows(key.len()).position(|w| w == key) {
        at += found + key.len();
        let from = at + text[at..].iter().take_while(|b| **b == b' ').count();
        let len = text[from..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count();
        text[from + len.min(most)..from + len].fill(b' ');
    }
}

/// tar: the checksum of every header, found from member to member.
pub(crate) fn tar(file: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = file.get_mut(at..at + 512) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        if sum == 8 * u32::from(b' ') {
            header[148..156].fill(0);
            return;
        }
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = std::str::from_utf8(&header[124..135]).unwrap_or_default();
        let size = usize::from_str_radix(size.trim_matches([' ', '\0']), 8).unwrap_or(0);
        at += 512 + size.min(1 << 30).next_multiple_of(512);
    }
}
