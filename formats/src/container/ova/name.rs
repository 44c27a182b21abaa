//! Names of members, and which of them may be used.

/// Bytes of a member's name.
const MAX_NAME: usize = 255;

/// Whether `name` ends with `suffix`, in capitals or not.
pub(super) fn has_suffix(name: &str, suffix: &str) -> bool {
    let start = name.len().checked_sub(suffix.len());
    start
        .and_then(|start| name.get(start..))
        .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

/// Whether a name is one file beside the others: no folder, no address, nothing unprintable.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != "."
        && name != ".."
        && !name
            .chars()
            .any(|c| matches!(c, '/' | '\\' | ':' | '\u{fffd}') || c.is_control())
}

/// A name as it may be shown.
pub(in crate::container) fn shown(name: &str) -> String {
    let cut = name.floor_char_boundary(80);
    if cut < name.len() {
        format!("{:?}…", &name[..cut])
    } else {
        format!("{name:?}")
    }
}

/// `name` with each `%20` and the like decoded; `None` where it is not encoded rightly.
pub(super) fn percent_decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digit = |n: usize| char::from(digits[n]).to_digit(16);
            bytes.push(u8::try_from(digit(0)? << 4 | digit(1)?).ok()?);
            rest = after;
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_stay_in_the_archive() {
        for name in ["disk.vmdk", "a b (1).vmdk", "büro.ovf", "..a", "%2e%2e"] {
            assert!(is_plain(name), "{name}");
        }
        for name in [
            "", ".", "..", "a/b", "/a", "a\\b", "c:a", "a\0", "a\n", "http://a",
        ] {
            assert!(!is_plain(name), "{name}");
        }
        assert!(!is_plain(&"a".repeat(256)));
    }

    #[test]
    fn percent_decoding_is_whole_or_nothing() {
        assert_eq!(percent_decoded("a%20b").as_deref(), Some("a b"));
        assert_eq!(percent_decoded("%2e%2E/").as_deref(), Some("../"));
        for bad in ["%", "%2", "%zz", "%ff", "%+1", "%€"] {
            assert_eq!(percent_decoded(bad), None, "{bad}");
        }
    }
}
