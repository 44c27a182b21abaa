//! The manifest of an OVF package: a digest of each file.
//!
//! ```text
//!  SHA256(appliance.ovf)= 2f1a…
//!  SHA256(appliance-disk1.vmdk)= 9c04…
//! ```
//! DSP0243 2.1.1, section 6.3. It guards against accidents: whoever changes a file can change its
//! line, unless the manifest is signed by somebody who is trusted.

use std::collections::BTreeMap;

use sha2::Digest as _;

use super::Context;
use crate::{Error, Format, HostOffset, Result, Source};

/// The largest manifest read, in bytes: some ten thousand lines.
pub(super) const MAX_LEN: u64 = 1 << 20;
/// Bytes hashed at a time.
const CHUNK: usize = 1 << 20;

/// A digest algorithm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Algorithm {
    /// SHA-1, of old packages.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    const ALL: [(Self, &str, usize); 4] = [
        (Self::Sha1, "SHA1", 20),
        (Self::Sha256, "SHA256", 32),
        (Self::Sha384, "SHA384", 48),
        (Self::Sha512, "SHA512", 64),
    ];

    /// The digest of `bytes`.
    pub(super) fn digest(self, bytes: &[u8]) -> Vec<u8> {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    /// What stands before a digest that is signed (RFC 8017, section 9.2, note 1).
    pub(super) const fn digest_info(self) -> &'static [u8] {
        match self {
            Self::Sha1 => b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
            Self::Sha256 => {
                b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
            }
            Self::Sha384 => {
                b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"
            }
            Self::Sha512 => {
                b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"
            }
        }
    }

    fn hasher(self) -> Hasher {
        match self {
            Self::Sha1 => Hasher::Sha1(sha1::Sha1::default()),
            Self::Sha256 => Hasher::Sha256(sha2::Sha256::default()),
            Self::Sha384 => Hasher::Sha384(sha2::Sha384::default()),
            Self::Sha512 => Hasher::Sha512(sha2::Sha512::default()),
        }
    }
}

enum Hasher {
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(h) => h.update(bytes),
            Self::Sha256(h) => h.update(bytes),
            Self::Sha384(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha1(h) => h.finalize().to_vec(),
            Self::Sha256(h) => h.finalize().to_vec(),
            Self::Sha384(h) => h.finalize().to_vec(),
            Self::Sha512(h) => h.finalize().to_vec(),
        }
    }
}

/// A line of a manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The file's name, as written.
    pub name: String,
    /// How its digest is made; `None` for an algorithm not known here.
    pub algorithm: Option<Algorithm>,
    /// The digest.
    pub digest: Vec<u8>,
}

/// Parses a manifest.
///
/// # Errors
/// `Malformed` with the number of the first line that is none of a manifest.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>> {
    let malformed = |line: usize, message: &str| {
        Error::malformed(Format::Ova, "manifest", format!("line {line} {message}"))
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|e| malformed(lines_to(bytes, e.valid_up_to()), "is not UTF-8"))?;
    let mut entries = Vec::new();
    for (n, line) in (1..).zip(text.lines()) {
        let line = line.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        if line.is_empty() {
            continue;
        }
        let entry = parse_line(line)
            .ok_or_else(|| malformed(n, "is not of the form `SHA256(file)= digest`"))?;
        entries.push(entry);
    }
    Ok(entries)
}

fn lines_to(bytes: &[u8], at: usize) -> usize {
    1 + bytes[..at].iter().filter(|&&b| b == b'\n').count()
}

fn parse_line(line: &str) -> Option<Entry> {
    let entry = parse_signature(line)?;
    let known = Algorithm::ALL
        .iter()
        .find(|(a, ..)| Some(*a) == entry.algorithm);
    match known {
        Some((_, _, len)) if entry.digest.len() != *len => None,
        _ => Some(entry),
    }
}

/// A line of the same form, whose hexadecimal digits may be a signature as well as a digest.
pub(super) fn parse_signature(line: &str) -> Option<Entry> {
    // A file's name may hold parentheses and equals signs, a digest neither.
    let (left, digest) = line.rsplit_once('=')?;
    let (algorithm, name) = left.trim_end().strip_suffix(')')?.split_once('(')?;
    let algorithm = algorithm.trim().replace('-', "");
    let known = Algorithm::ALL
        .iter()
        .find(|(_, known, _)| known.eq_ignore_ascii_case(&algorithm));
    Some(Entry {
        name: name.to_owned(),
        algorithm: known.map(|(algorithm, ..)| *algorithm),
        digest: parse_hex(digest.trim())?,
    })
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?))
        .collect()
}

/// The digests of `source` by all of `algorithms`, reading it once.
///
/// # Errors
/// `Io`, or `Cancelled` when the context's progress was told so.
pub(super) fn digests(
    source: &dyn Source,
    algorithms: impl IntoIterator<Item = Algorithm>,
    cx: &Context<'_>,
) -> Result<BTreeMap<Algorithm, Vec<u8>>> {
    let mut hashers: BTreeMap<_, _> = algorithms.into_iter().map(|a| (a, a.hasher())).collect();
    let mut buf = vec![0; CHUNK];
    let (mut at, end) = (HostOffset::ZERO, HostOffset(source.len()));
    while at < end {
        if cx.progress.is_cancelled() {
            return Err(Error::cancelled());
        }
        let len = usize::try_from(end.since(at)).unwrap_or(CHUNK).min(CHUNK);
        source.read_exact_at(&mut buf[..len], at)?;
        for hasher in hashers.values_mut() {
            hasher.update(&buf[..len]);
        }
        at = HostOffset(at.0 + len as u64);
    }
    Ok(hashers.into_iter().map(|(a, h)| (a, h.finish())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_SHA1: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

    #[test]
    fn reads_the_spellings_in_use() {
        let text = format!(
            "SHA1(a.ovf)= {EMPTY_SHA1}\r\nsha1 (b (1)=.vmdk) = {EMPTY_SHA1}\n\nMD5(c)= 00ff\n"
        );
        let entries = parse(text.as_bytes()).unwrap();
        let names: Vec<_> = entries.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["a.ovf", "b (1)=.vmdk", "c"]);
        assert_eq!(entries[1].algorithm, Some(Algorithm::Sha1));
        assert_eq!(entries[2].algorithm, None);
        assert_eq!(entries[2].digest, [0, 255]);
    }

    #[test]
    fn names_the_line_that_is_wrong() {
        for line in [
            "SHA1(a)= 00",
            "SHA1(a)=",
            "SHA256 a 00",
            "\u{fffd}",
            "SHA1(a)= 0g",
        ] {
            let e = parse(format!("\n{line}").as_bytes()).unwrap_err();
            assert!(e.message().contains("line 2"), "{line}: {e}");
        }
        assert!(parse(b"SHA1(a)= 00\xff").is_err());
    }

    #[test]
    fn digests_are_those_of_the_standards() {
        let all = Algorithm::ALL.map(|(a, ..)| a);
        let limits = crate::Limits::default();
        let found = digests(&Vec::new(), all, &Context::new(&limits)).unwrap();
        assert_eq!(found[&Algorithm::Sha1], parse_hex(EMPTY_SHA1).unwrap());
        for (algorithm, _, len) in Algorithm::ALL {
            assert_eq!(found[&algorithm].len(), len);
        }
    }
}
