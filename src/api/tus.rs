//! The words of tus 1.0: what its headers say, and what every answer has.
//! <https://tus.io/protocols/resumable-upload>

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::Failure;
use super::extract::text;
use crate::domain::{HashAlgo, Part, Resumable};
use crate::ingest::resumable::{Checksum, Error, MAX_METADATA};

/// The media type of bytes that belong at an offset.
pub(super) const OCTETS: &str = "application/offset+octet-stream";

const VERSION: &str = "1.0.0";
const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const CONCAT: HeaderName = HeaderName::from_static("upload-concat");
const CHECKSUM: &str = "upload-checksum";

const EXTENSIONS: &str =
    "creation,creation-with-upload,checksum,termination,expiration,concatenation";
/// Hashes of a request's bytes.
const ALGORITHMS: &str = "md5,sha1,sha256,sha384,sha512";

/// Checks that the client speaks our version.
pub(super) fn spoken(headers: &HeaderMap) -> Result<(), Failure> {
    match text(headers, RESUMABLE.as_str())? {
        Some(VERSION) => Ok(()),
        _ => Err(Failure::new(
            StatusCode::PRECONDITION_FAILED,
            "This resource speaks version 1.0.0 of tus: send Tus-Resumable.",
        )
        .with(HeaderName::from_static("tus-version"), VERSION)),
    }
}

/// Whether a path is that of uploads: `/v2/images/{id}/upload`, or of one of them.
pub(super) fn is_upload(path: &str) -> bool {
    let mut parts = path.trim_start_matches('/').split('/').skip(1);
    parts.next() == Some("images") && parts.nth(1) == Some("upload")
}

/// What we can, for `OPTIONS`.
pub(super) fn tell_abilities(headers: &mut HeaderMap, max_size: u64) {
    let tell = |name, value| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    headers.extend([
        tell("tus-resumable", VERSION),
        tell("tus-version", VERSION),
        tell("tus-extension", EXTENSIONS),
        tell("tus-checksum-algorithm", ALGORITHMS),
    ]);
    headers.insert(HeaderName::from_static("tus-max-size"), max_size.into());
}

/// An answer with what every answer has.
pub(super) fn said(answer: Result<Response, Failure>) -> Result<Response, Failure> {
    match answer {
        Ok(mut response) => {
            let headers = response.headers_mut();
            headers.insert(RESUMABLE, HeaderValue::from_static(VERSION));
            Ok(response)
        }
        Err(failure) => Err(failure.with(RESUMABLE, VERSION)),
    }
}

/// A header that holds a number of bytes.
fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Failure> {
    let value = text(headers, name.as_str())?;
    let number = value.map(|value| value.trim().parse().ok());
    match number {
        Some(None) => Err(Failure::bad(format!("{name} must be a number of bytes"))),
        Some(number) => Ok(number),
        None => Ok(None),
    }
}

/// Bytes of the upload to be created.
pub(super) fn length(headers: &HeaderMap) -> Result<u64, Failure> {
    // Catalogs count in 63 bits.
    let known = number(headers, &LENGTH)?.filter(|n| i64::try_from(*n).is_ok());
    known.ok_or_else(|| Failure::bad("Upload-Length must say how many bytes will come"))
}

/// Where the bytes of a request belong.
pub(super) fn offset(headers: &HeaderMap) -> Result<u64, Failure> {
    number(headers, &OFFSET)?.ok_or_else(|| Failure::bad("Upload-Offset is missing"))
}

/// What the client says of its upload, kept as it came.
pub(super) fn metadata(headers: &HeaderMap) -> Result<String, Failure> {
    let said = text(headers, METADATA.as_str())?.unwrap_or_default();
    match said.len() <= MAX_METADATA && said.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        true => Ok(said.to_owned()),
        false => Err(Failure::bad("Upload-Metadata is too long, or no ASCII")),
    }
}

/// What an upload is of: alone, a part, or joined from the uploads at the end of these paths.
pub(super) fn concat(headers: &HeaderMap) -> Result<(Part, Vec<String>), Failure> {
    match text(headers, CONCAT.as_str())? {
        None => Ok((Part::Whole, Vec::new())),
        Some("partial") => Ok((Part::Part, Vec::new())),
        Some(said) => {
            let urls = said.strip_prefix("final;");
            let urls =
                urls.ok_or_else(|| Failure::bad("Upload-Concat is partial or final;URLs"))?;
            let ids = urls.split_whitespace().map(|url| {
                let id = url.trim_end_matches('/').rsplit('/').next();
                id.unwrap_or_default().to_owned()
            });
            Ok((Part::Joined, ids.collect()))
        }
    }
}

/// The digest of the bytes in a request.
pub(super) fn checksum(headers: &HeaderMap) -> Result<Option<Checksum>, Failure> {
    let Some(said) = text(headers, CHECKSUM)? else {
        return Ok(None);
    };
    let parse = || {
        let (algo, value) = said.trim().split_once(' ')?;
        let algo: HashAlgo = algo.parse().ok()?;
        let value = STANDARD.decode(value.trim()).ok()?;
        let value: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        (value.len() == algo.hex_len()).then_some(Checksum { algo, value })
    };
    let checksum = parse().ok_or_else(|| {
        Failure::bad(format!(
            "Upload-Checksum is one of {ALGORITHMS}, and its digest in Base64"
        ))
    });
    checksum.map(Some)
}

/// Tells of an upload, below the path of all uploads of its image.
pub(super) fn tell(headers: &mut HeaderMap, upload: &Resumable, path: &str) {
    let mut tell = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    tell(OFFSET, upload.received.to_string());
    tell(LENGTH, upload.size.to_string());
    tell(EXPIRES, upload.expires_at.http_date());
    if !upload.metadata.is_empty() {
        tell(METADATA, upload.metadata.clone());
    }
    match upload.part {
        Part::Whole => {}
        Part::Part => tell(CONCAT, "partial".into()),
        Part::Joined => {
            let paths = upload.parts.iter().map(|id| format!("{path}/{id}"));
            tell(
                CONCAT,
                format!("final;{}", paths.collect::<Vec<_>>().join(" ")),
            );
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let sentence = error.to_string();
        let status = match error {
            Error::Ingest(error) => return error.into(),
            Error::Gone => StatusCode::NOT_FOUND,
            Error::Busy => StatusCode::LOCKED,
            Error::Elsewhere => StatusCode::MISDIRECTED_REQUEST,
            Error::Offset { .. } | Error::TooMany => StatusCode::CONFLICT,
            Error::TooMuch { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            // The protocol's own number.
            Error::Checksum => StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST),
            Error::Parts(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn checksums_are_what_they_say() {
        let parse = |value| checksum(&headers(CHECKSUM, value));
        let sha1 = parse("sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=").unwrap().unwrap();
        assert_eq!(sha1.value, "2aae6c35c94fcfb415dbe95f408b9ce91ee846ed");
        for wrong in ["sha1", "crc32 AAAA", "sha1 AAAA", "sha1 ?", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(checksum(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn parts_are_named_by_their_urls() {
        let parse = |value| concat(&headers("upload-concat", value));
        let (part, ids) =
            parse("final;http://host/v2/images/i/upload/aa /v2/x/upload/bb/").unwrap();
        assert_eq!((part, ids), (Part::Joined, vec!["aa".into(), "bb".into()]));
        assert_eq!(parse("partial").unwrap().0, Part::Part);
        assert!(parse("whole").is_err());
    }

    #[test]
    fn sizes_fit_the_catalog() {
        assert_eq!(length(&headers("upload-length", "0")).unwrap(), 0);
        for wrong in ["-1", "9223372036854775808", "many"] {
            assert!(length(&headers("upload-length", wrong)).is_err(), "{wrong}");
        }
        assert!(length(&HeaderMap::new()).is_err());
    }
}
