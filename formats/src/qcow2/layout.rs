//! The header: bytes to bounded values, and back. Nothing else here reads its fields, so whoever
//! holds a [`Header`] holds values that were checked against each other.

use crate::bytes::{be32, be64};
use crate::{Error, Format, HostOffset, Result};

/// The first four bytes, `QFI` and 0xfb. Shared by versions 1, 2 and 3.
pub(super) const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Bytes of a version 2 header.
pub(super) const V2_LEN: u32 = 72;
/// Bytes of a version 3 header without any additional field.
pub(super) const V3_LEN: u32 = 104;
/// Bytes of the version 3 header written here: with the compression type, padded to eight.
const EMITTED_LEN: u32 = 112;

/// Incompatible feature bits: whoever does not know one must not open the image.
pub(super) mod incompatible {
    pub(in super::super) const DIRTY: u64 = 1 << 0;
    pub(in super::super) const CORRUPT: u64 = 1 << 1;
    pub(in super::super) const DATA_FILE: u64 = 1 << 2;
    pub(in super::super) const COMPRESSION_TYPE: u64 = 1 << 3;
    pub(in super::super) const EXTENDED_L2: u64 = 1 << 4;
    pub(in super::super) const KNOWN: u64 =
        DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2;
}
/// Compatible feature bit: refcounts may lag behind while the image is dirty.
const LAZY_REFCOUNTS: u64 = 1 << 0;
/// The one method of encryption that is read and written.
pub(super) const CRYPT_LUKS: u32 = 2;
/// Autoclear feature bit: the bitmaps extension is valid.
const BITMAPS_VALID: u64 = 1 << 0;

/// Bounds that qemu sets and nobody exceeds in earnest.
pub(super) const MAX_L1_BYTES: u64 = 32 << 20;
pub(super) const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
const MAX_SNAPSHOTS: u32 = 65536;
const MAX_BACKING_NAME: u32 = 1023;

/// How compressed clusters are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// Raw deflate (RFC 1951), which the specification calls zlib.
    #[default]
    Zlib,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// The specification's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// The shape of clusters and tables: index arithmetic in one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Geometry {
    /// 9 to 21.
    pub(super) cluster_bits: u32,
    /// L2 entries of 16 bytes that speak of 32 subclusters each.
    pub(super) is_extended: bool,
}

impl Geometry {
    pub(super) const fn cluster_size(self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of an L2 entry.
    pub(super) const fn l2_entry_size(self) -> u64 {
        if self.is_extended { 16 } else { 8 }
    }

    /// Entries of an L2 table, which fills one cluster.
    pub(super) const fn l2_entries(self) -> u64 {
        self.cluster_size() / self.l2_entry_size()
    }

    /// Guest bytes one L1 entry stands for.
    pub(super) const fn l1_span(self) -> u64 {
        self.cluster_size() * self.l2_entries()
    }

    /// L1 entries a disk of `virtual_size` bytes needs.
    pub(super) const fn l1_needed(self, virtual_size: u64) -> u64 {
        virtual_size.div_ceil(self.l1_span())
    }

    /// Bytes that have a state of their own: a cluster, or a 32nd of one.
    pub(super) const fn granule(self) -> u64 {
        if self.is_extended {
            self.cluster_size() / 32
        } else {
            self.cluster_size()
        }
    }
}

/// A header whose fields fit each other. Says nothing yet of the tables it points to, nor of
/// features that forbid reading: see [`super::rules`].
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// 2 or 3.
    pub(super) version: u32,
    pub(super) geometry: Geometry,
    pub(super) virtual_size: u64,
    /// Where the name of the backing file stands, and its bytes (at most 1023).
    pub(super) backing_file: Option<(u64, u32)>,
    /// 0 none, 1 AES, 2 LUKS, others unknown.
    pub(super) crypt_method: u32,
    pub(super) l1_offset: HostOffset,
    /// Entries; at least as many as the virtual size needs.
    pub(super) l1_size: u32,
    pub(super) refcount_table_offset: HostOffset,
    pub(super) refcount_table_clusters: u32,
    pub(super) snapshots: u32,
    /// On a cluster border where there are snapshots.
    pub(super) snapshots_offset: HostOffset,
    pub(super) incompatible_features: u64,
    compatible_features: u64,
    autoclear_features: u64,
    /// 0 to 6: a refcount has `1 << refcount_order` bits.
    pub(super) refcount_order: u32,
    pub(super) header_length: u32,
    pub(super) compression: Compression,
}

/// The error of the field at `byte`.
fn malformed(byte: usize, message: String) -> Error {
    Error::malformed(Format::Qcow2, header_byte(byte), message)
}

/// The place of a header's field, for errors and findings.
pub(super) fn header_byte(byte: usize) -> String {
    format!("header, byte {byte}")
}

impl Header {
    /// Reads a header from the first bytes of a file; 512 are enough for any.
    ///
    /// # Errors
    /// `Malformed` for a short file and for values outside the specification, `Unsupported` for
    /// other versions and compression types.
    pub(super) fn parse(head: &[u8]) -> Result<Self> {
        let short = |at| {
            malformed(
                at,
                format!("the file ends at byte {} before it", head.len()),
            )
        };
        let u32_at = |at| be32(head, at).ok_or_else(|| short(at));
        let u64_at = |at| be64(head, at).ok_or_else(|| short(at));
        if head.get(..4).ok_or_else(|| short(0))? != MAGIC {
            return Err(malformed(0, "no magic number".into()));
        }
        let version = u32_at(4)?;
        if !(2..=3).contains(&version) {
            return Err(Error::unsupported(
                Format::Qcow2,
                header_byte(4),
                format!("version is {version}, 2 and 3 are read"),
            ));
        }
        let cluster_bits = within("cluster_bits", 20, u32_at(20)?, 9, 21)?;
        let is_v3 = version == 3;
        let v3_u64 = |at| if is_v3 { u64_at(at) } else { Ok(0) };
        let incompatible_features = v3_u64(72)?;
        let header_length = if is_v3 { u32_at(100)? } else { V2_LEN };
        let header = Self {
            version,
            geometry: Geometry {
                cluster_bits,
                is_extended: incompatible_features & incompatible::EXTENDED_L2 != 0,
            },
            virtual_size: u64_at(24)?,
            backing_file: match u64_at(8)? {
                0 => None,
                at => Some((at, u32_at(16)?)),
            },
            crypt_method: u32_at(32)?,
            l1_size: u32_at(36)?,
            l1_offset: HostOffset(u64_at(40)?),
            refcount_table_offset: HostOffset(u64_at(48)?),
            refcount_table_clusters: u32_at(56)?,
            snapshots: u32_at(60)?,
            snapshots_offset: HostOffset(u64_at(64)?),
            incompatible_features,
            compatible_features: v3_u64(80)?,
            autoclear_features: v3_u64(88)?,
            refcount_order: match is_v3 {
                true => within("refcount_order", 96, u32_at(96)?, 0, 6)?,
                false => 4,
            },
            header_length,
            compression: compression(head, header_length, incompatible_features)?,
        };
        header.check_fields()?;
        Ok(header)
    }

    /// What fields demand of each other.
    fn check_fields(&self) -> Result<()> {
        let cluster_size = self.geometry.cluster_size();
        if self.version == 3 {
            let most = u32::try_from(cluster_size).unwrap_or(u32::MAX);
            within("header_length", 100, self.header_length, V3_LEN, most)?;
        }
        if !self.header_length.is_multiple_of(8) {
            let message = format!(
                "header_length is {}, allowed multiples of 8",
                self.header_length
            );
            return Err(malformed(100, message));
        }
        if self.geometry.is_extended {
            within(
                "cluster_bits with extended L2",
                20,
                self.geometry.cluster_bits,
                14,
                21,
            )?;
        }
        if let Some((at, len)) = self.backing_file {
            within("backing_file_size", 16, len, 1, MAX_BACKING_NAME)?;
            if at < u64::from(self.header_length)
                || at
                    .checked_add(u64::from(len))
                    .is_none_or(|end| end > cluster_size)
            {
                let message = format!(
                    "backing_file_offset is {at:#x} with {len} bytes of name, allowed between the \
                     header and the end of its cluster at {cluster_size:#x}"
                );
                return Err(malformed(8, message));
            }
        }
        let needed = self.geometry.l1_needed(self.virtual_size);
        if u64::from(self.l1_size) < needed {
            let message = format!(
                "l1_size is {}, a disk of {} bytes needs {needed}",
                self.l1_size, self.virtual_size
            );
            return Err(malformed(36, message));
        }
        if self.l1_bytes() > MAX_L1_BYTES {
            let message = format!(
                "l1_size is {}, allowed at most {}",
                self.l1_size,
                MAX_L1_BYTES / 8
            );
            return Err(malformed(36, message));
        }
        self.aligned("l1_table_offset", 40, self.l1_offset)?;
        if self.l1_size > 0 && self.l1_offset == HostOffset::ZERO {
            return Err(malformed(40, "l1_table_offset is 0".into()));
        }
        self.aligned("refcount_table_offset", 48, self.refcount_table_offset)?;
        within("nb_snapshots", 60, self.snapshots, 0, MAX_SNAPSHOTS)?;
        if self.snapshots > 0 {
            self.aligned("snapshots_offset", 64, self.snapshots_offset)?;
        }
        Ok(())
    }

    fn aligned(&self, field: &str, byte: usize, at: HostOffset) -> Result<()> {
        let cluster_size = self.geometry.cluster_size();
        if at.0.is_multiple_of(cluster_size) {
            return Ok(());
        }
        let message = format!("{field} is {at}, allowed multiples of {cluster_size:#x}");
        Err(malformed(byte, message))
    }

    pub(super) fn has(&self, incompatible_feature: u64) -> bool {
        self.incompatible_features & incompatible_feature != 0
    }

    pub(super) fn has_lazy_refcounts(&self) -> bool {
        self.compatible_features & LAZY_REFCOUNTS != 0
    }

    pub(super) fn has_bitmaps(&self) -> bool {
        self.autoclear_features & BITMAPS_VALID != 0
    }

    pub(super) fn l1_bytes(&self) -> u64 {
        u64::from(self.l1_size) * 8
    }

    pub(super) fn refcount_table_bytes(&self) -> u64 {
        u64::from(self.refcount_table_clusters) << self.geometry.cluster_bits
    }

    /// Clusters one refcount block counts.
    pub(super) fn clusters_per_refcount_block(&self) -> u64 {
        (self.geometry.cluster_size() * 8) >> self.refcount_order
    }
}

fn within(field: &str, byte: usize, value: u32, least: u32, most: u32) -> Result<u32> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    let message = format!("{field} is {value}, allowed {least} to {most}");
    Err(malformed(byte, message))
}

fn compression(head: &[u8], header_length: u32, features: u64) -> Result<Compression> {
    let id = match header_length {
        0..=V3_LEN => 0,
        _ => *head
            .get(104)
            .ok_or_else(|| malformed(104, "the file ends before it".into()))?,
    };
    let is_flagged = features & incompatible::COMPRESSION_TYPE != 0;
    match id {
        0 if !is_flagged => Ok(Compression::Zlib),
        1 if is_flagged => Ok(Compression::Zstd),
        0 | 1 => Err(malformed(
            104,
            format!("compression_type is {id}, but incompatible feature bit 3 says otherwise"),
        )),
        _ => Err(Error::unsupported(
            Format::Qcow2,
            header_byte(104),
            format!("compression_type is {id}, 0 (zlib) and 1 (zstd) are read"),
        )),
    }
}

/// What differs between the headers written here.
pub(super) struct NewHeader {
    /// 2 or 3.
    pub(super) version: u32,
    pub(super) geometry: Geometry,
    pub(super) refcount_order: u32,
    pub(super) has_lazy_refcounts: bool,
    pub(super) virtual_size: u64,
    pub(super) compression: Compression,
    pub(super) l1_offset: HostOffset,
    pub(super) l1_size: u32,
    pub(super) refcount_table_offset: HostOffset,
    pub(super) refcount_table_clusters: u32,
}

impl NewHeader {
    /// The bytes of a header and an end marker behind it. Version 2 leaves out what it has no
    /// fields for.
    pub(super) fn emit(&self) -> Vec<u8> {
        let (mut features, compression) = match self.compression {
            Compression::Zlib => (0, 0),
            Compression::Zstd => (incompatible::COMPRESSION_TYPE, 1),
        };
        if self.geometry.is_extended {
            features |= incompatible::EXTENDED_L2;
        }
        let compatible = if self.has_lazy_refcounts {
            LAZY_REFCOUNTS
        } else {
            0
        };
        let mut out = Vec::with_capacity(EMITTED_LEN as usize + 8);
        out.extend(MAGIC);
        out.extend(self.version.to_be_bytes());
        out.extend([0; 12]); // backing file
        out.extend(self.geometry.cluster_bits.to_be_bytes());
        out.extend(self.virtual_size.to_be_bytes());
        out.extend([0; 4]); // crypt_method
        out.extend(self.l1_size.to_be_bytes());
        out.extend(self.l1_offset.0.to_be_bytes());
        out.extend(self.refcount_table_offset.0.to_be_bytes());
        out.extend(self.refcount_table_clusters.to_be_bytes());
        out.extend([0; 12]); // snapshots
        if self.version == 2 {
            out.resize(V2_LEN as usize + 8, 0);
            return out;
        }
        out.extend(features.to_be_bytes());
        out.extend(compatible.to_be_bytes());
        out.extend([0; 8]); // autoclear features
        out.extend(self.refcount_order.to_be_bytes());
        out.extend(EMITTED_LEN.to_be_bytes());
        out.push(compression);
        out.resize(EMITTED_LEN as usize + 8, 0);
        out
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A header of 64 KiB clusters and 16-bit refcounts.
    pub(in super::super) fn header() -> Header {
        Header::parse(&new().emit()).unwrap()
    }

    fn new() -> NewHeader {
        NewHeader {
            version: 3,
            geometry: Geometry {
                cluster_bits: 16,
                is_extended: false,
            },
            refcount_order: 4,
            has_lazy_refcounts: false,
            virtual_size: 1 << 30,
            compression: Compression::Zstd,
            l1_offset: HostOffset(0x20000),
            l1_size: 2,
            refcount_table_offset: HostOffset(0x10000),
            refcount_table_clusters: 1,
        }
    }

    /// A header with `bytes` put at `at`.
    fn with(at: usize, bytes: &[u8]) -> Result<Header> {
        let mut head = new().emit();
        head[at..at + bytes.len()].copy_from_slice(bytes);
        Header::parse(&head)
    }

    #[test]
    fn what_is_written_is_read() {
        let header = Header::parse(&new().emit()).unwrap();
        assert_eq!(header.version, 3);
        assert_eq!(header.geometry.cluster_size(), 65536);
        assert_eq!(header.geometry.l1_needed(header.virtual_size), 2);
        assert_eq!(header.virtual_size, 1 << 30);
        assert_eq!(header.compression, Compression::Zstd);
        assert_eq!((header.l1_size, header.l1_offset), (2, HostOffset(0x20000)));
        assert_eq!(header.refcount_table_bytes(), 65536);
        assert_eq!(header.clusters_per_refcount_block(), 32768);
        assert_eq!(header.header_length, 112);

        let mut new = new();
        new.geometry.is_extended = true;
        new.l1_size = 4;
        (new.refcount_order, new.has_lazy_refcounts) = (6, true);
        let header = Header::parse(&new.emit()).unwrap();
        assert!(header.geometry.is_extended && header.has_lazy_refcounts());
        assert_eq!(header.refcount_order, 6);
        new.version = 2;
        let header = Header::parse(&new.emit()).unwrap();
        assert_eq!((header.version, header.header_length), (2, 72));
    }

    #[test]
    fn every_field_is_bounded() {
        for (at, bytes, word) in [
            (4, &[0, 0, 0, 4][..], "version is 4"),
            (
                20,
                &[0, 0, 0, 31],
                "header, byte 20: cluster_bits is 31, allowed 9 to 21",
            ),
            (20, &[0, 0, 0, 8], "cluster_bits is 8"),
            (24, &[0xff; 8], "byte 36: l1_size is 2,"),
            (36, &[0xff; 4], "l1_size is 4294967295"),
            (40, &[0; 8], "l1_table_offset is 0"),
            (47, &[1], "l1_table_offset is 0x20001"),
            (55, &[1], "refcount_table_offset"),
            (60, &[0xff; 4], "nb_snapshots"),
            (15, &[8], "backing_file_size is 0"),
            (99, &[7], "refcount_order is 7"),
            (100, &[0xff; 4], "header_length"),
            (103, &[105], "multiples of 8"),
            (104, &[2], "compression_type is 2"),
            (104, &[0], "bit 3 says otherwise"),
        ] {
            let e = with(at, bytes).unwrap_err().to_string();
            assert!(
                e.starts_with("qcow2 header, byte ") && e.contains(word),
                "{e}"
            );
        }
        for len in 0..105 {
            assert!(Header::parse(&new().emit()[..len]).is_err(), "{len}");
        }
    }
}
