//! LUKS, versions 1 and 2: encrypted volumes. Described, and read with a passphrase.
//!
//! ```text
//!  version 1   header 592 bytes (cipher, digest, 8 key slots) · key material · payload
//!  version 2   binary header 4096 bytes · JSON area · the same again · key slots · payload
//!
//!  passphrase ──► PBKDF2, Argon2 ──► key of a slot ──► its key material, decrypted and merged
//!                                                            │ volume key, if its digest fits
//!                                       payload sectors ◄────┘
//! ```
//! LUKS1 On-Disk Format Specification 1.2.3; LUKS2 On-Disk Format Specification 1.1.1.
//!
//! Read are AES, Serpent and Twofish in XTS, CBC and ECB, with the initialization vectors plain,
//! plain64, plain64be and ESSIV. Refused are headers apart from their payload, dm-integrity, and
//! volumes in the middle of being encrypted anew. What a header may ask of memory and time is
//! bounded (see [`kdf`]).
//!
//! What is inside cannot be judged without a passphrase, which is a warning (`encrypted`):
//! whoever stores the image decides. A damaged header is unsafe, because programs would disagree
//! on what it protects. The virtual size is that of the decrypted payload.

mod cipher;
mod create;
mod hash;
mod kdf;
mod metadata;
mod reader;
mod sectors;
mod v1;
mod v2;

use std::sync::Arc;

pub(crate) use cipher::{IV_UNIT, SectorCipher};
pub(crate) use create::{NewHeader, create};
pub(crate) use sectors::Sectors;

use crate::Passphrase;
use crate::bytes::be16;
use crate::inspect::{Facts, Next, Region, Severity, Span};
use crate::source::read_up_to;
use crate::{Disk, Error, ErrorKind, Format, HostOffset, OpenOptions, Result, Source};

const MAGIC: &[u8; 6] = b"LUKS\xba\xbe";
/// Bytes that offsets are counted in, and the least a sector has.
const SECTOR: u64 = 512;

/// Opens the payload in `source` with the passphrase of `options`.
///
/// # Errors
/// `Refused` without a passphrase, and for one that opens no key slot; `Malformed` for broken
/// headers, `Unsupported` for ciphers and volumes that are not read, `Limit` for key slots that
/// ask for too much memory or time, `Io`.
pub fn open(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let Some(passphrase) = &options.passphrase else {
        return Err(Error::refused(
            Format::Luks,
            "payload",
            "is encrypted: a passphrase is needed; handing out ciphertext as disk content helps \
             nobody",
        ));
    };
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, v1::LEN as usize)?;
    let (payload, sectors) = match be16(&head, 6) {
        Some(1) if head.starts_with(MAGIC) => {
            let header = v1::Header::parse(&head)?;
            let payload = header.payload(source.len())?;
            let cipher = header.unlock(source.as_ref(), passphrase)?;
            let sectors = Sectors::plain(cipher, payload.start);
            (payload, sectors)
        }
        Some(version) if version > 2 && head.starts_with(MAGIC) => {
            return Err(Error::unsupported(
                Format::Luks,
                "header",
                format!("the version is {version} at byte 6, 1 and 2 are read"),
            ));
        }
        _ => {
            let header = v2::load(source.as_ref())?;
            let payload = header.payload(source.len())?;
            let (cipher, size, first_iv) = header.unlock(source.as_ref(), passphrase)?;
            let sectors = Sectors::new(cipher, payload.start, size, first_iv);
            (payload, sectors)
        }
    };
    let virtual_size = payload.end - payload.start;
    options.limits.virtual_size(Format::Luks, virtual_size)?;
    Ok(Arc::new(reader::Reader {
        source,
        sectors,
        virtual_size,
    }))
}

/// The cipher of the header of version 1 that `source` begins with, where that is kept apart from
/// what it encrypts.
///
/// # Errors
/// Those of [`open`].
pub(crate) fn unlock(source: &dyn Source, passphrase: &Passphrase) -> Result<SectorCipher> {
    let head = read_up_to(source, HostOffset::ZERO, v1::LEN as usize)?;
    match be16(&head, 6) {
        Some(1) if head.starts_with(MAGIC) => v1::Header::parse(&head)?.unlock(source, passphrase),
        version => Err(Error::unsupported(
            Format::Luks,
            "header",
            format!("has the version {version:?} at byte 6 or no magic number, version 1 is read"),
        )),
    }
}

/// Key slots that were tried in vain.
#[derive(Default)]
struct Slots {
    /// Why the first of those could not be tried that could not.
    fault: Option<Error>,
}

impl Slots {
    /// What a slot gave; `None` when it cannot be tried, which another slot may make up for.
    ///
    /// # Errors
    /// `Io`.
    fn tried<T>(&mut self, slot: Result<T>) -> Result<Option<T>> {
        match slot {
            Ok(key) => Ok(Some(key)),
            Err(e) if e.kind() == ErrorKind::Io => Err(e),
            Err(e) => {
                self.fault.get_or_insert(e);
                Ok(None)
            }
        }
    }

    fn none_opened(self) -> Error {
        self.fault.unwrap_or_else(|| {
            Error::refused(
                Format::Luks,
                "key slots",
                "the passphrase opens no key slot",
            )
        })
    }
}

/// Recognises LUKS.
#[derive(Default)]
pub struct Inspector(State);

#[derive(Default)]
enum State {
    #[default]
    Magic,
    Version1,
    Version2,
    /// With the binary header of version 2.
    Copies(Vec<u8>),
}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Luks
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::head(8)])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        match (&self.0, regions) {
            (State::Magic, [magic]) if magic.bytes.starts_with(MAGIC) => {
                match be16(magic.bytes, 6) {
                    Some(1) => {
                        self.0 = State::Version1;
                        Next::Want(vec![Span::head(v1::LEN), Span::Tail(0)])
                    }
                    Some(2) => {
                        self.0 = State::Version2;
                        Next::Want(vec![Span::head(v2::LEN)])
                    }
                    version => Next::Done(unknown_version(version)),
                }
            }
            (State::Version1, [header, end]) => {
                let header = v1::Header::parse(header.bytes);
                Next::Done(describe(header.map(|header| header.describe(end.file_len))))
            }
            (State::Version2, [binary]) => match v2::Header::parse(binary.bytes, 0) {
                Err(e) => Next::Done(describe(Err(e))),
                Ok(header) => {
                    self.0 = State::Copies(binary.bytes.to_vec());
                    let mut wanted = header.spans();
                    wanted.push(Span::Tail(0));
                    Next::Want(wanted)
                }
            },
            (State::Copies(binary), [json, second, end]) => {
                let facts = v2::describe(binary, json.bytes, second.bytes, end.file_len);
                Next::Done(describe(facts))
            }
            _ => Next::NotMine,
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

/// A field of text: up to its first NUL.
fn text(bytes: Option<&[u8]>) -> String {
    let bytes = bytes.unwrap_or_default();
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// As much of a text as fits a message.
fn shown(text: &str) -> String {
    let text: String = text.chars().take(64).collect();
    text.replace(char::is_control, "\u{fffd}")
}

/// The decrypted size in whole sectors, `offset` bytes into the file; a finding where the file
/// ends before.
fn payload_size(facts: &mut Facts, offset: u64, file_len: Option<u64>, sector: u64) -> Option<u64> {
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
    size.map(|size| size - size % sector)
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
