//! Bundles: a folder (`.hdd`, or that of a ploop disk) with `DiskDescriptor.xml` and the image
//! files it names.
//!
//! ```text
//!  Storage   sectors from Start to End of the disk; several where the disk is split
//!   └ Image  one a snapshot: an expanding disk or, for the first snapshot, a plain file
//!  Snapshots  each names its parent; what an image does not store is in its parent's
//! ```
//! QEMU `docs/interop/prl-xml.rst`; split disks, which it leaves out, as Parallels Desktop makes
//! them. The present state is the snapshot `TopGUID` names, else the one with the GUID that is
//! reserved for it.

use std::ops::Range;
use std::sync::Arc;

use super::descriptor::{self, Descriptor, Image, Storage};
use super::layout::{Header, LEN};
use super::reader;
use crate::chain::{MAX_CHAIN, Overlay};
use crate::disk::check_range;
use crate::resolve::Wanted;
use crate::{
    Disk, Error, Extent, ExtentKind, Format, GuestOffset, HostOffset, Limits, MAX_EXTENTS,
    OpenOptions, Result, Source, guest_len, push_extent, raw, read_up_to,
};

/// Opens the disk that the descriptor in `source` describes. Its files are asked of
/// `options.resolver` by their plain names, as [`Wanted::Extent`]; `options.snapshot` is the GUID
/// of another state than the present one.
///
/// # Errors
/// `Malformed`, `Unsupported`, `Limit`; `Refused` when it is encrypted, names files elsewhere or
/// too many snapshots, or when the resolver refuses; `Usage` for a snapshot it does not have.
pub fn open(source: &dyn Source, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let len = source.len();
    if len > descriptor::MAX_LEN {
        let message = format!("is {len} bytes, allowed {}", descriptor::MAX_LEN);
        return Err(Error::limit(Format::Parallels, "descriptor", message));
    }
    let bytes = read_up_to(source, HostOffset::ZERO, descriptor::MAX_LEN as usize)?;
    let descriptor = Descriptor::parse(&bytes)?;
    if descriptor.is_encrypted {
        return Err(Error::refused(
            Format::Parallels,
            "descriptor",
            "the disk is encrypted",
        ));
    }
    options
        .limits
        .virtual_size(Format::Parallels, descriptor.size)?;
    let chain = descriptor.chain(options.snapshot.as_deref(), MAX_CHAIN as usize)?;
    // All tables together take what one alone may.
    let mut limits = options.limits.clone();
    let parts = descriptor
        .storages
        .iter()
        .map(|storage| {
            Ok(Part {
                range: storage.range.clone(),
                disk: open_storage(storage, &chain, options, &mut limits)?,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Arc::new(Bundle {
        size: descriptor.size,
        parts,
    }))
}

/// Stacks the images of a storage, the topmost of the `chain` first.
fn open_storage(
    storage: &Storage,
    chain: &[String],
    options: &OpenOptions,
    limits: &mut Limits,
) -> Result<Arc<dyn Disk>> {
    let mut stack: Option<Arc<dyn Disk>> = None;
    for (n, guid) in chain.iter().enumerate().rev() {
        let image = storage.image(guid)?;
        if image.is_plain && stack.is_some() {
            return Err(Error::malformed(
                Format::Parallels,
                "descriptor",
                format!("{:?} is plain, and yet lies upon another image", image.file),
            ));
        }
        let disk = open_image(image, storage, options, limits)?;
        let len = storage.range.end - storage.range.start;
        // A disk may have grown since a snapshot.
        if n == 0 && disk.virtual_size() < len {
            return Err(Error::malformed(
                Format::Parallels,
                format!("image file {:?}", image.file),
                format!("holds {} bytes, its storage {len}", disk.virtual_size()),
            ));
        }
        stack = Some(match stack {
            Some(bottom) => Arc::new(Overlay::new(disk, bottom)),
            None => disk,
        });
    }
    // A chain has one image at least.
    stack.ok_or_else(|| Error::usage("the chain of snapshots is empty"))
}

fn open_image(
    image: &Image,
    storage: &Storage,
    options: &OpenOptions,
    limits: &mut Limits,
) -> Result<Arc<dyn Disk>> {
    let name = image.file.as_str();
    if !image.is_beside() {
        return Err(Error::refused(
            Format::Parallels,
            "descriptor",
            format!("the image file {name:?} does not lie beside it"),
        ));
    }
    // Images name no others, so nobody needs the resolver that comes with it.
    let source = options
        .resolver
        .resolve(Format::Parallels, Wanted::Extent, name)?
        .source;
    if image.is_plain {
        return Ok(Arc::new(raw::Reader::new(source)?));
    }
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, LEN as usize)?;
    let header = Header::parse(&head)?;
    if header.block_size != storage.block_size {
        return Err(Error::malformed(
            Format::Parallels,
            format!("image file {name:?}"),
            format!(
                "has blocks of {} bytes, by the descriptor {}",
                header.block_size, storage.block_size
            ),
        ));
    }
    let reader = reader::Reader::new(source, &header, limits)?;
    limits.max_table = limits.max_table.saturating_sub(header.bat_len());
    Ok(Arc::new(reader))
}

/// A disk of one or more storages.
struct Bundle {
    size: u64,
    /// Gapless and ascending from zero to the size.
    parts: Vec<Part>,
}

struct Part {
    /// Guest bytes; the part's own disk begins at their start and may reach further.
    range: Range<u64>,
    disk: Arc<dyn Disk>,
}

impl Bundle {
    /// The parts `range` touches: each with the bytes of its own disk.
    fn parts(
        &self,
        range: Range<GuestOffset>,
    ) -> impl Iterator<Item = (&Part, Range<GuestOffset>)> {
        let first = self.parts.partition_point(|p| p.range.end <= range.start.0);
        self.parts[first..]
            .iter()
            .map(move |part| {
                let from = range.start.0.max(part.range.start) - part.range.start;
                let to = range.end.0.clamp(part.range.start, part.range.end) - part.range.start;
                (part, GuestOffset(from)..GuestOffset(to))
            })
            .take_while(|(_, inside)| inside.start < inside.end)
    }
}

impl Disk for Bundle {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn unit(&self) -> u64 {
        self.parts.first().map_or(1 << 20, |part| part.disk.unit())
    }

    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        check_range(range.start, guest_len(&range), self.size)?;
        let most = MAX_EXTENTS - 1;
        let base = out.len();
        let mut inside = Vec::new();
        for (part, wanted) in self.parts(range) {
            inside.clear();
            part.disk.extents(wanted.clone(), &mut inside)?;
            let mut came_to = wanted.start;
            for extent in &inside {
                if out.len() - base >= most {
                    return Ok(());
                }
                came_to = extent.range.end;
                let at = |offset: GuestOffset| GuestOffset(part.range.start + offset.0);
                let kind = match extent.kind {
                    // The bytes lie in another file than the descriptor.
                    ExtentKind::Data { .. } => ExtentKind::Data { host: None },
                    other => other,
                };
                let range = at(extent.range.start)..at(extent.range.end);
                push_extent(out, Extent { range, kind });
            }
            if came_to < wanted.end {
                break;
            }
        }
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        check_range(at, buf.len() as u64, self.size)?;
        let range = at..GuestOffset(at.0 + buf.len() as u64);
        let mut rest = buf;
        for (part, inside) in self.parts(range) {
            let (now, later) = rest.split_at_mut(guest_len(&inside) as usize);
            part.disk.read_at(now, inside.start)?;
            rest = later;
        }
        Ok(())
    }
}
