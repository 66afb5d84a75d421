//! The network: delays, loses, repeats and reorders, and is cut between members, one way or both.

use std::collections::BTreeSet;

/// What the network does to what is sent.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    /// Longest ordinary delay, ms.
    pub(crate) delay_ms: u64,
    /// Lost, in per mille.
    pub(crate) loss: u32,
    /// Delivered twice, in per mille.
    pub(crate) repeats: u32,
    /// Late by up to a second, in per mille.
    pub(crate) late: u32,
    /// Cut from the first member to the second.
    cuts: BTreeSet<(u64, u64)>,
}

impl Network {
    pub(crate) fn calm() -> Self {
        Self {
            delay_ms: 3,
            loss: 0,
            repeats: 0,
            late: 0,
            cuts: BTreeSet::new(),
        }
    }

    pub(crate) fn rough(rng: &mut fastrand::Rng) -> Self {
        Self {
            delay_ms: rng.u64(1..40),
            loss: rng.u32(0..150),
            repeats: rng.u32(0..80),
            late: rng.u32(0..80),
            cuts: BTreeSet::new(),
        }
    }

    pub(crate) fn cut(&mut self, from: u64, to: u64) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn mend(&mut self) {
        self.cuts.clear();
    }

    /// The delays after which a message arrives: none, one, or two of them.
    pub(crate) fn carry(&self, rng: &mut fastrand::Rng, from: u64, to: u64) -> Vec<u64> {
        if self.cuts.contains(&(from, to)) || rng.u32(..1000) < self.loss {
            return Vec::new();
        }
        let copies = 1 + usize::from(rng.u32(..1000) < self.repeats);
        (0..copies)
            .map(|_| {
                let late = if rng.u32(..1000) < self.late { 1000 } else { 0 };
                1 + rng.u64(..=self.delay_ms + late)
            })
            .collect()
    }
}
