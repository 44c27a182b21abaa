//! The JSON of version 2: key slots, digests, segments.

use std::collections::BTreeMap;
use std::ops::Range;

use argon2::Algorithm;
use base64ct::{Base64, Encoding as _};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::hash::Hash;
use super::kdf::{Kdf, Work};
use super::shown;
use crate::{Error, Format, Result};

/// What the JSON says, as far as it matters here.
pub(super) struct Metadata {
    /// Those that hold keys of the volume, the ones to try first in front.
    pub(super) keyslots: Vec<(String, Keyslot)>,
    digests: BTreeMap<String, Digest>,
    /// The payload, or the first part of it.
    pub(super) segment: Segment,
    /// Why the payload is not read, where that is so.
    pub(super) hindrance: Option<String>,
}

#[derive(Deserialize)]
struct Json {
    keyslots: BTreeMap<String, Value>,
    segments: BTreeMap<String, Value>,
    digests: BTreeMap<String, Value>,
    #[serde(default)]
    config: Config,
}

#[derive(Deserialize, Default)]
struct Config {
    #[serde(default)]
    requirements: Requirements,
}

#[derive(Deserialize, Default)]
struct Requirements {
    #[serde(default)]
    mandatory: Vec<String>,
}

/// A piece of the payload.
#[derive(Deserialize)]
pub(super) struct Segment {
    r#type: String,
    /// In bytes.
    #[serde(deserialize_with = "number")]
    pub(super) offset: u64,
    /// In bytes; `None` is to the end of the file.
    #[serde(deserialize_with = "size")]
    pub(super) size: Option<u64>,
    #[serde(default, deserialize_with = "number")]
    pub(super) iv_tweak: u64,
    #[serde(default)]
    pub(super) encryption: String,
    #[serde(default = "sector")]
    pub(super) sector_size: u32,
    integrity: Option<Value>,
    #[serde(default)]
    flags: Vec<String>,
}

fn sector() -> u32 {
    512
}

/// A key slot of type `luks2`.
#[derive(Deserialize)]
pub(super) struct Keyslot {
    /// Bytes of the volume's key.
    pub(super) key_size: u32,
    pub(super) af: Af,
    pub(super) area: Area,
    kdf: Value,
    /// 0 is to be tried last, 2 first.
    #[serde(default = "normal")]
    priority: u8,
}

fn normal() -> u8 {
    1
}

/// The anti-forensic splitter.
#[derive(Deserialize)]
pub(super) struct Af {
    pub(super) stripes: u32,
    pub(super) hash: String,
}

/// Where key material is, and how it is encrypted.
#[derive(Deserialize)]
pub(super) struct Area {
    #[serde(deserialize_with = "number")]
    pub(super) offset: u64,
    #[serde(deserialize_with = "number")]
    pub(super) size: u64,
    pub(super) encryption: String,
    /// Bytes of the key that encrypts it.
    pub(super) key_size: u32,
}

#[derive(Deserialize)]
struct AreaAlone {
    area: Place,
}

/// What all areas have, whatever their type.
#[derive(Deserialize)]
struct Place {
    #[serde(deserialize_with = "number")]
    offset: u64,
    #[serde(deserialize_with = "number")]
    size: u64,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum KdfJson {
    #[serde(rename = "pbkdf2")]
    Pbkdf2 {
        hash: String,
        iterations: u32,
        salt: String,
    },
    #[serde(rename = "argon2i")]
    Argon2i(Argon2Json),
    #[serde(rename = "argon2id")]
    Argon2id(Argon2Json),
}

#[derive(Deserialize)]
struct Argon2Json {
    time: u32,
    memory: u32,
    cpus: u32,
    salt: String,
}

/// What a volume's key must hash to.
#[derive(Deserialize)]
pub(super) struct Digest {
    r#type: String,
    keyslots: Vec<String>,
    segments: Vec<String>,
    hash: String,
    iterations: u32,
    salt: String,
    digest: String,
}

fn malformed(message: impl Into<String>) -> Error {
    Error::malformed(Format::Luks, "json area", message)
}

/// Numbers beyond 32 bits are written as text.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    text.parse()
        .map_err(|_| D::Error::custom(format!("{:?} is no number of bytes", shown(&text))))
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(from)?;
    match text.as_str() {
        "dynamic" => Ok(None),
        _ => text
            .parse()
            .map(Some)
            .map_err(|_| D::Error::custom(format!("{:?} is no size", shown(&text)))),
    }
}

fn from_value<T: DeserializeOwned>(what: &str, name: &str, value: &Value) -> Result<T> {
    T::deserialize(value).map_err(|e| malformed(format!("{what} {:?}: {e}", shown(name))))
}

fn base64(text: &str) -> Result<Vec<u8>> {
    Base64::decode_vec(text).map_err(|e| malformed(format!("{:?} is no base64: {e}", shown(text))))
}

impl Metadata {
    /// Reads the JSON area, which ends with its first NUL. Key material may begin at byte `least`
    /// of the file.
    ///
    /// # Errors
    /// `Malformed`.
    pub(super) fn parse(area: &[u8], least: u64) -> Result<Self> {
        let end = area.iter().position(|&b| b == 0).unwrap_or(area.len());
        let json: Json = serde_json::from_slice(&area[..end])
            .map_err(|e| malformed(format!("its first {end} bytes: {e}")))?;

        let mut segments = Vec::new();
        for (name, value) in &json.segments {
            let segment: Segment = from_value("segment", name, value)?;
            if !segment.flags.iter().any(|flag| flag.starts_with("backup-")) {
                segments.push((name, segment));
            }
        }
        segments.sort_by_key(|(name, _)| order(name));
        let parts = segments.len();
        let Some((name, segment)) = segments.into_iter().next() else {
            return Err(malformed("there is no segment"));
        };
        apart(&json.keyslots, least, segment.offset)?;
        let hindrance = hindrance(&json.config.requirements.mandatory, parts, &segment);

        let mut keyslots = Vec::new();
        for (name, value) in &json.keyslots {
            if value["type"] == "luks2" {
                keyslots.push((name.clone(), from_value("keyslot", name, value)?));
            }
        }
        keyslots.sort_by_key(|(name, slot): &(String, Keyslot)| {
            (std::cmp::Reverse(slot.priority), order(name))
        });
        let mut digests = BTreeMap::new();
        for (digest_name, value) in &json.digests {
            let digest: Digest = from_value("digest", digest_name, value)?;
            if digest.segments.contains(name) {
                digests.insert(digest_name.clone(), digest);
            }
        }
        Ok(Self {
            keyslots,
            digests,
            segment,
            hindrance,
        })
    }

    /// The digests of the payload's key that the key in `keyslot` has to fit.
    pub(super) fn digests_of(&self, keyslot: &str) -> impl Iterator<Item = &Digest> {
        self.digests
            .values()
            .filter(move |digest| digest.keyslots.iter().any(|name| name == keyslot))
    }
}

/// Names are numbers; what is none comes last.
fn order(name: &str) -> u32 {
    name.parse().unwrap_or(u32::MAX)
}

/// Why the payload is not read.
fn hindrance(requirements: &[String], parts: usize, segment: &Segment) -> Option<String> {
    if let Some(requirement) = requirements.first() {
        let requirement = shown(requirement);
        let what = if requirement.contains("reencrypt") {
            "it is being encrypted anew: let cryptsetup finish that first"
        } else {
            "it is not known here"
        };
        return Some(format!("reading it requires {requirement:?}: {what}"));
    }
    if parts > 1 {
        return Some(format!("the payload is in {parts} segments, one is read"));
    }
    if segment.r#type != "crypt" {
        return Some(format!(
            "the segment is of type {:?}, \"crypt\" is read",
            shown(&segment.r#type)
        ));
    }
    segment
        .integrity
        .is_some()
        .then(|| "the payload is kept with dm-integrity, which is not read".into())
}

/// The areas of key slots lie between the headers and the payload, without overlapping.
fn apart(keyslots: &BTreeMap<String, Value>, least: u64, payload: u64) -> Result<()> {
    let mut taken: Vec<(Range<u64>, &str)> = Vec::new();
    for (name, value) in keyslots {
        let Place { offset, size } = from_value::<AreaAlone>("keyslot", name, value)?.area;
        match offset.checked_add(size) {
            Some(end) if offset >= least && (payload == 0 || end <= payload) => {
                taken.push((offset..end, name));
            }
            _ => {
                return Err(malformed(format!(
                    "keyslot {:?} has {size} bytes at byte {offset}, allowed {least} to {payload}",
                    shown(name)
                )));
            }
        }
    }
    taken.sort_by_key(|(range, _)| range.start);
    for pair in taken.windows(2) {
        let [(a, first), (b, second)] = pair else {
            continue;
        };
        if b.start < a.end {
            return Err(malformed(format!(
                "the areas of keyslots {:?} and {:?} overlap",
                shown(first),
                shown(second)
            )));
        }
    }
    Ok(())
}

impl Keyslot {
    /// How its key comes from a passphrase.
    ///
    /// # Errors
    /// `Malformed`, or `Unsupported` for what is not known.
    pub(super) fn kdf(&self) -> Result<Kdf> {
        let (algorithm, json) = match from_value("kdf", "", &self.kdf)? {
            KdfJson::Pbkdf2 {
                hash,
                iterations,
                salt,
            } => {
                return Ok(Kdf::Pbkdf2 {
                    hash: Hash::named(&hash)?,
                    iterations,
                    salt: base64(&salt)?,
                });
            }
            KdfJson::Argon2i(json) => (Algorithm::Argon2i, json),
            KdfJson::Argon2id(json) => (Algorithm::Argon2id, json),
        };
        Ok(Kdf::Argon2 {
            algorithm,
            time: json.time,
            memory: json.memory,
            lanes: json.cpus,
            salt: base64(&json.salt)?,
        })
    }
}

/// Bytes a digest may have: less would be too easily met.
const DIGEST_LENS: Range<usize> = 20..65;

impl Digest {
    /// Whether it is the digest of `key`.
    ///
    /// # Errors
    /// `Malformed`, `Unsupported`, `Limit`.
    pub(super) fn fits(&self, key: &[u8], work: &mut Work) -> Result<bool> {
        let expected = base64(&self.digest)?;
        if self.r#type != "pbkdf2" || !DIGEST_LENS.contains(&expected.len()) {
            return Err(malformed(format!(
                "a digest is of type {:?} and has {} bytes, allowed \"pbkdf2\" and {DIGEST_LENS:?}",
                shown(&self.r#type),
                expected.len()
            )));
        }
        let kdf = Kdf::Pbkdf2 {
            hash: Hash::named(&self.hash)?,
            iterations: self.iterations,
            salt: base64(&self.salt)?,
        };
        Ok(*kdf.derive(key, expected.len(), work)? == expected)
    }
}
