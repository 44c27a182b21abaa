//! Reading.

use std::ops::Range;
use std::sync::Arc;

use super::layout::{HEADER_LEN, Header};
use crate::chain::{self, Overlay};
use crate::disk::check_range;
use crate::limits::room_for;
use crate::resolve::Wanted;
use crate::source::read_up_to;
use crate::{
    Disk, Error, Extent, ExtentKind, Format, GuestOffset, HostOffset, Limits, MAX_EXTENTS,
    OpenOptions, Result, Source, guest_len, push_extent,
};

/// Entries of an L2 table read at once.
const PIECE: u64 = 4096;

/// A QED disk.
struct Reader {
    source: Arc<dyn Source>,
    header: Header,
    /// Offsets of L2 tables.
    l1: Vec<u64>,
}

/// What stands for a run of guest bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mapping {
    Unallocated,
    Zero,
    Data(HostOffset),
}

/// Opens an image and, where the resolver grants it, what is beneath.
pub(super) fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, HEADER_LEN)?;
    let header = Header::parse(&head)?;
    let backing = match header.backing_file {
        Some((at, len)) => Some(open_backing(source.as_ref(), &header, at, len, options)?),
        None => None,
    };
    let reader = Arc::new(Reader::new(source, header, &options.limits)?);
    Ok(match backing {
        Some(backing) => Arc::new(Overlay::new(reader, backing)),
        None => reader,
    })
}

fn open_backing(
    source: &dyn Source,
    header: &Header,
    at: u64,
    len: u32,
    options: &OpenOptions,
) -> Result<Arc<dyn Disk>> {
    let name = read_up_to(source, HostOffset(at), len as usize)?;
    let name = String::from_utf8_lossy(&name);
    if !header.is_backing_raw() {
        return Err(Error::refused(
            Format::Qed,
            "backing file",
            format!("{name:?} has no format recorded, and it is not guessed"),
        ));
    }
    let granted = options
        .resolver
        .resolve(Format::Qed, Wanted::Backing, &name)?;
    let options = chain::beneath(Format::Qed, Format::Raw, &granted, options)?;
    crate::open(granted.source, &options)
}

fn malformed(place: String, message: String) -> Error {
    Error::malformed(Format::Qed, place, message)
}

impl Reader {
    fn new(source: Arc<dyn Source>, header: Header, limits: &Limits) -> Result<Self> {
        limits.virtual_size(Format::Qed, header.size)?;
        let bytes = header.l1_bytes();
        let len = limits.table(Format::Qed, "L1 table", bytes)?;
        let (at, file_len) = (header.l1_offset, source.len());
        if at.checked_add(bytes).is_none_or(|end| end.0 > file_len) {
            let message = format!("has {bytes} bytes at {at}, the file ends at {file_len:#x}");
            return Err(malformed("L1 table".into(), message));
        }
        let mut l1 = vec![0; len];
        source.read_exact_at(&mut l1, at)?;
        let l1: Vec<_> = numbers(&l1).collect();
        let tables = l1.iter().filter(|&&entry| entry != 0).count() as u64;
        let each = header.table_size * header.cluster_size;
        room_for(tables, each, file_len, Format::Qed, "L1 table")?;
        Ok(Self { source, header, l1 })
    }

    /// Calls `each` for the runs that `range` is made of, in order, until it says stop or so
    /// many entries were read that the caller should hear of them.
    fn walk(
        &self,
        range: Range<GuestOffset>,
        mut each: impl FnMut(Range<GuestOffset>, Mapping) -> Result<bool>,
    ) -> Result<()> {
        let span = self.header.table_span();
        let mut at = range.start;
        for _ in 0..MAX_EXTENTS {
            if at >= range.end {
                break;
            }
            let index = (at.0 / span) as usize;
            let absent = self.l1[index..].iter().take_while(|&&e| e == 0).count();
            let stop = if absent > 0 {
                let stop = ((index + absent) as u64).saturating_mul(span);
                let stop = GuestOffset(stop).min(range.end);
                if !each(at..stop, Mapping::Unallocated)? {
                    break;
                }
                stop
            } else {
                let stop = GuestOffset((index as u64 + 1).saturating_mul(span)).min(range.end);
                match self.walk_table(index, at..stop, &mut each)? {
                    Some(stop) => stop,
                    None => break,
                }
            };
            at = stop;
        }
        Ok(())
    }

    /// Goes through a piece of the L2 table of an L1 entry, from the start of `range`, which that
    /// table speaks of. Gives where it came to, or `None` when told to stop.
    fn walk_table(
        &self,
        index: usize,
        range: Range<GuestOffset>,
        each: &mut impl FnMut(Range<GuestOffset>, Mapping) -> Result<bool>,
    ) -> Result<Option<GuestOffset>> {
        let unit = self.header.cluster_size;
        let table = HostOffset(self.l1[index]);
        let table_bytes = self.header.table_size * unit;
        let file_len = self.source.len();
        let is_inside = table
            .checked_add(table_bytes)
            .is_some_and(|end| end.0 <= file_len);
        if !table.0.is_multiple_of(unit) || !is_inside {
            let byte = HostOffset(self.header.l1_offset.0 + index as u64 * 8);
            let message = format!(
                "the L2 table of {table_bytes} bytes is at {table}, allowed multiples of \
                 {unit:#x} inside the file, which ends at {file_len:#x}"
            );
            return Err(malformed(format!("L1 table, byte {byte}"), message));
        }
        let first = range.start.0 / unit % self.header.table_entries();
        let wanted = guest_len(&(range.start.align_down(unit)..range.end)).div_ceil(unit);
        let mut bytes = vec![0; wanted.min(PIECE) as usize * 8];
        let entries_at = HostOffset(table.0 + first * 8);
        self.source.read_exact_at(&mut bytes, entries_at)?;

        let mut run: Option<(Range<GuestOffset>, Mapping)> = None;
        let mut at = range.start;
        for (n, entry) in (0..).zip(numbers(&bytes)) {
            let stop = GuestOffset(at.align_down(unit).0 + unit).min(range.end);
            let byte = HostOffset(entries_at.0 + n * 8);
            let mapping = self.mapping(entry, at, stop, byte)?;
            match &mut run {
                Some((run, first)) if continues(*first, guest_len(run), mapping) => run.end = stop,
                _ => {
                    if let Some((run, first)) = run.replace((at..stop, mapping))
                        && !each(run, first)?
                    {
                        return Ok(None);
                    }
                }
            }
            at = stop;
        }
        if let Some((run, first)) = run
            && !each(run, first)?
        {
            return Ok(None);
        }
        Ok(Some(at))
    }

    /// What the L2 entry at `byte` says of the guest bytes from `at` to `stop` in its cluster.
    fn mapping(
        &self,
        entry: u64,
        at: GuestOffset,
        stop: GuestOffset,
        byte: HostOffset,
    ) -> Result<Mapping> {
        let unit = self.header.cluster_size;
        match entry {
            0 => return Ok(Mapping::Unallocated),
            1 => return Ok(Mapping::Zero),
            _ => {}
        }
        let file_len = self.source.len();
        let skip = at.0 % unit;
        let end = HostOffset(entry).checked_add(skip + stop.since(at));
        if !entry.is_multiple_of(unit) || end.is_none_or(|end| end.0 > file_len) {
            let message = format!(
                "the cluster of guest offset {at} is at {entry:#x}, allowed multiples of \
                 {unit:#x} inside the file, which ends at {file_len:#x}"
            );
            return Err(malformed(format!("L2 table, byte {byte}"), message));
        }
        Ok(Mapping::Data(HostOffset(entry + skip)))
    }
}

/// Whether `next`, `distance` bytes after `first`, goes on with it.
fn continues(first: Mapping, distance: u64, next: Mapping) -> bool {
    match (first, next) {
        (Mapping::Data(a), Mapping::Data(b)) => a.checked_add(distance) == Some(b),
        _ => first == next,
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b))
}

impl Disk for Reader {
    fn virtual_size(&self) -> u64 {
        self.header.size
    }

    fn unit(&self) -> u64 {
        self.header.cluster_size
    }

    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        check_range(range.start, guest_len(&range), self.header.size)?;
        let most = out.len() + MAX_EXTENTS;
        self.walk(range, |range, mapping| {
            let kind = match mapping {
                Mapping::Unallocated => ExtentKind::Unallocated,
                Mapping::Zero => ExtentKind::Zero,
                Mapping::Data(host) => ExtentKind::Data { host: Some(host) },
            };
            push_extent(out, Extent { range, kind });
            Ok(out.len() < most)
        })
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        check_range(at, buf.len() as u64, self.header.size)?;
        let end = GuestOffset(at.0 + buf.len() as u64);
        let (mut at, mut rest) = (at, buf);
        // A walk may end early: go on from where it came to.
        while at < end {
            self.walk(at..end, |range, mapping| {
                let (part, behind) =
                    std::mem::take(&mut rest).split_at_mut(guest_len(&range) as usize);
                rest = behind;
                match mapping {
                    Mapping::Unallocated | Mapping::Zero => part.fill(0),
                    Mapping::Data(host) => self.source.read_exact_at(part, host)?,
                }
                at = range.end;
                Ok(true)
            })?;
        }
        Ok(())
    }
}
