//! What a metric's level is, and whether a rise is more than chance: the stable mean, and beside it
//! every shorter stretch that ends now, each only as far as it can be trusted.
//!
//! Of `n` events in a stretch the true number is above `n - z sqrt(phi n)` with a confidence that
//! `z` fixes (normal approximation of Poisson's law; `phi` is the service's index of dispersion, 1
//! for Poisson: one whose requests come in clumps needs a clearer rise). So a tenfold crowd is
//! believed after one second, and noise is not, by the same rule.

use skep_model::autoscale::{Autoscale, Metric};

use super::series::{Bucket, Series};

/// Deviations by which a burst must be clear of what is there: there are six tests a second, all
/// year, and chance should win none.
const BURST_DEVIATIONS: f64 = 5.0;
/// The same while hardly anything is known, or a rise is under way: to wait costs more than a
/// replica too many.
const RISING_DEVIATIONS: f64 = 4.0;
/// Deviations for the mean of the whole window, whose share of chance is small.
const STABLE_DEVIATIONS: f64 = 2.0;
/// Fewest buckets that say how the events clump.
const MIN_FOR_DISPERSION: usize = 10;
/// The deviation of a normal distribution, in medians of its absolute values.
const MEDIAN_TO_DEVIATION: f64 = 1.4826;

/// How a metric's noise is known.
#[derive(Clone, Copy, PartialEq)]
enum Noise {
    /// A rate of events: as many as rate times time.
    Events,
    /// A number of things present: as many as it says, however long one looks.
    Present,
    /// Nothing is known of it: a rise counts as far as two samples in a row have it.
    Unknown,
}

/// A short stretch that ends now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Burst {
    /// Lower bound of its level, in thousandths: what it is judged by.
    pub(super) at_least: f64,
    /// Its mean, in thousandths: once it is believed, the best guess.
    pub(super) level: f64,
    /// Its length, in ms.
    pub(super) span_ms: u64,
}

/// The level of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    /// Mean over the stable window, in thousandths.
    pub(super) mean: f64,
    /// What the mean is at least, chance taken away.
    pub(super) at_least: f64,
    /// The clearest stretch that is surely above the mean, if any is.
    pub(super) burst: Option<Burst>,
    /// Less than half the stable window is known: the mean is not to be trusted yet.
    pub(super) is_cold: bool,
}

/// When, and in which circumstances, a level is asked for.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) now_ms: u64,
    /// Replicas were added lately.
    pub(super) is_rising: bool,
    /// Index of dispersion of requests; 1 or more.
    pub(super) dispersion: f64,
}

/// The level of `metric`; none without a sample in the window.
pub(super) fn estimate(
    metric: &Metric,
    series: &Series,
    spec: &Autoscale,
    moment: Moment,
) -> Option<Estimate> {
    let noise = match metric {
        Metric::RequestRate => Noise::Events,
        Metric::InFlight => Noise::Present,
        _ => Noise::Unknown,
    };
    let newest: Vec<Bucket> = series
        .newest(spec.stable_window_ms, moment.now_ms)
        .copied()
        .collect();
    let all = Stretch::of(&newest)?;
    let is_cold = all.span_ms < spec.stable_window_ms as f64 / 2.0;
    let phi = match noise {
        Noise::Events => moment.dispersion,
        Noise::Present | Noise::Unknown => 1.0,
    };
    let at_least = match noise {
        Noise::Unknown if newest.len() < 2 => 0.0,
        Noise::Unknown => all.mean(),
        _ => all.at_least(noise, phi, STABLE_DEVIATIONS),
    };
    // Cold, every stretch is short.
    let longest_ms = if is_cold {
        spec.stable_window_ms
    } else {
        spec.burst_window_ms
    };
    let deviations = if is_cold || moment.is_rising {
        RISING_DEVIATIONS
    } else {
        BURST_DEVIATIONS
    };
    let burst = match noise {
        Noise::Unknown => pair(&newest),
        _ => rise(
            &newest,
            |stretch| stretch.at_least(noise, phi, deviations),
            longest_ms,
        ),
    };
    let mean = all.mean();
    Some(Estimate {
        mean,
        at_least,
        burst: burst.filter(|burst| burst.at_least > mean || is_cold),
        is_cold,
    })
}

/// Buckets in a row, ending with the newest.
#[derive(Default)]
struct Stretch {
    weighted: f64,
    span_ms: f64,
}

impl Stretch {
    fn of(buckets: &[Bucket]) -> Option<Self> {
        let mut stretch = Self::default();
        buckets.iter().for_each(|bucket| stretch.add(bucket));
        (stretch.span_ms > 0.0).then_some(stretch)
    }

    fn add(&mut self, bucket: &Bucket) {
        self.weighted += bucket.weighted();
        self.span_ms += bucket.span_ms as f64;
    }

    fn mean(&self) -> f64 {
        self.weighted / self.span_ms
    }

    /// Lower bound of the level, in thousandths.
    fn at_least(&self, noise: Noise, phi: f64, deviations: f64) -> f64 {
        // Thousandths of a second times thousandths: a millionth of an event.
        let events = match noise {
            Noise::Events => self.weighted / 1e6,
            Noise::Present | Noise::Unknown => self.mean() / 1e3,
        };
        if events <= 0.0 {
            return 0.0;
        }
        let sure = (events - deviations * (phi * events).sqrt()).max(0.0);
        self.mean() * (sure / events)
    }
}

/// The stretch up to `longest_ms` whose lower bound is highest: its bound, mean and length.
fn rise(newest: &[Bucket], bound: impl Fn(&Stretch) -> f64, longest_ms: u64) -> Option<Burst> {
    let mut stretch = Stretch::default();
    let mut best: Option<Burst> = None;
    for bucket in newest {
        stretch.add(bucket);
        // The first counts whatever its span: an agent may report less often than that.
        if best.is_some() && stretch.span_ms > longest_ms as f64 {
            break;
        }
        let at_least = bound(&stretch);
        if best.is_none_or(|best| at_least > best.at_least) {
            best = Some(Burst {
                at_least,
                level: stretch.mean(),
                span_ms: stretch.span_ms as u64,
            });
        }
    }
    best
}

/// What the two newest buckets have in common.
fn pair(newest: &[Bucket]) -> Option<Burst> {
    let [last, before, ..] = newest else {
        return None;
    };
    let level = last.mean().min(before.mean());
    Some(Burst {
        at_least: level,
        level,
        span_ms: last.span_ms + before.span_ms,
    })
}

/// How much the events of a rate clump: the variance of its buckets over their mean; none: too few
/// are known. The variance is that of the differences between neighbours, by their median: a step
/// of the load is one difference, and counts for nothing.
pub(super) fn dispersion(series: &Series, window_ms: u64, now_ms: u64) -> Option<f64> {
    let buckets: Vec<Bucket> = series.newest(window_ms, now_ms).copied().collect();
    if buckets.len() < MIN_FOR_DISPERSION {
        return None;
    }
    let stretch = Stretch::of(&buckets)?;
    // Thousandths times ms: millionths of an event in a bucket of mean length.
    let span_ms = stretch.span_ms / buckets.len() as f64;
    let events = |bucket: &Bucket| bucket.mean() * span_ms / 1e6;
    let mean = stretch.mean() * span_ms / 1e6;
    let mut off: Vec<f64> = buckets
        .windows(2)
        .map(|pair| (events(&pair[0]) - events(&pair[1])).abs())
        .collect();
    off.sort_by(f64::total_cmp);
    let deviation = MEDIAN_TO_DEVIATION * off[off.len() / 2];
    // A difference has twice the variance of a bucket.
    (mean > 0.0).then_some(deviation * deviation / 2.0 / mean)
}
