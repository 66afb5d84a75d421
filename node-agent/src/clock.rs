//! The wall clock, read in one place. Durations within the process use tokio's monotonic clock.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Now, ms since the epoch.
pub(crate) fn now_ms() -> u64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH);
    age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// Docker's time stamps (RFC 3339), ns since the epoch; none: not a time stamp, or before 1970,
/// which is how Docker writes "never".
pub(crate) fn parse_ns(text: &str) -> Option<u64> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(parsed.unix_timestamp_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::parse_ns;

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
