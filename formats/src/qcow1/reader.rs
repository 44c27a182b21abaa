use std::ops::Range;
use std::sync::Arc;

use super::layout::{Cluster, Header};
use crate::disk::check_range;
use crate::limits::room_for;
use crate::{
    Disk, Error, Extent, ExtentKind, Format, GuestOffset, HostOffset, Limits, MAX_EXTENTS, Result,
    Source, guest_len, push_extent,
};

/// A qcow disk, version 1.
pub(super) struct Reader {
    source: Arc<dyn Source>,
    size: u64,
    cluster_bits: u32,
    l2_bits: u32,
    /// Offsets of L2 tables.
    l1: Vec<u64>,
}

impl Reader {
    pub(super) fn new(source: Arc<dyn Source>, header: &Header, limits: &Limits) -> Result<Self> {
        let size = limits.virtual_size(Format::Qcow1, header.size)?;
        let len = limits.table(Format::Qcow1, "l1 table", header.l1_len())?;
        let mut bytes = within(source.as_ref(), header.l1_offset, len as u64, "l1 table")
            .map(|()| vec![0; len])?;
        source.read_exact_at(&mut bytes, header.l1_offset)?;
        let l1: Vec<_> = be64s(&bytes).collect();
        let tables = l1.iter().filter(|&&entry| entry != 0).count() as u64;
        let each = 8 << header.l2_bits;
        room_for(tables, each, source.len(), Format::Qcow1, "l1 table")?;
        Ok(Self {
            source,
            size,
            cluster_bits: header.cluster_bits,
            l2_bits: header.l2_bits,
            l1,
        })
    }

    const fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Calls `each` for the clusters (or runs without any) in `range`, until it says stop.
    fn walk(
        &self,
        range: Range<GuestOffset>,
        mut each: impl FnMut(Range<GuestOffset>, Cluster) -> Result<bool>,
    ) -> Result<()> {
        let covered = 1 << (self.cluster_bits + self.l2_bits);
        let mut at = range.start;
        while at < range.end {
            let table_start = at.align_down(covered);
            let end = range
                .end
                .min(GuestOffset(table_start.0.saturating_add(covered)));
            let index = usize::try_from(at.0 / covered).unwrap_or(usize::MAX);
            let table = self.l1.get(index).copied().unwrap_or(0);
            if table == 0 {
                if !each(at..end, Cluster::Unallocated)? {
                    return Ok(());
                }
                at = end;
                continue;
            }
            let first = (at.0 - table_start.0) >> self.cluster_bits;
            let last = (end.0 - 1 - table_start.0) >> self.cluster_bits;
            // At most 64 KiB: l2_bits is at most 13.
            let mut entries = vec![0; (last - first + 1) as usize * 8];
            let entries_at = HostOffset(table)
                .checked_add(first * 8)
                .unwrap_or(HostOffset(table));
            within(
                self.source.as_ref(),
                entries_at,
                entries.len() as u64,
                "l2 table",
            )?;
            self.source.read_exact_at(&mut entries, entries_at)?;
            for entry in be64s(&entries) {
                let next = at.align_down(self.cluster_size()).0 + self.cluster_size();
                let stop = end.min(GuestOffset(next));
                if !each(at..stop, Cluster::parse(entry, self.cluster_bits))? {
                    return Ok(());
                }
                at = stop;
            }
        }
        Ok(())
    }

    fn read_cluster(&self, part: &mut [u8], at: GuestOffset, cluster: Cluster) -> Result<()> {
        let skip = at.0 % self.cluster_size();
        match cluster {
            Cluster::Unallocated => part.fill(0),
            Cluster::Plain(host) => {
                let host = host.checked_add(skip).unwrap_or(host);
                within(self.source.as_ref(), host, part.len() as u64, "cluster")?;
                self.source.read_exact_at(part, host)?;
            }
            Cluster::Compressed(host, len) => {
                within(self.source.as_ref(), host, len as u64, "compressed cluster")?;
                let mut packed = vec![0; len];
                self.source.read_exact_at(&mut packed, host)?;
                let mut cluster = vec![0; self.cluster_size() as usize];
                let got =
                    libdeflater::Decompressor::new().deflate_decompress(&packed, &mut cluster);
                if got != Ok(cluster.len()) {
                    return Err(Error::malformed(
                        Format::Qcow1,
                        "compressed cluster",
                        format!("the {len} bytes at {host} do not inflate to a cluster"),
                    ));
                }
                let skip = skip as usize;
                part.copy_from_slice(&cluster[skip..skip + part.len()]);
            }
        }
        Ok(())
    }
}

/// Checks that `len` bytes at `at` lie in the file.
fn within(source: &dyn Source, at: HostOffset, len: u64, what: &'static str) -> Result<()> {
    match at.checked_add(len) {
        Some(end) if end.0 <= source.len() => Ok(()),
        _ => Err(Error::malformed(
            Format::Qcow1,
            what,
            format!(
                "takes {len} bytes at {at}, past the end of the file at {}",
                source.len()
            ),
        )),
    }
}

fn be64s(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|entry| u64::from_be_bytes(*entry))
}

impl Disk for Reader {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn unit(&self) -> u64 {
        self.cluster_size()
    }

    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        check_range(range.start, guest_len(&range), self.size)?;
        let most = out.len() + MAX_EXTENTS;
        self.walk(range, |range, cluster| {
            let skip = range.start.0 % self.cluster_size();
            let kind = match cluster {
                Cluster::Unallocated => ExtentKind::Unallocated,
                Cluster::Plain(host) => ExtentKind::Data {
                    host: host.checked_add(skip),
                },
                Cluster::Compressed(..) => ExtentKind::Encoded,
            };
            push_extent(out, Extent { range, kind });
            Ok(out.len() < most)
        })
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        check_range(at, buf.len() as u64, self.size)?;
        let range = at..GuestOffset(at.0 + buf.len() as u64);
        let mut rest = buf;
        self.walk(range, |range, cluster| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(guest_len(&range) as usize);
            rest = after;
            self.read_cluster(part, range.start, cluster)?;
            Ok(true)
        })
    }
}
