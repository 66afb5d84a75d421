//! Which observations the server does not have yet: the newest of each allocation and build, sent
//! again until acknowledged. Pure; costs O(changes) but for a full set.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::allocation::Observed;
use skep_model::deployment::BuildOutcome;
use skep_model::id::{AllocationId, DeploymentId};
use skep_proto::convert::id_bytes;
use skep_proto::v1;

/// Observations in one delta: with their log tails they stay below what one command may hold.
const DELTA_MAX: usize = 32;
/// Deltas that wait for their acknowledgement.
const IN_FLIGHT_MAX: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Allocation(AllocationId),
    Build(DeploymentId),
    /// The list as a whole.
    Quarantine,
}

/// How Docker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It answers.
    Works,
    /// It does not.
    Away,
    /// It answers a ping, and nothing else.
    Wedged,
}

impl Condition {
    /// Of one that does not work.
    pub(crate) fn away(wedged: bool) -> Self {
        if wedged { Self::Wedged } else { Self::Away }
    }
}

/// What is known, what of it is not sent, and what is sent but not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Observations {
    allocations: BTreeMap<AllocationId, Observed>,
    builds: BTreeMap<DeploymentId, BuildOutcome>,
    quarantine: Vec<v1::Quarantined>,
    runtime: Option<Condition>,
    ready: bool,
    unsent: BTreeSet<Key>,
    runtime_unsent: bool,
    full_due: bool,
    in_flight: BTreeMap<u64, Vec<Key>>,
    sequence: u64,
}

impl Observations {
    /// Everything has been looked at: a full set is true from now on.
    pub(super) fn set_ready(&mut self) {
        self.ready = true;
    }

    pub(super) fn set_runtime(&mut self, condition: Condition) {
        self.runtime_unsent |= self.runtime != Some(condition);
        self.runtime = Some(condition);
    }

    pub(super) fn observe(&mut self, id: AllocationId, observed: Observed) {
        if self.allocations.get(&id) != Some(&observed) {
            self.allocations.insert(id, observed);
            self.unsent.insert(Key::Allocation(id));
        }
    }

    pub(super) fn forget(&mut self, id: AllocationId) {
        self.allocations.remove(&id);
        self.unsent.remove(&Key::Allocation(id));
    }

    pub(super) fn finish_build(&mut self, id: DeploymentId, outcome: BuildOutcome) {
        self.builds.insert(id, outcome);
        self.unsent.insert(Key::Build(id));
    }

    pub(super) fn forget_build(&mut self, id: DeploymentId) {
        self.builds.remove(&id);
        self.unsent.remove(&Key::Build(id));
    }

    pub(super) fn set_quarantine(&mut self, all: Vec<v1::Quarantined>) {
        if self.quarantine != all {
            self.quarantine = all;
            self.unsent.insert(Key::Quarantine);
        }
    }

    /// A new session: everything is due.
    pub(super) fn begin(&mut self) {
        self.full_due = true;
        self.runtime_unsent = self.runtime.is_some();
        self.in_flight.clear();
    }

    /// The server has everything up to `sequence`.
    pub(super) fn acknowledge(&mut self, sequence: u64) {
        self.in_flight = self.in_flight.split_off(&sequence.saturating_add(1));
    }

    /// Not acknowledged for too long: due again.
    pub(super) fn resend(&mut self) {
        for key in std::mem::take(&mut self.in_flight).into_values().flatten() {
            self.unsent.insert(key);
        }
    }

    /// The next message, if there is anything to say.
    pub(super) fn next(&mut self) -> Option<v1::ObservedSet> {
        let runtime = self.runtime?;
        let keys: Vec<Key> = if self.full_due && self.ready {
            let allocations = self.allocations.keys().copied().map(Key::Allocation);
            allocations
                .chain(self.builds.keys().copied().map(Key::Build))
                .chain([Key::Quarantine])
                .collect()
        } else if self.in_flight.len() >= IN_FLIGHT_MAX || (self.full_due && !self.runtime_unsent) {
            return None;
        } else if self.full_due {
            Vec::new()
        } else {
            self.unsent.iter().copied().take(DELTA_MAX).collect()
        };
        let full = self.full_due && self.ready;
        if keys.is_empty() && !full && !self.runtime_unsent {
            return None;
        }
        self.full_due &= !full;
        self.runtime_unsent = false;
        self.sequence += 1;
        for key in &keys {
            self.unsent.remove(key);
        }
        let message = self.message(full, &keys, runtime);
        self.in_flight.insert(self.sequence, keys);
        Some(message)
    }

    fn message(&self, full: bool, keys: &[Key], runtime: Condition) -> v1::ObservedSet {
        let mut message = v1::ObservedSet {
            sequence: self.sequence,
            full,
            runtime_ok: runtime == Condition::Works,
            runtime_wedged: runtime == Condition::Wedged,
            // All of it each time: what is not named is not there any more.
            quarantine: self.quarantine.clone(),
            ..Default::default()
        };
        for key in keys {
            match key {
                Key::Allocation(id) => {
                    message
                        .allocations
                        .extend(self.allocations.get(id).map(|observed| {
                            v1::AllocationObservation {
                                allocation: id_bytes(id.as_u128()),
                                observed: Some(observed.into()),
                            }
                        }))
                }
                Key::Quarantine => {}
                Key::Build(id) => {
                    message
                        .builds
                        .extend(self.builds.get(id).map(|outcome| v1::BuildObservation {
                            deployment: id_bytes(id.as_u128()),
                            outcome: Some(outcome.into()),
                        }))
                }
            }
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_quarantine_is_news_once_and_in_every_word() {
        let mut known = Observations::default();
        known.set_runtime(Condition::Works);
        known.set_ready();
        known.begin();
        assert!(known.next().expect("full").quarantine.is_empty());
        assert_eq!(known.next(), None);
        let list = vec![v1::Quarantined {
            allocation: vec![7; 16],
            ..v1::Quarantined::default()
        }];
        known.set_quarantine(list.clone());
        assert_eq!(known.next().expect("news").quarantine, list);
        known.set_quarantine(list.clone());
        assert_eq!(known.next(), None, "no news");
        known.observe(AllocationId::from_u128(1), Observed::pending());
        assert_eq!(known.next().expect("other news").quarantine, list);
        known.resend();
        assert_eq!(known.next().expect("not acknowledged").quarantine, list);
        known.begin();
        assert_eq!(known.next().expect("a new session").quarantine, list);
    }
}
