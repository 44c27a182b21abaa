//! Tokens in a file, for those without Keystone:
//!
//! ```toml
//! [[tokens]]
//! sha256 = "9f86d081884c7d65…"    # of the token; `glint auth token` makes both
//! user = "alice"
//! project = "research"
//! roles = ["member"]
//! expires = "2027-01-01T00:00:00Z"  # or absent: never
//! ```

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Context;
use crate::domain::Timestamp;

/// Bytes of the file at most.
const MAX_BYTES: u64 = 16 << 20;

/// Callers by token. Only digests of the tokens are kept, so neither a dump nor the time a lookup
/// takes tells one.
#[derive(Clone, Default, Debug)]
pub struct StaticTokens(HashMap<[u8; 32], Holder>);

#[derive(Clone, Debug)]
struct Holder {
    caller: Context,
    expires: Option<Timestamp>,
}

impl StaticTokens {
    /// Makes `token` the token of `caller`.
    pub fn add(&mut self, token: &str, caller: Context) {
        let expires = None;
        self.0
            .insert(Sha256::digest(token).into(), Holder { caller, expires });
    }

    pub(super) fn find(&self, token: &[u8]) -> Option<Context> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let holder = self.0.get(&digest)?;
        let expired = holder.expires.is_some_and(|end| end <= Timestamp::now());
        (!expired).then(|| holder.caller.clone())
    }
}

/// The file.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFile {
    /// Its entries.
    #[serde(default)]
    pub tokens: Vec<Entry>,
}

/// One token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// SHA-256 of the token, 64 hexadecimal digits.
    pub sha256: Digits,
    /// The user's id.
    pub user: String,
    /// The project they act for.
    pub project: String,
    /// Their roles in it; `admin` is `member` too, and `member` is `reader`.
    pub roles: Vec<String>,
    /// When it ends; never where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Moment>,
}

/// A SHA-256, as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digits([u8; 32]);

impl Digits {
    /// Of a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl TryFrom<String> for Digits {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fault = || format!("{text:?} is no SHA-256: written as 64 hexadecimal digits");
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(fault());
        }
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).map_err(|_| fault())?;
        }
        Ok(Self(bytes))
    }
}

impl From<Digits> for String {
    fn from(digits: Digits) -> Self {
        digits.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// A time, written `2027-01-01T00:00:00Z`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Moment(pub Timestamp);

impl TryFrom<String> for Moment {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let time = Timestamp::parse(&text).map(Self);
        time.ok_or_else(|| format!("{text:?} is no time: written 2027-01-01T00:00:00Z"))
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> Self {
        moment.0.to_string()
    }
}

impl TokenFile {
    /// Reads the file.
    ///
    /// # Errors
    /// A sentence, when it cannot be read or is faulty.
    pub fn load(path: &Path) -> Result<Self, String> {
        let fault = |e: String| format!("{}: {e}", path.display());
        let size = std::fs::metadata(path)
            .map_err(|e| fault(e.to_string()))?
            .len();
        if size > MAX_BYTES {
            return Err(fault(format!("{size} bytes, allowed {MAX_BYTES}")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| fault(e.to_string()))?;
        toml::from_str(&text).map_err(|e| fault(e.to_string()))
    }
}

impl From<TokenFile> for StaticTokens {
    fn from(file: TokenFile) -> Self {
        let holders = file.tokens.into_iter().map(|entry| {
            let roles: Vec<_> = entry.roles.iter().map(String::as_str).collect();
            let holder = Holder {
                caller: Context::with_roles(&entry.user, &entry.project, &roles),
                expires: entry.expires.map(|m| m.0),
            };
            (entry.sha256.0, holder)
        });
        Self(holders.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(expires: &str) -> Result<StaticTokens, String> {
        let digits = String::from(Digits::of("t"));
        let text = format!(
            "[[tokens]]\nsha256 = \"{digits}\"\nuser = \"u\"\nproject = \"p\"\n\
             roles = [\"Member\"]\n{expires}"
        );
        let file: TokenFile = toml::from_str(&text).map_err(|e| e.to_string())?;
        Ok(file.into())
    }

    #[test]
    fn a_token_is_known_by_its_digest() {
        let caller = file("").unwrap().find(b"t").unwrap();
        assert_eq!(caller.roles, ["member", "reader"]);
        assert!(file("").unwrap().find(b"T").is_none());
    }

    #[test]
    fn a_token_ends_when_it_expires() {
        let past = file("expires = \"2020-01-01T00:00:00Z\"").unwrap();
        assert!(past.find(b"t").is_none());
        let future = file("expires = \"2999-01-01T00:00:00Z\"").unwrap();
        assert!(future.find(b"t").is_some());
    }

    #[test]
    fn faults_are_told() {
        assert!(file("expires = \"tomorrow\"").is_err());
        assert!(file("rolls = []").is_err());
        for digits in ["", "zz", &"é".repeat(32), &"g".repeat(64)] {
            assert!(Digits::try_from((*digits).to_owned()).is_err());
        }
    }
}
