//! The headers of version 2: a binary one of 4096 bytes, big-endian, and a JSON area.

use serde_json::Value;

use super::{payload_size, text};
use crate::bytes::be64;
use crate::inspect::{Facts, Span};
use crate::{Error, Format, Result};

/// Bytes of the binary header.
pub(super) const LEN: u64 = 4096;
/// Sizes of both together: powers of two between these.
const MIN_SIZE: u64 = 16 << 10;
const MAX_SIZE: u64 = 4 << 20;
/// Bytes read of a JSON area: real ones take a few KiB.
const MAX_JSON: u64 = 256 << 10;

/// The binary header.
pub(super) struct Header {
    size: u64,
    label: String,
    checksum_alg: String,
    uuid: String,
}

impl Header {
    pub(super) fn parse(header: &[u8]) -> Result<Self> {
        let malformed = |message| Error::malformed(Format::Luks, "header", message);
        if (header.len() as u64) < LEN {
            let message = format!("the file ends at byte {} within it", header.len());
            return Err(malformed(message));
        }
        let size = be64(header, 8).unwrap_or(0);
        if !size.is_power_of_two() || !(MIN_SIZE..=MAX_SIZE).contains(&size) {
            return Err(malformed(format!(
                "the header size is {size} at byte 8, allowed powers of two from {MIN_SIZE} to \
                 {MAX_SIZE}"
            )));
        }
        match be64(header, 256) {
            Some(0) => Ok(Self {
                size,
                label: text(header.get(24..72)),
                checksum_alg: text(header.get(72..104)),
                uuid: text(header.get(168..208)),
            }),
            at => Err(malformed(format!(
                "says it is at byte {} (byte 256), allowed 0",
                at.unwrap_or(u64::MAX)
            ))),
        }
    }

    /// Where the JSON area lies, as far as it is read.
    pub(super) fn json_span(&self) -> Span {
        Span::At {
            at: LEN,
            len: (self.size - LEN).min(MAX_JSON),
        }
    }

    pub(super) fn describe(&self, json: &[u8], file_len: Option<u64>) -> Result<Facts> {
        let malformed = |message| Error::malformed(Format::Luks, "json area", message);
        let end = json.iter().position(|&b| b == 0).unwrap_or(json.len());
        let json: Value = serde_json::from_slice(&json[..end])
            .map_err(|e| malformed(format!("is no JSON in its first {MAX_JSON} bytes: {e}")))?;
        let segment = &json["segments"]["0"];
        let number = |name: &str| {
            segment[name]
                .as_str()
                .and_then(|text| text.parse::<u64>().ok())
        };

        let mut facts = Facts::new(Format::Luks);
        facts.detail("version", 2);
        facts.detail("label", self.label.as_str());
        facts.detail("uuid", self.uuid.as_str());
        facts.detail("checksum_alg", self.checksum_alg.as_str());
        if let Some(cipher) = segment["encryption"].as_str() {
            facts.detail(
                "cipher",
                text(cipher.as_bytes().get(..cipher.len().min(64))),
            );
        }
        if let Some(size) = segment["sector_size"].as_u64() {
            facts.detail("sector_size", size);
        }
        let offset = number("offset")
            .ok_or_else(|| malformed("segments.0.offset is no number of bytes".into()))?;
        let rest = payload_size(&mut facts, offset, file_len);
        facts.virtual_size = match segment["size"].as_str() {
            Some("dynamic") => rest,
            _ => number("size"),
        };
        Ok(facts)
    }
}

#[cfg(test)]
pub(super) mod tests {
    /// A volume of 64 KiB with these segments.
    pub(in crate::luks) fn volume(segments: &str) -> Vec<u8> {
        let mut file = vec![0; 4096];
        file[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
        file[8..16].copy_from_slice(&16384u64.to_be_bytes());
        file[72..78].copy_from_slice(b"sha256");
        file.extend_from_slice(format!("{{\"segments\":{segments}}}").as_bytes());
        file.resize(64 << 10, 0);
        file
    }
}
