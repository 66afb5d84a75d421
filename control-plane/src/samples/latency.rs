//! A percentile out of summed buckets. Pure.

use skep_model::sample::{LATENCY_BOUNDS_US, LATENCY_BUCKETS};

const US_PER_MS: f64 = 1_000.0;

/// The latency, in ms, that a share of the requests does not exceed; none: there were none. Within a
/// bucket requests count as spread evenly, as Prometheus' `histogram_quantile` has it; in the last one,
/// which has no bound, as at its lower end.
pub fn percentile_ms(buckets: &[f32; LATENCY_BUCKETS], share: f64) -> Option<f64> {
    let total: f64 = buckets.iter().map(|count| f64::from(*count)).sum();
    if total <= 0.0 {
        return None;
    }
    let wanted = total * share;
    let (mut below, mut lower) = (0.0, 0.0);
    for (count, bound) in buckets.iter().zip(LATENCY_BOUNDS_US) {
        let (count, upper) = (f64::from(*count), bound as f64);
        if count > 0.0 && below + count >= wanted {
            return Some((lower + (upper - lower) * (wanted - below) / count) / US_PER_MS);
        }
        (below, lower) = (below + count, upper);
    }
    Some(lower / US_PER_MS)
}
