//! From passphrases to keys, with a bound on the work a header may ask for.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::hash::Hash;
use crate::{Error, Format, Result};

/// Steps of derivation one opening may take: rounds of PBKDF2 and blocks of Argon2, each about
/// half a microsecond. Real key slots take some millions; this ends within a minute or two.
const MAX_STEPS: u64 = 1 << 27;
/// Memory Argon2 may take, in KiB: the most cryptsetup asks for unless it is told otherwise.
const MAX_MEMORY: u32 = 1 << 20;
/// Lanes of Argon2 at most: cryptsetup has 4.
const MAX_LANES: u32 = 16;
/// Bytes of a key at most: twice those of XTS with the longest keys.
const MAX_KEY: usize = 128;

/// What is left of the work one opening may take.
pub(super) struct Work(u64);

impl Default for Work {
    fn default() -> Self {
        Self(MAX_STEPS)
    }
}

impl Work {
    fn spend(&mut self, steps: u64, what: &str) -> Result<()> {
        match self.0.checked_sub(steps) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => Err(Error::limit(
                Format::Luks,
                "key derivation",
                format!(
                    "{what} would take {steps} steps, {} are left of {MAX_STEPS}",
                    self.0
                ),
            )),
        }
    }
}

/// How a key is derived.
pub(super) enum Kdf {
    Pbkdf2 {
        hash: Hash,
        iterations: u32,
        salt: Vec<u8>,
    },
    Argon2 {
        algorithm: Algorithm,
        /// Passes over the memory.
        time: u32,
        /// KiB.
        memory: u32,
        lanes: u32,
        salt: Vec<u8>,
    },
}

impl Kdf {
    /// Derives a key of `len` bytes.
    ///
    /// # Errors
    /// `Limit` for more work than is left, or more memory than is granted or there;
    /// `Malformed` for parameters that make no sense.
    pub(super) fn derive(
        &self,
        secret: &[u8],
        len: usize,
        work: &mut Work,
    ) -> Result<Zeroizing<Vec<u8>>> {
        if len == 0 || len > MAX_KEY {
            return Err(malformed(format!(
                "a key of {len} bytes, allowed 1 to {MAX_KEY}"
            )));
        }
        let mut key = Zeroizing::new(vec![0; len]);
        match self {
            Self::Pbkdf2 {
                hash,
                iterations,
                salt,
            } => {
                if *iterations == 0 {
                    return Err(malformed("pbkdf2 has no iterations"));
                }
                let steps = u64::from(*iterations) * len.div_ceil(hash.len()) as u64;
                work.spend(steps, &format!("pbkdf2 with {iterations} iterations"))?;
                hash.pbkdf2(secret, salt, *iterations, &mut key);
            }
            Self::Argon2 {
                algorithm,
                time,
                memory,
                lanes,
                salt,
            } => {
                if *memory > MAX_MEMORY || *lanes > MAX_LANES {
                    return Err(Error::limit(
                        Format::Luks,
                        "key derivation",
                        format!(
                            "{algorithm} wants {memory} KiB of memory and {lanes} lanes, allowed \
                             {MAX_MEMORY} and {MAX_LANES}"
                        ),
                    ));
                }
                let params = Params::new(*memory, *time, *lanes, Some(len))
                    .map_err(|e| malformed(format!("{algorithm}: {e}")))?;
                let what = format!("{algorithm} with {time} passes over {memory} KiB");
                work.spend(u64::from(*memory) * u64::from(*time), &what)?;
                Argon2::new(*algorithm, Version::V0x13, params)
                    .hash_password_into(secret, salt, &mut key)
                    .map_err(|e| match e {
                        argon2::Error::OutOfMemory => Error::limit(
                            Format::Luks,
                            "key derivation",
                            format!(
                                "{algorithm} wants {memory} KiB of memory, which are not there"
                            ),
                        ),
                        e => malformed(format!("{algorithm}: {e}")),
                    })?;
            }
        }
        Ok(key)
    }
}

fn malformed(message: impl Into<String>) -> Error {
    Error::malformed(Format::Luks, "key derivation", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn argon2(time: u32, memory: u32, lanes: u32, salt: usize) -> Kdf {
        Kdf::Argon2 {
            algorithm: Algorithm::Argon2id,
            time,
            memory,
            lanes,
            salt: vec![1; salt],
        }
    }

    #[test]
    fn work_and_memory_are_bounded_and_parameters_checked() {
        let pbkdf2 = |iterations| Kdf::Pbkdf2 {
            hash: Hash::Sha256,
            iterations,
            salt: vec![1; 32],
        };
        for (kdf, kind) in [
            (pbkdf2(u32::MAX), ErrorKind::Limit),
            (pbkdf2(0), ErrorKind::Malformed),
            (argon2(u32::MAX, 1 << 20, 4, 32), ErrorKind::Limit),
            (argon2(4, u32::MAX, 4, 32), ErrorKind::Limit),
            (argon2(4, 1 << 10, 1 << 20, 32), ErrorKind::Limit),
            (argon2(0, 1 << 10, 1, 32), ErrorKind::Malformed),
            (argon2(4, 0, 1, 32), ErrorKind::Malformed),
            (argon2(4, 64, 0, 32), ErrorKind::Malformed),
            (argon2(4, 64, 1, 3), ErrorKind::Malformed),
        ] {
            let e = kdf.derive(b"secret", 64, &mut Work::default()).unwrap_err();
            assert_eq!(e.kind(), kind, "{e}");
        }
        // Slots add up.
        let mut work = Work(2999);
        pbkdf2(1000).derive(b"secret", 64, &mut work).unwrap();
        assert!(pbkdf2(1000).derive(b"secret", 64, &mut work).is_err());
        assert_eq!(work.0, 999);
    }
}
