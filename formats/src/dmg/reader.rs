use std::collections::VecDeque;
use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::layout::{self, Chunk, Coding, Trailer};
use super::{adc, lzfse};
use crate::disk::check_range;
use crate::{
    Disk, Error, Extent, ExtentKind, Format, GuestOffset, HostOffset, Limits, MAX_EXTENTS, Result,
    Source, guest_len, push_extent, read_up_to,
};

/// A UDIF disk.
pub(super) struct Reader {
    source: Arc<dyn Source>,
    size: u64,
    /// In guest order, without overlap.
    chunks: Vec<Chunk>,
    /// Chunks unpacked last, by index, oldest first.
    unpacked: Mutex<VecDeque<(usize, Arc<Vec<u8>>)>>,
    /// Bytes of them to keep.
    cache: u64,
}

impl Reader {
    pub(super) fn new(source: Arc<dyn Source>, trailer: &Trailer, limits: &Limits) -> Result<Self> {
        let size = limits.virtual_size(Format::Dmg, trailer.size)?;
        let len = trailer.xml.end - trailer.xml.start;
        let len = limits.table(Format::Dmg, "property list", len)?;
        let xml = read_up_to(source.as_ref(), HostOffset(trailer.xml.start), len)?;
        let chunks = layout::chunks(&xml, trailer, limits)?;
        drop(xml);
        Ok(Self {
            source,
            size,
            chunks,
            unpacked: Mutex::default(),
            cache: limits.cache,
        })
    }

    /// The pieces `range` is made of, and the chunk each lies in.
    fn pieces(
        &self,
        range: Range<GuestOffset>,
    ) -> impl Iterator<Item = (Range<GuestOffset>, Option<usize>)> {
        let mut at = range.start;
        let mut n = self.chunks.partition_point(|chunk| chunk.guest.end <= at);
        std::iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let start = at;
            let chunk = self.chunks.get(n).map(|chunk| &chunk.guest);
            let found = match chunk {
                Some(chunk) if chunk.start <= at => {
                    at = chunk.end.min(range.end);
                    n += 1;
                    Some(n - 1)
                }
                gap => {
                    at = gap.map_or(range.end, |chunk| chunk.start.min(range.end));
                    None
                }
            };
            Some((start..at, found))
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(usize, Arc<Vec<u8>>)>> {
        self.unpacked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a packed chunk.
    fn unpacked(&self, n: usize) -> Result<Arc<Vec<u8>>> {
        if let Some((_, bytes)) = self.lock().iter().find(|(known, _)| *known == n) {
            return Ok(bytes.clone());
        }
        let chunk = &self.chunks[n];
        let malformed = || {
            Error::malformed(
                Format::Dmg,
                "chunk",
                format!(
                    "the {} bytes at {} do not unpack to it",
                    chunk.len, chunk.host
                ),
            )
        };
        // Both lengths are within `Limits::table`.
        let packed_len = usize::try_from(chunk.len).map_err(|_| malformed())?;
        let len = usize::try_from(guest_len(&chunk.guest)).map_err(|_| malformed())?;
        let packed = read_up_to(self.source.as_ref(), chunk.host, packed_len)?;
        let bytes = unpack(chunk.coding, &packed, len).ok_or_else(malformed)?;
        let bytes = Arc::new(bytes);
        let mut known = self.lock();
        known.push_back((n, bytes.clone()));
        let mut held: u64 = known.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        while held > self.cache && known.len() > 1 {
            held -= known.pop_front().map_or(0, |(_, bytes)| bytes.len() as u64);
        }
        Ok(bytes)
    }
}

/// Unpacks exactly `len` bytes.
fn unpack(coding: Coding, packed: &[u8], len: usize) -> Option<Vec<u8>> {
    match coding {
        Coding::Adc => adc::decode(packed, len),
        Coding::Lzfse => lzfse::decode(packed, len),
        Coding::Zlib => {
            let mut bytes = vec![0; len];
            let got = libdeflater::Decompressor::new().zlib_decompress(packed, &mut bytes);
            (got == Ok(len)).then_some(bytes)
        }
        Coding::Bzip2 => exactly(bzip2::read::BzDecoder::new(packed), len),
        Coding::Lzma => exactly(liblzma::read::XzDecoder::new(packed), len),
        Coding::Zero | Coding::Raw => None,
    }
}

fn exactly(mut reader: impl Read, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    reader.read_exact(&mut bytes).ok()?;
    matches!(reader.read(&mut [0]), Ok(0)).then_some(bytes)
}

impl Disk for Reader {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn unit(&self) -> u64 {
        1 << 20
    }

    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        check_range(range.start, guest_len(&range), self.size)?;
        let most = out.len() + MAX_EXTENTS;
        for (range, n) in self.pieces(range) {
            let kind = match n.map(|n| &self.chunks[n]) {
                None => ExtentKind::Unallocated,
                Some(chunk) => match chunk.coding {
                    Coding::Zero => ExtentKind::Zero,
                    Coding::Raw => ExtentKind::Data {
                        host: chunk.host.checked_add(range.start.since(chunk.guest.start)),
                    },
                    _ => ExtentKind::Encoded,
                },
            };
            push_extent(out, Extent { range, kind });
            if out.len() >= most {
                break;
            }
        }
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        check_range(at, buf.len() as u64, self.size)?;
        let mut rest = &mut buf[..];
        for (range, n) in self.pieces(at..GuestOffset(at.0 + rest.len() as u64)) {
            let (part, after) = rest.split_at_mut(guest_len(&range) as usize);
            rest = after;
            let Some(n) = n else {
                part.fill(0);
                continue;
            };
            let chunk = &self.chunks[n];
            let skip = range.start.since(chunk.guest.start);
            match chunk.coding {
                Coding::Zero => part.fill(0),
                Coding::Raw => {
                    let host = HostOffset(chunk.host.0 + skip);
                    self.source.read_exact_at(part, host)?;
                }
                _ => {
                    let bytes = self.unpacked(n)?;
                    part.copy_from_slice(&bytes[skip as usize..][..part.len()]);
                }
            }
        }
        Ok(())
    }
}
