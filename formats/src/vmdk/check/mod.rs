//! Checks directories, tables and grains against each other and the file.
//!
//! Every structure takes a run of sectors; two runs must not share any. Runs that continue each
//! other are kept as one, so an image written in order is a handful of them, and an image of
//! another kind is gone through in several walks, each for a part of the file: memory is
//! bounded by [`runs::MAX_RUNS`], time by the tables that are really there.

mod runs;
mod walk;

use std::ops::Range;
use std::sync::Arc;

use super::descriptor::Descriptor;
use super::layout::{Header, SECTOR, STREAM_END};
use super::reader::{ExtentFile, Image, ask_extent, ask_parent};
use super::rules;
use super::tables::{Geometry, place_of};
use crate::check::Check;
use crate::copy::Progress;
use crate::{Error, ErrorKind, Format, Limits, OpenOptions, Result, Source};
use runs::{Runs, Sorted};
use walk::Walk;

/// Checks the image in `source`: its descriptor, the extent files and the parent that the
/// resolver grants, and all tables and compressed grains.
///
/// # Errors
/// As [`crate::check::check`]; `Refused` when extent files are not granted.
pub fn check(
    source: &Arc<dyn Source>,
    options: &OpenOptions,
    progress: &Progress,
) -> Result<Check> {
    let (image, faults) = Image::look(source.as_ref(), &options.limits)?;
    let mut check = Check::default();
    for fault in &faults {
        check.error(fault);
    }
    let mut files = Vec::new();
    match &image.header {
        Some(header) if image.is_alone() => {
            match Extent::hosted(source.clone(), header, String::new(), &options.limits) {
                Ok(extent) => files.push(extent),
                Err(e) => check.error(&e),
            }
        }
        // What is at fault may name what it should not.
        _ if !faults.is_empty() => {}
        _ => files = extents(&image.descriptor, options, &mut check)?,
    }
    progress.start(files.iter().map(|extent| extent.source.len()).sum());
    let mut base = 0;
    for extent in &files {
        extent.check(&mut check, base, options, progress)?;
        base += extent.source.len();
        progress.reached(base);
    }
    parent(&image.descriptor, options, &mut check)?;
    Ok(check)
}

/// The sparse extent files a descriptor names.
fn extents(
    descriptor: &Descriptor,
    options: &OpenOptions,
    check: &mut Check,
) -> Result<Vec<Extent>> {
    let mut all = Vec::new();
    for line in descriptor.extents.iter().filter(|line| line.sectors > 0) {
        let (source, file) = match ask_extent(line, options) {
            Ok(Some(granted)) => granted,
            Ok(None) => continue,
            Err(e) if e.kind() == ErrorKind::Malformed => {
                check.error(&e);
                continue;
            }
            Err(e) => return Err(e),
        };
        let name = line.name.as_deref().unwrap_or("");
        let place = format!("extent file {name:?}, ");
        match file {
            ExtentFile::Flat(start) => {
                // Nothing to contradict: it is as long as it says.
                check.end_offset = check.end_offset.max(start + line.sectors * SECTOR);
            }
            ExtentFile::Hosted(header) => {
                match Extent::hosted(source, &header, place, &options.limits) {
                    Ok(extent) => all.push(extent),
                    Err(e) => check.error(&e),
                }
            }
            ExtentFile::Sparse(geometry) => {
                let directory = geometry.tables() * geometry.entry_len();
                all.push(Extent {
                    fixed: vec![
                        0..1,
                        sectors_of(geometry.directory_sector * SECTOR, directory),
                    ],
                    source,
                    geometry,
                    place,
                    copy_sector: None,
                    grains_from: None,
                });
            }
        }
    }
    Ok(all)
}

/// Holds a granted parent to what its child says of it.
fn parent(descriptor: &Descriptor, options: &OpenOptions, check: &mut Check) -> Result<()> {
    let parent = match rules::parent(descriptor) {
        Ok(Some(parent)) => parent,
        Ok(None) => return Ok(()),
        Err(e) => {
            check.error(&e);
            return Ok(());
        }
    };
    let granted = match ask_parent(&parent, options) {
        Ok(granted) => granted,
        Err(e) if e.kind() == ErrorKind::Refused => return Ok(()),
        Err(e) => return Err(e),
    };
    let is_right = Image::read(granted.source.as_ref(), &options.limits)
        .and_then(|image| parent.check(image.descriptor.cid));
    match is_right {
        Err(e) if e.kind() == ErrorKind::Io => Err(e),
        Err(e) => {
            check.error(&e);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Whole sectors of `len` bytes at `at`.
fn sectors_of(at: u64, len: u64) -> Range<u64> {
    at / SECTOR..at.saturating_add(len).div_ceil(SECTOR)
}

/// A sparse extent to be checked.
struct Extent {
    source: Arc<dyn Source>,
    geometry: Geometry,
    /// What is put before places.
    place: String,
    /// Sectors of what is neither table nor grain.
    fixed: Vec<Range<u64>>,
    /// The redundant grain directory.
    copy_sector: Option<u64>,
    /// The sector from which on everything should be grains, where that is known.
    grains_from: Option<u64>,
}

impl Extent {
    /// A hosted sparse extent; its footer is held to its header.
    fn hosted(
        source: Arc<dyn Source>,
        header: &Header,
        place: String,
        limits: &Limits,
    ) -> Result<Self> {
        let is_stream = header.directory_sector.is_none();
        let header = header.clone().with_footer(source.as_ref(), limits)?;
        let directory_sector = header.directory_sector.unwrap_or(0);
        let geometry = header.geometry(directory_sector);
        let directory = geometry.tables() * geometry.entry_len();
        let mut fixed = vec![
            0..1,
            sectors_of(directory_sector.saturating_mul(SECTOR), directory),
        ];
        if let Some((start, len)) = header.descriptor("header")? {
            fixed.push(sectors_of(start, len));
        }
        if is_stream {
            fixed.push(sectors_of(
                source.len().saturating_sub(STREAM_END),
                STREAM_END,
            ));
        }
        // Some writers name one directory twice.
        let copy_sector = Some(header.redundant_directory_sector)
            .filter(|&copy| header.has_redundant_directory() && copy != 0)
            .filter(|&copy| copy != directory_sector);
        if let Some(copy) = copy_sector {
            fixed.push(sectors_of(copy.saturating_mul(SECTOR), directory));
        }
        Ok(Self {
            grains_from: (!header.is_compressed()).then_some(header.overhead_sectors),
            source,
            geometry,
            place,
            fixed,
            copy_sector,
        })
    }

    fn corruption(&self, check: &mut Check, place: &str, message: impl Into<String>) {
        check.corruption(format!("{}{place}", self.place), message);
    }

    fn error(&self, check: &mut Check, error: &Error) {
        self.corruption(check, error.place(), error.message());
    }

    /// Reads a grain directory.
    fn directory(&self, place: &'static str, sector: u64, limits: &Limits) -> Result<Box<[u64]>> {
        let count = self.geometry.tables();
        let bytes = limits.table(Format::Vmdk, place, count.saturating_mul(8))?;
        let source = self.source.as_ref();
        self.geometry.read_entries(source, place, sector, bytes / 8)
    }

    /// The tables that lie inside the file and apart: number and sector, by number.
    fn tables(&self, directory: &[u64], place: &'static str, check: &mut Check) -> Vec<(u64, u64)> {
        let mut tables = Vec::new();
        for (n, &entry) in (0..).zip(directory) {
            let bytes = self.geometry.entries_of(n) as u64 * self.geometry.entry_len();
            let sector = self.geometry.table_sector(entry).and_then(|sector| {
                let inside = |sector| place_of(self.source.as_ref(), place, sector, bytes);
                sector.map(inside).transpose()?;
                Ok(sector)
            });
            match sector {
                Ok(Some(sector)) => tables.push((n, sector)),
                Ok(None) => {}
                Err(e) => {
                    let message = format!("entry {n}: {}", e.message());
                    self.corruption(check, place, message);
                }
            }
        }
        // Walked once each, however often they are named.
        tables.sort_unstable_by_key(|&(n, sector)| (sector, n));
        let len = self.geometry.table_len().div_ceil(SECTOR);
        let mut free = 0;
        tables.retain(|&(n, sector)| {
            let is_apart = sector >= free;
            if is_apart {
                free = sector + len;
            } else {
                let message = format!("table {n} at sector {sector:#x} overlaps another");
                self.corruption(check, place, message);
            }
            is_apart
        });
        tables.sort_unstable();
        tables
    }

    fn check(
        &self,
        check: &mut Check,
        base: u64,
        options: &OpenOptions,
        progress: &Progress,
    ) -> Result<()> {
        check.total_units += self.geometry.grains();
        let first = self.geometry.directory_sector;
        let directory = match self.directory("grain directory", first, &options.limits) {
            Err(e) if e.kind() == ErrorKind::Malformed => {
                self.error(check, &e);
                return Ok(());
            }
            directory => directory?,
        };
        let tables = self.tables(&directory, "grain directory", check);
        drop(directory);
        let copies = self.copies(check, &options.limits)?;
        let walk = Walk {
            extent: self,
            tables: &tables,
            copies: &copies,
            base,
            progress,
        };
        // Parts of the file still to be walked for.
        let whole = 0..u64::MAX;
        let mut parts = vec![whole.clone()];
        let mut is_first = true;
        while let Some(part) = parts.pop() {
            let mut runs = Runs::new(part.clone());
            walk.walk(&mut runs, is_first.then_some(&mut *check))?;
            is_first = false;
            match runs.finish() {
                Ok(runs) => self.judge(&runs, part == whole, check),
                Err(middle) => parts.extend([middle..part.end, part.start..middle]),
            }
        }
        Ok(())
    }

    /// The tables of the redundant directory, by number.
    fn copies(&self, check: &mut Check, limits: &Limits) -> Result<Vec<(u64, u64)>> {
        let Some(sector) = self.copy_sector else {
            return Ok(Vec::new());
        };
        match self.directory("redundant grain directory", sector, limits) {
            Ok(directory) => Ok(self.tables(&directory, "redundant grain directory", check)),
            Err(e) if e.kind() == ErrorKind::Malformed => {
                self.error(check, &e);
                Ok(Vec::new())
            }
            Err(e) => Err(e),
        }
    }

    /// Tells overlaps, and what nothing refers to.
    fn judge(&self, runs: &Sorted, is_whole: bool, check: &mut Check) {
        for twice in &runs.overlaps {
            let place = format!("sector {:#x}", twice.start);
            let count = twice.end - twice.start;
            let message = format!("{count} sectors from here on belong to two structures");
            self.corruption(check, &place, message);
        }
        check.corruptions += runs.more_overlaps;
        let Some(from) = self.grains_from.filter(|_| is_whole) else {
            return;
        };
        let grain = self.geometry.grain_size / SECTOR;
        let end = self.source.len() / SECTOR;
        let mut at = from;
        for run in runs.runs.iter().cloned().chain(std::iter::once(end..end)) {
            // Less than a grain is what alignment leaves.
            if run.start.checked_sub(at).is_some_and(|rest| rest >= grain) {
                let bytes = (run.start - at) * SECTOR;
                let place = format!("{}sector {at:#x}", self.place);
                check.leak(
                    bytes,
                    place,
                    format!("{bytes} bytes from here on are no grain"),
                );
            }
            at = at.max(run.end);
        }
    }
}
