//! What one target wants, from its samples: as many replicas as the load needs at so much each.
//! Latency and queues say less than that, and move the number in bounded steps.

use skep_model::autoscale::{Autoscale, Metric, Target};
use skep_model::spec::MAX_REPLICAS;

use super::decide::Observed;
use super::estimate::{Estimate, Moment, estimate};
use super::history::{CAPACITY_PERCENT, History, capacity_milli};
use super::reason::Reason;
use super::series::Series;

/// Smallest and largest step up by latency, in percent: it says that too few are there, not how
/// many; half as many again is enough to see whether replicas are what is missing.
const LATENCY_STEP_PERCENT: (f64, f64) = (10.0, 50.0);
/// Step down by latency, in percent: spare capacity shows only by taking it away.
const LATENCY_DOWN_PERCENT: u32 = 10;
/// Largest step down by a queue, in percent: a short queue says that the workers keep up with it,
/// not that they are idle.
const QUEUE_DOWN_PERCENT: u32 = 25;

/// Deviations of a second's requests that capacity must hold.
const PEAK_DEVIATIONS: f64 = 2.0;
/// Most headroom, as a factor: what comes in larger clumps waits a little instead.
const MAX_HEADROOM: f64 = 1.5;
/// The same where requests come in clumps: more would cost more than HPA does.
const MAX_CLUMP_ROOM: f64 = 1.1;
/// Requests that piled up are worked off within this, in seconds,
const CATCH_UP_S: f64 = 60.0;
/// but with at most this share of the replicas that the load itself needs.
const MAX_CATCH_UP: f64 = 0.3;

/// What one target wants.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Desire {
    /// So many replicas, on the whole.
    pub(super) replicas: u32,
    /// At this moment surely so many: fewer is no place to shrink to.
    pub(super) at_once: u32,
    /// It is clear enough to add some.
    pub(super) is_growth: bool,
    /// So many beyond that until they are caught up with, and the requests that they are for.
    pub(super) catch_up: Option<(u32, u64)>,
    /// It may not take any away.
    pub(super) doubt: Option<Reason>,
    /// Why; none where nothing is known.
    pub(super) reason: Option<Reason>,
}

impl Desire {
    /// All that it wants at this moment.
    pub(super) fn total(&self) -> u32 {
        let more = self.catch_up.map_or(0, |(more, _)| more);
        self.replicas.saturating_add(more)
    }
}

/// Everything that a target is judged by.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) spec: &'a Autoscale,
    pub(super) observed: &'a Observed,
    pub(super) history: &'a History,
    pub(super) now_ms: u64,
}

impl Judge<'_> {
    pub(super) fn desire(&self, target: &Target) -> Desire {
        let metric = &target.metric;
        let missing = |for_ms| Desire {
            replicas: 0,
            at_once: 0,
            is_growth: false,
            catch_up: None,
            doubt: Some(Reason::Missing {
                metric: metric.clone(),
                for_ms,
            }),
            reason: None,
        };
        let Some(series) = self.history.series(metric) else {
            return missing(None);
        };
        if let Some(for_ms) = series.missing_for(self.now_ms) {
            return missing(Some(for_ms));
        }
        let is_rising = self.history.is_rising(self.spec, self.now_ms);
        let moment = Moment {
            now_ms: self.now_ms,
            is_rising,
            dispersion: self.history.dispersion(),
        };
        let Some(estimate) = estimate(metric, series, self.spec, moment) else {
            return missing(None);
        };
        let mut desire = match metric {
            Metric::LatencyP95 => self.by_latency(target, &estimate, series),
            Metric::QueueLength => self.by_queue(target, &estimate, series),
            _ => self.by_load(target, &estimate),
        };
        if series.is_partial() {
            desire.doubt = Some(Reason::Partial {
                metric: metric.clone(),
            });
        }
        desire
    }

    fn by_load(&self, target: &Target, estimate: &Estimate) -> Desire {
        let each = target.value_milli as f64;
        let enough = each * f64::from(self.observed.wanted);
        let tolerated = enough * (1.0 + f64::from(self.spec.tolerance_up_percent) / 100.0);
        let padded = |level: f64| with_headroom(&target.metric, level, self.history.dispersion());
        let need = |level: f64| padded(level) + self.waiting(target, level) / CATCH_UP_S;
        let burst = estimate.burst.filter(|b| need(b.at_least) > tolerated);
        let is_above = !estimate.is_cold
            && need(estimate.mean) > tolerated
            && need(estimate.at_least) > enough;
        // While nothing may shrink anyway, there is no flapping that tolerance would prevent: the
        // number settles where it belongs.
        let settles = !estimate.is_cold
            && need(estimate.mean) > enough
            && self.history.young_for(self.spec, self.now_ms) > 0;
        let mean = if estimate.is_cold {
            estimate.at_least
        } else {
            estimate.mean
        };
        let level = burst.map_or(mean, |burst| burst.level.max(mean));
        let replicas = ratio(padded(level), each);
        let is_growth = burst.is_some() || is_above || settles;
        let waiting = self.waiting(target, level);
        // Whole replicas only: for a handful of requests nothing is started.
        let more = ratio((waiting / CATCH_UP_S / each).floor(), 1.0);
        Desire {
            replicas,
            at_once: estimate
                .burst
                .map_or(0, |burst| ratio(burst.at_least, each)),
            is_growth,
            catch_up: (is_growth && more > 0).then_some((more, (waiting / 1e3) as u64)),
            doubt: None,
            reason: Some(Reason::Load {
                metric: target.metric.clone(),
                value_milli: level as u64,
                target_milli: target.value_milli,
                burst_ms: burst.filter(|_| !is_above).map(|burst| burst.span_ms),
            }),
        }
    }

    /// Requests, in thousandths, that wait or will before replicas ordered now serve. They are
    /// worked off within [`CATCH_UP_S`], with not more than [`MAX_CATCH_UP`] of the load's own
    /// replicas.
    fn waiting(&self, target: &Target, level: f64) -> f64 {
        if target.metric != Metric::RequestRate {
            return 0.0;
        }
        let served = capacity_milli(target.value_milli, self.observed.ready()) as f64;
        let start_s = self.observed.start_ms.unwrap_or(0) as f64 / 1e3;
        let coming = (level - served).max(0.0) * start_s;
        let waiting = coming.max(self.history.piled_milli() as f64);
        waiting.min(level * MAX_CATCH_UP * CATCH_UP_S)
    }

    fn by_queue(&self, target: &Target, estimate: &Estimate, series: &Series) -> Desire {
        let each = target.value_milli as f64;
        let recent = estimate.burst.map_or(estimate.mean, |burst| burst.level);
        // What waits now is what must be done: the window's mean is of work that is done already.
        let level = recent.min(series.latest_milli() as f64);
        let from = self.observed.wanted;
        let tolerance = 1.0 + f64::from(self.spec.tolerance_up_percent) / 100.0;
        let lowest = from - share(from, QUEUE_DOWN_PERCENT).max(1).min(from);
        Desire {
            replicas: ratio(level, each).max(lowest),
            at_once: 0,
            is_growth: level > each * f64::from(from) * tolerance,
            catch_up: None,
            doubt: None,
            reason: Some(Reason::Load {
                metric: target.metric.clone(),
                value_milli: level as u64,
                target_milli: target.value_milli,
                burst_ms: None,
            }),
        }
    }

    fn by_latency(&self, target: &Target, estimate: &Estimate, series: &Series) -> Desire {
        let each = target.value_milli as f64;
        let from = self.observed.wanted;
        let latest = series.latest_milli() as f64;
        // Too high, or low, only where it was so on the whole and still is.
        let (least, most) = (estimate.mean.min(latest), estimate.mean.max(latest));
        let tolerance = 1.0 + f64::from(self.spec.tolerance_up_percent) / 100.0;
        let target_milli = target.value_milli;
        let desire = |replicas, value: f64, step_percent| Desire {
            replicas,
            at_once: 0,
            is_growth: replicas > from,
            catch_up: None,
            doubt: None,
            reason: Some(Reason::Latency {
                value_milli: value as u64,
                target_milli,
                step_percent,
            }),
        };
        if least > each * tolerance {
            if !self.is_settled() || estimate.is_cold {
                let value_milli = least as u64;
                let reason = Some(Reason::LatencyWaits {
                    value_milli,
                    target_milli,
                });
                return Desire {
                    reason,
                    ..desire(from, least, 0)
                };
            }
            let (smallest, largest) = LATENCY_STEP_PERCENT;
            let percent = ((least / each - 1.0) * 100.0).clamp(smallest, largest) as u32;
            let more = share(from, percent).max(1);
            return desire(from.saturating_add(more), least, percent);
        }
        // Between half and the whole of the target nothing moves.
        if most * 2.0 >= each {
            return desire(from, estimate.mean, 0);
        }
        let fewer = share(from, LATENCY_DOWN_PERCENT).max(1);
        let to = from.saturating_sub(fewer).max(1);
        desire(to, most, LATENCY_DOWN_PERCENT)
    }

    /// Nothing starts, and all that is averaged was measured after the last change.
    fn is_settled(&self) -> bool {
        let since = self.history.changed_ms();
        let waited = since.is_none_or(|changed_ms| {
            self.now_ms.saturating_sub(changed_ms) >= self.spec.stable_window_ms
        });
        self.observed.starting == 0 && waited
    }
}

/// A level with room for the chance peaks of single seconds, in thousandths: capacity, which is a
/// little above the target, must hold two deviations. Only few replicas need it: the deviation of
/// a large load is a small share of it. (The square-root rule of staffing.)
fn with_headroom(metric: &Metric, level: f64, phi: f64) -> f64 {
    if *metric != Metric::RequestRate {
        return level;
    }
    let events = level / 1e3;
    let peak = (events + PEAK_DEVIATIONS * (phi * events).sqrt()) * 1e3;
    let most = if phi > 1.0 {
        MAX_CLUMP_ROOM
    } else {
        MAX_HEADROOM
    };
    (peak * 100.0 / CAPACITY_PERCENT as f64).clamp(level, level * most)
}

fn ratio(level: f64, each: f64) -> u32 {
    let replicas = (level / each).ceil();
    // In range, and whole: the conversion is exact.
    replicas.clamp(0.0, f64::from(MAX_REPLICAS)) as u32
}

/// A share of a number, rounded up.
fn share(of: u32, percent: u32) -> u32 {
    (u64::from(of) * u64::from(percent)).div_ceil(100) as u32
}
