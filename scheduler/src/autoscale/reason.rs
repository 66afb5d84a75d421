//! Why a number of replicas is what it is, as values that are stored, and as the sentence that
//! people read: `6 -> 9: request rate 812/s, target 100/s each, capped by +50%/min`.

use std::fmt;

use serde::{Deserialize, Serialize};
use skep_model::autoscale::{Metric, Policy};

/// Who set a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// `autoscale.min` or `autoscale.max`.
    Service,
    /// A schedule, by its place in the list (from 0).
    Schedule(usize),
}

/// One reason. Values are in thousandths of the metric's unit, times in ms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are what the sentence says")]
pub enum Reason {
    /// A target and what was measured.
    Load {
        metric: Metric,
        value_milli: u64,
        target_milli: u64,
        /// Measured in a burst this short.
        burst_ms: Option<u64>,
    },
    /// Requests that pile up before the replicas serve, and so many more to work them off.
    CatchUp { requests: u64, replicas: u32 },
    /// Requests that piled up are being worked off.
    Piled { requests: u64 },
    /// Latency is away from its target: a bounded step, since it says nothing of how much is missing.
    Latency {
        value_milli: u64,
        target_milli: u64,
        step_percent: u32,
    },
    /// Latency is too high, but it is not yet seen what the last step did.
    LatencyWaits { value_milli: u64, target_milli: u64 },
    /// More was wanted than the policy allows.
    CappedUp { wanted: u32, policy: Policy },
    /// Fewer were wanted than the policy allows.
    CappedDown { wanted: u32, policy: Policy },
    /// A floor.
    Floor { replicas: u32, by: By },
    /// A ceiling.
    Ceiling { replicas: u32, by: By },
    /// No samples, or none yet (`for_ms` is none).
    Missing { metric: Metric, for_ms: Option<u64> },
    /// Some did not report.
    Partial { metric: Metric },
    /// Too short a memory to take anything away.
    Young { left_ms: u64 },
    /// More was wanted a moment ago.
    Recent { replicas: u32, window_ms: u64 },
    /// A deployment is under way.
    Deploying,
    /// Replicas are not healthy.
    Unhealthy { replicas: u32 },
    /// Nothing was asked of it.
    Idle { for_ms: u64 },
    /// Asleep, and nothing is asked of it.
    Asleep,
    /// Something was asked of it while it slept.
    Woken,
    /// There is nothing that the number could follow.
    NoTargets,
}

/// A time for people, in the largest unit that it fills.
struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_ceil(1_000);
        match seconds {
            0..300 => write!(f, "{seconds} s"),
            300..7_200 => write!(f, "{} min", seconds.div_ceil(60)),
            _ => write!(f, "{} h", seconds.div_ceil(3_600)),
        }
    }
}

/// A metric's name in a sentence.
struct Words<'a>(&'a Metric);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Metric::Cpu => "CPU",
            Metric::Memory => "memory",
            Metric::RequestRate => "request rate",
            Metric::InFlight => "requests in flight",
            Metric::LatencyP95 => "latency p95",
            Metric::QueueLength => "queue length",
            Metric::Custom(name) => name,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load {
                metric,
                value_milli,
                target_milli,
                burst_ms,
            } => {
                let (value, target) = (metric.show(*value_milli), metric.show(*target_milli));
                write!(f, "{} {value}", Words(metric))?;
                if let Some(ms) = burst_ms {
                    write!(f, " in a burst of {}", Time(*ms))?;
                }
                write!(f, ", target {target} each")
            }
            Self::CatchUp { requests, replicas } => {
                write!(f, "{replicas} more to catch up with {requests} that wait")
            }
            Self::Piled { requests } => write!(
                f,
                "nothing is taken away while {requests} requests are caught up with"
            ),
            Self::Latency {
                value_milli,
                target_milli,
                step_percent,
            } => {
                let show = |milli: &u64| Metric::LatencyP95.show(*milli);
                let (value, target) = (show(value_milli), show(target_milli));
                write!(f, "latency p95 {value}, target {target}")?;
                match step_percent {
                    0 => Ok(()),
                    percent => write!(f, ": a step of {percent}%"),
                }
            }
            Self::LatencyWaits {
                value_milli,
                target_milli,
            } => {
                let show = |milli: &u64| Metric::LatencyP95.show(*milli);
                let (value, target) = (show(value_milli), show(target_milli));
                write!(
                    f,
                    "latency p95 {value}, target {target}: waits to see what the last step did"
                )
            }
            Self::CappedUp { policy, .. } => write!(f, "capped by +{policy}"),
            Self::CappedDown { policy, .. } => write!(f, "capped by -{policy}"),
            Self::Floor { replicas, by } => write!(f, "at least {replicas} by {by}"),
            Self::Ceiling { replicas, by } => write!(f, "at most {replicas} by {by}"),
            Self::Missing { metric, for_ms } => match for_ms {
                Some(ms) => write!(f, "no sample of {} for {}", Words(metric), Time(*ms)),
                None => write!(f, "no sample of {} yet", Words(metric)),
            },
            Self::Partial { metric } => write!(f, "not all reported {}", Words(metric)),
            Self::Young { left_ms } => {
                let left = Time(*left_ms);
                write!(f, "nothing is taken away before {left} more are known")
            }
            Self::Recent {
                replicas,
                window_ms,
            } => {
                let window = Time(*window_ms);
                write!(f, "{replicas} were wanted within the last {window}")
            }
            Self::Deploying => f.write_str("nothing is taken away during a deployment"),
            Self::Unhealthy { replicas: 1 } => {
                f.write_str("nothing is taken away while 1 replica is not healthy")
            }
            Self::Unhealthy { replicas } => write!(
                f,
                "nothing is taken away while {replicas} replicas are not healthy"
            ),
            Self::Idle { for_ms } => write!(f, "idle for {}", Time(*for_ms)),
            Self::Asleep => f.write_str("asleep"),
            Self::Woken => f.write_str("woken by a request"),
            Self::NoTargets => f.write_str("no targets"),
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service => f.write_str("the service's own bound"),
            Self::Schedule(number) => write!(f, "schedule {}", number + 1),
        }
    }
}
