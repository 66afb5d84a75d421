//! How fast a number of replicas may change in one direction, and the text for it: `50%/min`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::text::{from_ms, to_ms};
use crate::problem::Problem;
use crate::spec::MAX_REPLICAS;

/// Longest period, in ms.
const MAX_PERIOD_MS: u64 = 86_400_000;

/// Most change within a period: the larger of a share and a count. Both 0: never in this direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Policy {
    /// Share of the replicas at the beginning of the period, in percent.
    pub percent: u32,
    /// So many in any case.
    pub count: u32,
    /// The period, in ms; sliding.
    pub period_ms: u64,
}

impl Policy {
    /// Default of growth. A rise is believed only when chance does not explain it, and `max` bounds
    /// it: a crowd of ten times the load, and as much again to catch up, may be met in one step.
    pub const UP: Self = Self {
        percent: 1_900,
        count: 20,
        period_ms: 15_000,
    };
    /// Default of shrinking: measured (docs/adr/0016-autoscaler.md). A wrong step costs half.
    pub const DOWN: Self = Self {
        percent: 50,
        count: 1,
        period_ms: 60_000,
    };

    /// Checks every part.
    ///
    /// # Errors
    /// Names `field`, and what is accepted.
    pub fn check(&self, field: &str) -> Result<(), Problem> {
        let fits = self.percent <= 100_000
            && self.count <= MAX_REPLICAS
            && (1_000..=MAX_PERIOD_MS).contains(&self.period_ms);
        if fits {
            return Ok(());
        }
        Err(
            Problem::invalid(field, format!("`{self}` is out of range")).hint(format!(
                "at most 100000%, {MAX_REPLICAS} replicas, and a period of 1s to 24h"
            )),
        )
    }

    /// Whether the direction is closed.
    pub const fn is_never(&self) -> bool {
        self.percent == 0 && self.count == 0
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = from_ms(self.period_ms);
        match (self.percent, self.count) {
            (0, 0) => f.write_str("never"),
            (percent, 0) => write!(f, "{percent}%/{period}"),
            (0, count) => write!(f, "{count}/{period}"),
            (percent, count) => write!(f, "{percent}% or {count}/{period}"),
        }
    }
}

impl FromStr for Policy {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let refused = || {
            let text = format!("`{}` is not a rate of change", text.escape_debug());
            Problem::invalid("autoscale", text)
                .hint("for example 50%/min, 4/15s, `50% or 4/15s` (the larger), or never")
        };
        if text == "never" {
            return Ok(Self {
                percent: 0,
                count: 0,
                period_ms: 60_000,
            });
        }
        let (amounts, period) = text.rsplit_once('/').ok_or_else(refused)?;
        let mut policy = Self {
            percent: 0,
            count: 0,
            period_ms: to_ms(period.trim()).ok_or_else(refused)?,
        };
        for amount in amounts.split(" or ").map(str::trim) {
            let (slot, number) = match amount.strip_suffix('%') {
                Some(number) => (&mut policy.percent, number),
                None => (&mut policy.count, amount),
            };
            // Either twice would make one of them a lie.
            if *slot != 0 {
                return Err(refused());
            }
            *slot = number.parse().map_err(|_| refused())?;
        }
        if policy.is_never() {
            return Err(refused());
        }
        policy.check("autoscale")?;
        Ok(policy)
    }
}

impl TryFrom<String> for Policy {
    type Error = Problem;

    fn try_from(text: String) -> Result<Self, Problem> {
        text.parse()
    }
}

impl From<Policy> for String {
    fn from(policy: Policy) -> Self {
        policy.to_string()
    }
}
