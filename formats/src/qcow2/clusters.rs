//! Compressed clusters.

use std::cell::RefCell;
use std::sync::Arc;

use super::cache::Cache;
use super::layout::Compression;
use crate::codec::{deflate, zstd};
use crate::{Error, Format, GuestOffset, HostOffset, Result, Source};

thread_local! {
    /// The compressed bytes of the cluster at hand: two clusters at most.
    static PACKED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Inflates clusters. Shared by threads.
pub(super) struct Clusters {
    source: Arc<dyn Source>,
    compression: Compression,
    cluster_size: usize,
    /// Inflated clusters of which only a part was wanted, by guest cluster.
    parts: Cache<[u8]>,
}

impl Clusters {
    /// `cache` is the bytes of memory for clusters that are read in parts.
    pub(super) fn new(
        source: Arc<dyn Source>,
        compression: Compression,
        cluster_size: usize,
        cache: u64,
    ) -> Self {
        Self {
            source,
            compression,
            cluster_size,
            parts: Cache::new(cache, cluster_size as u64),
        }
    }

    /// Fills `buf` with the guest bytes from `guest`, all in the cluster whose `len` compressed
    /// bytes are at `at`.
    ///
    /// # Errors
    /// `Malformed` when they do not inflate to exactly a cluster, `Io`.
    pub(super) fn read(
        &self,
        buf: &mut [u8],
        guest: GuestOffset,
        at: HostOffset,
        len: u64,
    ) -> Result<()> {
        if buf.len() == self.cluster_size {
            return self.inflate(buf, guest, at, len);
        }
        let unit = self.cluster_size as u64;
        let cluster = self.parts.get(guest.0 / unit, || {
            let mut cluster: Arc<[u8]> = std::iter::repeat_n(0, self.cluster_size).collect();
            let bytes = Arc::get_mut(&mut cluster).expect("nobody else holds it yet");
            self.inflate(bytes, guest, at, len)?;
            Ok::<_, Error>(cluster)
        })?;
        let start = (guest.0 % unit) as usize;
        buf.copy_from_slice(&cluster[start..start + buf.len()]);
        Ok(())
    }

    fn inflate(
        &self,
        cluster: &mut [u8],
        guest: GuestOffset,
        at: HostOffset,
        len: u64,
    ) -> Result<()> {
        let made = PACKED.with_borrow_mut(|packed| {
            // The entry bounds it to two clusters; the last sector may be cut by the file's end.
            let len = len.min(HostOffset(self.source.len()).since(at)) as usize;
            if packed.len() < len {
                packed.resize(len, 0);
            }
            let packed = &mut packed[..len];
            self.source.read_exact_at(packed, at)?;
            Ok(match self.compression {
                Compression::Zlib => deflate::inflate_raw(packed, cluster),
                Compression::Zstd => zstd::inflate(packed, cluster),
            })
        })?;
        let what = match made {
            Ok(made) if made == cluster.len() => return Ok(()),
            Ok(made) => format!("inflates to {made} bytes, a cluster has {}", cluster.len()),
            Err(fault) => fault.to_string(),
        };
        Err(Error::malformed(
            Format::Qcow2,
            "compressed cluster",
            format!("of guest offset {guest} at {at} {what}"),
        ))
    }
}
