//! The wall clock, read in one place. Durations within the process use tokio's monotonic clock.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

/// Now, ms since the epoch.
pub(crate) fn now_ms() -> u64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH);
    age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// The date of an HTTP answer (RFC 9110, 5.6.7), seconds since the epoch.
pub(crate) fn parse_http_date(text: &str) -> Option<i64> {
    let parsed = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Some(parsed.unix_timestamp())
}

/// Docker's time stamps (RFC 3339), ns since the epoch; none: not a time stamp, or before 1970,
/// which is how Docker writes "never".
pub(crate) fn parse_ns(text: &str) -> Option<u64> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(parsed.unix_timestamp_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::{parse_http_date, parse_ns};

    #[test]
    fn the_date_of_an_answer() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(parse_http_date(date), Some(784_111_777));
        assert_eq!(parse_http_date("now"), None);
    }

    #[test]
    fn dockers_stamps() {
        assert_eq!(
            parse_ns("1970-01-01T00:00:01.000000002Z"),
            Some(1_000_000_002)
        );
        assert_eq!(parse_ns("1970-01-01T01:00:00.5+01:00"), Some(500_000_000));
        assert_eq!(parse_ns("0001-01-01T00:00:00Z"), None);
        assert_eq!(parse_ns("yesterday"), None);
    }
}
