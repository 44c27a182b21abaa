//! The part of an image's data that a request asks for (RFC 9110 14, with the reference's quirks:
//! one range only, and a `Content-Range` header in the request is honoured too).

use std::ops::Range;

use axum::http::{HeaderMap, header};

/// Why a range is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// Several ranges: 400.
    Several,
    /// It cannot be satisfied; the sentence says why: 416.
    Unsatisfiable(String),
}

/// The bytes asked for, of an image of `size` bytes; `None` when the whole of it is. That is so too
/// under a condition, `If-Range`: answers carry no validator, so none that a client has can match
/// (RFC 9110 13.1.5).
///
/// # Errors
/// [`Refused`]
pub(super) fn requested(headers: &HeaderMap, size: u64) -> Result<Option<Range<u64>>, Refused> {
    let (name, header, parse): (_, _, fn(&str) -> Option<Wanted>) = match (
        headers.get(header::RANGE),
        headers.get(header::CONTENT_RANGE),
    ) {
        (Some(_), _) if headers.contains_key(header::IF_RANGE) => return Ok(None),
        (Some(range), _) => ("Range", range, parse_range),
        (None, Some(range)) => ("Content-Range", range, parse_content_range),
        (None, None) => return Ok(None),
    };
    let text = header.to_str().unwrap_or_default();
    if text.contains(',') {
        return Err(Refused::Several);
    }
    let wanted =
        parse(text).ok_or_else(|| Refused::Unsatisfiable(format!("Invalid {name} header.")))?;
    let range = match wanted {
        Wanted::From(start, end) => {
            start..end.map_or(size, |last| last.saturating_add(1)).min(size)
        }
        Wanted::Last(count) => size.saturating_sub(count)..size,
    };
    if range.start >= size {
        return Err(Refused::Unsatisfiable(format!(
            "Invalid start position in {name} header. Start position MUST be in the inclusive \
             range [0, {}].",
            size.saturating_sub(1)
        )));
    }
    Ok(Some(range))
}

enum Wanted {
    /// From the first byte, to the last one or the end.
    From(u64, Option<u64>),
    /// So many at the end.
    Last(u64),
}

/// `bytes=2-5`, `bytes=6-`, `bytes=-4`.
fn parse_range(text: &str) -> Option<Wanted> {
    let (unit, range) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.split_once('-')?;
    match (first.trim(), last.trim()) {
        ("", last) => Some(Wanted::Last(number(last)?)),
        (first, "") => Some(Wanted::From(number(first)?, None)),
        (first, last) => bounded(number(first)?, number(last)?),
    }
}

/// `bytes 2-5/17`, `bytes 2-5/*`.
fn parse_content_range(text: &str) -> Option<Wanted> {
    let range = text.trim().strip_prefix("bytes")?.trim_start();
    let (range, total) = range.split_once('/')?;
    if total.trim() != "*" {
        number(total.trim())?;
    }
    let (first, last) = range.split_once('-')?;
    bounded(number(first.trim())?, number(last.trim())?)
}

fn bounded(first: u64, last: u64) -> Option<Wanted> {
    (first <= last).then_some(Wanted::From(first, Some(last)))
}

/// Digits alone; more than fit are as good as the largest number.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(name: &'static str, value: &str, size: u64) -> Result<Option<Range<u64>>, Refused> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        requested(&headers, size)
    }

    #[test]
    fn one_range() {
        assert_eq!(requested(&HeaderMap::new(), 17), Ok(None));
        for (text, want) in [
            ("bytes=2-5", 2..6),
            ("bytes=6-", 6..17),
            ("bytes=-4", 13..17),
            ("bytes=-400", 0..17),
            ("Bytes = 3 - 99999999999999999999999", 3..17),
            ("bytes=16-16", 16..17),
        ] {
            assert_eq!(range("range", text, 17), Ok(Some(want)), "{text}");
        }
        assert_eq!(range("content-range", "bytes 2-5/17", 17), Ok(Some(2..6)));
        assert_eq!(range("content-range", "bytes 2-5/*", 17), Ok(Some(2..6)));
    }

    #[test]
    fn a_range_of_something_else_is_none() {
        let mut headers = HeaderMap::new();
        headers.insert("range", "bytes=2-5".parse().unwrap());
        headers.insert("if-range", "\"other\"".parse().unwrap());
        assert_eq!(requested(&headers, 17), Ok(None));
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(range("range", "bytes=0-1,4-5", 17), Err(Refused::Several));
        for text in [
            "lines=1-2",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=17-",
            "bytes=-0",
            "bytes",
            "",
        ] {
            assert!(
                matches!(range("range", text, 17), Err(Refused::Unsatisfiable(_))),
                "{text}"
            );
        }
        assert!(matches!(
            range("range", "bytes=0-", 0),
            Err(Refused::Unsatisfiable(_))
        ));
    }
}
