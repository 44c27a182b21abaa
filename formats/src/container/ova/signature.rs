//! The certificate beside a manifest: its signature, and by whom.
//!
//! ```text
//!  SHA256(appliance.mf)= hex of the signature over the manifest
//!  -----BEGIN CERTIFICATE----- …
//! ```
//! DSP0243 2.1.1, section 6.4: RSA with PKCS #1 1.5 padding (RFC 8017, section 8.2.2). That the
//! manifest is what was signed is checked with the key in the certificate; whether to trust that
//! certificate is not judged, so anybody's will do.

use num_bigint::BigUint;
use x509_cert::Certificate;
use x509_cert::der::asn1::UintRef;
use x509_cert::der::{Decode, DecodePem, Reader, SliceReader};

use super::Ova;
use super::name::shown;
use crate::Result;
use crate::container::manifest::{self, Algorithm, Entry};
use crate::inspect::Severity;

/// The largest certificate file read, in bytes: programs pad them to 100 KiB.
const MAX_LEN: u64 = 256 << 10;
/// Bits of a key: what is longer takes long to check.
const MAX_KEY: u64 = 16384;
/// Bits of a public exponent.
const MAX_EXPONENT: u64 = 64;

const RSA: &str = "1.2.840.113549.1.1.1";

impl Ova {
    /// Checks the signature in the member `certificate` against the member `manifest`.
    pub(super) fn check_signature(
        &mut self,
        certificate: &str,
        manifest: Option<&str>,
    ) -> Result<()> {
        let place = "certificate";
        let Some(manifest) = manifest else {
            let message = "there is a certificate, but no manifest that it could sign";
            self.find("ova_signature", Severity::Warning, place, message);
            return Ok(());
        };
        let text = self.read_member(certificate, MAX_LEN)?;
        let signed = self.read_member(manifest, manifest::MAX_LEN)?;
        match verify(&text, manifest, &signed) {
            Ok(Verified::By(subject)) => {
                let message = format!(
                    "signed by {}, which is not checked against any authority",
                    shown(&subject)
                );
                self.find("ova_signature", Severity::Warning, place, message);
            }
            Ok(Verified::Wrong) => {
                let message = "the signature is not that of the manifest: one of them was changed";
                self.find("ova_signature_mismatch", Severity::Unsafe, place, message);
            }
            Err(reason) => {
                let message = format!("is signed; the signature is not checked: {reason}");
                self.find("ova_signature", Severity::Warning, place, message);
            }
        }
        Ok(())
    }
}

enum Verified {
    /// The certificate's subject.
    By(String),
    Wrong,
}

/// Checks `text`, a certificate file, against `manifest`, called `name`. An error says why that
/// is not possible.
fn verify(text: &[u8], name: &str, manifest: &[u8]) -> Result<Verified, String> {
    let text = std::str::from_utf8(text).map_err(|_| "the file is not UTF-8")?;
    let entry = text
        .lines()
        .find_map(|line| manifest::parse_signature(line.trim()))
        .ok_or("it has no line of the form `SHA256(file)= signature`")?;
    if entry.name != name {
        return Err(format!("it signs {}", shown(&entry.name)));
    }
    let algorithm = entry.algorithm.ok_or("its digest is of a kind not known")?;
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let pem = text
        .find(begin)
        .and_then(|at| {
            let rest = &text[at..];
            Some(&rest[..rest.find(end)? + end.len()])
        })
        .ok_or("it holds no certificate")?;
    let certificate = Certificate::from_pem(pem).map_err(|e| format!("no certificate: {e}"))?;
    let certificate = certificate.tbs_certificate();
    let key = certificate.subject_public_key_info();
    let kind = key.algorithm.oid.to_string();
    if kind != RSA {
        return Err(format!("its key is none of RSA, but of {kind}"));
    }
    let key = parse_key(key.subject_public_key.raw_bytes()).ok_or("its RSA key is not usable")?;
    let is_right = key.verify(&entry, algorithm, manifest);
    Ok(match is_right {
        true => Verified::By(certificate.subject().to_string()),
        false => Verified::Wrong,
    })
}

struct Key {
    modulus: BigUint,
    exponent: BigUint,
}

fn parse_key(der: &[u8]) -> Option<Key> {
    let mut reader = SliceReader::new(der).ok()?;
    let (modulus, exponent) = reader
        .sequence(
            |reader: &mut SliceReader<'_>| -> x509_cert::der::Result<_> {
                Ok((UintRef::decode(reader)?, UintRef::decode(reader)?))
            },
        )
        .ok()?;
    let key = Key {
        modulus: BigUint::from_bytes_be(modulus.as_bytes()),
        exponent: BigUint::from_bytes_be(exponent.as_bytes()),
    };
    let fits = key.modulus.bits() <= MAX_KEY && key.exponent.bits() <= MAX_EXPONENT;
    (fits && key.modulus.bits() >= 512 && key.modulus.bit(0)).then_some(key)
}

impl Key {
    fn verify(&self, signature: &Entry, algorithm: Algorithm, message: &[u8]) -> bool {
        let len = usize::try_from(self.modulus.bits().div_ceil(8)).unwrap_or(0);
        let number = BigUint::from_bytes_be(&signature.digest);
        if signature.digest.len() != len || number >= self.modulus {
            return false;
        }
        let opened = number.modpow(&self.exponent, &self.modulus).to_bytes_be();
        // 0 1 ff … ff 0 digest; the first zero is not in the number.
        let tail = [algorithm.digest_info(), &algorithm.digest(message)].concat();
        let Some(padding) = len.checked_sub(3 + tail.len()).filter(|&n| n >= 8) else {
            return false;
        };
        let expected = [&[1][..], &vec![0xff; padding], &[0], &tail].concat();
        opened == expected
    }
}
