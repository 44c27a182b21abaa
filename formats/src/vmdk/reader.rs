//! Opens a vmdk and reads it: one sparse extent, or the extents a descriptor names, on top of
//! a parent where it is a delta link.

use std::ops::Range;
use std::sync::Arc;

use super::descriptor::{self, Class, Descriptor, ExtentLine, ExtentType, MAX_SPLIT_DESCRIPTOR};
use super::layout::{COWD_MAGIC, HEADER_LEN, Header, SECTOR, SPARSE_MAGIC};
use super::sparse::SparseExtent;
use super::tables::Geometry;
use super::{cowd, rules, sesparse};
use crate::blocks::parent;
use crate::chain::{self, Overlay};
use crate::disk::check_range;
use crate::extent::push_stored;
use crate::resolve::{Granted, Wanted};
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
/// `Malformed` when the structures contradict themselves or reach past the file, or a parent is
/// not the one meant, `Refused` for devices, names that leave the folder, journals to be
/// replayed, and for parents and extent files that are not granted, `Limit`, `Io`.
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    Ok(open_link(source, options)?.disk)
}

/// One image of a chain, opened with all beneath it.
struct Link {
    disk: Arc<dyn Disk>,
    cid: Option<u32>,
}

fn open_link(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Link> {
    let image = Image::read(source.as_ref(), &options.limits)?;
    let descriptor = &image.descriptor;
    let disk: Arc<dyn Disk> = match &image.header {
        Some(header) if image.is_alone() => Arc::new(open_sparse(source, header, options)?),
        _ => Arc::new(open_split(descriptor, options)?),
    };
    let Some(parent) = rules::parent(descriptor)? else {
        let cid = descriptor.cid;
        return Ok(Link { disk, cid });
    };
    let granted = ask_parent(&parent, options)?;
    let beneath = chain::beneath(Format::Vmdk, Format::Vmdk, &granted, options)?;
    let bottom = open_link(granted.source, &beneath)?;
    parent.check(bottom.cid)?;
    Ok(Link {
        disk: Arc::new(Overlay::new(disk, bottom.disk)),
        cid: descriptor.cid,
    })
}

/// Asks for the file of a parent: by its name, and by what is left of it where its folders are
/// those of another machine.
pub(super) fn ask_parent(parent: &rules::Parent<'_>, options: &OpenOptions) -> Result<Granted> {
    options
        .resolver
        .resolve(Format::Vmdk, Wanted::Parent, parent.name)
        .or_else(|e| parent::request(Format::Vmdk, [parent.name], options).map_err(|_| e))
}

/// What the beginning of a file says: a descriptor, and the sparse header it is in.
pub(super) struct Image {
    pub(super) header: Option<Header>,
    pub(super) descriptor: Descriptor,
}

impl Image {
    /// Reads header and descriptor, which have to be in order; a parent is allowed.
    pub(super) fn read(source: &dyn Source, limits: &Limits) -> Result<Self> {
        let (image, faults) = Self::look(source, limits)?;
        faults.into_iter().next().map_or(Ok(image), Err)
    }

    /// Reads header and descriptor, and lists what is wrong with the latter.
    pub(super) fn look(source: &dyn Source, limits: &Limits) -> Result<(Self, Vec<Error>)> {
        let head = read_up_to(source, HostOffset::ZERO, HEADER_LEN)?;
        let (header, text) = if head.starts_with(SPARSE_MAGIC) {
            let header = Header::parse(&head, "header", limits)?;
            let Some((start, len)) = header.descriptor("header")? else {
                return Err(Error::refused(
                    Format::Vmdk,
                    "header",
                    "has no descriptor: this is one extent of a disk in several files, open its \
                     descriptor",
                ));
            };
            let start = HostOffset(start.min(source.len()));
            let text = read_up_to(source, start, usize::try_from(len).unwrap_or(0))?;
            (Some(header), text)
        } else {
            (None, split_text(source, &head)?)
        };
        let (descriptor, faults) = Descriptor::read(&text);
        let image = Self { header, descriptor };
        let grammar = faults
            .into_iter()
            .map(|fault| Error::malformed(Format::Vmdk, "descriptor", fault.message));
        let rules = match &image.header {
            Some(header) if image.is_alone() => rules::embedded(header, &image.descriptor),
            header => rules::split(&image.descriptor, header.is_some()),
        };
        let faults = grammar.chain(rules.into_iter().map(rules::error)).collect();
        Ok((image, faults))
    }

    /// Whether the disk is the sparse extent in this file.
    pub(super) fn is_alone(&self) -> bool {
        self.header
            .as_ref()
            .is_some_and(|header| header.capacity_sectors > 0)
            && self.descriptor.create_type.class != Class::ExtentFiles
            && self.descriptor.extents.len() == 1
    }
}

/// The text of a descriptor in a file of its own, which begins with `head`.
fn split_text(source: &dyn Source, head: &[u8]) -> Result<Vec<u8>> {
    for (is_one, kind) in [
        (cowd::matches(head), "COWD"),
        (sesparse::matches(head), "seSparse"),
    ] {
        if is_one {
            let message =
                format!("is {kind}, an extent file of a disk in several: open its descriptor");
            return Err(Error::refused(Format::Vmdk, "header", message));
        }
    }
    if descriptor::may_be_descriptor(head) {
        let text = read_up_to(source, HostOffset::ZERO, MAX_SPLIT_DESCRIPTOR)?;
        if descriptor::is_descriptor(&text) {
            return Ok(text);
        }
    }
    Err(Error::malformed(
        Format::Vmdk,
        "header",
        "begins with neither KDMV nor a descriptor",
    ))
}

/// monolithicSparse and streamOptimized.
fn open_sparse(source: Arc<dyn Source>, header: &Header, options: &OpenOptions) -> Result<Reader> {
    let geometry = hosted(source.as_ref(), header.clone(), &options.limits)?;
    let extent = SparseExtent::open(source, geometry, &options.limits)?;
    Ok(Reader {
        virtual_size: extent.capacity(),
        unit: extent.grain_size(),
        parts: vec![Part {
            range: 0..extent.capacity(),
            body: Body::Sparse(extent),
        }],
        is_one_file: true,
    })
}

/// A descriptor and its extent files.
fn open_split(descriptor: &Descriptor, options: &OpenOptions) -> Result<Reader> {
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
    Ok(Reader {
        virtual_size,
        unit: unit.unwrap_or(FLAT_UNIT),
        parts,
        is_one_file: false,
    })
}

/// What a hosted sparse extent is like, by its header or the footer that replaces it.
fn hosted(source: &dyn Source, header: Header, limits: &Limits) -> Result<Geometry> {
    let header = header.with_footer(source, limits)?;
    Ok(header.geometry(header.directory_sector.unwrap_or(0)))
}

/// What an extent file is like.
pub(super) enum ExtentFile {
    /// The disk as it is, from this byte.
    Flat(u64),
    /// Grains behind a hosted sparse header.
    Hosted(Header),
    /// Grains behind another header.
    Sparse(Geometry),
}

/// Asks for an extent file, which must be as large as its line says; `None` for zeros.
pub(super) fn ask_extent(
    extent: &ExtentLine,
    options: &OpenOptions,
) -> Result<Option<(Arc<dyn Source>, ExtentFile)>> {
    if extent.kind == ExtentType::Zero {
        return Ok(None);
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
    let file = match extent.kind {
        ExtentType::Flat | ExtentType::Vmfs => {
            let start = extent.offset_sectors.checked_mul(SECTOR);
            let end = start.and_then(|start| start.checked_add(size));
            return match (start, end) {
                (Some(start), Some(end)) if end <= source.len() => {
                    Ok(Some((source, ExtentFile::Flat(start))))
                }
                _ => Err(malformed(format!(
                    "is {} bytes, the descriptor wants {size} from sector {:#x}",
                    source.len(),
                    extent.offset_sectors
                ))),
            };
        }
        ExtentType::SeSparse => ExtentFile::Sparse(sesparse::parse(source.as_ref(), limits)?),
        _ => {
            // Either name stands for either header, as ESX and its predecessors mixed them.
            let head = read_up_to(source.as_ref(), HostOffset::ZERO, HEADER_LEN)?;
            if head.starts_with(COWD_MAGIC)
                || extent.kind == ExtentType::VmfsSparse && !head.starts_with(SPARSE_MAGIC)
            {
                ExtentFile::Sparse(cowd::parse(&head, limits)?)
            } else {
                ExtentFile::Hosted(Header::parse(&head, "extent header", limits)?)
            }
        }
    };
    let (capacity, grain_size) = match &file {
        ExtentFile::Hosted(header) => (header.capacity(), header.grain_size()),
        ExtentFile::Sparse(geometry) => (geometry.capacity, geometry.grain_size),
        ExtentFile::Flat(_) => (size, 0),
    };
    // Some writers round the header's capacity up to whole grains.
    let more = capacity.checked_sub(size);
    if more.is_none_or(|more| more >= grain_size) || extent.offset_sectors != 0 {
        return Err(malformed(format!(
            "holds {capacity} bytes, the descriptor wants {size} from sector {:#x}",
            extent.offset_sectors
        )));
    }
    Ok(Some((source, file)))
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
        let Some((source, file)) = ask_extent(extent, options)? else {
            return Ok(Self::Zero);
        };
        let limits = &options.limits;
        let geometry = match file {
            ExtentFile::Flat(start) => return Ok(Self::Flat { source, start }),
            ExtentFile::Hosted(header) => hosted(source.as_ref(), header, limits)?,
            ExtentFile::Sparse(geometry) => geometry,
        };
        Ok(Self::Sparse(SparseExtent::open(source, geometry, limits)?))
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
        let first = out.len();
        // Whatever is appended last may be two extents.
        let full = first + MAX_EXTENTS - 1;
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
                    let range = GuestOffset(from)..GuestOffset(to);
                    let host = HostOffset(start + (from - base));
                    push_stored(source.as_ref(), range, host, false, first, out)?.0
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
