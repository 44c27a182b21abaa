//! A sparse extent: grain directory, grain tables, grains.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::grains::{self, Recent, Wanted};
use super::layout::SECTOR;
use super::tables::{self, Geometry, Grain};
use crate::limits::room_for;
use crate::{
    Error, Extent, ExtentKind, Format, GuestOffset, HostOffset, Limits, Result, Source, push_extent,
};

/// Grain tables read by one call of `extents` at most: bounds the time of an answer.
const MAX_TABLES: usize = 4096;
/// Grain tables kept at most; with 512 entries 2 MiB.
const MAX_SLOTS: u64 = 1024;

/// An open sparse extent. Offsets are bytes from the extent's first guest byte.
pub(super) struct SparseExtent {
    source: Arc<dyn Source>,
    geometry: Geometry,
    directory: Box<[u64]>,
    /// A table's slot follows from where it lies, so that a table named many times is read once.
    slots: Box<[Mutex<Slot>]>,
    /// Bytes of the file last seen to be a hole: the tables in it are blank, and need no reading.
    blank: Mutex<Range<u64>>,
    recent: Recent,
}

/// A cached table: where it lies, how many entries of it are meaningful, and those.
type Slot = Option<(u64, Arc<Table>)>;

struct Table {
    entries: Box<[u64]>,
    is_blank: bool,
}

impl SparseExtent {
    /// Opens an extent by its geometry.
    pub(super) fn open(
        source: Arc<dyn Source>,
        geometry: Geometry,
        limits: &Limits,
    ) -> Result<Self> {
        let count = geometry.tables();
        let bytes = limits.table(Format::Vmdk, "grain directory", count.saturating_mul(8))?;
        let directory = geometry.read_entries(
            source.as_ref(),
            "grain directory",
            geometry.directory_sector,
            bytes / 8,
        )?;
        let tables = directory.iter().filter(|&&entry| entry != 0).count() as u64;
        let (each, file_len) = (geometry.table_len(), source.len());
        room_for(tables, each, file_len, Format::Vmdk, "grain directory")?;
        let table_bytes = u64::from(geometry.table_entries) * 8;
        let slots = (limits.cache / table_bytes).clamp(1, MAX_SLOTS.min(count.max(1)));
        Ok(Self {
            source,
            geometry,
            directory,
            slots: (0..slots).map(|_| Mutex::new(None)).collect(),
            blank: Mutex::new(0..0),
            recent: Recent::default(),
        })
    }

    /// Guest bytes.
    pub(super) fn capacity(&self) -> u64 {
        self.geometry.capacity
    }

    /// Bytes of a grain.
    pub(super) fn grain_size(&self) -> u64 {
        self.geometry.grain_size
    }

    /// The grain table behind directory entry `n`; `None` where no grain is in it.
    fn table(&self, n: u64) -> Result<Option<Arc<Table>>> {
        let index = usize::try_from(n).unwrap_or(usize::MAX);
        let entry = self.directory.get(index).copied().unwrap_or(0);
        let Some(sector) = self.geometry.table_sector(entry)? else {
            return Ok(None);
        };
        let count = self.geometry.entries_of(n);
        let slot = sector * SECTOR / self.geometry.table_len().max(SECTOR);
        let slot = &self.slots[(slot % self.slots.len() as u64) as usize];
        let lock = || slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((cached, table)) = &*lock()
            && *cached == sector
            && table.entries.len() >= count
        {
            return Ok((!table.is_blank).then(|| table.clone()));
        }
        let bytes = count as u64 * self.geometry.entry_len();
        let at = tables::place_of(self.source.as_ref(), "grain table", sector, bytes)?;
        if self.is_hole(at.0..at.0 + bytes)? {
            return Ok(None);
        }
        let entries =
            self.geometry
                .read_entries(self.source.as_ref(), "grain table", sector, count)?;
        let table = Arc::new(Table {
            is_blank: entries.iter().all(|&entry| entry == 0),
            entries,
        });
        *lock() = Some((sector, table.clone()));
        Ok((!table.is_blank).then_some(table))
    }

    /// Whether the file has nothing but a hole in `range`, which lies inside it.
    fn is_hole(&self, range: Range<u64>) -> Result<bool> {
        let mut blank = self.blank.lock().unwrap_or_else(PoisonError::into_inner);
        if blank.start <= range.start && range.end <= blank.end {
            return Ok(true);
        }
        let data = self.source.next_data(HostOffset(range.start))?;
        let end = data.map_or(self.source.len(), |data| data.start.0);
        if end < range.end {
            return Ok(false);
        }
        *blank = range.start..end;
        Ok(true)
    }

    /// Where `len` bytes of the plain grain at `sector` lie, `skip` bytes into it.
    fn plain(&self, sector: u64, skip: u64, len: u64) -> Result<HostOffset> {
        let at = sector * SECTOR;
        let end = at.checked_add(skip + len);
        if end.is_none_or(|end| end > self.source.len()) {
            return Err(Error::malformed(
                Format::Vmdk,
                "grain table",
                format!(
                    "entry is sector {sector:#x}, whose grain reaches past the end of the file \
                     at {:#x}",
                    self.source.len()
                ),
            ));
        }
        Ok(HostOffset(at + skip))
    }

    /// Fills `buf` from `at`; the caller keeps it inside the capacity.
    pub(super) fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let covers = self.geometry.table_covers();
        let (mut rest, mut at) = (buf, at);
        while !rest.is_empty() {
            let n = at / covers;
            let len = ((n + 1) * covers - at).min(rest.len() as u64);
            let (now, later) = rest.split_at_mut(len as usize);
            match self.table(n)? {
                Some(table) => self.read_table(&table, now, at)?,
                None => now.fill(0),
            }
            (rest, at) = (later, at + len);
        }
        Ok(())
    }

    /// Fills `buf`, which lies within what `table` covers.
    fn read_table(&self, table: &Table, buf: &mut [u8], at: u64) -> Result<()> {
        let grain_size = self.geometry.grain_size;
        let mut packed = Vec::new();
        let mut run = Run::default();
        let mut done = 0;
        while done < buf.len() {
            let at = at + done as u64;
            let skip = at % grain_size;
            let len = (grain_size - skip).min((buf.len() - done) as u64);
            let part = done..done + len as usize;
            done = part.end;
            match self.geometry.grain(self.entry(table, at))? {
                Grain::Absent | Grain::Zeroed => buf[part].fill(0),
                Grain::At(sector) if self.geometry.is_compressed => packed.push(Wanted {
                    sector,
                    lba: (at - skip) / SECTOR,
                    skip: skip as usize,
                    whole: grain_size.min(self.geometry.capacity - (at - skip)) as usize,
                    part,
                }),
                Grain::At(sector) => {
                    let host = self.plain(sector, skip, len)?;
                    if !run.takes(&part, host) {
                        run.read(self.source.as_ref(), buf)?;
                        run = Run { part, host };
                    }
                }
            }
        }
        run.read(self.source.as_ref(), buf)?;
        grains::read(
            self.source.as_ref(),
            grain_size as usize,
            &packed,
            buf,
            &self.recent,
        )
    }

    /// The table entry for the grain at guest byte `at`.
    fn entry(&self, table: &Table, at: u64) -> u64 {
        let n = at / self.geometry.grain_size % u64::from(self.geometry.table_entries);
        table.entries.get(n as usize).copied().unwrap_or(0)
    }

    /// Appends the extents of `range`, moved by `base` to where the extent begins in the disk;
    /// `is_own` when the extent lies in the image's own file. Ends
    /// early when `out` holds `full` extents or enough work was done; answers how far it came.
    pub(super) fn extents(
        &self,
        range: Range<u64>,
        base: u64,
        is_own: bool,
        full: usize,
        out: &mut Vec<Extent>,
    ) -> Result<u64> {
        let covers = self.geometry.table_covers();
        let grain_size = self.geometry.grain_size;
        let mut push = |from: u64, to: u64, kind| {
            let range = GuestOffset(base + from)..GuestOffset(base + to);
            push_extent(out, Extent { range, kind });
            out.len() < full
        };
        let mut at = range.start;
        let mut tables = 0;
        while at < range.end && tables < MAX_TABLES {
            let end = ((at / covers + 1) * covers).min(range.end);
            let table = self.table(at / covers)?;
            tables += usize::from(table.is_some());
            let Some(table) = table else {
                let goes_on = push(at, end, ExtentKind::Unallocated);
                at = end;
                if goes_on {
                    continue;
                }
                break;
            };
            while at < end {
                let skip = at % grain_size;
                let to = (at - skip + grain_size).min(end);
                let kind = match self.geometry.grain(self.entry(&table, at))? {
                    Grain::Absent => ExtentKind::Unallocated,
                    Grain::Zeroed => ExtentKind::Zero,
                    Grain::At(_) if self.geometry.is_compressed => ExtentKind::Encoded,
                    Grain::At(sector) => {
                        let host = self.plain(sector, skip, to - at)?;
                        ExtentKind::Data {
                            host: is_own.then_some(host),
                        }
                    }
                };
                let goes_on = push(at, to, kind);
                at = to;
                if !goes_on {
                    return Ok(at);
                }
            }
        }
        Ok(at)
    }
}

/// Neighbouring plain grains, read at once.
#[derive(Default)]
struct Run {
    part: Range<usize>,
    host: HostOffset,
}

impl Run {
    /// Takes in a part that goes on, in memory and in the file, where this run ends.
    fn takes(&mut self, part: &Range<usize>, host: HostOffset) -> bool {
        let goes_on = self.part.end == part.start
            && self.host.checked_add(self.part.len() as u64) == Some(host);
        if goes_on && !self.part.is_empty() {
            self.part.end = part.end;
            return true;
        }
        false
    }

    fn read(&self, source: &dyn Source, buf: &mut [u8]) -> Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        source.read_exact_at(&mut buf[self.part.clone()], self.host)
    }
}
