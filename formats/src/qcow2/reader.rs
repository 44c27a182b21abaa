//! Reading.

use std::ops::Range;
use std::sync::Arc;

use super::clusters::Clusters;
use super::entries::Mapping;
use super::extensions::{Extensions, backing_name};
use super::layout::{Header, incompatible};
use super::tables::Tables;
use super::{crypt, rules, snapshots};
use crate::chain::{self, Overlay};
use crate::disk::check_range;
use crate::extent::{has_room, push_stored};
use crate::luks::Sectors;
use crate::resolve::Wanted;
use crate::source::read_up_to;
use crate::{
    Disk, Error, Extent, ExtentKind, Format, GuestOffset, HostOffset, MAX_EXTENTS, OpenOptions,
    Result, Source, guest_len, push_extent,
};

/// Formats of disks that may lie beneath.
const BACKING_FORMATS: &[Format] = &[
    Format::Raw,
    Format::Qcow2,
    Format::Qcow1,
    Format::Qed,
    Format::Vmdk,
    Format::Vdi,
    Format::Vhd,
    Format::Vhdx,
    Format::Parallels,
    Format::Luks,
];

/// A qcow2 image.
pub(super) struct Reader {
    virtual_size: u64,
    cluster_size: u64,
    tables: Tables,
    clusters: Clusters,
    /// Where uncompressed clusters are: the image itself, or its external data file.
    data: Arc<dyn Source>,
    is_data_external: bool,
    /// Whether that file has holes worth asking for. Some kernels walk all pages up to the next
    /// one, for each question: where there is next to none, reading it is cheaper.
    has_holes: bool,
    /// What they are decrypted with.
    sectors: Option<Sectors>,
}

/// Opens an image and, where the resolver grants it, what is beneath.
pub(super) fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let limits = &options.limits;
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, 512)?;
    let header = Header::parse(&head)?;
    if let Some((_, error)) = rules::features(&header).into_iter().next() {
        return Err(error);
    }
    let header = match &options.snapshot {
        Some(wanted) => {
            let all = snapshots::read(source.as_ref(), &header, limits)?.snapshots;
            snapshots::find(all, wanted)?.header(&header)?
        }
        None => header,
    };
    limits.virtual_size(Format::Qcow2, header.virtual_size)?;
    let cluster_size = header.geometry.cluster_size();

    let has_data_file = header.has(incompatible::DATA_FILE);
    let (mut external, mut backing, mut sectors) = (None, None, None);
    if has_data_file || header.backing_file.is_some() || header.crypt_method != 0 {
        // All of that stands in the first cluster, 2 MiB at most.
        let head = read_up_to(source.as_ref(), HostOffset::ZERO, cluster_size as usize)?;
        let extensions = Extensions::parse(&header, &head)?;
        sectors = crypt::open(&source, &header, &extensions, options)?;
        if has_data_file {
            external = Some(data_file(&extensions, options)?);
        }
        if header.backing_file.is_some() {
            backing = Some(open_backing(&header, &head, &extensions, options)?);
        }
    }
    let external_len = external.as_ref().map(|data| data.len());
    let data = external.as_ref().unwrap_or(&source);
    let has_holes = data.allocated() < data.len() - data.len() / 64;
    let reader = Arc::new(Reader {
        virtual_size: header.virtual_size,
        cluster_size,
        tables: Tables::open(Arc::clone(&source), &header, external_len, limits)?,
        clusters: Clusters::new(
            Arc::clone(&source),
            header.compression,
            cluster_size as usize,
            limits.cache / 2,
        ),
        is_data_external: external.is_some(),
        has_holes,
        data: external.unwrap_or(source),
        sectors,
    });
    Ok(match backing {
        Some(backing) => Arc::new(Overlay::new(reader, backing)),
        None => reader,
    })
}

fn data_file(extensions: &Extensions, options: &OpenOptions) -> Result<Arc<dyn Source>> {
    let name = extensions.data_file.as_deref().ok_or_else(|| {
        Error::malformed(
            Format::Qcow2,
            "header extension",
            "there is an external data file, but its name is missing",
        )
    })?;
    let granted = options
        .resolver
        .resolve(Format::Qcow2, Wanted::DataFile, name)?;
    Ok(granted.source)
}

fn open_backing(
    header: &Header,
    head: &[u8],
    extensions: &Extensions,
    options: &OpenOptions,
) -> Result<Arc<dyn Disk>> {
    let name = backing_name(header, head).ok_or_else(|| {
        Error::malformed(
            Format::Qcow2,
            "header",
            "the file ends within the name of the backing file",
        )
    })?;
    let refused = |message| Err(Error::refused(Format::Qcow2, "backing file", message));
    // A format that is not recorded would have to be guessed from bytes that a guest may have
    // written: the way to make a raw disk name files of the host.
    let Some(recorded) = extensions.backing_format.as_deref() else {
        return refused(format!(
            "{name:?} has no format recorded, and it is not guessed"
        ));
    };
    let format = match recorded.parse() {
        Ok(format) if BACKING_FORMATS.contains(&format) => format,
        _ => {
            return refused(format!(
                "{name:?} is said to be {recorded:?}, which is not read here"
            ));
        }
    };
    let granted = options
        .resolver
        .resolve(Format::Qcow2, Wanted::Backing, &name)?;
    let options = chain::beneath(Format::Qcow2, format, &granted, options)?;
    crate::open(granted.source, &options)
}

impl Disk for Reader {
    fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    fn unit(&self) -> u64 {
        self.cluster_size
    }

    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        check_range(range.start, guest_len(&range), self.virtual_size)?;
        let base = out.len();
        let mut at = range.start;
        // A step goes through one table at most: this bounds the time of a call, too.
        for _ in 0..MAX_EXTENTS {
            if at >= range.end || !has_room(out, base) {
                break;
            }
            let (end, mapping) = self.tables.run(at, range.end)?;
            let kind = match mapping {
                Mapping::Unallocated => ExtentKind::Unallocated,
                Mapping::Zero => ExtentKind::Zero,
                // A hole in the file is no hole in what it decrypts to.
                Mapping::Data(_) if self.sectors.is_some() => ExtentKind::Data { host: None },
                Mapping::Data(host) if !self.has_holes => ExtentKind::Data {
                    host: (!self.is_data_external).then_some(host),
                },
                Mapping::Data(host) => {
                    let is_own = !self.is_data_external;
                    at = push_stored(self.data.as_ref(), at..end, host, is_own, base, out)?;
                    continue;
                }
                Mapping::Compressed { .. } => ExtentKind::Encoded,
            };
            push_extent(
                out,
                Extent {
                    range: at..end,
                    kind,
                },
            );
            at = end;
        }
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        check_range(at, buf.len() as u64, self.virtual_size)?;
        let end = GuestOffset(at.0 + buf.len() as u64);
        let (mut at, mut rest) = (at, buf);
        while at < end {
            let (stop, mapping) = self.tables.run(at, end)?;
            let (part, behind) = rest.split_at_mut(stop.since(at) as usize);
            match mapping {
                Mapping::Unallocated | Mapping::Zero => part.fill(0),
                Mapping::Data(host) => match &self.sectors {
                    Some(sectors) => sectors.read(self.data.as_ref(), part, host.0)?,
                    None => self.data.read_exact_at(part, host)?,
                },
                Mapping::Compressed { at: host, len } => {
                    self.clusters.read(part, at, host, len)?;
                }
            }
            (at, rest) = (stop, behind);
        }
        Ok(())
    }
}
