//! The snapshot table: states of the disk kept beside the present one, each with an L1 table of
//! its own.
//!
//! ```text
//!  byte 0   L1 table offset, entries, bytes of id and name, date, VM clock   big-endian
//!      32   VM state size, 32 bits; bytes of extra data
//!      40   extra data: VM state size, 64 bits; disk size; instruction count
//!       …   id, name, padding to eight bytes; the next entry
//! ```

use serde_json::{Value, json};

use super::layout::{Header, MAX_L1_BYTES};
use crate::bytes::{be16, be32, be64};
use crate::source::read_up_to;
use crate::{Error, Format, HostOffset, Limits, Result, Source};

/// Bytes of an entry before its extra data.
const FIXED: usize = 40;
/// qemu's bound on the extra data.
const MAX_EXTRA: usize = 1024;
/// Bytes of the table read at once: more than any entry has.
const WINDOW: usize = 1 << 20;

/// A state of the disk.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// Where its entry stands in the table, in bytes of the file.
    pub(super) at: HostOffset,
    pub(super) l1_offset: HostOffset,
    /// Entries.
    pub(super) l1_size: u32,
    pub(super) id: String,
    pub(super) name: String,
    date_sec: u32,
    date_nsec: u32,
    vm_clock_nsec: u64,
    vm_state_size: u64,
    /// Bytes of the disk then; where the entry does not say, the disk has not changed.
    disk_size: Option<u64>,
    icount: Option<u64>,
}

impl Snapshot {
    /// The entry at the start of `bytes`, which stand at `at` in the file, and its length;
    /// `None` when it goes on past the end of `bytes`.
    ///
    /// # Errors
    /// `Malformed` for more extra data than any program writes.
    fn parse(bytes: &[u8], at: HostOffset) -> Result<Option<(Self, usize)>> {
        if bytes.len() < FIXED {
            return Ok(None);
        }
        let u16_at = |at| be16(bytes, at).map_or(0, usize::from);
        let u32_at = |at| be32(bytes, at).unwrap_or(0);
        let u64_at = |at| be64(bytes, at).unwrap_or(0);
        let extra = u32_at(36) as usize;
        if extra > MAX_EXTRA {
            return Err(Error::malformed(
                Format::Qcow2,
                format!("snapshot table, byte {at}"),
                format!("an entry has {extra} bytes of extra data, allowed {MAX_EXTRA}"),
            ));
        }
        let (id, name) = (u16_at(12), u16_at(14));
        let names = FIXED + extra;
        let Some((id, name)) = bytes
            .get(names..names + id + name)
            .map(|text| text.split_at(id))
        else {
            return Ok(None);
        };
        let len = (names + id.len() + name.len()).next_multiple_of(8);
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        let snapshot = Self {
            at,
            l1_offset: HostOffset(u64_at(0)),
            l1_size: u32_at(8),
            id: text(id),
            name: text(name),
            date_sec: u32_at(16),
            date_nsec: u32_at(20),
            vm_clock_nsec: u64_at(24),
            vm_state_size: match extra {
                0..8 => u32_at(32).into(),
                _ => u64_at(FIXED),
            },
            disk_size: (extra >= 16).then(|| u64_at(FIXED + 8)),
            icount: (extra >= 24).then(|| u64_at(FIXED + 16)),
        };
        Ok(Some((snapshot, len)))
    }

    pub(super) fn l1_bytes(&self) -> u64 {
        u64::from(self.l1_size) * 8
    }

    /// Whether the entry says how large the disk was.
    pub(super) const fn has_disk_size(&self) -> bool {
        self.disk_size.is_some()
    }

    /// What there is to say about it. Times in seconds and nanoseconds, sizes in bytes.
    pub(super) fn describe(&self, header: &Header) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "vm_state_size": self.vm_state_size,
            "date_sec": self.date_sec,
            "date_nsec": self.date_nsec,
            "vm_clock_nsec": self.vm_clock_nsec,
            "icount": self.icount,
            "disk_size": self.disk_size.unwrap_or(header.virtual_size),
        })
    }

    /// The header of the image as it was: this snapshot's L1 table and size.
    ///
    /// # Errors
    /// `Malformed` when the L1 table is too small for the disk, too large or misplaced.
    pub(super) fn header(&self, header: &Header) -> Result<Header> {
        let malformed = |message| {
            let place = format!("snapshot table, byte {}", self.at);
            Err(Error::malformed(Format::Qcow2, place, message))
        };
        let virtual_size = self.disk_size.unwrap_or(header.virtual_size);
        let needed = header.geometry.l1_needed(virtual_size);
        if u64::from(self.l1_size) < needed || self.l1_bytes() > MAX_L1_BYTES {
            return malformed(format!(
                "the L1 table of snapshot {:?} has {} entries, allowed {needed} to {}",
                self.name,
                self.l1_size,
                MAX_L1_BYTES / 8
            ));
        }
        if !self
            .l1_offset
            .0
            .is_multiple_of(header.geometry.cluster_size())
        {
            return malformed(format!(
                "the L1 table of snapshot {:?} is at {}, allowed multiples of {:#x}",
                self.name,
                self.l1_offset,
                header.geometry.cluster_size()
            ));
        }
        let mut header = header.clone();
        header.virtual_size = virtual_size;
        (header.l1_offset, header.l1_size) = (self.l1_offset, self.l1_size);
        Ok(header)
    }
}

/// The entries of the snapshot table whose beginning is `bytes`, as far as it holds them.
pub(super) fn in_view(header: &Header, bytes: &[u8]) -> Vec<Snapshot> {
    let (mut all, mut at) = (Vec::new(), 0);
    while (all.len() as u64) < u64::from(header.snapshots)
        && let Some(rest) = bytes.get(at..)
        && let Ok(Some((snapshot, len))) = Snapshot::parse(
            rest,
            HostOffset(header.snapshots_offset.0.saturating_add(at as u64)),
        )
    {
        all.push(snapshot);
        at += len;
    }
    all
}

/// Bytes of the file that the snapshot table takes up, and its entries.
pub(super) struct SnapshotTable {
    pub(super) bytes: u64,
    pub(super) snapshots: Vec<Snapshot>,
}

/// Reads the whole snapshot table.
///
/// # Errors
/// `Malformed` when it does not lie inside the file, `Limit`, `Io`.
pub(super) fn read(source: &dyn Source, header: &Header, limits: &Limits) -> Result<SnapshotTable> {
    let mut table = SnapshotTable {
        bytes: 0,
        snapshots: Vec::new(),
    };
    let mut window = Vec::new();
    let mut used = 0;
    while table.snapshots.len() < header.snapshots as usize {
        let at = header.snapshots_offset.checked_add(table.bytes);
        let at = at.unwrap_or(HostOffset(u64::MAX));
        let mut entry = Snapshot::parse(&window[used..], at)?;
        if entry.is_none() {
            (window, used) = (read_up_to(source, at, WINDOW)?, 0);
            entry = Snapshot::parse(&window, at)?;
        }
        let Some((snapshot, len)) = entry else {
            return Err(Error::malformed(
                Format::Qcow2,
                format!("snapshot table, byte {at}"),
                format!(
                    "the file ends within entry {} of {}",
                    table.snapshots.len(),
                    header.snapshots
                ),
            ));
        };
        used = (used + len).min(window.len());
        table.bytes += len as u64;
        limits.table(Format::Qcow2, "snapshot table", table.bytes)?;
        table.snapshots.push(snapshot);
    }
    Ok(table)
}

/// The snapshot whose id is `wanted`, else the first of that name: qemu's order.
///
/// # Errors
/// `Usage` when there is none, naming what there is.
pub(super) fn find(all: Vec<Snapshot>, wanted: &str) -> Result<Snapshot> {
    let found = all
        .iter()
        .position(|s| s.id == wanted)
        .or_else(|| all.iter().position(|s| s.name == wanted));
    if let Some(n) = found {
        return Ok(all.into_iter().nth(n).expect("it was just found there"));
    }
    /// More names than these are no help.
    const SHOWN: usize = 20;
    let mut there: Vec<_> = all
        .iter()
        .take(SHOWN)
        .map(|s| format!("{:?} (id {:?})", s.name, s.id))
        .collect();
    if all.len() > SHOWN {
        there.push(format!("{} more", all.len() - SHOWN));
    }
    Err(Error::usage(match there.is_empty() {
        true => format!("there is no snapshot {wanted:?}, nor any other"),
        false => format!(
            "there is no snapshot {wanted:?}; there are {}",
            there.join(", ")
        ),
    }))
}
