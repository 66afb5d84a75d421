//! The decision: the target that wants most, then what may not be taken away, then how fast, then
//! the bounds. Where nothing changes it says so, and why.

use std::fmt;

use serde::{Deserialize, Serialize};
use skep_model::autoscale::{Autoscale, Target};

use super::bounds::{Bounds, bounds};
use super::desire::{Desire, Judge};
use super::history::{History, tells_activity};
use super::pace;
use super::reason::{By, Reason};

/// Whether anything was asked of a service since the last decision, as far as the caller knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activity {
    /// Nobody can tell: counts as work.
    #[default]
    Unknown,
    /// Nothing was.
    Quiet,
    /// Something was, or waits. For a service that sleeps this is the call to wake.
    Active,
}

/// A service's replicas as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observed {
    /// As many as there should be by now: the last decision.
    pub wanted: u32,
    /// Those that are on their way: capacity that is already ordered.
    pub starting: u32,
    /// Those that ran and do not answer, or failed and were not replaced.
    pub unhealthy: u32,
    /// A deployment is under way.
    pub deploying: bool,
    /// Whether anything is asked of it.
    pub activity: Activity,
    /// How long a replica took to start, in ms, where that was measured.
    pub start_ms: Option<u64>,
}

impl Observed {
    /// Those that serve.
    pub(super) fn ready(&self) -> u32 {
        self.wanted
            .saturating_sub(self.starting)
            .saturating_sub(self.unhealthy)
    }
}

/// What was decided, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Cluster time, in ms.
    pub at_ms: u64,
    /// As many as there were to be.
    pub from: u32,
    /// As many as there should be. The same as `from`: nothing is to be done.
    pub to: u32,
    /// What the targets alone would have: what the down window remembers.
    pub recommended: u32,
    /// Why, the strongest first.
    pub reasons: Vec<Reason>,
}

impl Decision {
    /// Whether there is anything to do.
    pub fn is_change(&self) -> bool {
        self.from != self.to
    }

    /// The reasons in words.
    pub fn why(&self) -> String {
        let reasons: Vec<String> = self.reasons.iter().map(Reason::to_string).collect();
        reasons.join(", ")
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_change() {
            write!(f, "{} -> {}", self.from, self.to)?;
        } else {
            write!(f, "{} stays", self.from)?;
        }
        if self.reasons.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.why())
    }
}

/// Decides for one service at one moment.
pub fn decide(spec: &Autoscale, observed: &Observed, history: &History, now_ms: u64) -> Decision {
    let judge = Judge {
        spec,
        observed,
        history,
        now_ms,
    };
    let desires: Vec<Desire> = spec.targets.iter().map(|t| judge.desire(t)).collect();
    let limits = bounds(spec, now_ms);
    let mut reasons = Vec::new();
    let recommended = recommended(&desires, observed.wanted);
    let to = if observed.wanted == 0 {
        judge.wake(&limits, recommended, &mut reasons)
    } else if let Some(for_ms) = judge.sleepy(&limits) {
        judge.sleep(for_ms, &mut reasons)
    } else {
        let aim = judge.grow(&desires, &mut reasons);
        let aim = aim.unwrap_or_else(|| judge.shrink(&desires, recommended, &mut reasons));
        clamp(aim, &limits, &mut reasons)
    };
    Decision {
        at_ms: now_ms,
        from: observed.wanted,
        to,
        recommended,
        reasons,
    }
}

/// The most that is wanted; where something is not known, at least what is there.
fn recommended(desires: &[Desire], from: u32) -> u32 {
    let most = desires.iter().map(|desire| desire.replicas).max();
    let in_doubt = desires.iter().any(|desire| desire.doubt.is_some());
    match most {
        Some(most) if in_doubt => most.max(from),
        Some(most) => most,
        None => from,
    }
}

fn clamp(aim: u32, limits: &Bounds, reasons: &mut Vec<Reason>) -> u32 {
    let by = |schedule: Option<usize>| schedule.map_or(By::Service, By::Schedule);
    if aim < limits.floor {
        reasons.push(Reason::Floor {
            replicas: limits.floor,
            by: by(limits.floor_by),
        });
    }
    if aim > limits.ceiling {
        reasons.push(Reason::Ceiling {
            replicas: limits.ceiling,
            by: by(limits.ceiling_by),
        });
    }
    aim.clamp(limits.floor, limits.ceiling)
}

impl Judge<'_> {
    /// From nothing: at the first sign of work, with as many as it needs.
    fn wake(&self, limits: &Bounds, recommended: u32, reasons: &mut Vec<Reason>) -> u32 {
        let may_sleep = self.spec.scale_to_zero.is_some() && limits.floor_by.is_none();
        let is_asked = self.observed.activity == Activity::Active || self.has_work();
        if may_sleep && !is_asked {
            reasons.push(Reason::Asleep);
            return 0;
        }
        if is_asked {
            reasons.push(Reason::Woken);
        }
        let aim = self.cap(recommended.max(u32::from(is_asked)), reasons);
        clamp(aim, limits, reasons)
    }

    /// Whether the newest samples tell of work.
    fn has_work(&self) -> bool {
        let tells = |target: &Target| {
            let series = self.history.series(&target.metric);
            series.is_some_and(|s| s.missing_for(self.now_ms).is_none() && s.latest_milli() > 0)
        };
        let mut targets = self.spec.targets.iter();
        targets.any(|target| tells_activity(&target.metric) && tells(target))
    }

    /// How long nothing was asked, where that is long enough to sleep and it is sure.
    fn sleepy(&self, limits: &Bounds) -> Option<u64> {
        let zero = self.spec.scale_to_zero?;
        let observed = self.observed;
        let is_held = observed.deploying || observed.unhealthy > 0 || observed.starting > 0;
        let is_quiet = observed.activity == Activity::Quiet && !self.is_blind();
        if is_held || !is_quiet || limits.floor_by.is_some() || self.spec.down.is_never() {
            return None;
        }
        let start_ms = observed.start_ms.unwrap_or(0);
        let patience_ms = zero.idle_ms.max(start_ms.saturating_mul(2));
        self.history
            .idle_for(self.now_ms)
            .filter(|idle_ms| *idle_ms >= patience_ms)
    }

    /// Whether a metric that would tell of work is not to be seen.
    fn is_blind(&self) -> bool {
        let mut targets = self.spec.targets.iter();
        targets.any(|target| {
            tells_activity(&target.metric)
                && self.history.series(&target.metric).is_none_or(|series| {
                    series.missing_for(self.now_ms).is_some() || series.is_partial()
                })
        })
    }

    fn sleep(&self, for_ms: u64, reasons: &mut Vec<Reason>) -> u32 {
        reasons.push(Reason::Idle { for_ms });
        let policy = self.spec.down;
        let lowest = pace::lowest(&policy, self.history, self.observed.wanted, self.now_ms);
        if lowest > 0 {
            reasons.push(Reason::CappedDown { wanted: 0, policy });
        }
        lowest
    }

    /// More, where a target clearly wants more; none: no.
    fn grow(&self, desires: &[Desire], reasons: &mut Vec<Reason>) -> Option<u32> {
        let growing = desires
            .iter()
            .filter(|desire| desire.is_growth && desire.total() > self.observed.wanted);
        // The first of equals, so that the reason does not jump about.
        let strongest = growing.reduce(|a, b| if b.total() > a.total() { b } else { a })?;
        reasons.extend(strongest.reason.clone());
        if let Some((replicas, requests)) = strongest.catch_up {
            reasons.push(Reason::CatchUp { requests, replicas });
        }
        Some(self.cap(strongest.total(), reasons))
    }

    /// At most as fast as the policy allows.
    fn cap(&self, aim: u32, reasons: &mut Vec<Reason>) -> u32 {
        let policy = self.spec.up;
        let highest = pace::highest(&policy, self.history, self.observed.wanted, self.now_ms);
        if aim > highest {
            reasons.push(Reason::CappedUp {
                wanted: aim,
                policy,
            });
        }
        aim.min(highest)
    }

    /// Fewer, where nothing speaks against it; else what is there.
    fn shrink(&self, desires: &[Desire], recommended: u32, reasons: &mut Vec<Reason>) -> u32 {
        let from = self.observed.wanted;
        if desires.is_empty() {
            reasons.push(Reason::NoTargets);
            return from;
        }
        let doubts = desires.iter().filter_map(|desire| desire.doubt.clone());
        let known = reasons.len();
        reasons.extend(doubts);
        if reasons.len() > known {
            return from;
        }
        let strongest = desires
            .iter()
            .reduce(|a, b| if b.replicas > a.replicas { b } else { a });
        reasons.extend(strongest.and_then(|desire| desire.reason.clone()));
        let spared = |to: u32| u64::from(from.saturating_sub(to)) * 100;
        let tolerance = u64::from(self.spec.tolerance_down_percent) * u64::from(from);
        let is_fewer = |to: u32| to < from && spared(to) >= tolerance;
        if !is_fewer(recommended) {
            return from;
        }
        if let Some(obstacle) = self.obstacle() {
            reasons.push(obstacle);
            return from;
        }
        let at_once = desires.iter().map(|desire| desire.at_once).max();
        let least = recommended.max(at_once.unwrap_or(0));
        let peak = self.history.peak(self.spec, self.now_ms).max(least);
        if peak > recommended {
            reasons.push(Reason::Recent {
                replicas: peak.min(from),
                window_ms: self.spec.down_window_ms,
            });
        }
        if !is_fewer(peak) {
            return from;
        }
        let policy = self.spec.down;
        let lowest = pace::lowest(&policy, self.history, from, self.now_ms);
        if lowest > peak {
            reasons.push(Reason::CappedDown {
                wanted: peak,
                policy,
            });
        }
        peak.max(lowest)
    }

    /// What forbids to take anything away.
    fn obstacle(&self) -> Option<Reason> {
        let observed = self.observed;
        if observed.deploying {
            return Some(Reason::Deploying);
        }
        if observed.unhealthy > 0 {
            let replicas = observed.unhealthy;
            return Some(Reason::Unhealthy { replicas });
        }
        let piled = self.history.piled_milli() / 1_000;
        if piled > 0 {
            return Some(Reason::Piled { requests: piled });
        }
        let left_ms = self.history.young_for(self.spec, self.now_ms);
        (left_ms > 0).then_some(Reason::Young { left_ms })
    }
}
