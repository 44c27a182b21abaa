//! Hash functions by the names headers give them, and the anti-forensic splitter made of one.

use cipher::typenum::Unsigned as _;
use sha2::Digest;
use sha2::digest::OutputSizeUser;
use zeroize::Zeroizing;

use super::shown;
use crate::{Error, Format, Result};

macro_rules! hashes {
    ($($variant:ident = $name:literal, $digest:ty;)*) => {
        /// A hash function.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Hash { $($variant,)* }

        impl Hash {
            /// The hash function of that name.
            ///
            /// # Errors
            /// `Unsupported` for others.
            pub(super) fn named(name: &str) -> Result<Self> {
                match name {
                    $($name => Ok(Self::$variant),)*
                    _ => Err(Error::unsupported(
                        Format::Luks,
                        "header",
                        format!(
                            "the hash is {:?}, known are {}",
                            shown(name),
                            [$($name),*].join(", ")
                        ),
                    )),
                }
            }

            /// The digest of `parts`, one after the other.
            pub(super) fn digest(self, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
                match self {
                    $(Self::$variant => digest::<$digest>(parts),)*
                }
            }

            /// Bytes of a digest.
            pub(super) fn len(self) -> usize {
                match self {
                    $(Self::$variant => <$digest as OutputSizeUser>::OutputSize::USIZE,)*
                }
            }

            /// Fills `key` by PBKDF2 with HMAC (RFC 8018).
            pub(super) fn pbkdf2(self, secret: &[u8], salt: &[u8], iterations: u32, key: &mut [u8]) {
                match self {
                    $(Self::$variant => {
                        pbkdf2::pbkdf2_hmac::<$digest>(secret, salt, iterations, key);
                    })*
                }
            }
        }
    };
}

hashes! {
    Md5 = "md5", md5::Md5;
    Sha1 = "sha1", sha1::Sha1;
    Sha224 = "sha224", sha2::Sha224;
    Sha256 = "sha256", sha2::Sha256;
    Sha384 = "sha384", sha2::Sha384;
    Sha512 = "sha512", sha2::Sha512;
    Ripemd160 = "ripemd160", ripemd::Ripemd160;
}

fn digest<D: Digest>(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut digest = D::new();
    for part in parts {
        digest.update(part);
    }
    Zeroizing::new(digest.finalize().to_vec())
}

/// Bytes of split key material at most: twice what the longest key takes in 4000 stripes.
const MAX_MATERIAL: u64 = 512 << 10;

/// Bytes that a key of `key_len` bytes takes, split in `stripes`.
///
/// # Errors
/// `Malformed` for no bytes at all, `Limit` for more than any real header has.
pub(super) fn split_len(key_len: usize, stripes: u32) -> Result<usize> {
    let len = key_len as u64 * u64::from(stripes);
    match len {
        0 => Err(Error::malformed(
            Format::Luks,
            "key slot",
            format!("has a key of {key_len} bytes in {stripes} stripes"),
        )),
        1..=MAX_MATERIAL => Ok(len as usize),
        _ => Err(Error::limit(
            Format::Luks,
            "key slot",
            format!("has {len} bytes of key material, allowed {MAX_MATERIAL}"),
        )),
    }
}

/// Puts a key together again from its stripes, each as long as `key`.
pub(super) fn merge(hash: Hash, material: &[u8], key: &mut [u8]) {
    key.fill(0);
    let stripes = material.chunks_exact(key.len());
    let last = stripes.len() - 1;
    for (n, stripe) in stripes.enumerate() {
        xor(key, stripe);
        if n < last {
            diffuse(hash, key);
        }
    }
}

/// Splits `key`: `material` holds chance but for its last stripe, which is made here.
pub(super) fn split(hash: Hash, key: &[u8], material: &mut [u8]) {
    let (chance, last) = material.split_at_mut(material.len() - key.len());
    last.fill(0);
    for stripe in chance.chunks_exact(key.len()) {
        xor(last, stripe);
        diffuse(hash, last);
    }
    xor(last, key);
}

/// Spreads every bit of each digest-long piece over all of it.
fn diffuse(hash: Hash, block: &mut [u8]) {
    for (n, piece) in (0u32..).zip(block.chunks_mut(hash.len())) {
        let digest = hash.digest(&[&n.to_be_bytes(), piece]);
        piece.copy_from_slice(&digest[..piece.len()]);
    }
}

fn xor(into: &mut [u8], from: &[u8]) {
    for (a, b) in into.iter_mut().zip(from) {
        *a ^= b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_split_is_merged() {
        for (hash, key_len) in [(Hash::Sha1, 32), (Hash::Sha256, 64), (Hash::Sha512, 24)] {
            let key: Vec<u8> = (0..key_len).collect();
            let mut material: Vec<u8> = (0..key.len() * 7).map(|n| (n * 31) as u8).collect();
            split(hash, &key, &mut material);
            let mut back = vec![9; key.len()];
            merge(hash, &material, &mut back);
            assert_eq!(back, key, "{hash:?}");
            material[3] ^= 1;
            merge(hash, &material, &mut back);
            assert_ne!(back, key, "{hash:?}");
        }
    }

    #[test]
    fn key_material_is_bounded() {
        assert_eq!(split_len(64, 4000).unwrap(), 256_000);
        for (key_len, stripes, kind) in [
            (0, 4000, crate::ErrorKind::Malformed),
            (32, 0, crate::ErrorKind::Malformed),
            (64, u32::MAX, crate::ErrorKind::Limit),
        ] {
            assert_eq!(split_len(key_len, stripes).unwrap_err().kind(), kind);
        }
    }
}
