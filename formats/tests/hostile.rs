//! Images cut short, with bytes flipped and fields at their limits: an answer or a named error,
//! never a panic, and never much memory.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use formats::container::describe;
use formats::{Disk, ErrorKind, Format, GuestOffset, Limits, OpenOptions, Result, Source, open};
use rayon::prelude::*;
use support::{Corpus, Random};

/// Larger images are left out: their tables are no different.
const MOST: u64 = 768 << 10;
/// Damaged copies of each image, of each kind.
const COPIES: u64 = 24;

#[test]
fn damaged_images_are_answered_or_refused() {
    let Some(corpus) = Corpus::open() else {
        return;
    };
    let failures: Vec<_> = corpus
        .entries
        .par_iter()
        .filter(|entry| !matches!(entry.format.as_str(), "ovf" | "data" | "vmx"))
        .flat_map_iter(|entry| {
            let bytes = corpus.bytes(entry, MOST).filter(|bytes| !bytes.is_empty());
            bytes
                .into_iter()
                .flat_map(|bytes| damage(&bytes, &entry.path))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn damage(bytes: &[u8], name: &str) -> Vec<String> {
    let mut random = Random(bytes.len() as u64);
    let mut failures = Vec::new();
    let mut attempt = |what: &str, file: Vec<u8>| {
        let source: Arc<dyn Source> = Arc::new(file);
        match catch_unwind(AssertUnwindSafe(|| exercise(&source))) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => failures.push(format!("{name}, {what}: {e}")),
            Err(_) => failures.push(format!("{name}, {what}: panicked")),
        }
    };
    for n in 0..COPIES {
        let len = match n {
            0 => bytes.len() - 1,
            1 => bytes.len() / 2,
            2 => bytes.len().min(512),
            _ => random.below(bytes.len() as u64) as usize,
        };
        attempt(&format!("cut to {len}"), bytes[..len].to_vec());
    }
    for n in 0..COPIES {
        let mut file = bytes.to_vec();
        for _ in 0..=n % 8 {
            let at = place(&mut random, file.len());
            file[at] ^= 1 << random.below(8);
        }
        attempt(&format!("flips {n}"), file);
    }
    for n in 0..COPIES {
        let mut file = bytes.to_vec();
        let width = if n % 2 == 0 { 4 } else { 8 };
        let at = place(&mut random, file.len()) & !(width - 1);
        let end = file.len().min(at + width);
        file[at..end].fill(0xff);
        if n % 3 == 0 {
            file[at] = 0x7f;
        }
        attempt(&format!("{width} bytes at {at} maxed"), file);
    }
    failures
}

/// A byte to damage: mostly where structures are, at both ends.
fn place(random: &mut Random, len: usize) -> usize {
    let len = len as u64;
    let at = match random.below(8) {
        0..=3 => random.below(len.min(512)),
        4 => random.below(len.min(70_000)),
        5 | 6 => len - 1 - random.below(len.min(2048)),
        _ => random.below(len),
    };
    at as usize
}

/// Everything a caller would do; errors are fine where they say whose fault it was.
fn exercise(source: &Arc<dyn Source>) -> Result<(), String> {
    let limits = Limits {
        max_table: 4 << 20,
        cache: 1 << 20,
        ..Limits::default()
    };
    let judged = describe(source, &limits).map_err(|e| format!("inspecting: {e}"))?;
    for finding in &judged.findings {
        if finding.place.is_empty() || finding.message.is_empty() {
            return Err(format!("a finding that says nothing: {finding:?}"));
        }
        // The judge's own rule is about the size, whatever field holds it.
        let is_placed = finding.place.contains("byte ") || finding.rule == "virtual_size";
        if is_block_format(judged.format) && !is_placed {
            return Err(format!("a finding without a place: {finding:?}"));
        }
    }
    let options = OpenOptions {
        format: Some(judged.format),
        limits,
        ..OpenOptions::default()
    };
    let disk = match open(source.clone(), &options) {
        Ok(disk) => disk,
        Err(e) => return named(&e),
    };
    if judged.format == Format::Raw && disk.virtual_size() != source.len() {
        return Err("a raw disk of another length than its file".into());
    }
    read_some(disk.as_ref()).or_else(|e| named(&e))
}

fn is_block_format(format: Format) -> bool {
    use Format::{Vdi, Vhd, Vhdx, Vmdk};
    matches!(format, Vhd | Vhdx | Vdi | Vmdk)
}

fn named(error: &formats::Error) -> Result<(), String> {
    if matches!(error.kind(), ErrorKind::Io) {
        return Err(format!("blames the system for what the file did: {error}"));
    }
    Ok(())
}

fn read_some(disk: &dyn Disk) -> Result<()> {
    let size = disk.virtual_size();
    let mut at = GuestOffset::ZERO;
    for _ in 0..16 {
        let mut extents = Vec::new();
        disk.extents(at..GuestOffset(size), &mut extents)?;
        let Some(last) = extents.last() else {
            break;
        };
        at = last.range.end;
    }
    let len = size.min(256 << 10);
    let mut buf = vec![0; len as usize];
    for at in [0, (size - len) / 2, size - len] {
        disk.read_at(&mut buf, GuestOffset(at))?;
    }
    Ok(())
}
