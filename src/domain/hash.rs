//! Digests of stored bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The configured hash of `os_hash_algo`. MD5 is always computed beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashAlgo {
    /// MD5, for clients that know no other.
    Md5,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512, the default.
    #[default]
    Sha512,
}

impl HashAlgo {
    /// Digits of a digest in hexadecimal.
    #[must_use]
    pub const fn hex_len(self) -> usize {
        match self {
            Self::Md5 => 32,
            Self::Sha1 => 40,
            Self::Sha256 => 64,
            Self::Sha384 => 96,
            Self::Sha512 => 128,
        }
    }

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }
}

impl fmt::Display for HashAlgo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HashAlgo {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "md5" => Ok(Self::Md5),
            "sha1" => Ok(Self::Sha1),
            "sha256" => Ok(Self::Sha256),
            "sha384" => Ok(Self::Sha384),
            "sha512" => Ok(Self::Sha512),
            _ => Err(format!(
                "{name:?} is no hash known here (md5, sha1, sha256, sha384, sha512)"
            )),
        }
    }
}

/// The digests of an image's stored bytes, in lower-case hexadecimal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hashes {
    /// MD5; unknown where a client vouched for `value` alone.
    pub checksum: Option<String>,
    /// Which hash `value` is.
    pub algo: String,
    /// The configured hash.
    pub value: String,
}
