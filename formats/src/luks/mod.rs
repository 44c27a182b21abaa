//! LUKS, versions 1 and 2: encrypted volumes. Recognised, described, never decrypted.
//!
//! ```text
//!  version 1   header 592 bytes (cipher, digest, 8 key slots) · key material · payload
//!  version 2   binary header 4096 bytes · JSON area · the same again · key slots · payload
//! ```
//! LUKS1 On-Disk Format Specification 1.2.3; LUKS2 On-Disk Format Specification 1.1.
//!
//! What is inside cannot be judged, which is a warning (`encrypted`): whoever stores the image
//! decides. A damaged header is unsafe, because programs would disagree on what it protects.
//! The virtual size is that of the decrypted payload.

mod v1;
mod v2;

use crate::bytes::be16;
use crate::inspect::{Facts, Next, Region, Severity, Span};
use crate::{Error, Format};

const MAGIC: &[u8; 6] = b"LUKS\xba\xbe";

/// Recognises LUKS.
#[derive(Default)]
pub struct Inspector {
    v2: Option<v2::Header>,
}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Luks
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::head(8)])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        match regions {
            [magic] if !magic.bytes.starts_with(MAGIC) => Next::NotMine,
            [magic] => match be16(magic.bytes, 6) {
                Some(1) => Next::Want(vec![Span::head(v1::LEN), Span::Tail(0)]),
                Some(2) => Next::Want(vec![Span::head(v2::LEN), Span::Tail(0), Span::Tail(0)]),
                version => Next::Done(unknown_version(version)),
            },
            [header, end] => Next::Done(describe(match &self.v2 {
                None => v1::describe(header.bytes, end.file_len),
                Some(v2) => v2.describe(header.bytes, end.file_len),
            })),
            [header, ..] => match v2::Header::parse(header.bytes) {
                Err(e) => Next::Done(describe(Err(e))),
                Ok(v2) => {
                    let json = v2.json_span();
                    self.v2 = Some(v2);
                    Next::Want(vec![json, Span::Tail(0)])
                }
            },
            [] => Next::NotMine,
        }
    }
}

fn describe(facts: Result<Facts, Error>) -> Facts {
    let mut facts = facts.unwrap_or_else(|e| {
        let mut facts = Facts::new(Format::Luks);
        facts.find_error(&e);
        facts
    });
    facts.find(
        "encrypted",
        Severity::Warning,
        "payload",
        "is encrypted: what it holds cannot be judged",
    );
    facts
}

fn unknown_version(version: Option<u16>) -> Facts {
    let mut facts = Facts::new(Format::Luks);
    let version = version.map_or("cut off".into(), |v| v.to_string());
    facts.find(
        "version",
        Severity::Unsafe,
        "header, byte 6",
        format!("the version is {version}, allowed 1 and 2"),
    );
    facts
}

/// A field of text: up to its first NUL, fit for print.
fn text(bytes: Option<&[u8]>) -> String {
    let bytes = bytes.unwrap_or_default();
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).replace(char::is_control, "\u{fffd}")
}

/// The decrypted size, `offset` bytes into the file; a finding where the file ends before.
fn payload_size(facts: &mut Facts, offset: u64, file_len: Option<u64>) -> Option<u64> {
    facts.detail("payload_offset", offset);
    let len = file_len?;
    let size = len.checked_sub(offset);
    if size.is_none() {
        facts.find(
            "truncated",
            Severity::Unsafe,
            "payload",
            format!("begins at byte {offset}, the file ends at {len}"),
        );
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use crate::inspect::{Inspection, Verdict, inspect};

    fn judged(file: &[u8]) -> Inspection {
        inspect(&file.to_vec(), &Limits::default()).unwrap()
    }

    #[test]
    fn version_1_is_described_and_warned_of() {
        let file = v1::tests::volume();
        let i = judged(&file);
        assert_eq!((i.format, i.verdict()), (Format::Luks, Verdict::Safe));
        assert_eq!(i.virtual_size, Some(file.len() as u64 - 4096 * 512));
        assert_eq!(
            (&i.details["version"], &i.details["cipher"]),
            (&1.into(), &"aes".into())
        );
        assert_eq!(i.details["active_key_slots"], 1);
        assert_eq!(
            i.findings.iter().map(|f| f.rule).collect::<Vec<_>>(),
            ["encrypted"]
        );
    }

    #[test]
    fn key_slots_that_overlap_are_unsafe() {
        let mut file = v1::tests::volume();
        let second: [u8; 4] = file[208 + 40..][..4].try_into().unwrap();
        file[208 + 48 + 40..][..4].copy_from_slice(&second);
        assert_eq!(judged(&file).unsafe_finding().unwrap().rule, "malformed");
    }

    #[test]
    fn version_2_is_described_by_its_json() {
        let file = v2::tests::volume(
            r#"{"0":{"type":"crypt","offset":"32768","size":"dynamic",
            "encryption":"aes-xts-plain64","sector_size":512}}"#,
        );
        let i = judged(&file);
        assert_eq!((i.format, i.verdict()), (Format::Luks, Verdict::Safe));
        assert_eq!(i.virtual_size, Some(file.len() as u64 - 32768));
        assert_eq!(i.details["cipher"], "aes-xts-plain64");
        assert_eq!(
            i.findings.iter().map(|f| f.rule).collect::<Vec<_>>(),
            ["encrypted"]
        );
    }

    #[test]
    fn damaged_and_unknown_headers_are_unsafe() {
        for json in [
            "{}",
            r#"{"0":{"offset":"-1"}}"#,
            "[",
            r#"{"0":{"offset":"99999999"}}"#,
        ] {
            let i = judged(&v2::tests::volume(json));
            assert_eq!(
                (i.format, i.verdict()),
                (Format::Luks, Verdict::Unsafe),
                "{json}"
            );
        }
        let mut file = v1::tests::volume();
        file[7] = 3;
        assert_eq!(judged(&file).unsafe_finding().unwrap().rule, "version");
        for len in [6, 7, 8, 100, 591, 4096] {
            assert_eq!(
                judged(&v1::tests::volume()[..len]).verdict(),
                Verdict::Unsafe,
                "{len}"
            );
        }
    }
}
