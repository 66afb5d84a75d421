//! What a service's allocations used, as histograms whose past fades: the base of recommended
//! requests. Bounded, exact in its arithmetic, and a plain value like the history. After Google's
//! Autopilot and the Kubernetes VPA: buckets that grow by 5%, a half-life of a day.

use serde::{Deserialize, Serialize};

/// What was used weighs half as much after this, in ms.
const HALF_LIFE_MS: u64 = 86_400_000;
/// Weight of a new sample: so that ten halvings leave something of it.
const WEIGHT: u64 = 1_024;
/// Each bucket is larger than the one before by one part in so many.
const GROWTH: u64 = 20;
/// Most buckets; what is larger is in the last.
const MAX_BUCKETS: usize = 480;
/// Upper bound of the first bucket of CPU, in thousandths of a core.
const CPU_FIRST: u64 = 10;
/// Upper bound of the first bucket of memory, in bytes.
const MEMORY_FIRST: u64 = 1 << 20;

/// Weights by size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Histogram {
    weights: Vec<u64>,
}

impl Histogram {
    fn add(&mut self, first: u64, value: u64) {
        let index = bounds(first)
            .position(|bound| value <= bound)
            .unwrap_or(MAX_BUCKETS - 1);
        if self.weights.len() <= index {
            self.weights.resize(index + 1, 0);
        }
        self.weights[index] = self.weights[index].saturating_add(WEIGHT);
    }

    fn halve(&mut self) {
        self.weights.iter_mut().for_each(|weight| *weight /= 2);
        while self.weights.last() == Some(&0) {
            self.weights.pop();
        }
    }

    /// The size that this share of the weight does not exceed, in percent; none of nothing.
    fn percentile(&self, first: u64, percent: u64) -> Option<u64> {
        let total: u128 = self.weights.iter().map(|weight| u128::from(*weight)).sum();
        let wanted = (total * u128::from(percent)).div_ceil(100);
        let mut sum = 0_u128;
        let reached = |(weight, bound): (&u64, u64)| {
            sum += u128::from(*weight);
            (sum >= wanted).then_some(bound)
        };
        if total == 0 {
            return None;
        }
        self.weights.iter().zip(bounds(first)).find_map(reached)
    }
}

/// Upper bounds of the buckets.
fn bounds(first: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(first), |bound| {
        bound.checked_add((bound / GROWTH).max(1))
    })
    .take(MAX_BUCKETS)
}

/// What the allocations of a service used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    cpu: Histogram,
    memory: Histogram,
    begin_ms: Option<u64>,
    halved_ms: u64,
    /// When memory was last not enough, and what would be.
    oom: Option<(u64, u64)>,
}

impl Usage {
    /// Takes in what one allocation used over a stretch of time, such as a minute: mean CPU in
    /// thousandths of a core, and the most memory in bytes.
    pub fn observe(&mut self, now_ms: u64, cpu_millis: u64, memory_bytes: u64) {
        self.fade(now_ms);
        self.cpu.add(CPU_FIRST, cpu_millis);
        self.memory.add(MEMORY_FIRST, memory_bytes);
    }

    /// Takes in that an allocation was killed for want of memory at this limit. What it would have
    /// used nobody knows: a fifth more, and at least 100 MiB.
    pub fn observe_oom(&mut self, now_ms: u64, limit_bytes: u64) {
        self.fade(now_ms);
        let more = (limit_bytes / 5).max(100 << 20);
        let enough = limit_bytes.saturating_add(more);
        self.memory.add(MEMORY_FIRST, enough);
        let known = self.oom.map_or(0, |(_, bytes)| bytes);
        self.oom = Some((now_ms, enough.max(known)));
    }

    fn fade(&mut self, now_ms: u64) {
        if self.begin_ms.is_none() {
            self.begin_ms = Some(now_ms);
            self.halved_ms = now_ms;
        }
        // Sixty-four halvings leave nothing.
        let passed = now_ms.saturating_sub(self.halved_ms) / HALF_LIFE_MS;
        for _ in 0..passed.min(64) {
            self.cpu.halve();
            self.memory.halve();
        }
        self.halved_ms = self.halved_ms.saturating_add(passed * HALF_LIFE_MS);
    }

    /// How long it has been watched, in ms.
    pub(super) fn known_ms(&self, now_ms: u64) -> u64 {
        self.begin_ms
            .map_or(0, |begin| now_ms.saturating_sub(begin))
    }

    /// The 95th percentile of CPU, in thousandths of a core; none: nothing is known.
    pub fn cpu_p95_millis(&self) -> Option<u64> {
        self.cpu.percentile(CPU_FIRST, 95)
    }

    /// The 95th percentile of memory, in bytes; none: nothing is known.
    pub fn memory_p95_bytes(&self) -> Option<u64> {
        self.memory.percentile(MEMORY_FIRST, 95)
    }

    /// What memory was too little at and when, while that still counts: two half-lives.
    pub(super) fn oom_bytes(&self, now_ms: u64) -> Option<u64> {
        let (at_ms, bytes) = self.oom?;
        (now_ms.saturating_sub(at_ms) < 2 * HALF_LIFE_MS).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_within_a_bucket_of_the_truth() {
        let mut usage = Usage::default();
        for minute in 1..=1_000 {
            usage.observe(minute * 60_000, minute, minute << 20);
        }
        let cpu = usage.cpu_p95_millis().unwrap();
        assert!((950..=1_000).contains(&cpu), "{cpu}");
        let memory = usage.memory_p95_bytes().unwrap() >> 20;
        assert!((949..=1_000).contains(&memory), "{memory}");
    }

    #[test]
    fn the_past_fades_and_memory_is_bounded() {
        let mut usage = Usage::default();
        usage.observe(0, u64::MAX, u64::MAX);
        assert!(usage.memory.weights.len() <= MAX_BUCKETS);
        for minute in 0..1_440 {
            usage.observe(minute * 60_000, 1_000, 1 << 30);
        }
        // Three days later a day of half as much: the old day weighs an eighth of the new.
        for minute in 0..1_440 {
            usage.observe(3 * HALF_LIFE_MS + minute * 60_000, 500, 1 << 29);
        }
        let p95 = usage.cpu_p95_millis().unwrap();
        assert!(p95 >= 1_000, "an eighth is more than 5%: {p95}");
        for minute in 0..1_440 {
            usage.observe(9 * HALF_LIFE_MS + minute * 60_000, 500, 1 << 29);
        }
        let p95 = usage.cpu_p95_millis().unwrap();
        assert!((500..=525).contains(&p95), "{p95}");
    }
}
