//! Every structure of an image and where it is: what checking and repairing walk over.
//!
//! Snapshots share most of their L2 tables, and a hostile image lets millions of entries point
//! to one: each table is kept once, with the number of entries that point to it.

use std::collections::BTreeMap;

use super::bitmaps::{self, Bitmap};
use super::entries::{OFFSET_MASK, numbers};
use super::extensions::Extensions;
use super::layout::{Header, MAX_L1_BYTES};
use super::report::Report;
use super::rules;
use super::snapshots;
use super::tables::read_zeroed;
use crate::source::read_up_to;
use crate::{Error, Format, HostOffset, Limits, Result, Source};

/// L1 entries of all snapshots gone through: 1 GiB of tables.
const MAX_L1_ENTRIES: u64 = 1 << 27;
/// Different L2 tables: as many as the largest L1 table has entries.
const MAX_L2_TABLES: usize = (MAX_L1_BYTES / 8) as usize;
/// Bits 56 to 62 and 0 to 8 of an L1 entry.
const RESERVED: u64 = 0x7f00_0000_0000_01ff;

/// An L2 table.
#[derive(Clone, Copy)]
pub(super) struct L2 {
    pub(super) at: HostOffset,
    /// L1 entries that point to it.
    pub(super) times: u64,
    /// Those of the present state.
    pub(super) active: u64,
}

/// An image laid open.
pub(super) struct Image<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) header: Header,
    /// Structures that are there once: place and bytes. The refcounts' own are not among them.
    pub(super) sole: Vec<(&'static str, HostOffset, u64)>,
    /// The L1 table of the present state.
    pub(super) l1: Vec<u64>,
    /// In the order of the file.
    pub(super) l2: Vec<L2>,
    pub(super) bitmaps: Vec<Bitmap>,
}

impl<'a> Image<'a> {
    /// Reads the header and everything but L2 tables, refcounts and the bitmaps themselves.
    ///
    /// # Errors
    /// What makes the image no image: a broken header, unknown features, an L1 table or names
    /// outside the file; `Limit`, `Io`.
    pub(super) fn open(
        source: &'a dyn Source,
        limits: &Limits,
        report: &mut Report,
    ) -> Result<Self> {
        let head = read_up_to(source, HostOffset::ZERO, 512)?;
        let header = Header::parse(&head)?;
        let broken = rules::features(&header).into_iter();
        if let Some((_, error)) = broken
            .into_iter()
            .find(|(rule, _)| *rule == "unknown_features")
        {
            return Err(error);
        }
        let cluster_size = header.geometry.cluster_size();
        let head = read_up_to(source, HostOffset::ZERO, cluster_size as usize)?;
        let extensions = Extensions::parse(&header, &head)?;
        limits.table(Format::Qcow2, "L1 table", header.l1_bytes())?;
        let l1 = read_zeroed(source, header.l1_offset, header.l1_bytes())?;
        let mut image = Self {
            source,
            sole: vec![
                ("header", HostOffset::ZERO, cluster_size),
                ("L1 table", header.l1_offset, header.l1_bytes()),
            ],
            l1: numbers(&l1).collect(),
            l2: Vec::new(),
            bitmaps: Vec::new(),
            header,
        };
        let l1 = std::mem::take(&mut image.l1);
        image.add_l1(&l1, image.header.l1_offset, 1, true, report)?;
        image.l1 = l1;
        image.snapshots(limits, report)?;
        if let Some((at, len)) = extensions.encryption_header {
            image.sole.push(("encryption header", at, len));
        }
        if let Some(directory) = extensions.bitmaps.filter(|_| image.header.has_bitmaps()) {
            image
                .sole
                .push(("bitmap directory", directory.at, directory.bytes));
            let bytes = read_zeroed(source, directory.at, directory.bytes)?;
            image.bitmaps = bitmaps::in_view(&directory, &bytes);
            if (image.bitmaps.len() as u64) < u64::from(directory.bitmaps) {
                report.corruption(1, || {
                    let place = format!("bitmap directory, byte {}", directory.at);
                    let (read, all) = (image.bitmaps.len(), directory.bitmaps);
                    (place, format!("entry {read} of {all} makes no sense"))
                });
            }
        }
        image.l2.sort_unstable_by_key(|l2| l2.at);
        Ok(image)
    }

    fn snapshots(&mut self, limits: &Limits, report: &mut Report) -> Result<()> {
        if self.header.snapshots == 0 {
            return Ok(());
        }
        let table = match snapshots::read(self.source, &self.header, limits) {
            Ok(table) => table,
            Err(e) if e.kind() == crate::ErrorKind::Io => return Err(e),
            Err(e) => {
                report.corruption(1, || (e.place().to_owned(), e.message().to_owned()));
                return Ok(());
            }
        };
        let at = self.header.snapshots_offset;
        self.sole.push(("snapshot table", at, table.bytes));
        let cluster_size = self.header.geometry.cluster_size();
        let mut tables: BTreeMap<(HostOffset, u32), u64> = BTreeMap::new();
        for snapshot in &table.snapshots {
            let place = || format!("snapshot table, byte {}", snapshot.at);
            if self.header.version >= 3 && !snapshot.has_disk_size() {
                report.corruption(1, || (place(), "an entry has no disk size".into()));
            }
            let (at, entries) = (snapshot.l1_offset, snapshot.l1_size);
            if !at.0.is_multiple_of(cluster_size) || snapshot.l1_bytes() > MAX_L1_BYTES {
                report.corruption(1, || {
                    let what = format!("the L1 table has {entries} entries at {at}");
                    (place(), format!("{what}, which cannot be"))
                });
                continue;
            }
            self.sole.push(("L1 table", at, snapshot.l1_bytes()));
            *tables.entry((at, entries)).or_default() += 1;
        }
        let entries: u64 = tables.keys().map(|(_, entries)| u64::from(*entries)).sum();
        if entries > MAX_L1_ENTRIES {
            return Err(Error::limit(
                Format::Qcow2,
                "snapshot table",
                format!("L1 tables have {entries} entries, allowed {MAX_L1_ENTRIES}"),
            ));
        }
        for ((at, entries), times) in tables {
            let bytes = read_zeroed(self.source, at, u64::from(entries) * 8)?;
            let l1: Vec<_> = numbers(&bytes).collect();
            self.add_l1(&l1, at, times, false, report)?;
        }
        Ok(())
    }

    /// Takes down the L2 tables of an L1 table.
    fn add_l1(
        &mut self,
        l1: &[u64],
        l1_at: HostOffset,
        times: u64,
        is_active: bool,
        report: &mut Report,
    ) -> Result<()> {
        let cluster_size = self.header.geometry.cluster_size();
        let mut sorted = self.l2.len();
        for (n, &entry) in l1.iter().enumerate().filter(|(_, entry)| **entry != 0) {
            let place = || format!("L1 table, byte {}", HostOffset(l1_at.0 + n as u64 * 8));
            if entry & RESERVED != 0 {
                let what = || (place(), format!("entry {entry:#x} has reserved bits set"));
                report.corruption(times, what);
            }
            let at = HostOffset(entry & OFFSET_MASK);
            if at == HostOffset::ZERO {
                let what = || (place(), format!("entry {entry:#x} has no offset"));
                report.corruption(times, what);
                continue;
            }
            if !at.0.is_multiple_of(cluster_size) {
                let what = || {
                    (
                        place(),
                        format!("the L2 table at {at} is between two clusters"),
                    )
                };
                report.corruption(times, what);
            }
            let active = if is_active { times } else { 0 };
            self.l2.push(L2 { at, times, active });
            if self.l2.len() > sorted + (1 << 20) {
                self.join();
                sorted = self.l2.len();
            }
        }
        self.join();
        if self.l2.len() > MAX_L2_TABLES {
            return Err(Error::limit(
                Format::Qcow2,
                "L1 table",
                format!("there are more than {MAX_L2_TABLES} L2 tables"),
            ));
        }
        Ok(())
    }

    /// Makes one of L2 tables at the same place.
    fn join(&mut self) {
        self.l2.sort_unstable_by_key(|l2| l2.at);
        self.l2.dedup_by(|next, first| {
            let is_same = next.at == first.at;
            if is_same {
                first.times += next.times;
                first.active += next.active;
            }
            is_same
        });
    }
}
