//! What stands between a deployment and its beginning: approvals, freezes, a pinned service. Owns their rules and when a
//! freeze holds; what a closed gate means for a deployment, the server says.

use serde::{Deserialize, Serialize};

use crate::name;
use crate::problem::Problem;
use crate::schedule::{MAX_TIME_ZONE, Schedule};

/// Most freezes of a workspace or an environment.
pub const MAX_FREEZES: usize = 50;
/// Longest freeze that comes again, in ms: 30 days.
pub const MAX_FREEZE_MS: u64 = 30 * 86_400_000;
/// Longest reason, in bytes.
pub const MAX_REASON: usize = 500;
/// Ends of freezes that are followed where one begins before the other has ended.
const MAX_CHAIN: usize = 1_000;

/// What deployments have to get through in an environment, or in every environment of a workspace. The default holds nothing up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Gates {
    /// Somebody has to approve each.
    pub approval: bool,
    /// When nothing begins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub freezes: Vec<Freeze>,
}

/// Times at which no deployment begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// Unique where it is said.
    pub name: String,
    /// When.
    pub window: Window,
    /// Why; empty: nothing was said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// When a freeze holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Window {
    /// Once.
    Once {
        /// Its first moment, ms since the epoch.
        from_ms: u64,
        /// The first moment after it, ms since the epoch.
        until_ms: u64,
    },
    /// Again and again.
    Again {
        /// When it begins: minute, hour, day of month, month, weekday.
        schedule: String,
        /// An IANA time zone.
        time_zone: String,
        /// How long it holds, in ms.
        for_ms: u64,
    },
}

/// Why a service stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pin {
    /// What was said; empty: nothing.
    pub reason: String,
    /// Since when, ms since the epoch.
    pub since_ms: u64,
}

/// That a deployment is not through yet, and what was said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// When somebody approved it; none: nobody did.
    pub approved_ms: Option<u64>,
    /// Whoever did said that freezes do not hold it.
    pub despite_freeze: bool,
    /// How often the forge said that something is new about its commit.
    pub heard: u32,
}

impl Gates {
    /// Whether they hold nothing up, ever.
    pub fn is_empty(&self) -> bool {
        !self.approval && self.freezes.is_empty()
    }

    /// What every server agrees on.
    ///
    /// # Errors
    /// Names the field.
    pub fn check(&self) -> Result<(), Problem> {
        if self.freezes.len() > MAX_FREEZES {
            let text = format!("more than {MAX_FREEZES} freezes");
            return Err(Problem::invalid("freezes", text).hint("take out those that are over"));
        }
        for (at, freeze) in self.freezes.iter().enumerate() {
            freeze.check()?;
            if self.freezes[..at].iter().any(|it| it.name == freeze.name) {
                let text = format!("there are two freezes `{}`", freeze.name);
                return Err(Problem::invalid("freezes", text));
            }
        }
        Ok(())
    }

    /// The freeze that holds longest from this moment on, without a gap, and the first moment after it.
    pub fn frozen(&self, now_ms: u64) -> Option<(&Freeze, u64)> {
        let holds = |at_ms: u64| {
            let ends = self.freezes.iter();
            ends.filter_map(|it| Some((it, it.window.end_ms(at_ms)?)))
                .max_by_key(|(_, until_ms)| *until_ms)
        };
        let mut found = holds(now_ms)?;
        for _ in 0..MAX_CHAIN {
            match holds(found.1) {
                Some(next) => found = next,
                None => break,
            }
        }
        Some(found)
    }
}

impl Freeze {
    /// Checks every field.
    ///
    /// # Errors
    /// Names the field.
    pub fn check(&self) -> Result<(), Problem> {
        name::check("freeze", &self.name)?;
        check_reason(&self.reason)?;
        match &self.window {
            Window::Once { from_ms, until_ms } if from_ms >= until_ms => {
                let text = "it ends before it begins";
                Err(Problem::invalid("freeze.until", text).hint("a later time"))
            }
            Window::Once { .. } => Ok(()),
            Window::Again { for_ms, .. } if *for_ms == 0 || *for_ms > MAX_FREEZE_MS => {
                let text = format!("it cannot hold for {for_ms} ms");
                Err(Problem::invalid("freeze.for", text).hint("up to 30 days, for example 62h"))
            }
            Window::Again { time_zone, .. } if time_zone.len() > MAX_TIME_ZONE => {
                let text = "that is no time zone";
                Err(Problem::invalid("freeze.time_zone", text))
            }
            Window::Again {
                schedule,
                time_zone,
                ..
            } => Schedule::parse(schedule, time_zone)
                .map(|_| ())
                .map_err(|problem| {
                    let field = match problem.field.as_deref() {
                        Some("run.time_zone") => "freeze.time_zone",
                        _ => "freeze.schedule",
                    };
                    problem.at(field)
                }),
        }
    }
}

impl Window {
    /// The first moment after it, if it holds at this one. A schedule that this version cannot read never holds.
    pub fn end_ms(&self, now_ms: u64) -> Option<u64> {
        let until_ms = match self {
            Self::Once { from_ms, until_ms } => (*from_ms <= now_ms).then_some(*until_ms)?,
            Self::Again {
                schedule,
                time_zone,
                for_ms,
            } => {
                let schedule = Schedule::parse(schedule, time_zone).ok()?;
                schedule.last_until(now_ms)?.saturating_add(*for_ms)
            }
        };
        (now_ms < until_ms).then_some(until_ms)
    }
}

/// Checks why something is frozen or pinned.
///
/// # Errors
/// It is too long, or no line of text.
pub fn check_reason(text: &str) -> Result<(), Problem> {
    if text.len() > MAX_REASON || text.chars().any(char::is_control) {
        let what = format!("not one line of at most {MAX_REASON} bytes");
        return Err(Problem::invalid("reason", what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn ms(text: &str) -> u64 {
        let at: jiff::Timestamp = text.parse().expect("a time");
        u64::try_from(at.as_millisecond()).expect("after 1970")
    }

    fn again(name: &str, schedule: &str, zone: &str, hours: u64) -> Freeze {
        Freeze {
            name: name.into(),
            window: Window::Again {
                schedule: schedule.into(),
                time_zone: zone.into(),
                for_ms: hours * HOUR,
            },
            reason: String::new(),
        }
    }

    fn once(name: &str, from: &str, until: &str) -> Freeze {
        Freeze {
            name: name.into(),
            window: Window::Once {
                from_ms: ms(from),
                until_ms: ms(until),
            },
            reason: String::new(),
        }
    }

    #[test]
    fn a_freeze_holds_from_its_first_moment_to_its_last() {
        let gates = Gates {
            approval: false,
            freezes: vec![
                again("weekend", "0 16 * * FRI", "Europe/Berlin", 62),
                once("holidays", "2026-12-20T00:00:00Z", "2027-01-02T00:00:00Z"),
            ],
        };
        gates.check().expect("sound");
        // Friday 16:00 in Berlin is 15:00 in UTC in winter; 62 hours later it is Monday 6:00.
        let cases = [
            ("2026-11-27T14:59:59Z", None),
            (
                "2026-11-27T15:00:00Z",
                Some(("weekend", "2026-11-30T05:00:00Z")),
            ),
            (
                "2026-11-30T04:59:59.999Z",
                Some(("weekend", "2026-11-30T05:00:00Z")),
            ),
            ("2026-11-30T05:00:00Z", None),
            // A weekend that goes over into holidays that end in a weekend is one time.
            (
                "2026-12-18T20:00:00Z",
                Some(("weekend", "2027-01-04T05:00:00Z")),
            ),
            (
                "2026-12-23T20:00:00Z",
                Some(("weekend", "2027-01-04T05:00:00Z")),
            ),
        ];
        for (at, wanted) in cases {
            let found = gates.frozen(ms(at));
            let wanted = wanted.map(|(name, until)| (name, ms(until)));
            assert_eq!(
                found.map(|(it, until)| (&*it.name, until)),
                wanted,
                "at {at}"
            );
        }
    }

    #[test]
    fn one_that_never_ends_is_followed_to_an_end() {
        let gates = Gates {
            approval: false,
            freezes: vec![again("always", "0 * * * *", "UTC", 2)],
        };
        let (_, until_ms) = gates.frozen(HOUR).expect("it holds");
        assert!(until_ms > 100 * HOUR);
    }

    #[test]
    fn each_bound_names_its_field() {
        let broken = [
            (
                "freeze",
                once("", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ),
            (
                "freeze.until",
                once("a", "2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z"),
            ),
            ("freeze.for", again("a", "@daily", "UTC", 0)),
            ("freeze.for", again("a", "@daily", "UTC", 24 * 31)),
            ("freeze.schedule", again("a", "at noon", "UTC", 1)),
            ("freeze.time_zone", again("a", "@daily", "Berlin", 1)),
        ];
        for (field, freeze) in broken {
            let problem = freeze.check().expect_err(field);
            assert_eq!(problem.field.as_deref(), Some(field), "{problem}");
        }
        let twice = Gates {
            approval: false,
            freezes: vec![
                again("a", "@daily", "UTC", 1),
                again("a", "@daily", "UTC", 2),
            ],
        };
        twice.check().expect_err("two of a name");
        check_reason("two\nlines").expect_err("not one line");
    }
}
