//! Header extensions and the name of the backing file: what the first cluster holds behind the
//! header.

use super::bitmaps::Directory;
use super::layout::Header;
use crate::bytes::{be32, be64};
use crate::{Error, Format, HostOffset, Result};

/// What the header extensions say, as far as it matters here.
#[derive(Clone, Debug, Default)]
pub(super) struct Extensions {
    pub(super) backing_format: Option<String>,
    pub(super) data_file: Option<String>,
    pub(super) bitmaps: Option<Directory>,
    /// Where the LUKS header lies, and its bytes; as it is said, not checked.
    pub(super) encryption_header: Option<(HostOffset, u64)>,
}

pub(super) mod extension {
    pub(super) const END: u32 = 0;
    pub(super) const BACKING_FORMAT: u32 = 0xe279_2aca;
    pub(super) const DATA_FILE: u32 = 0x4441_5441;
    pub(super) const BITMAPS: u32 = 0x2385_2875;
    pub(in super::super) const ENCRYPTION: u32 = 0x0537_be77;
}

impl Extensions {
    /// Walks the extensions in `head`, the first bytes of the file: from the end of the header
    /// to the name of the backing file, or the end of the cluster, or an end marker.
    ///
    /// # Errors
    /// `Malformed` when one reaches past that area.
    pub(super) fn parse(header: &Header, head: &[u8]) -> Result<Self> {
        let cluster_size = header.geometry.cluster_size();
        let end = header.backing_file.map_or(cluster_size, |(at, _)| at);
        let end = usize::try_from(end).map_or(head.len(), |end| end.min(head.len()));
        let area = &head[..end];
        let mut found = Self::default();
        let mut at = header.header_length as usize;
        while let (Some(id), Some(len)) = (be32(area, at), be32(area, at + 4)) {
            if id == extension::END {
                break;
            }
            let start = at + 8;
            let data = usize::try_from(len)
                .ok()
                .and_then(|len| area.get(start..start.checked_add(len)?))
                .ok_or_else(|| {
                    Error::malformed(
                        Format::Qcow2,
                        format!("header extension, byte {at}"),
                        format!("{id:#010x} has {len} bytes and ends past {end:#x}"),
                    )
                })?;
            match id {
                extension::BACKING_FORMAT => found.backing_format = Some(text(data)),
                extension::DATA_FILE => found.data_file = Some(text(data)),
                extension::BITMAPS => found.bitmaps = Directory::parse(data),
                extension::ENCRYPTION => {
                    found.encryption_header = be64(data, 0).map(HostOffset).zip(be64(data, 8));
                }
                _ => {}
            }
            at = start + data.len().next_multiple_of(8);
        }
        Ok(found)
    }
}

/// The name of the backing file, as far as `head` holds it.
pub(super) fn backing_name(header: &Header, head: &[u8]) -> Option<String> {
    let (at, len) = header.backing_file?;
    let start = usize::try_from(at).ok()?;
    head.get(start..start.checked_add(usize::try_from(len).ok()?)?)
        .map(text)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::layout::{Compression, Geometry, NewHeader};
    use super::*;

    #[test]
    fn extensions_stay_inside_their_area() {
        let mut head = NewHeader {
            version: 3,
            geometry: Geometry {
                cluster_bits: 16,
                is_extended: false,
            },
            refcount_order: 4,
            has_lazy_refcounts: false,
            virtual_size: 0,
            compression: Compression::Zlib,
            l1_offset: HostOffset(0x20000),
            l1_size: 0,
            refcount_table_offset: HostOffset(0x10000),
            refcount_table_clusters: 1,
        }
        .emit();
        head.truncate(112);
        head.extend(extension::BACKING_FORMAT.to_be_bytes());
        head.extend(5u32.to_be_bytes());
        head.extend(b"qcow2\0\0\0");
        head.extend(extension::DATA_FILE.to_be_bytes());
        head.extend(3u32.to_be_bytes());
        head.extend(b"raw\0\0\0\0\0");
        head.extend([0; 8]);
        let header = Header::parse(&head).unwrap();
        let found = Extensions::parse(&header, &head).unwrap();
        assert_eq!(found.backing_format.as_deref(), Some("qcow2"));
        assert_eq!(found.data_file.as_deref(), Some("raw"));
        head[116..120].fill(0xff);
        let e = Extensions::parse(&header, &head).unwrap_err();
        assert!(
            e.to_string().contains("extension, byte 112: 0xe2792aca"),
            "{e}"
        );
    }
}
