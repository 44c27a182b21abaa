//! Encrypted bytes in a source, read from any byte on.

use super::cipher::{IV_UNIT, MAX_SECTOR, SectorCipher};
use crate::{HostOffset, Result, Source};

/// A run of encrypted sectors. Shared by threads.
pub(crate) struct Sectors {
    cipher: SectorCipher,
    /// Where the first one begins in the source.
    origin: u64,
    /// Bytes of a sector: 512 to 4096, a power of two.
    sector_size: usize,
    /// What the initialization vectors count from, in units of 512 bytes.
    first_iv: u64,
}

impl Sectors {
    /// Sectors from byte `origin` of the source on.
    pub(crate) fn new(
        cipher: SectorCipher,
        origin: u64,
        sector_size: usize,
        first_iv: u64,
    ) -> Self {
        Self {
            cipher,
            origin,
            sector_size,
            first_iv,
        }
    }

    /// Sectors of 512 bytes, counted from zero.
    pub(crate) fn plain(cipher: SectorCipher, origin: u64) -> Self {
        Self::new(cipher, origin, IV_UNIT as usize, 0)
    }

    /// Fills `buf` with what is in the clear from byte `at` on, counted from the first sector.
    /// The sectors it touches must be in the source as a whole.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn read(&self, source: &dyn Source, buf: &mut [u8], at: u64) -> Result<()> {
        let size = self.sector_size;
        let into = (at % size as u64) as usize;
        // A sector begun in the middle, then whole ones, then a sector begun.
        let head = if into == 0 {
            0
        } else {
            (size - into).min(buf.len())
        };
        let (head, rest) = buf.split_at_mut(head);
        let whole = rest.len() - rest.len() % size;
        let (whole, tail) = rest.split_at_mut(whole);
        let mut start = at - into as u64;
        if !head.is_empty() {
            self.read_part(source, head, start, into)?;
            start += size as u64;
        }
        if !whole.is_empty() {
            self.read_whole(source, whole, start)?;
            start += whole.len() as u64;
        }
        if !tail.is_empty() {
            self.read_part(source, tail, start, 0)?;
        }
        Ok(())
    }

    fn read_whole(&self, source: &dyn Source, sectors: &mut [u8], at: u64) -> Result<()> {
        source.read_exact_at(sectors, HostOffset(self.origin.saturating_add(at)))?;
        let number = self.first_iv.wrapping_add(at / IV_UNIT);
        self.cipher.decrypt(sectors, self.sector_size, number);
        Ok(())
    }

    /// Fills `buf` from byte `into` of the sector at `at`.
    fn read_part(&self, source: &dyn Source, buf: &mut [u8], at: u64, into: usize) -> Result<()> {
        let mut sector = [0; MAX_SECTOR];
        let sector = &mut sector[..self.sector_size];
        self.read_whole(source, sector, at)?;
        buf.copy_from_slice(&sector[into..into + buf.len()]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::cipher::Spec;
    use super::*;

    #[test]
    fn any_range_is_read() {
        let plain: Vec<u8> = (0..40_960u32)
            .map(|n| (n.wrapping_mul(n) >> 9) as u8)
            .collect();
        for size in [512, 1024, 2048, 4096] {
            let cipher = || {
                let spec = Spec::parse("aes-xts-plain64").unwrap();
                spec.key(&[7; 32]).unwrap()
            };
            let mut stored = vec![0xee; 100];
            stored.extend(&plain);
            cipher().encrypt(&mut stored[100..], size, 5);
            let sectors = Sectors::new(cipher(), 100, size, 5);
            for at in [0, 1, 511, 512, 700, 4095, 4096, 9000] {
                for len in [0, 1, 100, 511, 512, 513, 4096, 4097, 20_000] {
                    let mut buf = vec![0; len];
                    sectors.read(&stored, &mut buf, at as u64).unwrap();
                    assert!(buf == plain[at..at + len], "{size} {at} {len}");
                }
            }
            let past = sectors.read(&stored, &mut [0; 2], plain.len() as u64 - 1);
            assert!(past.is_err());
        }
    }
}
