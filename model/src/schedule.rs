//! When a cron service is due: an expression and a time zone, as instants. The time zones are part
//! of the binary (IANA, bundled): nothing is read from a disk, so every server computes the same.
//!
//! Where clocks go forward, a fixed time that does not exist is due at the first moment after the
//! gap; where they go back, it is due once, at its first occurrence. A wildcard (`*/15 * * * *`)
//! skips what does not exist and is due in both passes of what occurs twice. (Vixie cron's rules.)

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, Zoned};

use crate::problem::Problem;

/// Longest expression, in bytes.
pub const MAX_EXPRESSION: usize = 200;
/// Longest name of a time zone, in bytes.
pub const MAX_TIME_ZONE: usize = 64;
/// The time zone where none is said.
pub const UTC: &str = "UTC";

/// A schedule that was understood.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Reads an expression of five fields (minute, hour, day of month, month, day of week) or six
    /// (seconds first), or a nickname such as `@daily`, in an IANA time zone.
    ///
    /// # Errors
    /// `run.schedule` or `run.time_zone`, and what is accepted.
    pub fn parse(expression: &str, time_zone: &str) -> Result<Self, Problem> {
        if expression.len() > MAX_EXPRESSION {
            let text = format!("longer than {MAX_EXPRESSION} bytes");
            return Err(Problem::invalid("run.schedule", text));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(expression).map_err(|error| {
            let shown = expression.escape_debug();
            Problem::invalid("run.schedule", format!("`{shown}` is not a schedule: {error}"))
                .hint("minute hour day month weekday, for example `30 2 * * *`; with seconds first; or `@hourly`")
        })?;
        let zone = TimeZoneDatabase::bundled().get(time_zone).map_err(|_| {
            let shown: String = time_zone.chars().take(MAX_TIME_ZONE).collect();
            Problem::invalid(
                "run.time_zone",
                format!("`{}` is not a time zone", shown.escape_debug()),
            )
            .hint("a name of the IANA list, for example Europe/Berlin or UTC")
        })?;
        let schedule = Self { cron, zone };
        if schedule.next_after(0).is_none() {
            let text = format!("`{}` is never due", expression.escape_debug());
            return Err(Problem::invalid("run.schedule", text).hint("a day that exists"));
        }
        Ok(schedule)
    }

    /// The first time that is due after `at_ms` (ms since the epoch); none: never again.
    pub fn next_after(&self, at_ms: u64) -> Option<u64> {
        let start = self.at(at_ms)?;
        to_ms(&self.cron.find_next_occurrence(&start, false).ok()?)
    }

    /// The last time that was due at or before `at_ms`; none: never before.
    pub fn last_until(&self, at_ms: u64) -> Option<u64> {
        // Whole seconds: the search backwards from a fraction errs where clocks go back.
        let start = self.at(at_ms / 1_000 * 1_000)?;
        to_ms(&self.cron.find_previous_occurrence(&start, true).ok()?)
    }

    /// A time as people of the time zone write it.
    pub fn text(&self, at_ms: u64) -> String {
        let text = |at: Zoned| format!("{} {}", at.date(), at.time());
        self.at(at_ms / 1_000 * 1_000)
            .map_or_else(|| at_ms.to_string(), text)
    }

    fn at(&self, at_ms: u64) -> Option<Zoned> {
        let at = Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok()?;
        Some(at.to_zoned(self.zone.clone()))
    }
}

/// A time as people everywhere read it, to the second: `2026-11-30 05:00:00 UTC`.
pub fn utc(at_ms: u64) -> String {
    let at = i64::try_from(at_ms / 1_000).ok();
    let at = at.and_then(|at| Timestamp::from_second(at).ok());
    at.map_or_else(
        || at_ms.to_string(),
        |at| format!("{} UTC", at.to_string().replace('T', " ").replace('Z', "")),
    )
}

fn to_ms(at: &Zoned) -> Option<u64> {
    u64::try_from(at.timestamp().as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        let at: Timestamp = text.parse().expect("a time");
        u64::try_from(at.as_millisecond()).expect("after 1970")
    }

    /// The next times after `from`, as text in UTC.
    fn due(expression: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(expression, zone).expect("a schedule");
        let mut at_ms = ms(from);
        let mut all = Vec::new();
        for _ in 0..count {
            at_ms = schedule.next_after(at_ms).expect("again");
            assert_eq!(schedule.last_until(at_ms), Some(at_ms), "both ways");
            assert!(schedule.last_until(at_ms - 1) < Some(at_ms));
            all.push(
                Timestamp::from_millisecond(at_ms as i64)
                    .expect("a time")
                    .to_string(),
            );
        }
        all
    }

    #[test]
    fn a_time_zone_is_kept_through_the_year() {
        assert_eq!(
            due("0 9 1 * *", "Europe/Berlin", "2025-02-20T00:00:00Z", 3),
            [
                "2025-03-01T08:00:00Z",
                "2025-04-01T07:00:00Z",
                "2025-05-01T07:00:00Z"
            ]
        );
    }

    #[test]
    fn a_time_that_the_clocks_skip_is_due_after_the_gap() {
        // 2025-03-30, 2:00 becomes 3:00 in Berlin.
        assert_eq!(
            due("30 2 * * *", "Europe/Berlin", "2025-03-29T12:00:00Z", 2),
            ["2025-03-30T01:00:00Z", "2025-03-31T00:30:00Z"]
        );
        assert_eq!(
            due("*/30 2 * * *", "Europe/Berlin", "2025-03-29T12:00:00Z", 1),
            ["2025-03-31T00:00:00Z"],
            "what comes by a wildcard is skipped"
        );
    }

    #[test]
    fn a_time_that_occurs_twice_is_due_once() {
        // 2025-10-26, 3:00 becomes 2:00 in Berlin.
        assert_eq!(
            due("30 2 * * *", "Europe/Berlin", "2025-10-25T12:00:00Z", 2),
            ["2025-10-26T00:30:00Z", "2025-10-27T01:30:00Z"]
        );
        assert_eq!(
            due("0 * * * *", "Europe/Berlin", "2025-10-25T23:30:00Z", 3),
            [
                "2025-10-26T00:00:00Z",
                "2025-10-26T01:00:00Z",
                "2025-10-26T02:00:00Z"
            ],
            "every hour is every hour"
        );
    }

    #[test]
    fn seconds_and_nicknames_are_understood() {
        assert_eq!(
            due("*/20 * * * * *", UTC, "2025-01-01T00:00:00Z", 2),
            ["2025-01-01T00:00:20Z", "2025-01-01T00:00:40Z"]
        );
        assert_eq!(
            due("@daily", UTC, "2025-01-01T00:00:00Z", 1),
            ["2025-01-02T00:00:00Z"]
        );
    }

    #[test]
    fn what_is_not_a_schedule_names_its_field() {
        for (expression, zone, field) in [
            ("61 * * * *", UTC, "run.schedule"),
            ("", UTC, "run.schedule"),
            ("every day", UTC, "run.schedule"),
            ("0 0 30 2 *", UTC, "run.schedule"),
            ("0 0 * * *", "Mars/Olympus", "run.time_zone"),
            ("0 0 * * *", "../../etc/passwd", "run.time_zone"),
        ] {
            let problem = Schedule::parse(expression, zone).expect_err(expression);
            assert_eq!(
                problem.field.as_deref(),
                Some(field),
                "{expression} {problem}"
            );
            assert!(problem.hint.is_some());
        }
    }
}
