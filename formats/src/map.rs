//! Mapping: what a disk is made of from one end to the other, and a picture of it in bounded
//! memory however fragmented it is.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::extent::continues;
use crate::{Disk, Extent, ExtentKind, GuestOffset, MAX_EXTENTS, Result, guest_len};

/// An extent, and the image of a chain that says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapped {
    /// Its `host` is a byte of that image's file.
    pub extent: Extent,
    /// Images above that one: 0 for the disk's own.
    pub depth: u32,
}

/// Walks the extents of a disk in guest order. Neighbours that continue each other come as one;
/// memory holds the answer to one question to the disk.
pub struct Walk<'a> {
    disk: &'a dyn Disk,
    asked: GuestOffset,
    end: GuestOffset,
    extents: VecDeque<Mapped>,
    batch: Vec<Mapped>,
}

impl<'a> Walk<'a> {
    /// Over `range`, clipped to the disk.
    #[must_use]
    pub fn new(disk: &'a dyn Disk, range: Range<GuestOffset>) -> Self {
        let end = range.end.min(GuestOffset(disk.virtual_size()));
        Self {
            disk,
            asked: range.start.min(end),
            end,
            extents: VecDeque::new(),
            batch: Vec::new(),
        }
    }

    /// The next extent, or `None` at the end.
    ///
    /// # Errors
    /// What reading the tables met.
    #[expect(clippy::should_implement_trait, reason = "a walk can fail")]
    pub fn next(&mut self) -> Result<Option<Mapped>> {
        // The last one known may go on with the first of the next answer.
        while self.extents.len() < 2 && self.asked < self.end {
            self.batch.extend(self.extents.pop_front());
            look(self.disk, self.asked..self.end, 0, &mut self.batch)?;
            // An empty answer breaks the contract of `Disk`; end rather than spin.
            self.asked = match self.batch.last() {
                Some(last) if last.extent.range.end > self.asked => last.extent.range.end,
                _ => self.end,
            };
            self.extents.extend(self.batch.drain(..));
        }
        Ok(self.extents.pop_front())
    }
}

/// Appends what `range` is made of, or a beginning of it, image by image: that of `disk` lies
/// `depth` images down. Chains are short, so the recursion is.
fn look(
    disk: &dyn Disk,
    range: Range<GuestOffset>,
    depth: u32,
    out: &mut Vec<Mapped>,
) -> Result<()> {
    let (top, bottom) = match disk.stack() {
        Some([top, bottom]) => (top, Some(bottom)),
        None => (disk, None),
    };
    let mut above = Vec::new();
    top.extents(range, &mut above)?;
    let most = out.len() + MAX_EXTENTS;
    for extent in above {
        let beneath = bottom.filter(|_| extent.kind == ExtentKind::Unallocated);
        let mut at = extent.range.start;
        if let Some(bottom) = beneath {
            let end = extent.range.end.min(GuestOffset(bottom.virtual_size()));
            while at < end && out.len() < most {
                look(bottom, at..end, depth + 1, out)?;
                // An empty answer breaks the contract of `Disk`; end rather than spin.
                at = match out.last() {
                    Some(last) if last.extent.range.end > at => last.extent.range.end,
                    _ => end,
                };
            }
            if at < end {
                return Ok(());
            }
        }
        let extent = Extent {
            range: at..extent.range.end,
            kind: extent.kind,
        };
        push(out, Mapped { extent, depth });
        if out.len() >= most {
            return Ok(());
        }
    }
    Ok(())
}

/// Appends `mapped`, merging it with the last one where both continue each other.
fn push(out: &mut Vec<Mapped>, mapped: Mapped) {
    if mapped.extent.range.is_empty() {
        return;
    }
    if let Some(last) = out.last_mut()
        && last.depth == mapped.depth
        && last.extent.range.end == mapped.extent.range.start
        && continues(&last.extent, &mapped.extent)
    {
        last.extent.range.end = mapped.extent.range.end;
        return;
    }
    out.push(mapped);
}

/// Bytes of a column of a [`Picture`] by what they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Shares {
    /// Stored as they are.
    pub data: u64,
    /// Stored compressed or otherwise encoded.
    pub encoded: u64,
    /// Known to be zero.
    pub zero: u64,
    /// Not stored.
    pub unallocated: u64,
}

impl Shares {
    fn add(&mut self, kind: ExtentKind, bytes: u64) {
        let share = match kind {
            ExtentKind::Data { .. } => &mut self.data,
            ExtentKind::Encoded => &mut self.encoded,
            ExtentKind::Zero => &mut self.zero,
            ExtentKind::Unallocated => &mut self.unallocated,
        };
        *share += bytes;
    }
}

/// A disk drawn small: so many columns for what the guest sees, so many for the file beneath.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Bytes the guest sees.
    pub virtual_size: u64,
    /// Bytes of the file.
    pub file_size: u64,
    /// The guest's bytes, column by column.
    pub guest: Vec<Shares>,
    /// The file's bytes that hold data as the guest sees it, column by column.
    pub file: Vec<u64>,
    /// Which guest columns lie in which file columns, with how many bytes.
    pub links: BTreeMap<(u16, u16), u64>,
    /// Everything together.
    pub total: Shares,
    /// Extents gone through.
    pub extents: u64,
}

impl Picture {
    /// An empty picture of `columns` columns, of a disk of `virtual_size` bytes in a file of
    /// `file_size`.
    #[must_use]
    pub fn new(columns: u16, virtual_size: u64, file_size: u64) -> Self {
        let columns = usize::from(columns.max(1));
        Self {
            virtual_size,
            file_size,
            guest: vec![Shares::default(); columns],
            file: vec![0; columns],
            links: BTreeMap::new(),
            total: Shares::default(),
            extents: 0,
        }
    }

    /// Draws one extent.
    pub fn add(&mut self, extent: &Extent) {
        self.extents += 1;
        self.total.add(extent.kind, guest_len(&extent.range));
        let host = match extent.kind {
            ExtentKind::Data { host } => host,
            _ => None,
        };
        let columns = self.guest.len();
        let guest = Scale::new(self.virtual_size, columns);
        let file = Scale::new(self.file_size, columns);
        let (start, end) = (extent.range.start.0, extent.range.end.0);
        for (column, part) in guest.columns(start..end) {
            self.guest[column].add(extent.kind, part.end - part.start);
            let Some(host) = host else { continue };
            let from = host.0.saturating_add(part.start - start);
            let to = from.saturating_add(part.end - part.start);
            for (there, part) in file.columns(from.min(self.file_size)..to.min(self.file_size)) {
                let bytes = part.end - part.start;
                self.file[there] += bytes;
                // Columns are numbered by `u16` when the picture is made.
                *self.links.entry((column as u16, there as u16)).or_default() += bytes;
            }
        }
    }
}

/// Columns over a number of bytes.
#[derive(Clone, Copy)]
struct Scale {
    size: u64,
    columns: u64,
}

impl Scale {
    fn new(size: u64, columns: usize) -> Self {
        Self {
            size: size.max(1),
            columns: columns as u64,
        }
    }

    /// First byte of a column.
    fn start(self, column: u64) -> u64 {
        let at = u128::from(self.size) * u128::from(column) / u128::from(self.columns);
        // At most `size`.
        at as u64
    }

    /// The columns a range of bytes touches, and with which of its bytes. Ranges end inside.
    fn columns(self, range: Range<u64>) -> impl Iterator<Item = (usize, Range<u64>)> {
        let at = u128::from(range.start) * u128::from(self.columns) / u128::from(self.size);
        let mut column = at as u64;
        let mut start = range.start;
        std::iter::from_fn(move || {
            while start < range.end && column < self.columns {
                let end = self.start(column + 1).min(range.end);
                let part = start..end;
                column += 1;
                if start < end {
                    start = end;
                    return Some((column as usize - 1, part));
                }
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::chain::Overlay;
    use crate::{Error, HostOffset};

    fn extent(start: u64, end: u64, kind: ExtentKind) -> Extent {
        Extent {
            range: GuestOffset(start)..GuestOffset(end),
            kind,
        }
    }

    /// Answers for one byte at a time.
    struct Slow(Vec<ExtentKind>);

    impl Disk for Slow {
        fn virtual_size(&self) -> u64 {
            self.0.len() as u64
        }

        fn unit(&self) -> u64 {
            1
        }

        fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
            let at = range.start.0;
            crate::push_extent(out, extent(at, at + 1, self.0[at as usize]));
            Ok(())
        }

        fn read_at(&self, _: &mut [u8], _: GuestOffset) -> Result<()> {
            Err(Error::usage("never read"))
        }
    }

    #[test]
    fn neighbours_are_joined_over_the_disks_answers() {
        let data = |at| ExtentKind::Data {
            host: Some(HostOffset(at)),
        };
        let zero = ExtentKind::Zero;
        let disk = Slow(vec![data(10), data(11), zero, zero, data(5), data(9)]);
        let mut walk = Walk::new(&disk, GuestOffset(1)..GuestOffset(99));
        let mut seen = Vec::new();
        while let Some(mapped) = walk.next().unwrap() {
            assert_eq!(mapped.depth, 0);
            seen.push(mapped.extent);
        }
        let expected = [
            extent(1, 2, data(11)),
            extent(2, 4, zero),
            extent(4, 5, data(5)),
            extent(5, 6, data(9)),
        ];
        assert_eq!(seen, expected);
        let mut none = Walk::new(&disk, GuestOffset(7)..GuestOffset(9));
        assert_eq!(none.next().unwrap(), None);
    }

    #[test]
    fn each_image_of_a_chain_tells_its_own() {
        let data = |at| ExtentKind::Data {
            host: Some(HostOffset(at)),
        };
        let (zero, none) = (ExtentKind::Zero, ExtentKind::Unallocated);
        let disk = |kinds: &[ExtentKind]| Arc::new(Slow(kinds.to_vec())) as Arc<dyn Disk>;
        let base = disk(&[data(1), none, data(3), data(4)]);
        let middle = disk(&[none, none, data(9), zero, none, none]);
        let top = disk(&[none, none, none, none, none, none, none, data(7)]);
        let chain = Overlay::new(top, Arc::new(Overlay::new(middle, base)));
        let mut walk = Walk::new(&chain, GuestOffset(0)..GuestOffset(8));
        let mut seen = Vec::new();
        while let Some(mapped) = walk.next().unwrap() {
            seen.push((mapped.extent, mapped.depth));
        }
        let expected = [
            (extent(0, 1, data(1)), 2),
            (extent(1, 2, none), 2),
            (extent(2, 3, data(9)), 1),
            (extent(3, 4, zero), 1),
            (extent(4, 6, none), 1),
            (extent(6, 7, none), 0),
            (extent(7, 8, data(7)), 0),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn every_byte_is_drawn_once() {
        let size = (1 << 40) + 12_345;
        for columns in [1, 7, 400] {
            let mut picture = Picture::new(columns, size, size / 3);
            let step = size / (MAX_EXTENTS as u64);
            let mut at = 0;
            let mut n = 0;
            while at < size {
                let end = (at + step).min(size);
                let host = Some(HostOffset(at / 3));
                let kind = match n % 3 {
                    0 => ExtentKind::Data { host },
                    1 => ExtentKind::Zero,
                    _ => ExtentKind::Unallocated,
                };
                picture.add(&extent(at, end, kind));
                (at, n) = (end, n + 1);
            }
            let drawn = |share: fn(&Shares) -> u64| picture.guest.iter().map(share).sum::<u64>();
            assert_eq!(drawn(|s| s.data), picture.total.data);
            assert_eq!(drawn(|s| s.zero), picture.total.zero);
            let total = picture.total;
            assert_eq!(total.data + total.zero + total.unallocated, size);
            assert!(picture.links.len() <= usize::from(columns).pow(2));
            let linked: u64 = picture.links.values().sum();
            assert_eq!(linked, picture.file.iter().sum::<u64>());
        }
    }

    #[test]
    fn a_file_shorter_than_its_disk_says_is_no_trouble() {
        let mut picture = Picture::new(10, 100, 0);
        let host = Some(HostOffset(u64::MAX - 5));
        picture.add(&extent(0, 100, ExtentKind::Data { host }));
        assert_eq!(picture.total.data, 100);
        assert!(picture.links.is_empty());
    }
}
