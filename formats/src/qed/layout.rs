//! The header: bytes to bounded values.

use crate::bytes::{le32, le64};
use crate::{Error, Format, HostOffset, Result};

/// The first four bytes.
pub(super) const MAGIC: &[u8; 4] = b"QED\0";
/// Bytes of the header without the name.
pub(super) const HEADER_LEN: usize = 64;
/// The specification's bound on the backing file's name.
const MAX_NAME: u32 = 1023;

/// Feature bits: whoever does not know one must not open the image.
mod feature {
    pub(super) const BACKING_FILE: u64 = 1 << 0;
    pub(super) const NEED_CHECK: u64 = 1 << 1;
    pub(super) const BACKING_FORMAT_NO_PROBE: u64 = 1 << 2;
    pub(super) const KNOWN: u64 = BACKING_FILE | NEED_CHECK | BACKING_FORMAT_NO_PROBE;
}

/// The header; every value within its bounds.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// A power of two, 4 KiB to 64 MiB.
    pub(super) cluster_size: u64,
    /// Clusters of a table: 1, 2, 4, 8 or 16.
    pub(super) table_size: u64,
    /// Clusters of the header.
    pub(super) clusters: u64,
    features: u64,
    pub(super) l1_offset: HostOffset,
    /// Virtual size in bytes, whole sectors.
    pub(super) size: u64,
    /// Where the name of the backing file stands, and its bytes.
    pub(super) backing_file: Option<(u64, u32)>,
}

fn malformed(byte: u32, message: String) -> Error {
    Error::malformed(Format::Qed, format!("header, byte {byte}"), message)
}

impl Header {
    /// Reads a header from the first 64 bytes of a file.
    ///
    /// # Errors
    /// `Malformed` for values outside the specification, `Unsupported` for unknown features.
    pub(super) fn parse(head: &[u8]) -> Result<Self> {
        let cut = || malformed(0, format!("the file ends at byte {} within it", head.len()));
        let u32_at = |at| le32(head, at).ok_or_else(cut);
        let u64_at = |at| le64(head, at).ok_or_else(cut);
        let power = |field, byte: u32, least: u32, most: u32| {
            let value = u32_at(byte as usize)?;
            if value.is_power_of_two() && (least..=most).contains(&value) {
                return Ok(u64::from(value));
            }
            let message = format!("{field} is {value}, allowed powers of two, {least} to {most}");
            Err(malformed(byte, message))
        };
        let cluster_size = power("cluster_size", 4, 4 << 10, 64 << 20)?;
        let table_size = power("table_size", 8, 1, 16)?;
        let header_clusters = u32_at(12)?;
        let features = u64_at(16)?;
        let unknown = features & !feature::KNOWN;
        if unknown != 0 {
            return Err(Error::unsupported(
                Format::Qed,
                "header, byte 16",
                format!("feature bits {unknown:#x} are not known here"),
            ));
        }
        let header = Self {
            cluster_size,
            table_size,
            clusters: header_clusters.into(),
            features,
            l1_offset: HostOffset(u64_at(40)?),
            size: u64_at(48)?,
            backing_file: match features & feature::BACKING_FILE {
                0 => None,
                _ => Some((u32_at(56)?.into(), u32_at(60)?)),
            },
        };
        let l1 = header.l1_offset;
        if l1.0 == 0 || !l1.0.is_multiple_of(cluster_size) {
            let message =
                format!("l1_table_offset is {l1}, allowed multiples of {cluster_size:#x}");
            return Err(malformed(40, message));
        }
        let most = header.table_span().saturating_mul(header.table_entries());
        if header.size > most || !header.size.is_multiple_of(512) {
            let message = format!(
                "image_size is {}, allowed whole sectors up to {most}",
                header.size
            );
            return Err(malformed(48, message));
        }
        if let Some((at, len)) = header.backing_file {
            let end = header.clusters * cluster_size;
            if len > MAX_NAME || at < HEADER_LEN as u64 || at + u64::from(len) > end {
                return Err(malformed(
                    56,
                    format!(
                        "the name of the backing file has {len} bytes at {at}, allowed {MAX_NAME} \
                     from {HEADER_LEN} to {end:#x}"
                    ),
                ));
            }
        }
        Ok(header)
    }

    /// Entries of a table.
    pub(super) const fn table_entries(&self) -> u64 {
        self.table_size * self.cluster_size / 8
    }

    /// Guest bytes behind one entry of the L1 table.
    pub(super) const fn table_span(&self) -> u64 {
        // At most 2^27 entries of 2^26 bytes.
        self.table_entries() * self.cluster_size
    }

    /// Bytes of the L1 table that the disk needs.
    pub(super) const fn l1_bytes(&self) -> u64 {
        self.size.div_ceil(self.table_span()) * 8
    }

    /// Whether the last writer did not close it.
    pub(super) const fn needs_check(&self) -> bool {
        self.features & feature::NEED_CHECK != 0
    }

    /// Whether the backing file is said to be raw.
    pub(super) const fn is_backing_raw(&self) -> bool {
        self.features & feature::BACKING_FORMAT_NO_PROBE != 0
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A header of 4 KiB clusters, its L1 table in the second.
    pub(in super::super) fn head() -> Vec<u8> {
        let mut head = vec![0; 4096];
        head[..4].copy_from_slice(MAGIC);
        head[4..8].copy_from_slice(&4096u32.to_le_bytes());
        (head[8], head[12]) = (2, 1);
        head[40..48].copy_from_slice(&4096u64.to_le_bytes());
        head[48..56].copy_from_slice(&(1u64 << 30).to_le_bytes());
        head
    }

    #[test]
    fn every_field_is_bounded() {
        let header = Header::parse(&head()).unwrap();
        assert_eq!(header.table_entries(), 1024);
        assert_eq!(header.l1_bytes(), 256 * 8);
        assert!(!header.needs_check() && header.backing_file.is_none());
        for (at, bytes, place) in [
            (4, &[1][..], "byte 4: cluster_size is 4097"),
            (4, &[0, 0, 0, 8], "byte 4: cluster_size is 134217728"),
            (8, &[0], "byte 8: table_size is 0"),
            (8, &[3], "byte 8: table_size is 3"),
            (8, &[32], "byte 8: table_size is 32"),
            (16, &[8], "byte 16: feature bits 0x8"),
            (40, &[1], "byte 40: l1_table_offset"),
            (40, &[0, 0], "byte 40: l1_table_offset"),
            (48, &[1], "byte 48: image_size"),
            (54, &[1], "byte 48: image_size"),
            (16, &[1], "byte 56: the name"),
        ] {
            let mut head = head();
            head[at..at + bytes.len()].copy_from_slice(bytes);
            let e = Header::parse(&head).unwrap_err().to_string();
            assert!(e.starts_with(&format!("qed header, {place}")), "{e}");
        }
        for len in 0..56 {
            assert!(Header::parse(&head()[..len]).is_err(), "{len}");
        }
    }
}
