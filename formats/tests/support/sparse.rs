//! Files of many MiB in few bytes, for formats that spread their structures.
//!
//! ```text
//!  number of sectors kept, 2 bytes · length of the file in sectors, 2 · place of each, 2 · sectors
//! ```
//! All little-endian; sectors of 512 bytes, the others are zero. Any bytes are such a file.

use std::collections::BTreeMap;
use std::ops::Range;

use formats::{HostOffset, Result, Source};

const SECTOR: usize = 512;

/// A file of which most is zero.
#[derive(Clone, Default)]
pub(crate) struct Sparse {
    len: u64,
    sectors: BTreeMap<u64, [u8; SECTOR]>,
}

impl Sparse {
    /// The file that `packed` stands for.
    pub(crate) fn unpack(packed: &[u8]) -> Self {
        let word = |n: usize| {
            let byte = |at: usize| packed.get(at).copied().unwrap_or(0);
            u64::from(u16::from_le_bytes([byte(2 * n), byte(2 * n + 1)]))
        };
        let (count, len) = (word(0) as usize, word(1));
        let data = packed.get(4 + 2 * count..).unwrap_or_default();
        let sectors = data.chunks(SECTOR).take(count).enumerate();
        let mut file = Self {
            len: len * SECTOR as u64,
            sectors: BTreeMap::new(),
        };
        for (n, bytes) in sectors {
            let mut sector = [0; SECTOR];
            sector[..bytes.len()].copy_from_slice(bytes);
            let place = word(2 + n);
            if place < len {
                file.sectors.insert(place, sector);
            }
        }
        file
    }

    /// The bytes that [`unpack`](Self::unpack) makes `file` of again, as far as it is whole
    /// sectors.
    pub(crate) fn pack(file: &[u8]) -> Vec<u8> {
        let kept: Vec<_> = (0u16..)
            .zip(file.chunks(SECTOR))
            .filter(|(_, sector)| sector.iter().any(|b| *b != 0))
            .collect();
        let word = |n: usize| u16::try_from(n).expect("32 MiB at most").to_le_bytes();
        let mut packed = [word(kept.len()), word(file.len() / SECTOR)].concat();
        packed.extend(kept.iter().flat_map(|(place, _)| place.to_le_bytes()));
        packed.extend(kept.iter().flat_map(|(_, sector)| *sector));
        packed
    }

    /// Up to `len` bytes from `at`.
    pub(crate) fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let rest = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(rest)];
        self.fill(&mut bytes, at);
        bytes
    }

    /// Writes `bytes` at `at`, as far as the file reaches.
    pub(crate) fn put(&mut self, bytes: &[u8], at: u64) {
        for (at, byte) in (at..self.len).zip(bytes) {
            let (n, within) = (at / SECTOR as u64, at as usize % SECTOR);
            self.sectors.entry(n).or_insert([0; SECTOR])[within] = *byte;
        }
    }

    fn fill(&self, buf: &mut [u8], at: u64) {
        buf.fill(0);
        let end = at + buf.len() as u64;
        let first = at / SECTOR as u64;
        let last = end.div_ceil(SECTOR as u64);
        for (place, sector) in self.sectors.range(first..last) {
            let start = place * SECTOR as u64;
            let (from, to) = (at.max(start), end.min(start + SECTOR as u64));
            if from < to {
                buf[(from - at) as usize..(to - at) as usize]
                    .copy_from_slice(&sector[(from - start) as usize..(to - start) as usize]);
            }
        }
    }
}

impl Source for Sparse {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], at: HostOffset) -> Result<()> {
        let end = at.0.checked_add(buf.len() as u64);
        if !buf.is_empty() && end.is_none_or(|end| end > self.len) {
            let past = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(formats::Error::io(format!("reading at {at}"), past));
        }
        if !buf.is_empty() {
            self.fill(buf, at.0);
        }
        Ok(())
    }

    fn next_data(&self, from: HostOffset) -> Result<Option<Range<HostOffset>>> {
        let mut rest = self.sectors.range(from.0 / SECTOR as u64..);
        Ok(rest.next().map(|(place, _)| {
            let start = place * SECTOR as u64;
            HostOffset(start.max(from.0))..HostOffset(start + SECTOR as u64)
        }))
    }
}
