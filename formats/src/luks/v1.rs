//! The header of version 1: 592 bytes, big-endian.

use std::ops::Range;

use zeroize::Zeroizing;

use super::cipher::{SectorCipher, Spec};
use super::hash::{self, Hash};
use super::kdf::{Kdf, Work};
use super::sectors::Sectors;
use super::{SECTOR, Slots, payload_size, shown, text};
use crate::bytes::be32;
use crate::inspect::Facts;
use crate::{Error, Format, Passphrase, Result, Source};

/// Bytes of the header.
pub(super) const LEN: u64 = 592;
pub(super) const SLOTS: usize = 208;
pub(super) const SLOT_LEN: usize = 48;
pub(super) const SLOT_COUNT: usize = 8;
pub(super) const ENABLED: u32 = 0x00ac_71f3;
pub(super) const DISABLED: u32 = 0x0000_dead;
/// Bytes of the digest of the volume key.
pub(super) const DIGEST_LEN: usize = 20;

/// A header whose key slots lie apart from each other, between it and the payload.
pub(super) struct Header {
    cipher: String,
    mode: String,
    hash: String,
    uuid: String,
    /// Where the payload begins, in bytes; 0 in a detached header.
    payload: u64,
    key_len: u32,
    digest: Vec<u8>,
    digest_salt: Vec<u8>,
    digest_iterations: u32,
    /// The enabled ones.
    slots: Vec<Slot>,
}

struct Slot {
    iterations: u32,
    salt: Vec<u8>,
    material: Range<u64>,
    stripes: u32,
}

impl Header {
    pub(super) fn parse(header: &[u8]) -> Result<Self> {
        if (header.len() as u64) < LEN {
            return Err(malformed(format!(
                "the file ends at byte {} within it",
                header.len()
            )));
        }
        let field = |at| be32(header, at).ok_or_else(|| malformed("the file ends within it"));
        let bytes = |range: Range<usize>| header.get(range).unwrap_or_default().to_vec();
        let payload = u64::from(field(104)?) * SECTOR;
        let key_len = field(108)?;

        let mut slots = Vec::new();
        let mut taken: Vec<(usize, Range<u64>)> = Vec::new();
        for n in 0..SLOT_COUNT {
            let at = SLOTS + n * SLOT_LEN;
            let is_enabled = match field(at)? {
                ENABLED => true,
                DISABLED => false,
                state => {
                    return Err(malformed(format!(
                        "key slot {n} is in state {state:#x} at byte {at}, allowed {ENABLED:#x} \
                         and {DISABLED:#x}"
                    )));
                }
            };
            let start = u64::from(field(at + 40)?) * SECTOR;
            let stripes = field(at + 44)?;
            let len = u64::from(key_len) * u64::from(stripes);
            let material = start..start.saturating_add(len);
            // A payload at 0 lies in another device: the header is detached.
            if material.start < LEN || (payload != 0 && material.end > payload) {
                return Err(malformed(format!(
                    "key slot {n} has its material at bytes {material:?}, allowed {LEN} to \
                     {payload}"
                )));
            }
            let clash = taken
                .iter()
                .find(|(_, other)| material.start < other.end && other.start < material.end);
            if let Some((other, _)) = clash {
                return Err(malformed(format!(
                    "the material of key slots {other} and {n} overlaps"
                )));
            }
            taken.push((n, material.clone()));
            if is_enabled {
                slots.push(Slot {
                    iterations: field(at + 4)?,
                    salt: bytes(at + 8..at + 40),
                    material,
                    stripes,
                });
            }
        }
        Ok(Self {
            cipher: text(header.get(8..40)),
            mode: text(header.get(40..72)),
            hash: text(header.get(72..104)),
            uuid: text(header.get(168..208)),
            payload,
            key_len,
            digest: bytes(112..112 + DIGEST_LEN),
            digest_salt: bytes(132..164),
            digest_iterations: field(164)?,
            slots,
        })
    }

    pub(super) fn describe(&self, file_len: Option<u64>) -> Facts {
        let mut facts = Facts::new(Format::Luks);
        facts.detail("version", 1);
        facts.detail("cipher", shown(&self.cipher));
        facts.detail("cipher_mode", shown(&self.mode));
        facts.detail("key_bits", u64::from(self.key_len) * 8);
        facts.detail("hash", shown(&self.hash));
        facts.detail("uuid", shown(&self.uuid));
        facts.detail("active_key_slots", self.slots.len());
        facts.virtual_size = payload_size(&mut facts, self.payload, file_len, SECTOR);
        facts
    }

    /// Where the payload lies, in bytes of the file.
    ///
    /// # Errors
    /// `Unsupported` for a header without its payload, `Malformed` for a file that ends before.
    pub(super) fn payload(&self, file_len: u64) -> Result<Range<u64>> {
        if self.payload == 0 {
            return Err(Error::unsupported(
                Format::Luks,
                "header",
                "is detached: its payload is another file, of which it says nothing",
            ));
        }
        let len = file_len.checked_sub(self.payload).ok_or_else(|| {
            malformed(format!(
                "the payload begins at byte {}, the file ends at {file_len}",
                self.payload
            ))
        })?;
        Ok(self.payload..self.payload + (len - len % SECTOR))
    }

    /// The cipher of the payload, if `passphrase` opens a key slot. Key material is read from
    /// `source`, which begins with the header.
    ///
    /// # Errors
    /// `Refused` for a passphrase that opens none; else what stood in the way.
    pub(super) fn unlock(
        &self,
        source: &dyn Source,
        passphrase: &Passphrase,
    ) -> Result<SectorCipher> {
        let spec = Spec::parse(&format!("{}-{}", self.cipher, self.mode))?;
        let hash = Hash::named(&self.hash)?;
        let digest = Kdf::Pbkdf2 {
            hash,
            iterations: self.digest_iterations,
            salt: self.digest_salt.clone(),
        };
        let mut work = Work::default();
        let mut slots = Slots::default();
        for slot in &self.slots {
            let opened = self.open(slot, spec, hash, source, passphrase, &mut work);
            let Some(key) = slots.tried(opened)? else {
                continue;
            };
            if *digest.derive(&key, DIGEST_LEN, &mut work)? == self.digest {
                return spec.key(&key);
            }
        }
        Err(slots.none_opened())
    }

    /// What the key of the volume is if `passphrase` belongs to `slot`.
    fn open(
        &self,
        slot: &Slot,
        spec: Spec,
        hash: Hash,
        source: &dyn Source,
        passphrase: &Passphrase,
        work: &mut Work,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let key_len = self.key_len as usize;
        let mut material = vec![0; hash::split_len(key_len, slot.stripes)?];
        let kdf = Kdf::Pbkdf2 {
            hash,
            iterations: slot.iterations,
            salt: slot.salt.clone(),
        };
        let slot_key = kdf.derive(passphrase.bytes(), key_len, work)?;
        let sectors = Sectors::plain(spec.key(&slot_key)?, slot.material.start);
        sectors.read(source, &mut material, 0)?;
        let mut key = Zeroizing::new(vec![0; key_len]);
        hash::merge(hash, &material, &mut key);
        Ok(key)
    }
}

fn malformed(message: impl Into<String>) -> Error {
    Error::malformed(Format::Luks, "header", message)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A volume of 16 sectors behind its header.
    pub(in crate::luks) fn volume() -> Vec<u8> {
        let mut file = vec![0; 592];
        file[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
        file[8..11].copy_from_slice(b"aes");
        file[40..51].copy_from_slice(b"xts-plain64");
        file[72..78].copy_from_slice(b"sha256");
        file[104..108].copy_from_slice(&4096u32.to_be_bytes());
        file[108..112].copy_from_slice(&32u32.to_be_bytes());
        for n in 0..8u32 {
            let slot = &mut file[208 + 48 * n as usize..][..48];
            let state = if n == 0 { ENABLED } else { DISABLED };
            slot[..4].copy_from_slice(&state.to_be_bytes());
            slot[40..44].copy_from_slice(&(8 + n * 256).to_be_bytes());
            slot[44..48].copy_from_slice(&4000u32.to_be_bytes());
        }
        file.resize(4096 * 512 + 8192, 0);
        file
    }
}
