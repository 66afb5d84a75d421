//! The samples of one metric over its stable window: a ring of buckets, so that memory does not
//! grow with the rate of samples. Judges nothing.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Most buckets: the stable window, and one that is being filled.
pub(crate) const MAX_BUCKETS: usize = 61;
/// A metric is missing when its newest sample is older than this many of its own spans,
const MISSING_SPANS: u64 = 3;
/// and older than this, in ms: one sample that comes late is no alarm.
const MISSING_MS: u64 = 15_000;

/// What was measured of a service as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// End of the measurement, cluster time in ms.
    pub at_ms: u64,
    /// How long it took, in ms; at least 1.
    pub span_ms: u64,
    /// The mean over that time, summed over who reported, in thousandths of the metric's unit.
    /// CPU and memory: percent of one replica's request. Latency: of all requests, not a sum.
    pub total_milli: u64,
    /// Who reported: ready replicas, or ingresses.
    pub reporting: u32,
    /// Who should have.
    pub expected: u32,
}

/// Samples that ended in the same stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bucket {
    /// Its end is `(number + 1) * width`.
    number: u64,
    /// Sum of value (thousandths) times span (ms).
    weighted: u128,
    /// Sum of spans, in ms.
    pub(crate) span_ms: u64,
}

impl Bucket {
    /// The mean, in thousandths.
    pub(crate) fn mean(&self) -> f64 {
        self.weighted as f64 / self.span_ms as f64
    }

    /// Value times span, in thousandths times ms.
    pub(crate) fn weighted(&self) -> f64 {
        self.weighted as f64
    }
}

/// The ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    width_ms: u64,
    buckets: VecDeque<Bucket>,
    latest_ms: u64,
    latest_milli: u64,
    span_ms: u64,
    is_partial: bool,
}

impl Series {
    pub(crate) fn new(window_ms: u64) -> Self {
        Self {
            width_ms: Self::width_of(window_ms),
            buckets: VecDeque::new(),
            latest_ms: 0,
            latest_milli: 0,
            span_ms: 1,
            is_partial: false,
        }
    }

    fn width_of(window_ms: u64) -> u64 {
        window_ms.div_ceil(MAX_BUCKETS as u64 - 1).max(1_000)
    }

    /// Whether it was made for a window of this length.
    pub(crate) fn is_for(&self, window_ms: u64) -> bool {
        self.width_ms == Self::width_of(window_ms)
    }

    /// Adds a sample. One that is not newer than the newest is left out: told twice, it counts once.
    pub(crate) fn push(&mut self, sample: &Sample) {
        if sample.at_ms <= self.latest_ms {
            return;
        }
        let number = sample.at_ms.saturating_sub(1) / self.width_ms;
        let span_ms = sample.span_ms.max(1);
        let weighted = u128::from(sample.total_milli) * u128::from(span_ms);
        match self.buckets.back_mut() {
            Some(last) if last.number == number => {
                last.weighted = last.weighted.saturating_add(weighted);
                last.span_ms = last.span_ms.saturating_add(span_ms);
            }
            _ => self.buckets.push_back(Bucket {
                number,
                weighted,
                span_ms,
            }),
        }
        let oldest = (number + 1).saturating_sub(MAX_BUCKETS as u64);
        while self.buckets.front().is_some_and(|b| b.number < oldest) {
            self.buckets.pop_front();
        }
        self.latest_ms = sample.at_ms;
        self.latest_milli = sample.total_milli;
        self.span_ms = span_ms;
        self.is_partial = sample.reporting < sample.expected;
    }

    /// How long nothing was heard, in ms, where that is too long.
    pub(crate) fn missing_for(&self, now_ms: u64) -> Option<u64> {
        let age_ms = now_ms.saturating_sub(self.latest_ms);
        let patience_ms = self.span_ms.saturating_mul(MISSING_SPANS).max(MISSING_MS);
        (age_ms > patience_ms).then_some(age_ms)
    }

    /// Whether somebody did not report in the newest sample.
    pub(crate) fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// The newest value, in thousandths.
    pub(crate) fn latest_milli(&self) -> u64 {
        self.latest_milli
    }

    /// Buckets that ended within the window before now, newest first.
    pub(crate) fn newest(&self, window_ms: u64, now_ms: u64) -> impl Iterator<Item = &Bucket> {
        let from = now_ms.saturating_sub(window_ms) / self.width_ms;
        self.buckets
            .iter()
            .rev()
            .take_while(move |bucket| bucket.number >= from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, total_milli: u64) -> Sample {
        Sample {
            at_ms,
            span_ms: 1_000,
            total_milli,
            reporting: 1,
            expected: 1,
        }
    }

    #[test]
    fn memory_is_bounded_and_old_samples_leave() {
        let mut series = Series::new(60_000);
        for second in 1..=10_000 {
            series.push(&sample(second * 1_000, second));
        }
        assert_eq!(series.buckets.len(), MAX_BUCKETS);
        assert_eq!(series.newest(60_000, 10_000_000).count(), 60);
        assert_eq!(series.newest(3_000, 10_000_000).count(), 3);
        assert_eq!(series.newest(60_000, 10_050_000).count(), 10);
        assert_eq!(series.newest(60_000, 99_000_000).count(), 0);
    }

    #[test]
    fn a_sample_told_twice_counts_once() {
        let mut once = Series::new(60_000);
        once.push(&sample(5_000, 7));
        let mut twice = once.clone();
        twice.push(&sample(5_000, 7));
        twice.push(&sample(4_000, 9));
        assert_eq!(once, twice);
    }

    #[test]
    fn silence_counts_by_the_series_own_pace() {
        let mut series = Series::new(60_000);
        assert_eq!(series.missing_for(20_000), Some(20_000));
        series.push(&Sample {
            span_ms: 30_000,
            ..sample(100_000, 7)
        });
        assert_eq!(series.missing_for(190_000), None);
        assert_eq!(series.missing_for(190_001), Some(90_001));
    }
}
