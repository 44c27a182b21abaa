//! The header and the entries of an L2 table.

use crate::bytes::{be32, be64};
use crate::{Error, Format, HostOffset, Result};

/// Magic and version.
pub(super) const MAGIC: &[u8; 8] = b"QFI\xfb\0\0\0\x01";
/// QEMU's bound on the backing file's name.
const MAX_NAME: u32 = 1023;
const COMPRESSED: u64 = 1 << 63;

/// The header; every value within its bounds.
#[derive(Debug)]
pub(super) struct Header {
    /// Where the name of the backing file stands, and its bytes.
    pub(super) backing_file: Option<(u64, u32)>,
    /// Virtual size in bytes.
    pub(super) size: u64,
    pub(super) cluster_bits: u32,
    /// Entries of an L2 table, as a power of two.
    pub(super) l2_bits: u32,
    pub(super) is_encrypted: bool,
    pub(super) l1_offset: HostOffset,
}

impl Header {
    pub(super) fn parse(head: &[u8]) -> Result<Self> {
        let malformed = |message: String| Error::malformed(Format::Qcow1, "header", message);
        let cut = || malformed(format!("the file ends at byte {} within it", head.len()));
        let byte = |at: usize| head.get(at).copied().map(u32::from).ok_or_else(cut);
        let (cluster_bits, l2_bits) = (byte(32)?, byte(33)?);
        if !(9..=16).contains(&cluster_bits) {
            let message = format!("cluster_bits is {cluster_bits} at byte 32, allowed 9 to 16");
            return Err(malformed(message));
        }
        if !(6..=13).contains(&l2_bits) {
            return Err(malformed(format!(
                "l2_bits is {l2_bits} at byte 33, allowed 6 to 13"
            )));
        }
        let is_encrypted = match be32(head, 36).ok_or_else(cut)? {
            0 => false,
            1 => true,
            method => {
                let message = format!("crypt_method is {method} at byte 36, allowed 0 and 1");
                return Err(malformed(message));
            }
        };
        let backing_len = be32(head, 16).ok_or_else(cut)?;
        if backing_len > MAX_NAME {
            return Err(malformed(format!(
                "backing_file_size is {backing_len} at byte 16, allowed up to {MAX_NAME}"
            )));
        }
        Ok(Self {
            backing_file: match be64(head, 8).ok_or_else(cut)? {
                0 => None,
                at => Some((at, backing_len)),
            },
            size: be64(head, 24).ok_or_else(cut)?,
            cluster_bits,
            l2_bits,
            is_encrypted,
            l1_offset: HostOffset(be64(head, 40).ok_or_else(cut)?),
        })
    }

    /// Guest bytes behind one entry of the L1 table.
    pub(super) const fn table_covers(&self) -> u64 {
        1 << (self.cluster_bits + self.l2_bits)
    }

    /// Bytes of the L1 table.
    pub(super) const fn l1_len(&self) -> u64 {
        // At most 2^49 entries: one covers 32 KiB or more.
        self.size.div_ceil(self.table_covers()) * 8
    }

    pub(super) const fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The backing file's name, as far as it lies in `head`; `None` where there is none.
    pub(super) fn backing_name(&self, head: &[u8]) -> Option<String> {
        let (at, len) = self.backing_file?;
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let end = at.saturating_add(len as usize);
        Some(String::from_utf8_lossy(head.get(at..end).unwrap_or_default()).into_owned())
    }
}

/// Where a cluster's bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cluster {
    Unallocated,
    Plain(HostOffset),
    /// Deflated, this many bytes.
    Compressed(HostOffset, usize),
}

impl Cluster {
    pub(super) const fn parse(entry: u64, cluster_bits: u32) -> Self {
        if entry == 0 {
            Self::Unallocated
        } else if entry & COMPRESSED == 0 {
            Self::Plain(HostOffset(entry))
        } else {
            let offset_bits = 63 - cluster_bits;
            let len = (entry >> offset_bits) & ((1 << cluster_bits) - 1);
            Self::Compressed(HostOffset(entry & ((1 << offset_bits) - 1)), len as usize)
        }
    }
}
