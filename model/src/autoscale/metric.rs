//! What a number of replicas can follow, and the text that people type for it: `cpu=70%`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::text::{from_milli, to_milli, to_ms};
use crate::problem::Problem;

/// Longest name of a custom metric, in bytes.
const MAX_NAME: usize = 64;
/// The prefix of custom metrics: without it a typing error would be a metric that nobody reports.
const CUSTOM: &str = "custom:";

/// Something that is measured of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Metric {
    /// CPU in percent of the request.
    Cpu,
    /// Memory in percent of the request.
    Memory,
    /// Requests that arrived, per second.
    RequestRate,
    /// Requests that are being answered or wait.
    InFlight,
    /// The 95th percentile of the time to answer, in ms.
    LatencyP95,
    /// Work that waits.
    QueueLength,
    /// Any number that is pushed or scraped, by name.
    Custom(String),
}

impl Metric {
    /// Each metric but the custom ones, with its name.
    const NAMED: [(Self, &'static str); 6] = [
        (Self::Cpu, "cpu"),
        (Self::Memory, "memory"),
        (Self::RequestRate, "request_rate"),
        (Self::InFlight, "in_flight"),
        (Self::LatencyP95, "latency_p95"),
        (Self::QueueLength, "queue_length"),
    ];

    /// What follows a value of it: `%`, `/s`, `ms` or nothing.
    pub const fn unit(&self) -> &'static str {
        match self {
            Self::Cpu | Self::Memory => "%",
            Self::RequestRate => "/s",
            Self::LatencyP95 => "ms",
            Self::InFlight | Self::QueueLength | Self::Custom(_) => "",
        }
    }

    /// A value for people: three digits that mean something, and the unit.
    pub fn show(&self, value_milli: u64) -> String {
        let rounded = match value_milli {
            0..10_000 => (value_milli + 5) / 10 * 10,
            10_000..100_000 => (value_milli + 50) / 100 * 100,
            _ => (value_milli + 500) / 1_000 * 1_000,
        };
        format!("{}{}", from_milli(rounded), self.unit())
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Custom(name) = self {
            return write!(f, "{CUSTOM}{name}");
        }
        let named = Self::NAMED.iter().find(|(metric, _)| metric == self);
        f.write_str(named.map_or("", |(_, name)| *name))
    }
}

impl FromStr for Metric {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        if let Some((metric, _)) = Self::NAMED.iter().find(|(_, name)| *name == text) {
            return Ok(metric.clone());
        }
        let accepted = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
        match text.strip_prefix(CUSTOM) {
            Some(name)
                if !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(accepted) =>
            {
                Ok(Self::Custom(name.to_owned()))
            }
            _ => {
                let text = format!("`{}` is not a metric", text.escape_debug());
                Err(Problem::invalid("autoscale.targets", text).hint(
                    "cpu, memory, request_rate, in_flight, latency_p95, queue_length, or custom:NAME",
                ))
            }
        }
    }
}

impl TryFrom<String> for Metric {
    type Error = Problem;

    fn try_from(text: String) -> Result<Self, Problem> {
        text.parse()
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> Self {
        metric.to_string()
    }
}

/// What one replica should have to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    /// Of what.
    pub metric: Metric,
    /// How much each, in thousandths of the metric's unit. Of `latency_p95`: for all together.
    pub value_milli: u64,
}

impl Target {
    /// Checks the value.
    ///
    /// # Errors
    /// Names `field`, and what is accepted.
    pub fn check(&self, field: &str) -> Result<(), Problem> {
        let (low, high) = match self.metric {
            // Above 100 % where the limit is above the request.
            Metric::Cpu => (1_000, 1_000_000),
            // The request is the limit: at 100 % the container is killed.
            Metric::Memory => (1_000, 100_000),
            Metric::LatencyP95 => (1_000, 3_600_000_000),
            _ => (1, 1_000_000_000_000),
        };
        if (low..=high).contains(&self.value_milli) {
            return Ok(());
        }
        let unit = self.metric.unit();
        let hint = format!("{}{unit} to {}{unit}", from_milli(low), from_milli(high));
        Err(Problem::invalid(field, format!("`{self}` is out of range")).hint(hint))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A rate's unit is understood: `request_rate=100`.
        let unit = match self.metric.unit() {
            "/s" => "",
            unit => unit,
        };
        write!(f, "{}={}{unit}", self.metric, from_milli(self.value_milli))
    }
}

impl FromStr for Target {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let refused = |hint: &str| {
            let text = format!("`{}` is not a target", text.escape_debug());
            Problem::invalid("autoscale.targets", text).hint(hint)
        };
        let Some((metric, value)) = text.split_once('=') else {
            return Err(refused("METRIC=VALUE, for example cpu=70%"));
        };
        let metric: Metric = metric.trim().parse()?;
        let value = value.trim();
        let (value_milli, example) = match metric {
            Metric::Cpu | Metric::Memory => (
                value.strip_suffix('%').and_then(to_milli),
                "percent of the request, for example cpu=70%",
            ),
            Metric::LatencyP95 => (
                to_ms(value).and_then(|ms| ms.checked_mul(1_000)),
                "a time, for example latency_p95=200ms",
            ),
            Metric::RequestRate => (
                to_milli(value.strip_suffix("/s").unwrap_or(value)),
                "requests per second and replica, for example request_rate=100",
            ),
            Metric::InFlight | Metric::QueueLength | Metric::Custom(_) => (
                to_milli(value),
                "a number for each replica, for example in_flight=20",
            ),
        };
        let value_milli = value_milli.ok_or_else(|| refused(example))?;
        let target = Self {
            metric,
            value_milli,
        };
        target.check("autoscale.targets")?;
        Ok(target)
    }
}

impl TryFrom<String> for Target {
    type Error = Problem;

    fn try_from(text: String) -> Result<Self, Problem> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}
