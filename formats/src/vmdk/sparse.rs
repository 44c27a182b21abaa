//! A sparse extent: grain directory, grain tables, grains.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::grains::{self, Recent, Wanted};
use super::layout::{Header, SECTOR, STREAM_END};
use crate::source::read_up_to;
use crate::{
    Error, Extent, ExtentKind, Format, GuestOffset, HostOffset, Limits, Result, Source, push_extent,
};

/// Grain tables read by one call of `extents` at most: bounds the time of an answer.
const MAX_TABLES: usize = 4096;
/// Grain tables kept at most; with 512 entries 2 MiB.
const MAX_SLOTS: u64 = 1024;

/// What the readers need of a header, whichever kind it was.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    /// Guest bytes.
    pub(super) capacity: u64,
    pub(super) grain_size: u64,
    pub(super) table_entries: u32,
    /// Where the grain directory lies, in sectors.
    pub(super) directory_sector: u64,
    pub(super) is_compressed: bool,
    /// A table entry of 1 is a grain of zeros.
    pub(super) has_zeroed_grains: bool,
}

impl Geometry {
    /// Guest bytes behind one directory entry.
    fn table_covers(&self) -> u64 {
        // At most 4096 grains of 2 MiB.
        self.grain_size * u64::from(self.table_entries)
    }
}

/// An open sparse extent. Offsets are bytes from the extent's first guest byte.
pub(super) struct SparseExtent {
    source: Arc<dyn Source>,
    geometry: Geometry,
    directory: Box<[u32]>,
    /// A table's slot follows from where it lies, so that a table named many times is read once.
    slots: Box<[Mutex<Slot>]>,
    recent: Recent,
}

/// A cached table: where it lies, how many entries of it are meaningful, and those.
type Slot = Option<(u32, Arc<Table>)>;

struct Table {
    entries: Box<[u32]>,
    is_blank: bool,
}

/// What a table entry says.
enum Grain {
    Absent,
    Zeroed,
    At(u32),
}

fn malformed(place: &'static str, message: String) -> Error {
    Error::malformed(Format::Vmdk, place, message)
}

impl SparseExtent {
    /// Opens an extent whose header is `header`; looks for the footer where that says so.
    pub(super) fn open(source: Arc<dyn Source>, header: &Header, limits: &Limits) -> Result<Self> {
        let directory_sector = match header.directory_sector {
            Some(sector) => sector,
            None => {
                let at = source.len().saturating_sub(STREAM_END);
                let end = read_up_to(source.as_ref(), HostOffset(at), STREAM_END as usize)?;
                let footer = header.parse_stream_end(&end, limits)?;
                footer.directory_sector.unwrap_or(0)
            }
        };
        let geometry = Geometry {
            capacity: header.capacity(),
            grain_size: header.grain_size(),
            table_entries: header.table_entries,
            directory_sector,
            is_compressed: header.is_compressed(),
            has_zeroed_grains: header.flags & super::layout::FLAG_ZEROED_GRAIN != 0,
        };
        Self::with(source, geometry, limits)
    }

    /// Opens an extent by its geometry.
    pub(super) fn with(
        source: Arc<dyn Source>,
        geometry: Geometry,
        limits: &Limits,
    ) -> Result<Self> {
        let count = geometry.capacity.div_ceil(geometry.table_covers());
        let bytes = limits.table(Format::Vmdk, "grain directory", count.saturating_mul(4))?;
        let directory = read_entries(
            source.as_ref(),
            "grain directory",
            geometry.directory_sector,
            bytes / 4,
        )?;
        let table_bytes = u64::from(geometry.table_entries) * 4;
        let slots = (limits.cache / table_bytes).clamp(1, MAX_SLOTS.min(count.max(1)));
        Ok(Self {
            source,
            geometry,
            directory,
            slots: (0..slots).map(|_| Mutex::new(None)).collect(),
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

    /// The grain table behind directory entry `n`; `None` where the entry is zero.
    fn table(&self, n: u64) -> Result<Option<Arc<Table>>> {
        let index = usize::try_from(n).unwrap_or(usize::MAX);
        let sector = match self.directory.get(index) {
            None | Some(0) => return Ok(None),
            Some(&sector) => sector,
        };
        // The last table needs to reach only as far as the disk.
        let grains = self.geometry.capacity.div_ceil(self.geometry.grain_size);
        let entries = u64::from(self.geometry.table_entries);
        let count = (grains - (n * entries).min(grains)).min(entries) as usize;

        let slot = u64::from(sector) * SECTOR / (entries * 4).max(SECTOR);
        let slot = &self.slots[(slot % self.slots.len() as u64) as usize];
        let lock = || slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((cached, table)) = &*lock()
            && *cached == sector
            && table.entries.len() >= count
        {
            return Ok(Some(table.clone()));
        }
        let entries = read_entries(
            self.source.as_ref(),
            "grain table",
            u64::from(sector),
            count,
        )?;
        let table = Arc::new(Table {
            is_blank: entries.iter().all(|&entry| entry == 0),
            entries,
        });
        *lock() = Some((sector, table.clone()));
        Ok(Some(table))
    }

    fn grain(&self, entry: u32) -> Result<Grain> {
        match entry {
            0 => Ok(Grain::Absent),
            1 if self.geometry.has_zeroed_grains => Ok(Grain::Zeroed),
            1 => Err(malformed(
                "grain table",
                "entry is 1, a zeroed grain, but the header's flags do not allow it".into(),
            )),
            sector => Ok(Grain::At(sector)),
        }
    }

    /// Where `len` bytes of the plain grain at `sector` lie, `skip` bytes into it.
    fn plain(&self, sector: u32, skip: u64, len: u64) -> Result<HostOffset> {
        let at = u64::from(sector) * SECTOR + skip;
        if at + len > self.source.len() {
            return Err(malformed(
                "grain table",
                format!(
                    "entry is sector {sector:#x}, whose grain reaches past the end of the file \
                     at {:#x}",
                    self.source.len()
                ),
            ));
        }
        Ok(HostOffset(at))
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
                Some(table) if !table.is_blank => self.read_table(&table, now, at)?,
                _ => now.fill(0),
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
            match self.grain(self.entry(table, at))? {
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
    fn entry(&self, table: &Table, at: u64) -> u32 {
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
            let Some(table) = table.filter(|table| !table.is_blank) else {
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
                let kind = match self.grain(self.entry(&table, at))? {
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

/// Reads `count` directory or table entries from `sector`.
fn read_entries(
    source: &dyn Source,
    place: &'static str,
    sector: u64,
    count: usize,
) -> Result<Box<[u32]>> {
    let bytes = count as u64 * 4;
    let start = sector.checked_mul(SECTOR);
    let end = start.and_then(|start| start.checked_add(bytes));
    let (Some(start), true) = (start, end.is_some_and(|end| end <= source.len())) else {
        return Err(malformed(
            place,
            format!(
                "is {bytes} bytes at sector {sector:#x}, past the end of the file at {:#x}",
                source.len()
            ),
        ));
    };
    let bytes = read_up_to(source, HostOffset(start), count * 4)?;
    let (words, _) = bytes.as_chunks::<4>();
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}
