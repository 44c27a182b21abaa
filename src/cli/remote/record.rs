//! What a service says of an image, as far as it matters here.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde::Deserialize;

use super::Error;
use super::session::Session;
use super::tries::Tries;
use crate::domain::HashAlgo;

/// What an id may not have in a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// An image, as the service shows it.
#[derive(Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) status: String,
    /// Bytes of its data, where there is some.
    pub(super) size: Option<u64>,
    /// Bytes of the disk, where they are known.
    pub(super) virtual_size: Option<u64>,
    pub(super) disk_format: Option<String>,
    pub(super) container_format: Option<String>,
    checksum: Option<String>,
    os_hash_algo: Option<String>,
    os_hash_value: Option<String>,
}

/// A digest that data has to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Digest {
    pub(super) algo: HashAlgo,
    /// In lower-case hexadecimal.
    pub(super) value: String,
}

/// The path of an image, whatever its id.
pub(super) fn path(id: &str) -> String {
    format!("/v2/images/{}", segment(id))
}

/// One step of a path.
pub(super) fn segment(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, SEGMENT)
}

impl Record {
    pub(super) async fn find(session: &Session, id: &str) -> Result<Self, Error> {
        let path = path(id);
        Tries::until_done(async || session.json(Method::GET, &path, |r| r).await).await
    }

    /// The digest of its data: the strong one, or MD5 where there is no other that is known here.
    pub(super) fn digest(&self) -> Option<Digest> {
        let strong = self
            .os_hash_algo
            .as_deref()
            .zip(self.os_hash_value.as_deref());
        let strong = strong.and_then(|(algo, value)| Digest::new(algo.parse().ok()?, value));
        strong.or_else(|| Digest::new(HashAlgo::Md5, self.checksum.as_deref()?))
    }
}

impl Digest {
    fn new(algo: HashAlgo, value: &str) -> Option<Self> {
        let value = value.to_ascii_lowercase();
        let is_hex = value.bytes().all(|b| b.is_ascii_hexdigit());
        (is_hex && value.len() == algo.hex_len()).then_some(Self { algo, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_digest_that_is_known_counts() {
        let digest = |text: &str| serde_json::from_str::<Record>(text).unwrap().digest();
        let (md5, sha) = ("a".repeat(32), "B".repeat(128));
        let whole = format!(
            r#"{{"id": "i", "status": "active", "checksum": "{md5}", "os_hash_algo": "sha512",
            "os_hash_value": "{sha}"}}"#
        );
        let found = digest(&whole).unwrap();
        assert_eq!(found.algo, HashAlgo::Sha512);
        assert_eq!(found.value, "b".repeat(128));
        let found = digest(&whole.replace("sha512", "blake2b")).unwrap();
        assert_eq!((found.algo, found.value), (HashAlgo::Md5, md5));
        assert_eq!(digest(r#"{"id": "i", "status": "queued"}"#), None);
        assert_eq!(digest(&whole.replace(&sha, "..").replace("aa", "/.")), None);
    }

    #[test]
    fn an_id_is_one_step_of_a_path() {
        assert_eq!(path("../a?b"), "/v2/images/%2E%2E%2Fa%3Fb");
    }
}
