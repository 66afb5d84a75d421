//! What the autoscaler remembers of one service, as a value of bounded size that can be stored and
//! handed to a new leader: samples, what was wanted lately, what was changed lately. Decides
//! nothing.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use skep_model::autoscale::{Autoscale, Metric};

use super::decide::{Activity, Decision, Observed};
use super::estimate;
use super::series::{Sample, Series};

/// Most stretches in which the largest recommendation is kept.
const MAX_PEAKS: u64 = 61;
/// Most changes that are remembered for the rate policies; then the two oldest count as one.
const MAX_CHANGES: usize = 64;

/// What a replica can do at least, in percent of what it should: a target leaves headroom.
pub(super) const CAPACITY_PERCENT: u64 = 125;
/// Who waits longer, in seconds, has given up.
const MAX_WAIT_S: u64 = 60;

/// The index of dispersion follows within this, in ms,
const DISPERSION_MS: u64 = 600_000;
/// is believed where it is by so much above 1, in thousandths,
const DISPERSION_DOUBT_MILLI: u64 = 300;
/// and beyond this it is the load that changes, not clumps.
const MAX_DISPERSION: f64 = 25.0;

/// Requests a second that so many replicas can serve at least, in thousandths.
pub(super) fn capacity_milli(target_milli: u64, replicas: u32) -> u64 {
    let each = target_milli.saturating_mul(CAPACITY_PERCENT) / 100;
    each.saturating_mul(u64::from(replicas))
}

/// The largest recommendation of a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Peak {
    number: u64,
    replicas: u32,
}

/// A change that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) at_ms: u64,
    pub(crate) added: u32,
    pub(crate) removed: u32,
}

/// The memory of one service's autoscaler. `History::default()` is that of a leader who knows
/// nothing: it holds for a whole down window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    begin_ms: Option<u64>,
    decided_ms: u64,
    active_ms: Option<u64>,
    series: BTreeMap<Metric, Series>,
    /// Index of dispersion of requests, in thousandths; 0: not known.
    dispersion_milli: u64,
    /// Requests that had to wait, in thousandths: see [`History::piled_milli`].
    piled_milli: u64,
    peak_width_ms: u64,
    peaks: VecDeque<Peak>,
    changes: VecDeque<Change>,
}

impl History {
    /// Takes a sample in. Of a metric that is no target only whether there was work is kept.
    pub fn observe(&mut self, spec: &Autoscale, metric: &Metric, sample: &Sample) {
        if tells_activity(metric) && sample.total_milli > 0 {
            self.active_ms = self.active_ms.max(Some(sample.at_ms));
        }
        if !spec.targets.iter().any(|target| target.metric == *metric) {
            return;
        }
        let window_ms = spec.stable_window_ms;
        let series = self.series.entry(metric.clone());
        let series = series.or_insert_with(|| Series::new(window_ms));
        if !series.is_for(window_ms) {
            *series = Series::new(window_ms);
        }
        series.push(sample);
    }

    /// Takes a decision in, whether it changes anything or not: to be called after each, with what
    /// it was made from.
    pub fn record(&mut self, spec: &Autoscale, observed: &Observed, decision: &Decision) {
        let now_ms = decision.at_ms;
        self.series
            .retain(|metric, _| spec.targets.iter().any(|target| target.metric == *metric));
        let width_ms = spec.down_window_ms.div_ceil(MAX_PEAKS - 1).max(1_000);
        // A hole: what was wanted meanwhile nobody knows, so it begins anew.
        let has_hole = now_ms.saturating_sub(self.decided_ms) > spec.stable_window_ms;
        if self.begin_ms.is_none() || has_hole || width_ms != self.peak_width_ms {
            self.begin_ms = Some(now_ms);
            self.peaks.clear();
            self.peak_width_ms = width_ms;
        }
        self.pile(spec, observed, now_ms);
        self.disperse(spec, now_ms);
        self.decided_ms = self.decided_ms.max(now_ms);
        // Unknown counts as work: sleep wants proof.
        if observed.activity != Activity::Quiet || self.active_ms.is_none() || has_hole {
            self.active_ms = self.active_ms.max(Some(now_ms));
        }
        self.record_peak(now_ms / width_ms, decision.recommended);
        if decision.to != decision.from {
            self.changes.push_back(Change {
                at_ms: now_ms,
                added: decision.to.saturating_sub(decision.from),
                removed: decision.from.saturating_sub(decision.to),
            });
        }
        if self.changes.len() > MAX_CHANGES
            && let Some(oldest) = self.changes.pop_front()
            && let Some(next) = self.changes.front_mut()
        {
            next.added = next.added.saturating_add(oldest.added);
            next.removed = next.removed.saturating_add(oldest.removed);
        }
    }

    /// Adds what arrived beyond what ready replicas can do since the last decision, or takes off
    /// what they did beyond that.
    fn pile(&mut self, spec: &Autoscale, observed: &Observed, now_ms: u64) {
        let target = spec
            .targets
            .iter()
            .find(|t| t.metric == Metric::RequestRate);
        let series = self.series.get(&Metric::RequestRate);
        let (Some(target), Some(series)) = (target, series) else {
            self.piled_milli = 0;
            return;
        };
        let rate_milli = match series.missing_for(now_ms) {
            None => series.latest_milli(),
            Some(_) => 0,
        };
        let elapsed_ms = now_ms.saturating_sub(self.decided_ms);
        let elapsed_ms = elapsed_ms.min(spec.stable_window_ms);
        let served_milli = capacity_milli(target.value_milli, observed.ready());
        let pile = i128::from(self.piled_milli)
            + (i128::from(rate_milli) - i128::from(served_milli)) * i128::from(elapsed_ms) / 1_000;
        let most = u128::from(rate_milli.max(served_milli)) * u128::from(MAX_WAIT_S);
        let pile = u128::try_from(pile).unwrap_or(0).min(most);
        self.piled_milli = u64::try_from(pile).unwrap_or(u64::MAX);
    }

    /// Follows how much requests clump, slowly: it belongs to the service, and one window knows it
    /// to a third at best.
    fn disperse(&mut self, spec: &Autoscale, now_ms: u64) {
        let series = self.series.get(&Metric::RequestRate);
        let latest = series.and_then(|series| {
            let window_ms = spec.stable_window_ms;
            estimate::dispersion(series, window_ms, now_ms)
        });
        let Some(latest) = latest else {
            return;
        };
        let latest = (latest.min(MAX_DISPERSION) * 1e3) as u64;
        let elapsed_ms = now_ms.saturating_sub(self.decided_ms);
        let weight = elapsed_ms.min(DISPERSION_MS);
        let known = match self.dispersion_milli {
            0 => 1_000,
            known => known,
        };
        let mixed = known * (DISPERSION_MS - weight) + latest * weight;
        // Rounded up, so that it moves at all, and is known.
        self.dispersion_milli = mixed.div_ceil(DISPERSION_MS).max(1);
    }

    /// How much requests clump beyond what chance explains: 1 for Poisson, or not known.
    pub(super) fn dispersion(&self) -> f64 {
        let beyond = self.dispersion_milli.saturating_sub(DISPERSION_DOUBT_MILLI);
        beyond.max(1_000) as f64 / 1e3
    }

    /// Requests that probably wait because replicas were missing, in thousandths.
    pub(super) fn piled_milli(&self) -> u64 {
        self.piled_milli
    }

    fn record_peak(&mut self, number: u64, replicas: u32) {
        match self.peaks.back_mut() {
            Some(last) if last.number >= number => last.replicas = last.replicas.max(replicas),
            _ => self.peaks.push_back(Peak { number, replicas }),
        }
        let oldest = (number + 1).saturating_sub(MAX_PEAKS);
        while self.peaks.front().is_some_and(|peak| peak.number < oldest) {
            self.peaks.pop_front();
        }
    }

    /// The most that was recommended within the down window before now; 0 of nothing.
    pub(super) fn peak(&self, spec: &Autoscale, now_ms: u64) -> u32 {
        let from_ms = now_ms.saturating_sub(spec.down_window_ms);
        let peaks = self.peaks.iter().rev();
        peaks
            .take_while(|peak| (peak.number + 1) * self.peak_width_ms > from_ms)
            .map(|peak| peak.replicas)
            .max()
            .unwrap_or(0)
    }

    /// How long it must still be kept before anything may shrink, in ms; 0: it is long enough.
    pub(super) fn young_for(&self, spec: &Autoscale, now_ms: u64) -> u64 {
        let has_hole = now_ms.saturating_sub(self.decided_ms) > spec.stable_window_ms;
        let needed_ms = spec.down_window_ms.max(spec.stable_window_ms);
        let known_ms = match self.begin_ms {
            Some(begin_ms) if !has_hole => now_ms.saturating_sub(begin_ms),
            _ => 0,
        };
        needed_ms.saturating_sub(known_ms)
    }

    /// How long there was no work, in ms; none: not known.
    pub(super) fn idle_for(&self, now_ms: u64) -> Option<u64> {
        Some(now_ms.saturating_sub(self.active_ms?))
    }

    pub(super) fn series(&self, metric: &Metric) -> Option<&Series> {
        self.series.get(metric)
    }

    pub(super) fn changes(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter()
    }

    /// Whether the last change was growth, within the stable window.
    pub(super) fn is_rising(&self, spec: &Autoscale, now_ms: u64) -> bool {
        self.changes.back().is_some_and(|change| {
            change.added > 0 && now_ms.saturating_sub(change.at_ms) < spec.stable_window_ms
        })
    }

    /// When the number was changed last; none: not since this began.
    pub(super) fn changed_ms(&self) -> Option<u64> {
        self.changes.back().map(|change| change.at_ms)
    }
}

/// Whether a value above 0 means that somebody wants something of the service.
pub(super) fn tells_activity(metric: &Metric) -> bool {
    match metric {
        Metric::RequestRate | Metric::InFlight | Metric::QueueLength | Metric::Custom(_) => true,
        Metric::Cpu | Metric::Memory | Metric::LatencyP95 => false,
    }
}
