//! The requests to one service in the last minute, of all ingresses together, in slots of two seconds.
//! Pure: the time is the caller's.

use skep_model::sample::{LATENCY_BUCKETS, ServiceCounters};

/// One slot, ms: the period of the readings.
const SLOT_MS: u64 = 2_000;
/// Slots: the longest window, and as much again as a reading may be late.
const SLOTS: usize = 24;

/// Requests in a while. Fractions, because a reading's growth is spread over the time it took.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Requests {
    pub(super) all: f32,
    pub(super) latency: [f32; LATENCY_BUCKETS],
}

impl Requests {
    /// How much `now` is above `then`. A counter that went back began anew, at 0.
    pub(super) fn grown(then: &ServiceCounters, now: &ServiceCounters) -> Self {
        let began_anew = (now.requests.iter().zip(&then.requests))
            .chain(now.latency.iter().zip(&then.latency))
            .any(|(now, then)| now < then);
        let then = match began_anew {
            true => &ServiceCounters::default(),
            false => then,
        };
        let total = |of: &ServiceCounters| of.requests.iter().sum::<u64>();
        Self {
            all: (total(now) - total(then)) as f32,
            latency: std::array::from_fn(|place| (now.latency[place] - then.latency[place]) as f32),
        }
    }

    fn add(&mut self, other: &Self, share: f32) {
        self.all += other.all * share;
        for (mine, more) in self.latency.iter_mut().zip(&other.latency) {
            *mine += more * share;
        }
    }

    fn is_none(&self) -> bool {
        self.all <= 0.0 && self.latency.iter().all(|count| *count <= 0.0)
    }
}

/// The slots, each at its number modulo their count.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ring {
    newest: u64,
    /// Up to here requests were added: of the newest slot nothing is behind it.
    until_ms: u64,
    slots: [Requests; SLOTS],
}

impl Ring {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            newest: now_ms / SLOT_MS,
            until_ms: now_ms,
            slots: [Requests::default(); SLOTS],
        }
    }

    /// Spreads requests evenly over the time between two moments.
    pub(super) fn add(&mut self, (from_ms, to_ms): (u64, u64), requests: &Requests) {
        if requests.is_none() || to_ms <= from_ms {
            return;
        }
        self.advance(to_ms / SLOT_MS);
        self.until_ms = self.until_ms.max(to_ms);
        let whole_ms = (to_ms - from_ms) as f32;
        for slot in self.oldest().max(from_ms / SLOT_MS)..=to_ms / SLOT_MS {
            let share = overlap_ms(slot, (from_ms, to_ms)) as f32 / whole_ms;
            self.slots[place(slot)].add(requests, share);
        }
    }

    /// What came between two moments.
    pub(super) fn sum(&self, (from_ms, to_ms): (u64, u64)) -> Requests {
        let mut sum = Requests::default();
        for slot in self.oldest().max(from_ms / SLOT_MS)..=self.newest.min(to_ms / SLOT_MS) {
            // A slot that is not over has all of its requests in the part that has passed.
            let filled_ms = overlap_ms(slot, (0, self.until_ms)).max(1);
            let wanted_ms = overlap_ms(slot, (from_ms, to_ms.min(self.until_ms)));
            let share = wanted_ms as f32 / filled_ms as f32;
            sum.add(&self.slots[place(slot)], share);
        }
        sum
    }

    /// Nothing in it matters any more.
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        now_ms / SLOT_MS >= self.newest + SLOTS as u64
    }

    fn oldest(&self) -> u64 {
        self.newest.saturating_sub(SLOTS as u64 - 1)
    }

    fn advance(&mut self, newest: u64) {
        let skipped = newest.saturating_sub(self.newest).min(SLOTS as u64);
        for slot in newest + 1 - skipped.min(newest + 1)..=newest {
            if slot > self.newest {
                self.slots[place(slot)] = Requests::default();
            }
        }
        self.newest = self.newest.max(newest);
    }
}

fn place(slot: u64) -> usize {
    // A remainder of a small number.
    (slot % SLOTS as u64) as usize
}

fn overlap_ms(slot: u64, (from_ms, to_ms): (u64, u64)) -> u64 {
    let (begin, end) = (slot * SLOT_MS, (slot + 1) * SLOT_MS);
    end.min(to_ms).saturating_sub(begin.max(from_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten a second, told every two seconds at whatever moment of the slots.
    #[test]
    fn a_steady_rate_is_the_same_in_every_phase_and_window() {
        for phase_ms in [0, 1, 500, 1_000, 1_999] {
            let mut ring = Ring::new(phase_ms);
            let mut requests = Requests {
                all: 20.0,
                ..Requests::default()
            };
            requests.latency[0] = 20.0;
            for reading in 0..20 {
                let from_ms = phase_ms + reading * 2_000;
                let until_ms = from_ms + 2_000;
                ring.add((from_ms, until_ms), &requests);
                for window_ms in [2_000, 4_000, 10_000] {
                    if reading * 2_000 < window_ms {
                        continue;
                    }
                    let sum = ring.sum((until_ms - window_ms, until_ms));
                    let wanted = window_ms as f32 / 100.0;
                    assert!(
                        (sum.all - wanted).abs() < 0.1,
                        "{phase_ms} {window_ms}: {sum:?}"
                    );
                    assert!((sum.latency[0] - wanted).abs() < 0.1, "{sum:?}");
                }
            }
            // What comes to an end is still counted whole.
            let sum = ring.sum((phase_ms + 38_000, phase_ms + 45_000));
            assert!((sum.all - 20.0).abs() < 0.1, "{phase_ms}: {sum:?}");
        }
    }
}
