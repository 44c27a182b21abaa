//! Sizes as people type them.

/// A size in bytes: a number, with a suffix for 1024 and its powers if wanted (`k`, `M`, `G`,
/// `T`, `P`, `E`; `b` is one byte), and with a fraction before a suffix.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: expected a number and perhaps k, M, G, T, P or E");
    let (number, shift) = match text.as_bytes().last() {
        Some(b'b' | b'B') => (&text[..text.len() - 1], 0),
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        Some(b't' | b'T') => (&text[..text.len() - 1], 40),
        Some(b'p' | b'P') => (&text[..text.len() - 1], 50),
        Some(b'e' | b'E') => (&text[..text.len() - 1], 60),
        _ => (text, 0),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    let has_point = number.len() > whole.len();
    if whole.is_empty() || !is_number(whole) || !is_number(part) || part.len() > 18 {
        return Err(wrong());
    }
    if has_point && (part.is_empty() || shift == 0) {
        return Err(wrong());
    }
    let too_large = || format!("{text:?} is too large");
    let whole: u128 = whole.parse().map_err(|_| too_large())?;
    // At most 18 digits, and a shift of 60: no overflow.
    let part: u128 = match part {
        "" => 0,
        digits => {
            let value: u128 = digits.parse().map_err(|_| wrong())?;
            (value << shift) / 10u128.pow(digits.len() as u32)
        }
    };
    whole
        .checked_mul(1 << shift)
        .and_then(|bytes| u64::try_from(bytes + part).ok())
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_type() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("512b", 512),
            ("4k", 4096),
            ("1.5G", 3 << 29),
            ("10M", 10 << 20),
            ("2T", 2 << 40),
            ("7E", 7 << 60),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in [
            "",
            "k",
            "-1",
            "+1",
            "1.5",
            "1.",
            ".5G",
            "1.G",
            "8E",
            "1e3",
            "10MB",
            "1 G",
            "x",
            "ö",
            "99999999999999999999999999999999999999999999999",
            "0.9999999999999999999G",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
