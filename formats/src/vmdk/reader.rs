//! Opens a vmdk and reads it: one sparse extent, or the extents a descriptor names.

use std::ops::Range;
use std::sync::Arc;

use super::descriptor::{self, Class, Descriptor, ExtentLine, ExtentType, MAX_SPLIT_DESCRIPTOR};
use super::layout::{HEADER_LEN, Header, SECTOR, SESPARSE_MAGIC, SPARSE_MAGIC};
use super::sparse::SparseExtent;
use super::{cowd, rules};
use crate::disk::check_range;
use crate::resolve::Wanted;
use crate::source::read_up_to;
use crate::{
    Disk, Error, Extent, ExtentKind, Format, GuestOffset, HostOffset, Limits, MAX_EXTENTS,
    OpenOptions, Result, Source, guest_len, push_extent,
};

/// Unit of disks without grains.
const FLAT_UNIT: u64 = 1 << 20;

/// Opens the disk in `source`.
///
/// # Errors
/// `Malformed` when the structures contradict themselves or reach past the file, `Refused` for
/// parents, devices, names that leave the folder and extent files that are not granted,
/// `Unsupported` for seSparse, `Limit`, `Io`.
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, HEADER_LEN)?;
    if head.starts_with(SPARSE_MAGIC) {
        return open_sparse(source, &head, &options.limits);
    }
    if cowd::matches(&head) {
        return Err(Error::refused(
            Format::Vmdk,
            "header",
            "is COWD, an extent file of a vmfsSparse disk: open its descriptor",
        ));
    }
    if head.starts_with(SESPARSE_MAGIC) {
        return Err(sesparse());
    }
    if descriptor::may_be_descriptor(&head) {
        let text = read_up_to(source.as_ref(), HostOffset::ZERO, MAX_SPLIT_DESCRIPTOR)?;
        if descriptor::is_descriptor(&text) {
            return open_split(&Descriptor::parse(&text)?, options);
        }
    }
    Err(Error::malformed(
        Format::Vmdk,
        "header",
        "begins with neither KDMV nor a descriptor",
    ))
}

fn sesparse() -> Error {
    Error::unsupported(
        Format::Vmdk,
        "header",
        "is seSparse, which is not documented",
    )
}

/// monolithicSparse and streamOptimized.
fn open_sparse(source: Arc<dyn Source>, head: &[u8], limits: &Limits) -> Result<Arc<dyn Disk>> {
    let header = Header::parse(head, "header", limits)?;
    let Some((start, len)) = header.descriptor("header")? else {
        return Err(Error::refused(
            Format::Vmdk,
            "header",
            "has no descriptor: this is one extent of a disk in several files, open its descriptor",
        ));
    };
    let text = read_up_to(
        source.as_ref(),
        HostOffset(start.min(source.len())),
        usize::try_from(len).unwrap_or(0),
    )?;
    let descriptor = Descriptor::parse(&text)?;
    if let Some(fault) = rules::embedded(&header, &descriptor).into_iter().next() {
        return Err(rules::error(fault));
    }
    let extent = SparseExtent::open(source, &header, limits)?;
    Ok(Arc::new(Reader {
        virtual_size: extent.capacity(),
        unit: extent.grain_size(),
        parts: vec![Part {
            range: 0..extent.capacity(),
            body: Body::Sparse(extent),
        }],
        is_one_file: true,
    }))
}

/// A descriptor and its extent files.
fn open_split(descriptor: &Descriptor, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    if descriptor.create_type.class == Class::SeSparse {
        return Err(sesparse());
    }
    if let Some(fault) = rules::split(descriptor).into_iter().next() {
        return Err(rules::error(fault));
    }
    let sectors = descriptor.sectors().unwrap_or(u64::MAX);
    let virtual_size = sectors.saturating_mul(SECTOR);
    options.limits.virtual_size(Format::Vmdk, virtual_size)?;

    let mut parts = Vec::with_capacity(descriptor.extents.len());
    let mut at = 0;
    for extent in descriptor.extents.iter().filter(|e| e.sectors > 0) {
        let end = at + extent.sectors * SECTOR;
        parts.push(Part {
            range: at..end,
            body: Body::open(extent, options)?,
        });
        at = end;
    }
    let unit = parts.iter().find_map(|part| match &part.body {
        Body::Sparse(extent) => Some(extent.grain_size()),
        _ => None,
    });
    Ok(Arc::new(Reader {
        virtual_size,
        unit: unit.unwrap_or(FLAT_UNIT),
        parts,
        is_one_file: false,
    }))
}

/// A disk of one or more extents.
struct Reader {
    virtual_size: u64,
    unit: u64,
    /// Gapless and ascending from zero to the virtual size.
    parts: Vec<Part>,
    /// The only extent is the image's own file: host offsets mean something to others.
    is_one_file: bool,
}

struct Part {
    /// Guest bytes.
    range: Range<u64>,
    body: Body,
}

enum Body {
    Zero,
    Flat { source: Arc<dyn Source>, start: u64 },
    Sparse(SparseExtent),
}

impl Body {
    fn open(extent: &ExtentLine, options: &OpenOptions) -> Result<Self> {
        if extent.kind == ExtentType::Zero {
            return Ok(Self::Zero);
        }
        let name = extent.name.as_deref().unwrap_or("");
        let source = options
            .resolver
            .resolve(Format::Vmdk, Wanted::Extent, name)?
            .source;
        let size = extent.sectors * SECTOR;
        let malformed =
            |message| Error::malformed(Format::Vmdk, format!("extent file {name:?}"), message);
        let limits = &options.limits;
        let sparse = match extent.kind {
            ExtentType::Flat | ExtentType::Vmfs => {
                let start = extent.offset_sectors.checked_mul(SECTOR);
                let end = start.and_then(|start| start.checked_add(size));
                return match (start, end) {
                    (Some(start), Some(end)) if end <= source.len() => {
                        Ok(Self::Flat { source, start })
                    }
                    _ => Err(malformed(format!(
                        "is {} bytes, the descriptor wants {size} from sector {:#x}",
                        source.len(),
                        extent.offset_sectors
                    ))),
                };
            }
            ExtentType::VmfsSparse => {
                let head = read_up_to(source.as_ref(), HostOffset::ZERO, cowd::HEADER_LEN)?;
                SparseExtent::with(source, cowd::parse(&head, limits)?, limits)?
            }
            _ => {
                let head = read_up_to(source.as_ref(), HostOffset::ZERO, HEADER_LEN)?;
                let header = Header::parse(&head, "extent header", limits)?;
                SparseExtent::open(source, &header, limits)?
            }
        };
        if sparse.capacity() != size || extent.offset_sectors != 0 {
            return Err(malformed(format!(
                "holds {} bytes, the descriptor wants {size} from sector {:#x}",
                sparse.capacity(),
                extent.offset_sectors
            )));
        }
        Ok(Self::Sparse(sparse))
    }
}

impl Reader {
    /// The parts from the one that holds guest byte `at`.
    fn parts_from(&self, at: u64) -> &[Part] {
        &self.parts[self.parts.partition_point(|part| part.range.end <= at)..]
    }
}

impl Disk for Reader {
    fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    fn unit(&self) -> u64 {
        self.unit
    }

    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        check_range(range.start, guest_len(&range), self.virtual_size)?;
        let full = out.len() + MAX_EXTENTS;
        for part in self.parts_from(range.start.0) {
            let from = range.start.0.max(part.range.start);
            let to = range.end.0.min(part.range.end);
            if from >= to || out.len() >= full {
                break;
            }
            let base = part.range.start;
            let came_to = match &part.body {
                Body::Zero => {
                    let range = GuestOffset(from)..GuestOffset(to);
                    let kind = ExtentKind::Zero;
                    push_extent(out, Extent { range, kind });
                    to
                }
                Body::Flat { source, start } => {
                    flat_extents(source.as_ref(), *start, from..to, base, full, out)?
                }
                Body::Sparse(extent) => {
                    let range = from - base..to - base;
                    base + extent.extents(range, base, self.is_one_file, full, out)?
                }
            };
            if came_to < to {
                break;
            }
        }
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        check_range(at, buf.len() as u64, self.virtual_size)?;
        let (mut rest, mut at) = (buf, at.0);
        for part in self.parts_from(at) {
            if rest.is_empty() {
                break;
            }
            let len = (part.range.end - at).min(rest.len() as u64);
            let (now, later) = rest.split_at_mut(len as usize);
            let within = at - part.range.start;
            match &part.body {
                Body::Zero => now.fill(0),
                Body::Flat { source, start } => {
                    source.read_exact_at(now, HostOffset(start + within))?;
                }
                Body::Sparse(extent) => extent.read_at(now, within)?,
            }
            (rest, at) = (later, at + len);
        }
        Ok(())
    }
}

/// The extents of a flat extent file: its holes are the disk's.
fn flat_extents(
    source: &dyn Source,
    start: u64,
    range: Range<u64>,
    base: u64,
    full: usize,
    out: &mut Vec<Extent>,
) -> Result<u64> {
    let host = |guest: u64| HostOffset(guest - base + start);
    let guest = |host: HostOffset| (host.0 - start + base).clamp(range.start, range.end);
    let mut at = range.start;
    while at < range.end && out.len() + 1 < full {
        let data = source.next_data(host(at))?;
        let (from, to) = data.map_or((range.end, range.end), |data| {
            (guest(data.start).max(at), guest(data.end).max(at))
        });
        for (range, kind) in [
            (at..from, ExtentKind::Zero),
            (from..to, ExtentKind::Data { host: None }),
        ] {
            let range = GuestOffset(range.start)..GuestOffset(range.end);
            push_extent(out, Extent { range, kind });
        }
        at = to;
    }
    Ok(at)
}
