//! Times, spans and sizes as people say them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, in ms since the epoch.
pub(crate) fn now_ms() -> u64 {
    let age = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

/// How long ago, as seen from `now_ms`; both in ms since the epoch.
pub(crate) fn age(now_ms: u64, then_ms: u64) -> String {
    span(Duration::from_millis(now_ms.saturating_sub(then_ms)))
}

/// A span in its two largest units.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// An amount of bytes in the largest unit that leaves a whole part.
pub(crate) fn bytes(amount: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = amount as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        return format!("{amount} B");
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Reads `90s`, `15m`, `1h` or `7d`.
///
/// # Errors
/// Says what is accepted.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let accepted = "a number and a unit: 90s, 15m, 1h or 7d";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| accepted.to_owned())?;
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(accepted.to_owned()),
    };
    number
        .checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or_else(|| accepted.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_two_units() {
        for (seconds, text) in [(0, "0s"), (61, "1m1s"), (7_260, "2h1m"), (180_000, "2d2h")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!(age(1_000, 5_000), "0s");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(3 << 19), "1.5 MiB");
    }

    #[test]
    fn spans_are_read_or_refused() {
        assert_eq!(parse_span("15m"), Ok(Duration::from_secs(900)));
        for bad in [
            "",
            "m",
            "15",
            "1w",
            "-1s",
            "1 h",
            "99999999999999999999d",
            "99999999999999999d",
        ] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }
}
