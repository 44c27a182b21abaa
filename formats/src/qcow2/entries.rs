//! L1 and L2 entries: what they say, and how they are written. Pure; reader and inspector share
//! it.

use super::layout::{Geometry, Header};
use super::rules::Broken;
use crate::{Error, Format, GuestOffset, HostOffset};

/// Bits 9 to 55 of L1 and L2 entries: a host offset.
pub(super) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 62 of an L2 entry: the cluster is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// Bit 63: the refcount is exactly one. With an external data file also: offset 0 is meant.
pub(super) const COPIED: u64 = 1 << 63;
/// Bit 0 of a standard L2 entry: the cluster reads as zeros.
pub(super) const ZERO: u64 = 1;

/// The bitmap of an extended L2 entry whose subclusters all hold data.
pub(super) const ALL_DATA: u64 = 0xffff_ffff;

/// What stands for a guest byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mapping {
    /// Nothing: falls through to the backing file.
    Unallocated,
    /// Zeros, whatever the backing file holds.
    Zero,
    /// Bytes as they are.
    Data(HostOffset),
    /// A compressed cluster: at most `len` bytes from `at`. They may reach past the end of the
    /// file, for the length counts whole sectors.
    Compressed { at: HostOffset, len: u64 },
}

/// Reads the entries of one image.
pub(super) struct Entries {
    geometry: Geometry,
    virtual_size: u64,
    has_zero_flag: bool,
    file_len: u64,
    /// Bytes of the external data file, where there is one.
    data_file_len: Option<u64>,
}

impl Entries {
    /// For an image whose file has `file_len` bytes, its external data file `data_file_len`.
    pub(super) fn new(header: &Header, file_len: u64, data_file_len: Option<u64>) -> Self {
        Self {
            geometry: header.geometry,
            virtual_size: header.virtual_size,
            has_zero_flag: header.version >= 3,
            file_len,
            data_file_len,
        }
    }

    /// The mapping of the guest byte `at`, inside the disk, whose whole L2 table is `table`.
    ///
    /// # Errors
    /// The rule `truncated` for what lies behind the end of the file, `l2_entry` for what makes
    /// no sense.
    pub(super) fn mapping(&self, table: &[u64], at: GuestOffset) -> Result<Mapping, Broken> {
        let cluster_size = self.geometry.cluster_size();
        let index = (at.0 % self.geometry.l1_span() / cluster_size) as usize;
        if !self.geometry.is_extended {
            return match table[index] {
                e if e & COMPRESSED != 0 => self.compressed(e, at),
                e if e & ZERO != 0 && self.has_zero_flag => Ok(Mapping::Zero),
                e if e & ZERO != 0 => Err(bad(at, e, "has bit 0 set in a version 2 image")),
                e if self.is_allocated(e) => self.data(e, at),
                _ => Ok(Mapping::Unallocated),
            };
        }
        let (entry, bitmap) = (table[2 * index], table[2 * index + 1]);
        if entry & COMPRESSED != 0 {
            return self.compressed(entry, at);
        }
        let subcluster = at.0 % cluster_size / self.geometry.granule();
        let is_data = bitmap >> subcluster & 1 != 0;
        let is_zero = bitmap >> (32 + subcluster) & 1 != 0;
        match (is_data, is_zero) {
            (true, true) => Err(bad(at, bitmap, "says both data and zero")),
            (true, false) if !self.is_allocated(entry) => {
                Err(bad(at, entry, "has data subclusters but no offset"))
            }
            (true, false) => self.data(entry, at),
            (false, true) => Ok(Mapping::Zero),
            (false, false) => Ok(Mapping::Unallocated),
        }
    }

    fn is_allocated(&self, entry: u64) -> bool {
        entry & OFFSET_MASK != 0 || (self.data_file_len.is_some() && entry & COPIED != 0)
    }

    fn data(&self, entry: u64, at: GuestOffset) -> Result<Mapping, Broken> {
        let (cluster_size, granule) = (self.geometry.cluster_size(), self.geometry.granule());
        let cluster = entry & OFFSET_MASK;
        if !cluster.is_multiple_of(cluster_size) {
            return Err(bad(at, entry, "points between two clusters"));
        }
        // At most 2^56 + 2^21: no overflow. Of the last granule only what the guest sees must
        // be there.
        let host = cluster + at.0 % cluster_size;
        let start = at.align_down(granule);
        let needed = granule.min(self.virtual_size - start.0) - at.since(start);
        let len = self.data_file_len.unwrap_or(self.file_len);
        if host + needed > len {
            return Err(past_end(at, entry, len));
        }
        Ok(Mapping::Data(HostOffset(host)))
    }

    fn compressed(&self, entry: u64, at: GuestOffset) -> Result<Mapping, Broken> {
        if self.data_file_len.is_some() {
            return Err(bad(at, entry, "is compressed beside an external data file"));
        }
        let (host, len) = compressed_span(entry, self.geometry.cluster_bits);
        if host.0 >= self.file_len {
            return Err(past_end(at, entry, self.file_len));
        }
        Ok(Mapping::Compressed { at: host, len })
    }
}

/// Bits that hold the host offset in the descriptor of a compressed cluster; those above, up to
/// bit 61, hold its sectors.
const fn compressed_offset_bits(cluster_bits: u32) -> u32 {
    62 - (cluster_bits - 8)
}

/// Where a compressed cluster lies: offset, and bytes to the end of its last sector.
pub(super) const fn compressed_span(entry: u64, cluster_bits: u32) -> (HostOffset, u64) {
    let bits = compressed_offset_bits(cluster_bits);
    let at = entry & ((1 << bits) - 1);
    let more_sectors = (entry & (COMPRESSED - 1)) >> bits;
    (HostOffset(at), (more_sectors + 1) * 512 - at % 512)
}

/// Whether the end of the file cuts off a compressed cluster of `len` bytes at `at`: it may end
/// anywhere in its last sector, and the file with it.
pub(super) const fn is_cut(at: HostOffset, len: u64, file_len: u64) -> bool {
    at.0 >= file_len || at.0 + len > file_len.next_multiple_of(512)
}

/// The host clusters that an L2 entry names: none, one, or those that compressed bytes touch.
pub(super) fn freed(entry: u64, geometry: Geometry) -> std::ops::Range<u64> {
    let bits = geometry.cluster_bits;
    if entry & COMPRESSED != 0 {
        let (at, len) = compressed_span(entry, bits);
        // At most 2^54 + 2^21: no overflow.
        return at.0 >> bits..(at.0 + len).div_ceil(1 << bits);
    }
    match (entry & OFFSET_MASK) >> bits {
        0 => 0..0,
        cluster => cluster..cluster + 1,
    }
}

/// The L2 entry of `len` compressed bytes at `at`, or `None` where an entry cannot hold that.
pub(super) fn compressed_entry(at: HostOffset, len: u64, cluster_bits: u32) -> Option<u64> {
    let bits = compressed_offset_bits(cluster_bits);
    let more_sectors = (at.0 % 512 + len.checked_sub(1)?) / 512;
    (at.0 >> bits == 0 && more_sectors >> (62 - bits) == 0)
        .then(|| COMPRESSED | more_sectors << bits | at.0)
}

/// The L1 or L2 entry of a table or cluster at `at` whose refcount is one; `None` where an entry
/// cannot hold that.
pub(super) fn entry(at: HostOffset) -> Option<u64> {
    (at.0 & !OFFSET_MASK == 0).then_some(COPIED | at.0)
}

/// The host offsets of the L2 tables in the bytes of an L1 table, with their indices.
pub(super) fn l2_offsets(l1: &[u8]) -> impl Iterator<Item = (usize, HostOffset)> {
    numbers(l1)
        .map(|e| HostOffset(e & OFFSET_MASK))
        .enumerate()
        .filter(|(_, at)| *at != HostOffset::ZERO)
}

/// The big-endian numbers of a table.
pub(super) fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|b| u64::from_be_bytes(*b))
}

/// The error of an entry that makes no sense.
fn bad(at: GuestOffset, entry: u64, what: &str) -> Broken {
    ("l2_entry", malformed(at, format!("{entry:#x} {what}")))
}

/// The error of an entry that points behind `end`, where the file ends.
pub(super) fn past_end(at: GuestOffset, entry: u64, end: u64) -> Broken {
    let message = format!("{entry:#x} reaches past the end of the file at {end:#x}");
    ("truncated", malformed(at, message))
}

fn malformed(at: GuestOffset, message: String) -> Error {
    Error::malformed(
        Format::Qcow2,
        format!("L2 entry of guest offset {at}"),
        message,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_entries_round_trip() {
        for cluster_bits in 9..=21 {
            let cluster: u64 = 1 << cluster_bits;
            for at in [0x300, 0x1_0001, 0x1_01ff, (1 << 40) + 511] {
                for len in [1, 2, 511, 512, 513, cluster - 1] {
                    let entry = compressed_entry(HostOffset(at), len, cluster_bits).unwrap();
                    let (host, span) = compressed_span(entry, cluster_bits);
                    assert_eq!(host.0, at);
                    assert!(
                        span >= len && span < len + 512,
                        "{cluster_bits} {at} {len} {span}"
                    );
                }
            }
        }
        assert_eq!(compressed_entry(HostOffset(1 << 49), 9, 21), None);
        assert_eq!(compressed_entry(HostOffset(0), 0, 16), None);
        assert_eq!(compressed_entry(HostOffset(0), (1 << 17) + 1, 16), None);
    }

    #[test]
    fn entries_hold_aligned_offsets_only() {
        assert_eq!(entry(HostOffset(0x10000)), Some(COPIED | 0x10000));
        assert_eq!(entry(HostOffset(0x10100)), None);
        assert_eq!(entry(HostOffset(1 << 56)), None);
    }
}
