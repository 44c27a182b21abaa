//! Ciphers of sectors, by the names dm-crypt gives them: `aes-xts-plain64` is the block cipher,
//! the mode that chains its blocks, and what makes the same bytes differ between sectors.
//!
//! The block ciphers are those of the RustCrypto project, which uses the processor's own AES.
//! The modes stand here, because their blocks must reach the cipher many at a time.

use cipher::consts::U16;
use cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, KeyInit};

use super::hash::Hash;
use super::shown;
use crate::{Error, Format, Result};

/// What initialization vectors count in, whatever the sector size: bytes.
pub(crate) const IV_UNIT: u64 = 512;
/// Bytes of a sector at most.
pub(crate) const MAX_SECTOR: usize = 4096;
/// Blocks handed to the cipher at once: a sector of 512 bytes.
const RUN: usize = 32;

type Block = Array<u8, U16>;

/// A block cipher with its key.
trait Blocks: Send + Sync {
    fn encrypt(&self, blocks: &mut [Block]);
    fn decrypt(&self, blocks: &mut [Block]);
}

impl<C> Blocks for C
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + Send + Sync,
{
    fn encrypt(&self, blocks: &mut [Block]) {
        self.encrypt_blocks(blocks);
    }

    fn decrypt(&self, blocks: &mut [Block]) {
        self.decrypt_blocks(blocks);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Algorithm {
    Aes,
    Serpent,
    Twofish,
}

impl Algorithm {
    /// The cipher with `key`; `None` when it has no keys of that length.
    fn key(self, key: &[u8]) -> Option<Box<dyn Blocks>> {
        fn new<C: KeyInit + Blocks + 'static>(key: &[u8]) -> Option<Box<dyn Blocks>> {
            C::new_from_slice(key).ok().map(|c| Box::new(c) as _)
        }
        match (self, key.len()) {
            (Self::Aes, 16) => new::<aes::Aes128>(key),
            (Self::Aes, 24) => new::<aes::Aes192>(key),
            (Self::Aes, 32) => new::<aes::Aes256>(key),
            (Self::Serpent, 16 | 24 | 32) => new::<serpent::Serpent>(key),
            (Self::Twofish, 16 | 24 | 32) => new::<twofish::Twofish>(key),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Ecb,
    Cbc,
    Xts,
}

/// What the initialization vector of a sector is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Iv {
    /// Its number, 32 bits.
    Plain,
    /// Its number, 64 bits.
    Plain64,
    /// The same, big-endian.
    Plain64Be,
    /// Its number, encrypted with a hash of the key.
    Essiv(Hash),
}

/// A cipher that still lacks its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spec {
    algorithm: Algorithm,
    mode: Mode,
    iv: Iv,
}

impl Spec {
    /// From `cipher-mode-iv`, such as `aes-cbc-essiv:sha256`.
    ///
    /// # Errors
    /// `Unsupported`, naming what is not known.
    pub(super) fn parse(name: &str) -> Result<Self> {
        let (cipher, rest) = name.split_once('-').unwrap_or((name, ""));
        let (mode, iv) = rest.split_once('-').unwrap_or((rest, ""));
        let unknown = |what: &str, value: &str, known: &str| {
            Error::unsupported(
                Format::Luks,
                "header",
                format!(
                    "the {what} of {:?} is {:?}, known are {known}",
                    shown(name),
                    shown(value)
                ),
            )
        };
        Ok(Self {
            algorithm: match cipher {
                "aes" => Algorithm::Aes,
                "serpent" => Algorithm::Serpent,
                "twofish" => Algorithm::Twofish,
                _ => return Err(unknown("cipher", cipher, "aes, serpent, twofish")),
            },
            mode: match mode {
                "ecb" => Mode::Ecb,
                "cbc" => Mode::Cbc,
                "xts" => Mode::Xts,
                _ => return Err(unknown("mode", mode, "ecb, cbc, xts")),
            },
            iv: match (mode, iv.split_once(':').unwrap_or((iv, ""))) {
                ("ecb", _) | (_, ("plain", "")) => Iv::Plain,
                (_, ("plain64", "")) => Iv::Plain64,
                (_, ("plain64be", "")) => Iv::Plain64Be,
                (_, ("essiv", hash)) => Iv::Essiv(Hash::named(hash)?),
                _ => {
                    let known = "plain, plain64, plain64be, essiv:hash";
                    return Err(unknown("initialization vector", iv, known));
                }
            },
        })
    }

    /// The cipher with its key.
    ///
    /// # Errors
    /// `Unsupported` when it has no keys of that length.
    pub(super) fn key(self, key: &[u8]) -> Result<SectorCipher> {
        let wrong = |what: &str, len: usize| {
            Error::unsupported(
                Format::Luks,
                "header",
                format!("{what} has {len} bytes, which the cipher does not take"),
            )
        };
        let (first, second) = match self.mode {
            Mode::Xts if key.len() % 2 == 1 => return Err(wrong("the key", key.len())),
            Mode::Xts => key.split_at(key.len() / 2),
            Mode::Ecb | Mode::Cbc => (key, &key[..0]),
        };
        let keyed = |part: &[u8]| {
            self.algorithm
                .key(part)
                .ok_or_else(|| wrong("the key", key.len()))
        };
        Ok(SectorCipher {
            blocks: keyed(first)?,
            mode: match self.mode {
                Mode::Ecb => KeyedMode::Ecb,
                Mode::Cbc => KeyedMode::Cbc,
                Mode::Xts => KeyedMode::Xts(keyed(second)?),
            },
            essiv: match self.iv {
                Iv::Essiv(hash) => {
                    let salt = hash.digest(&[key]);
                    let cipher = self.algorithm.key(&salt);
                    Some(cipher.ok_or_else(|| wrong("the hash of the ESSIV", salt.len()))?)
                }
                _ => None,
            },
            iv: self.iv,
        })
    }
}

enum KeyedMode {
    Ecb,
    Cbc,
    /// With the cipher of its tweaks.
    Xts(Box<dyn Blocks>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Encrypt,
    Decrypt,
}

/// Encrypts and decrypts sectors. Shared by threads.
pub(crate) struct SectorCipher {
    blocks: Box<dyn Blocks>,
    mode: KeyedMode,
    iv: Iv,
    essiv: Option<Box<dyn Blocks>>,
}

impl SectorCipher {
    /// Decrypts whole sectors of `sector_size` bytes in place (512 to 4096, a power of two), the
    /// first of which begins `number` times 512 bytes into what is counted.
    pub(crate) fn decrypt(&self, sectors: &mut [u8], sector_size: usize, number: u64) {
        self.crypt(sectors, sector_size, number, Direction::Decrypt);
    }

    /// Encrypts likewise.
    pub(crate) fn encrypt(&self, sectors: &mut [u8], sector_size: usize, number: u64) {
        self.crypt(sectors, sector_size, number, Direction::Encrypt);
    }

    fn crypt(&self, bytes: &mut [u8], sector_size: usize, number: u64, direction: Direction) {
        debug_assert!(bytes.len().is_multiple_of(sector_size));
        let step = sector_size as u64 / IV_UNIT;
        let mut number = number;
        let mut ivs = [Block::default(); RUN];
        // The vectors of many sectors are made at once: one alone would wait for the cipher.
        for group in bytes.chunks_mut(sector_size * RUN) {
            let ivs = &mut ivs[..group.len() / sector_size];
            for iv in &mut *ivs {
                *iv = self.number(number);
                number = number.wrapping_add(step);
            }
            if let Some(essiv) = &self.essiv {
                essiv.encrypt(ivs);
            }
            if let KeyedMode::Xts(tweaks) = &self.mode {
                tweaks.encrypt(ivs);
            }
            for (sector, iv) in group.chunks_mut(sector_size).zip(ivs) {
                let blocks = Block::slice_as_chunks_mut(sector).0;
                match (&self.mode, direction) {
                    (KeyedMode::Xts(_), _) => self.xts(blocks, *iv, direction),
                    (KeyedMode::Cbc, Direction::Encrypt) => self.cbc_encrypt(blocks, *iv),
                    (KeyedMode::Cbc, Direction::Decrypt) => self.cbc_decrypt(blocks, *iv),
                    (KeyedMode::Ecb, _) => self.blocks(blocks, direction),
                }
            }
        }
    }

    fn blocks(&self, blocks: &mut [Block], direction: Direction) {
        match direction {
            Direction::Encrypt => self.blocks.encrypt(blocks),
            Direction::Decrypt => self.blocks.decrypt(blocks),
        }
    }

    /// A sector's number as a block.
    fn number(&self, number: u64) -> Block {
        Array(match self.iv {
            Iv::Plain => u128::from(number as u32).to_le_bytes(),
            Iv::Plain64 | Iv::Essiv(_) => u128::from(number).to_le_bytes(),
            Iv::Plain64Be => u128::from(number).to_be_bytes(),
        })
    }

    /// IEEE 1619: before and behind the cipher, each block is masked with the tweak, which is
    /// multiplied by x from block to block.
    fn xts(&self, blocks: &mut [Block], tweak: Block, direction: Direction) {
        let mut tweak = u128::from_le_bytes(tweak.0);
        let mut masks = [0; RUN];
        for run in blocks.chunks_mut(RUN) {
            for (block, mask) in run.iter_mut().zip(&mut masks) {
                *mask = tweak;
                tweak = (tweak << 1) ^ (0x87 & 0u128.wrapping_sub(tweak >> 127));
                xor(block, *mask);
            }
            self.blocks(run, direction);
            for (block, mask) in run.iter_mut().zip(masks) {
                xor(block, mask);
            }
        }
    }

    fn cbc_encrypt(&self, blocks: &mut [Block], iv: Block) {
        let mut last = iv;
        for block in blocks {
            xor(block, u128::from_le_bytes(last.0));
            self.blocks.encrypt(std::slice::from_mut(block));
            last = *block;
        }
    }

    fn cbc_decrypt(&self, blocks: &mut [Block], iv: Block) {
        let mut last = iv;
        let mut stored = [Block::default(); RUN];
        for run in blocks.chunks_mut(RUN) {
            let stored = &mut stored[..run.len()];
            stored.copy_from_slice(run);
            self.blocks.decrypt(run);
            for (block, stored) in run.iter_mut().zip(stored) {
                xor(block, u128::from_le_bytes(last.0));
                last = *stored;
            }
        }
    }
}

fn xor(block: &mut Block, mask: u128) {
    block.0 = (u128::from_le_bytes(block.0) ^ mask).to_le_bytes();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(name: &str, key: &[u8]) -> SectorCipher {
        Spec::parse(name).unwrap().key(key).unwrap()
    }

    /// IEEE 1619-2018, vectors 1 and 2, as far as 32 bytes go into a sector: XTS does not care
    /// how long the sector is.
    #[test]
    fn xts_matches_its_standard() {
        for (key, number, plain, stored) in [
            (
                [[0u8; 16]; 2],
                0,
                0u8,
                "917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e",
            ),
            (
                [[0x11; 16], [0x22; 16]],
                0x33_3333_3333,
                0x44,
                "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0",
            ),
        ] {
            let cipher = cipher("aes-xts-plain64", key.as_flattened());
            let mut sector = [plain; 512];
            cipher.encrypt(&mut sector, 512, number);
            let text: String = sector[..32].iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(text, stored);
            cipher.decrypt(&mut sector, 512, number);
            assert_eq!(sector, [plain; 512]);
        }
    }

    #[test]
    fn every_cipher_undoes_itself_sector_by_sector() {
        let key: Vec<u8> = (0..64).collect();
        let plain: Vec<u8> = (0..34u32 << 12)
            .map(|n| (n.wrapping_mul(n) >> 7) as u8)
            .collect();
        for algorithm in ["aes", "serpent", "twofish"] {
            for (mode, key_len) in [
                ("ecb", 16),
                ("cbc-plain", 16),
                ("cbc-plain64", 24),
                ("cbc-plain64be", 32),
                ("cbc-essiv:sha256", 32),
                ("xts-plain", 32),
                ("xts-plain64", 64),
                ("xts-essiv:md5", 48),
            ] {
                let name = format!("{algorithm}-{mode}");
                let cipher = cipher(&name, &key[..key_len]);
                for sector_size in [512, 4096] {
                    let mut all = plain.clone();
                    cipher.encrypt(&mut all, sector_size, 7);
                    assert_ne!(all, plain);
                    // Two calls are the same as one.
                    let mut parts = plain.clone();
                    let (a, b) = parts.split_at_mut(3 * 4096);
                    cipher.encrypt(a, sector_size, 7);
                    cipher.encrypt(b, sector_size, 7 + 3 * 8);
                    assert!(all == parts, "{name} {sector_size}");
                    cipher.decrypt(&mut all, sector_size, 7);
                    assert!(all == plain, "{name} {sector_size}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (name, word) in [
            ("camellia-xts-plain64", "\"camellia\""),
            ("aes-lrw-benbi", "\"lrw\""),
            ("aes-cbc-lmk", "\"lmk\""),
            ("aes-cbc-essiv:whirlpool", "\"whirlpool\""),
            ("aes", "mode"),
            ("", "cipher"),
            ("capi:xts(aes)-plain64", "cipher"),
        ] {
            let e = Spec::parse(name).unwrap_err();
            assert_eq!(e.kind(), crate::ErrorKind::Unsupported);
            assert!(e.to_string().contains(word), "{e}");
        }
        for (name, len) in [
            ("aes-xts-plain64", 33),
            ("aes-cbc-plain", 64),
            ("aes-cbc-essiv:sha1", 16),
            ("twofish-ecb", 0),
        ] {
            let spec = Spec::parse(name).unwrap();
            assert!(spec.key(&vec![1; len]).is_err(), "{name} {len}");
        }
    }
}
