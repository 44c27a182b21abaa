//! A digest that a caller expects of the data it hands over.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::HashAlgo;

/// What data must have for a digest, or it is refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Expected {
    /// Which hash.
    pub algo: HashAlgo,
    /// The digest, in lower-case hexadecimal of the hash's length.
    pub value: String,
    /// Of which bytes.
    #[serde(default)]
    pub of: Measured,
}

/// The bytes a digest is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measured {
    /// Those that come in.
    #[default]
    Sent,
    /// Those without the compression around them. What is not compressed is its own content.
    Content,
}

impl Expected {
    /// From the words of a client.
    ///
    /// # Errors
    /// A sentence: which word is wrong.
    pub fn parse(algo: &str, value: &str, of: Option<&str>) -> Result<Self, String> {
        let algo: HashAlgo = algo.parse()?;
        let value = value.to_ascii_lowercase();
        let len = algo.hex_len();
        if value.len() != len || !value.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("the value of a {algo} is {len} hexadecimal digits"));
        }
        let of = match of {
            None | Some("sent") => Measured::Sent,
            Some("content") => Measured::Content,
            Some(other) => {
                return Err(format!("\"of\" is {other:?}, allowed sent and content"));
            }
        };
        Ok(Self { algo, value, of })
    }

    /// Holds `got` against it.
    ///
    /// # Errors
    /// A sentence for the client.
    pub fn check(&self, got: &str) -> Result<(), String> {
        if got == self.value {
            return Ok(());
        }
        Err(format!(
            "The {} of the {} is {got}, expected was {}",
            self.algo, self.of, self.value
        ))
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sent => "data",
            Self::Content => "uncompressed data",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digests_of_the_right_length_are_taken() {
        let md5 = "900150983CD24FB0D6963F7D28E17F72";
        let parsed = Expected::parse("md5", md5, None).unwrap();
        assert_eq!(parsed.of, Measured::Sent);
        parsed.check(&md5.to_ascii_lowercase()).unwrap();
        assert!(parsed.check(&md5.replace('9', "0")).is_err());
        for (algo, value, of) in [
            ("crc32", "00000000", None),
            ("md5", "9001", None),
            ("sha256", md5, None),
            ("md5", &"x".repeat(32), None),
            ("md5", md5, Some("disk")),
        ] {
            assert!(Expected::parse(algo, value, of).is_err(), "{algo} {value}");
        }
    }
}
