//! Bounds by the time of the day: a floor, a ceiling or both, from one cron expression to another.

use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::schedule::{MAX_EXPRESSION, MAX_TIME_ZONE, Schedule, UTC};
use crate::spec::MAX_REPLICAS;

/// A window that comes again and again. Its ends are times of a clock on the wall: a window from 8
/// to 18 is that in summer and in winter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// When it opens: a cron expression such as `0 8 * * 1-5`.
    pub from: String,
    /// When it closes: another.
    pub to: String,
    /// IANA name such as `Europe/Berlin`.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// At least so many replicas; 0 would be no floor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// At most so many replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

fn utc() -> String {
    UTC.to_owned()
}

impl Window {
    /// Checks what needs a library to know: expressions and time zone of window `number`.
    ///
    /// # Errors
    /// The field at fault, and what is accepted.
    pub fn check_given(&self, number: usize) -> Result<(), Problem> {
        let field = |name: &str| format!("autoscale.schedules[{number}].{name}");
        for (name, expression) in [("from", &self.from), ("to", &self.to)] {
            Schedule::parse(expression, &self.time_zone).map_err(|problem| {
                // The zone is read with the first expression.
                let is_zone = problem.field.as_deref() == Some("run.time_zone");
                problem.at(field(if is_zone { "time_zone" } else { name }))
            })?;
        }
        Ok(())
    }

    /// Checks window `number` of a service with at most `most` replicas by rules that every server
    /// agrees on.
    ///
    /// # Errors
    /// The field at fault, and what is accepted.
    pub fn check(&self, number: usize, most: u32) -> Result<(), Problem> {
        let field = |name: &str| format!("autoscale.schedules[{number}].{name}");
        let lengths = [
            ("from", &self.from, MAX_EXPRESSION),
            ("to", &self.to, MAX_EXPRESSION),
            ("time_zone", &self.time_zone, MAX_TIME_ZONE),
        ];
        for (name, text, most) in lengths {
            if text.is_empty() || text.len() > most {
                let text = format!("has {} bytes", text.len());
                return Err(Problem::invalid(field(name), text).hint(format!("1 to {most}")));
            }
        }
        if self.from == self.to {
            let text = "the window closes when it opens";
            return Err(Problem::invalid(field("to"), text).hint("another time than `from`"));
        }
        if self.min.is_none() && self.max.is_none() {
            let text = "neither a floor nor a ceiling";
            return Err(Problem::invalid(field("min"), text).hint("min, max or both"));
        }
        if let Some(min) = self.min
            && (min == 0 || min > most)
        {
            let text = format!("{min} is out of range");
            return Err(
                Problem::invalid(field("min"), text).hint(format!("1 to autoscale.max ({most})"))
            );
        }
        if let Some(max) = self.max
            && (max == 0 || max > MAX_REPLICAS || self.min.is_some_and(|min| min > max))
        {
            let text = format!("{max} is out of range");
            return Err(Problem::invalid(field("max"), text).hint(format!(
                "1 to {MAX_REPLICAS}, and not below the window's min"
            )));
        }
        Ok(())
    }

    /// Whether it is open: the last end that passed was an opening. One that opens and closes in
    /// the same moment is closed; so is one whose words are not understood (`check` refuses it).
    pub fn is_open(&self, now_ms: u64) -> bool {
        let last = |expression: &str| {
            let schedule = Schedule::parse(expression, &self.time_zone).ok()?;
            schedule.last_until(now_ms)
        };
        last(&self.from).is_some_and(|opened| Some(opened) > last(&self.to))
    }
}
