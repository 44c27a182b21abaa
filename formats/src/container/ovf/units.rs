//! Programmatic units of DSP0004 (annex C), as far as they count bytes: `byte * 2^30`,
//! `byte*1024*1024`, and the words of older descriptors: `MegaBytes`.

/// `quantity` in bytes. `None`: `unit` does not count bytes, or the result does not fit.
pub(super) fn bytes(quantity: u64, unit: &str) -> Option<u64> {
    let compact: String = unit
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let mut factors = compact.split('*');
    let base = match factors.next()? {
        "byte" | "bytes" | "" => 1,
        "kb" | "kilobyte" | "kilobytes" => 1 << 10,
        "mb" | "megabyte" | "megabytes" => 1 << 20,
        "gb" | "gigabyte" | "gigabytes" => 1 << 30,
        "tb" | "terabyte" | "terabytes" => 1 << 40,
        _ => return None,
    };
    factors.try_fold(quantity.checked_mul(base)?, |product, text| {
        product.checked_mul(factor(text)?)
    })
}

/// `1024` or `2^20`.
fn factor(text: &str) -> Option<u64> {
    match text.split_once('^') {
        Some((base, exponent)) => base
            .parse::<u64>()
            .ok()?
            .checked_pow(exponent.parse().ok()?),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_bytes_in_all_spellings() {
        for unit in [
            "byte * 2^20",
            "byte*1024*1024",
            "byte * 2 ^ 20",
            "MegaBytes",
            "MB",
        ] {
            assert_eq!(bytes(3, unit), Some(3 << 20), "{unit}");
        }
        assert_eq!(bytes(7, ""), Some(7));
        assert_eq!(bytes(1, "byte * 10^9"), Some(1_000_000_000));
    }

    #[test]
    fn refuses_other_units_and_overflow() {
        for unit in [
            "hertz * 10^6",
            "byte * 2^64",
            "byte * 2^-1",
            "byte * x",
            "byte *",
            "2^20",
        ] {
            assert_eq!(bytes(1, unit), None, "{unit}");
        }
        assert_eq!(bytes(u64::MAX, "byte * 2^10"), None);
        assert_eq!(bytes(2, "byte * 2^99999999999"), None);
    }
}
