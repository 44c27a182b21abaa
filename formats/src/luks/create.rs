//! A new header of version 1, as qcow2 keeps one: AES-256 in XTS, one key slot.

use aes::Aes256;
use cipher::{Array, BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

use super::cipher::{SectorCipher, Spec};
use super::hash::{self, Hash};
use super::kdf::{Kdf, Work};
use super::v1::{DIGEST_LEN, DISABLED, ENABLED, LEN, SLOT_COUNT, SLOT_LEN, SLOTS};
use super::{MAGIC, SECTOR};
use crate::{Passphrase, Result};

const HASH: Hash = Hash::Sha256;
const KEY_LEN: usize = 64;
const STRIPES: u32 = 4000;
/// Key material begins on these borders, in sectors: 4096 bytes.
const ALIGNMENT: u32 = 8;

/// A header and what follows from it.
pub(crate) struct NewHeader {
    /// The header with the material of its key slot; what lies behind is zero.
    pub(crate) bytes: Vec<u8>,
    /// Bytes of the header with room for the material of all key slots.
    pub(crate) len: u64,
    pub(crate) cipher: SectorCipher,
}

/// Makes a header that `passphrase` opens. Its keys, salts and the rest that is left to chance
/// are drawn from `seed`: whoever knows that knows them. `iterations` is what PBKDF2 takes.
///
/// # Errors
/// `Malformed` for no iterations, `Limit` for more than would be opened again.
pub(crate) fn create(
    passphrase: &Passphrase,
    seed: &[u8; 32],
    iterations: u32,
) -> Result<NewHeader> {
    let mut chance = Chance::new(seed);
    let mut work = Work::default();
    let mut key = Zeroizing::new([0; KEY_LEN]);
    chance.fill(key.as_mut_slice());
    let digest_salt: [u8; 32] = chance.array();
    let slot_salt: [u8; 32] = chance.array();
    let mut pbkdf2 = |secret: &[u8], salt: &[u8], len| {
        let kdf = Kdf::Pbkdf2 {
            hash: HASH,
            iterations,
            salt: salt.to_vec(),
        };
        kdf.derive(secret, len, &mut work)
    };
    let digest = pbkdf2(key.as_slice(), &digest_salt, DIGEST_LEN)?;
    let slot_key = pbkdf2(passphrase.bytes(), &slot_salt, KEY_LEN)?;

    let spec = Spec::parse("aes-xts-plain64")?;
    let mut material = vec![0; hash::split_len(KEY_LEN, STRIPES)?];
    chance.fill(&mut material);
    hash::split(HASH, key.as_slice(), &mut material);
    spec.key(&slot_key)?
        .encrypt(&mut material, SECTOR as usize, 0);

    let sectors = (material.len() as u32).div_ceil(SECTOR as u32);
    let slot_sectors = sectors.next_multiple_of(ALIGNMENT);
    let payload = ALIGNMENT + SLOT_COUNT as u32 * slot_sectors;
    let mut bytes = vec![0; LEN as usize];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, MAGIC);
    put(6, &1u16.to_be_bytes());
    put(8, b"aes");
    put(40, b"xts-plain64");
    put(72, b"sha256");
    put(104, &payload.to_be_bytes());
    put(108, &(KEY_LEN as u32).to_be_bytes());
    put(112, &digest);
    put(132, &digest_salt);
    put(164, &iterations.to_be_bytes());
    put(168, uuid(chance.array()).as_bytes());
    for n in 0..SLOT_COUNT {
        let at = SLOTS + n * SLOT_LEN;
        let state = if n == 0 { ENABLED } else { DISABLED };
        put(at, &state.to_be_bytes());
        if n == 0 {
            put(at + 4, &iterations.to_be_bytes());
            put(at + 8, &slot_salt);
        }
        put(
            at + 40,
            &(ALIGNMENT + n as u32 * slot_sectors).to_be_bytes(),
        );
        put(at + 44, &STRIPES.to_be_bytes());
    }
    bytes.resize(ALIGNMENT as usize * SECTOR as usize, 0);
    bytes.extend(material);
    Ok(NewHeader {
        bytes,
        len: u64::from(payload) * SECTOR,
        cipher: spec.key(key.as_slice())?,
    })
}

/// Bytes nobody can foretell without the seed: AES-256 in counter mode.
struct Chance {
    cipher: Aes256,
    counter: u128,
}

impl Chance {
    fn new(seed: &[u8; 32]) -> Self {
        Self {
            cipher: Aes256::new(&Array(*seed)),
            counter: 0,
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(16) {
            let mut block = Array(self.counter.to_le_bytes());
            self.cipher.encrypt_block(&mut block);
            piece.copy_from_slice(&block[..piece.len()]);
            self.counter += 1;
        }
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        self.fill(&mut array);
        array
    }
}

/// A UUID of version 4 (RFC 9562) as text.
fn uuid(chance: [u8; 16]) -> String {
    let version = 4 << 76;
    let variant = 2 << 62;
    let number = u128::from_be_bytes(chance) & !(0xf << 76) & !(3 << 62) | version | variant;
    let text = format!("{number:032x}");
    [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::super::v1::Header;
    use super::*;

    #[test]
    fn what_is_made_is_opened() {
        let passphrase = Passphrase::new(b"open sesame").unwrap();
        let made = create(&passphrase, &[7; 32], 1000).unwrap();
        assert_eq!(made.len, 4040 * 512);
        let header = Header::parse(&made.bytes).unwrap();
        let cipher = header.unlock(&made.bytes, &passphrase).unwrap();
        let mut sector = [5; 512];
        made.cipher.encrypt(&mut sector, 512, 99);
        cipher.decrypt(&mut sector, 512, 99);
        assert_eq!(sector, [5; 512]);
        let other = Passphrase::new(b"shazam").unwrap();
        assert!(header.unlock(&made.bytes, &other).is_err());

        let again = create(&passphrase, &[7; 32], 1000).unwrap();
        assert!(again.bytes == made.bytes);
        let differs = create(&passphrase, &[8; 32], 1000).unwrap();
        assert_ne!(differs.bytes[112..208], made.bytes[112..208]);
    }

    #[test]
    fn a_uuid_says_its_version() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
    }
}
