//! Points in time, in microseconds since 1970 UTC: what all three databases keep alike.

use std::fmt;

use time::OffsetDateTime;
use time::macros::format_description;

/// Microseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This very moment. The only look at the clock; everything else takes time as an argument
    /// where it matters.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the clock"
    )]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// This moment moved by `seconds`.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// From ISO 8601 as the API takes it: date, `T`, time, optional fraction, optional zone
    /// (UTC where there is none). `None` when it is no such thing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        use time::format_description::well_known::Iso8601;
        let moment = OffsetDateTime::parse(text, &Iso8601::PARSING)
            .or_else(|_| {
                time::PrimitiveDateTime::parse(text, &Iso8601::PARSING)
                    .map(time::PrimitiveDateTime::assume_utc)
            })
            .or_else(|_| {
                time::Date::parse(text, &Iso8601::PARSING).map(|d| d.midnight().assume_utc())
            })
            .ok()?;
        i64::try_from(moment.unix_timestamp_nanos() / 1000)
            .ok()
            .map(Self)
    }

    fn moment(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// `Thu, 01 Jan 2026 00:00:00 GMT`, as headers show time.
    #[must_use]
    pub fn http_date(self) -> String {
        let format = format_description!(
            "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
        );
        self.moment().format(format).unwrap_or_default()
    }

    /// `2026-01-01T00:00:00.000000`, as tasks show time.
    #[must_use]
    pub fn with_micros(self) -> String {
        let format = format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]"
        );
        self.moment().format(format).unwrap_or_default()
    }
}

/// `2026-01-01T00:00:00Z`, as images show time.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
        f.write_str(&self.moment().format(format).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let t = Timestamp(1_767_225_600_000_000);
        assert_eq!(t.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(t.with_micros(), "2026-01-01T00:00:00.000000");
        assert_eq!(Timestamp::parse("2026-01-01T00:00:00Z"), Some(t));
        assert_eq!(Timestamp::parse("2026-01-01T00:00:00"), Some(t));
        assert_eq!(Timestamp::parse("2026-01-01T01:00:00+01:00"), Some(t));
        assert_eq!(Timestamp::parse("2026-01-01"), Some(t));
        assert_eq!(Timestamp::parse("yesterday"), None);
    }
}
