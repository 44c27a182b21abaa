//! Which tables an inspection looks at, and what they must agree on: with each other, and with
//! the length of the file.

use super::bitmaps::Directory;
use super::counts::refcount;
use super::entries::{Entries, Mapping, is_cut, l2_offsets, numbers, past_end};
use super::inspect::{HEAD, NAMES, break_rule};
use super::layout::{Header, incompatible};
use super::rules::{self, Broken};
use super::{bitmaps, snapshots};
use crate::inspect::{Facts, MAX_SPAN, MAX_WANTED, REMEMBERED_HEAD, Region, Severity, Span};
use crate::{Error, Format, GuestOffset, HostOffset};

/// Most L2 tables looked at.
const MAX_L2: u64 = 64;
/// Bytes of the snapshot table and of the directory of bitmaps looked at: what lies behind goes
/// unlisted.
const LISTED: u64 = 128 << 10;

/// `len` bytes from `at`, or as many of them as may be asked for.
pub(super) fn clipped(at: u64, len: u64) -> Span {
    let len = len.min(MAX_SPAN);
    Span::At { at, len }
}

/// The tables to look at.
pub(super) struct Plan {
    /// The refcount block that counts the highest clusters.
    last_block: Option<LastBlock>,
    /// L2 tables, those nearest to the end of the file, with their L1 indices.
    l2: Vec<(usize, HostOffset)>,
    /// The L2 table nearest to the end of the file, looked at or not.
    highest_l2: HostOffset,
    /// The snapshot table is in view.
    has_snapshots: bool,
    /// The directory of bitmaps, where it is in view.
    bitmaps: Option<Directory>,
}

#[derive(Clone, Copy)]
struct LastBlock {
    at: u64,
    /// The cluster its first refcount counts.
    first_cluster: u64,
}

impl Plan {
    /// Checks the refcount table and the L1 table, as far as they are in view, and follows them.
    ///
    /// # Errors
    /// `l1_table` for L2 tables between clusters, or upon the L1 table or each other.
    pub(super) fn new(
        header: &Header,
        refcounts: &Region<'_>,
        l1: &Region<'_>,
        bitmaps: Option<Directory>,
    ) -> Result<Self, Broken> {
        let cluster_size = header.geometry.cluster_size();
        let needed = header.geometry.l1_needed(header.virtual_size);
        let mut l2: Vec<_> = l2_offsets(l1.bytes)
            .take_while(|(n, _)| (*n as u64) < needed)
            .collect();
        for &(index, at) in &l2 {
            check_l2_offset(header, index, at)?;
        }
        l2.sort_unstable_by_key(|&(_, at)| std::cmp::Reverse(at));
        if let Some([(a, at), (b, _)]) = l2.array_windows().find(|[a, b]| a.1 == b.1) {
            return Err(bad_l1(
                header,
                *a.max(b),
                format!("L2 table at {at} is that of entry {} too", a.min(b)),
            ));
        }
        let highest_l2 = l2.first().map_or(HostOffset::ZERO, |&(_, at)| at);
        let last_block = last_block(header, refcounts);

        let roots = refcounts.at.max(l1.at);
        l2.retain(|&(_, at)| is_ahead(at.0, cluster_size, roots));
        let has_snapshots =
            header.snapshots > 0 && is_ahead(header.snapshots_offset.0, LISTED, roots);
        let bitmaps = bitmaps.filter(|b| is_ahead(b.at.0, LISTED, roots));
        let table = cluster_size.min(MAX_SPAN);
        let asked = HEAD
            + NAMES
            + header.refcount_table_bytes().min(MAX_SPAN)
            + header.l1_bytes().min(MAX_SPAN)
            + table
            + 2 * LISTED;
        let room = MAX_WANTED.saturating_sub(asked) / table;
        l2.truncate(room.min(MAX_L2) as usize);
        Ok(Self {
            last_block,
            l2,
            highest_l2,
            has_snapshots,
            bitmaps,
        })
    }

    /// The bytes to look at: [`check`](Self::check) takes them in this order.
    pub(super) fn spans(&self, header: &Header) -> Vec<Span> {
        let block = self.last_block.iter().map(|block| block.at);
        let l2 = self.l2.iter().map(|(_, at)| at.0);
        let tables = block
            .chain(l2)
            .map(|at| clipped(at, header.geometry.cluster_size()));
        let snapshots = self.has_snapshots.then_some(header.snapshots_offset.0);
        let bitmaps = self.bitmaps.map(|b| b.at.0);
        let lists = snapshots.into_iter().chain(bitmaps);
        tables.chain(lists.map(|at| clipped(at, LISTED))).collect()
    }

    /// Judges the tables in `regions` of a file of `file_len` bytes.
    pub(super) fn check(
        &self,
        header: &Header,
        file_len: u64,
        regions: &[Region<'_>],
        facts: &mut Facts,
    ) {
        if let Err(e) = rules::l1_table(header, file_len) {
            break_rule(facts, ("truncated", e));
        }
        if let Err(e) = rules::refcount_table(header, file_len) {
            break_rule(facts, ("refcount_table", e));
        }
        let cluster_size = header.geometry.cluster_size();
        if self.highest_l2 != HostOffset::ZERO
            && let Err(e) = rules::inside("L2 table", self.highest_l2, cluster_size, file_len)
        {
            break_rule(facts, ("truncated", e));
        }
        let lists = usize::from(self.has_snapshots) + self.bitmaps.iter().len();
        let (regions, lists) = regions.split_at(regions.len().saturating_sub(lists));
        self.list(header, lists, facts);
        let (blocks, tables) = regions.split_at(regions.len().min(self.last_block.iter().len()));
        if let (Some(block), [region]) = (self.last_block, blocks) {
            check_length(header, block, region.bytes, file_len, facts);
        }
        // How long another file is, only opening it tells.
        let data_file_len = header.has(incompatible::DATA_FILE).then_some(u64::MAX);
        let entries = Entries::new(header, file_len, data_file_len);
        let broken = self.l2.iter().zip(tables).find_map(|((index, _), region)| {
            check_l2(header, &entries, *index, region, file_len).err()
        });
        if let Some(broken) = broken {
            break_rule(facts, broken);
        }
    }
}

impl Plan {
    /// Lists snapshots and bitmaps, as far as they are in view.
    fn list(&self, header: &Header, mut regions: &[Region<'_>], facts: &mut Facts) {
        if self.has_snapshots
            && let Some(table) = regions.split_off_first()
        {
            let all = snapshots::in_view(header, table.bytes);
            let all: Vec<_> = all.iter().map(|s| s.describe(header)).collect();
            facts.detail("snapshot_list", all);
        }
        if let Some(directory) = &self.bitmaps
            && let Some(table) = regions.split_off_first()
        {
            let all = bitmaps::in_view(directory, table.bytes);
            let all: Vec<_> = all.iter().map(bitmaps::Bitmap::describe).collect();
            facts.detail("bitmaps", all);
        }
    }
}

/// Whether a stream that has just reached `roots` can still give the table of `len` bytes at
/// `at`.
fn is_ahead(at: u64, len: u64, roots: u64) -> bool {
    let is_remembered = at
        .checked_add(len)
        .is_some_and(|end| end <= REMEMBERED_HEAD as u64);
    at > roots || is_remembered
}

fn bad_l1(header: &Header, index: usize, message: String) -> Broken {
    let byte = HostOffset(header.l1_offset.0.saturating_add(index as u64 * 8));
    let place = format!("L1 entry {index}, byte {byte}");
    ("l1_table", Error::malformed(Format::Qcow2, place, message))
}

fn check_l2_offset(header: &Header, index: usize, at: HostOffset) -> Result<(), Broken> {
    let cluster_size = header.geometry.cluster_size();
    if !at.0.is_multiple_of(cluster_size) {
        let allowed = format!("allowed multiples of {cluster_size:#x}");
        return Err(bad_l1(
            header,
            index,
            format!("L2 table is at {at}, {allowed}"),
        ));
    }
    let l1_end = header.l1_offset.0.saturating_add(header.l1_bytes());
    if at.0 < l1_end && at.0 + cluster_size > header.l1_offset.0 {
        return Err(bad_l1(
            header,
            index,
            format!("L2 table at {at} overlaps the L1 table"),
        ));
    }
    Ok(())
}

/// The last refcount block, where all of the refcount table is in view. Of a dirty image the
/// refcounts say nothing.
fn last_block(header: &Header, refcounts: &Region<'_>) -> Option<LastBlock> {
    if header.has(incompatible::DIRTY) || header.refcount_table_bytes() > MAX_SPAN {
        return None;
    }
    let cluster_size = header.geometry.cluster_size();
    let entries = refcounts.bytes.as_chunks().0;
    let (index, at) = entries
        .iter()
        .map(|entry| u64::from_be_bytes(*entry) & !511)
        .enumerate()
        .rfind(|(_, at)| *at != 0)?;
    let is_usable = at.is_multiple_of(cluster_size) && is_ahead(at, cluster_size, refcounts.at);
    is_usable.then(|| LastBlock {
        at,
        first_cluster: index as u64 * header.clusters_per_refcount_block(),
    })
}

/// Compares the highest cluster in use with the end of the file.
fn check_length(
    header: &Header,
    block: LastBlock,
    counts: &[u8],
    file_len: u64,
    facts: &mut Facts,
) {
    let cluster_size = header.geometry.cluster_size();
    let order = header.refcount_order;
    let in_view = (counts.len() as u64 * 8) >> order;
    let highest = (0..in_view)
        .rev()
        .find(|&n| refcount(counts, n, order).is_some_and(|count| count != 0));
    let start = block
        .first_cluster
        .saturating_add(highest.unwrap_or(0))
        .saturating_mul(cluster_size);
    if let Err(e) = rules::inside(
        "refcount block",
        HostOffset(block.at),
        cluster_size,
        file_len,
    ) {
        break_rule(facts, ("truncated", e));
        return;
    }
    if highest.is_some() && start >= file_len {
        facts.find(
            "truncated",
            Severity::Unsafe,
            format!("cluster, byte {}", HostOffset(start)),
            format!("is in use, but the file ends at {file_len:#x}: it was cut short"),
        );
        return;
    }
    let behind = file_len.saturating_sub(start.saturating_add(cluster_size));
    // A part of a block cannot tell what lies behind, nor can one without any count.
    if behind > 0 && highest.is_some() && in_view == header.clusters_per_refcount_block() {
        facts.find(
            "trailing_data",
            Severity::Warning,
            format!("file, byte {}", HostOffset(file_len - behind)),
            format!("the last {behind} bytes belong to no cluster in use"),
        );
    }
}

/// All entries of an L2 table in view make sense, and point into the file.
fn check_l2(
    header: &Header,
    entries: &Entries,
    l1_index: usize,
    region: &Region<'_>,
    file_len: u64,
) -> Result<(), Broken> {
    let geometry = header.geometry;
    let table: Vec<u64> = numbers(region.bytes).collect();
    let start = l1_index as u64 * geometry.l1_span();
    let in_view = region.bytes.len() as u64 / geometry.l2_entry_size() * geometry.cluster_size();
    let end = start.saturating_add(in_view).min(header.virtual_size);
    let mut at = start;
    while at < end {
        let placed = |(rule, e): Broken| {
            let index = (at - start) / geometry.cluster_size();
            let byte = HostOffset(region.at + index * geometry.l2_entry_size());
            let place = format!("{}, byte {byte}", e.place());
            (rule, Error::malformed(Format::Qcow2, place, e.message()))
        };
        let mapping = entries.mapping(&table, GuestOffset(at)).map_err(placed)?;
        // What a guest writes there would become entries.
        if let Mapping::Data(host) = mapping
            && !header.has(incompatible::DATA_FILE)
            && host.align_down(geometry.cluster_size()) == HostOffset(region.at)
        {
            let message = format!(
                "the cluster of guest offset {} is its own L2 table",
                GuestOffset(at)
            );
            let e = Error::malformed(Format::Qcow2, "L2 table", message);
            return Err(placed(("overlap", e)));
        }
        at += match mapping {
            Mapping::Compressed { at: host, len } => {
                if is_cut(host, len, file_len) {
                    return Err(placed(past_end(GuestOffset(at), host.0, file_len)));
                }
                geometry.cluster_size()
            }
            _ => geometry.granule(),
        };
    }
    Ok(())
}
