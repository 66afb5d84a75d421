//! What a simulated agent does with what it is told, and what it says of it. Pure: it is told the
//! time. Small: two hundred allocations on each of five thousand nodes are a million.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use skep_model::allocation::{Desired, State};
use skep_proto::convert::{enum_number, id_bits, id_bytes};
use skep_proto::v1;

/// Allocations in one word: as a real agent's.
const DELTA_MAX: usize = 32;
/// What a container of the load uses: memory, and CPU time per thousand of wall time.
const MEMORY_BYTES: u64 = 16 << 20;
const CPU_PERMILLE: u64 = 5;

#[derive(Debug, Clone, Copy)]
struct Known {
    state: State,
    /// The server has acknowledged that it is healthy.
    is_counted: bool,
}

/// One node's work.
#[derive(Debug)]
pub(super) struct Work {
    start: Duration,
    known: HashMap<u128, Known>,
    /// What becomes healthy, and when; the start always takes the same time, so in order.
    due: VecDeque<(Instant, u128)>,
    unsent: VecDeque<u128>,
    builds: Vec<v1::BuildObservation>,
    is_full_due: bool,
    sequence: u64,
    in_flight: VecDeque<(u64, Vec<u128>)>,
}

impl Work {
    /// Nothing yet; what is to run is healthy after `start`.
    pub(super) fn new(start: Duration) -> Self {
        Self {
            start,
            known: HashMap::new(),
            due: VecDeque::new(),
            unsent: VecDeque::new(),
            builds: Vec::new(),
            is_full_due: false,
            sequence: 0,
            in_flight: VecDeque::new(),
        }
    }

    /// A new session: everything is to be said again once the desired set is there.
    pub(super) fn begin(&mut self) {
        self.in_flight.clear();
        self.unsent.clear();
        self.builds.clear();
    }

    /// Does what is wanted now.
    pub(super) fn obey(&mut self, desired: v1::Desired, now: Instant) {
        let stop = enum_number(&Desired::ALL, &Desired::Stop);
        let set = desired.set.unwrap_or_default();
        for id in desired.removed_allocations.iter().filter_map(|id| bits(id)) {
            self.known.remove(&id);
        }
        for assignment in set.assignments {
            let Some(id) = bits(&assignment.allocation) else {
                continue;
            };
            let before = self.known.get(&id).map(|known| known.state);
            let state = match (assignment.desired == stop, before) {
                (true, _) => State::Stopped,
                (false, Some(state)) => state,
                (false, None) if self.start.is_zero() => State::Healthy,
                (false, None) => {
                    self.due.push_back((now + self.start, id));
                    State::Starting
                }
            };
            if before != Some(state) {
                self.set(id, state);
                self.unsent.push_back(id);
            }
        }
        if desired.full {
            self.is_full_due = true;
            self.unsent.clear();
        }
        self.builds.extend(set.builds.into_iter().map(built));
    }

    fn set(&mut self, id: u128, state: State) {
        let fresh = Known {
            state,
            is_counted: false,
        };
        self.known.entry(id).or_insert(fresh).state = state;
    }

    /// When the next allocation has started.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.front().map(|(at, _)| *at)
    }

    /// What has started by now is healthy.
    pub(super) fn start_due(&mut self, now: Instant) {
        while let Some((_, id)) = self.due.pop_front_if(|(at, _)| *at <= now) {
            let known = self.known.get_mut(&id);
            if let Some(known) = known.filter(|known| known.state == State::Starting) {
                known.state = State::Healthy;
                self.unsent.push_back(id);
            }
        }
    }

    /// The next word, if there is anything to say.
    pub(super) fn next(&mut self) -> Option<v1::ObservedSet> {
        let full = std::mem::take(&mut self.is_full_due);
        let ids: Vec<u128> = if full {
            self.known.keys().copied().collect()
        } else {
            let count = self.unsent.len().min(DELTA_MAX);
            self.unsent.drain(..count).collect()
        };
        let builds = std::mem::take(&mut self.builds);
        if ids.is_empty() && builds.is_empty() && !full {
            return None;
        }
        let allocations = ids.iter().filter_map(|id| {
            let known = self.known.get(id)?;
            Some(v1::AllocationObservation {
                allocation: id_bytes(*id),
                observed: Some(v1::Observed {
                    state: enum_number(&State::ALL, &known.state),
                    ..v1::Observed::default()
                }),
            })
        });
        let allocations = allocations.collect();
        self.sequence += 1;
        self.in_flight.push_back((self.sequence, ids));
        Some(v1::ObservedSet {
            sequence: self.sequence,
            full,
            allocations,
            builds,
            runtime_ok: true,
            ..v1::ObservedSet::default()
        })
    }

    /// The server has everything up to `sequence`; answers how many more it knows to be healthy.
    pub(super) fn acknowledge(&mut self, sequence: u64) -> usize {
        let mut counted = 0;
        while let Some((_, ids)) = self.in_flight.pop_front_if(|(sent, _)| *sent <= sequence) {
            for id in ids {
                let known = self.known.get_mut(&id);
                let fresh = known.filter(|it| it.state == State::Healthy && !it.is_counted);
                if let Some(known) = fresh {
                    known.is_counted = true;
                    counted += 1;
                }
            }
        }
        counted
    }

    /// What the containers use, `at_ms` after the agent began.
    pub(super) fn samples(&self, life: u64, at_ms: u64) -> v1::Samples {
        let runs = |known: &Known| matches!(known.state, State::Healthy | State::Starting);
        let running = self.known.iter().filter(|(_, known)| runs(known));
        let cpu_us = at_ms * CPU_PERMILLE;
        let allocations: Vec<_> = running
            .map(|(id, _)| v1::AllocationReading {
                allocation: id_bytes(*id),
                container: u64::from_be_bytes(low_half(*id)),
                cpu_us: Some(cpu_us),
                memory_bytes: Some(MEMORY_BYTES),
                age_ms: 0,
            })
            .collect();
        let count = allocations.len() as u64;
        v1::Samples {
            life,
            at_ms,
            node: Some(v1::NodeReading {
                cpu_us: Some(count * cpu_us),
                memory_bytes: Some(count * MEMORY_BYTES),
            }),
            allocations,
            ingress: None,
        }
    }
}

fn bits(id: &[u8]) -> Option<u128> {
    id_bits("allocation", id).ok()
}

fn low_half(id: u128) -> [u8; 8] {
    let bytes = id.to_be_bytes();
    std::array::from_fn(|place| bytes[8 + place])
}

/// An image is there without being fetched.
fn built(order: v1::BuildOrder) -> v1::BuildObservation {
    let image = v1::Image {
        reference: "registry.invalid/bench:1".to_owned(),
        digest: format!("sha256:{}", "0".repeat(64)),
        ..v1::Image::default()
    };
    let built = v1::Built {
        image: Some(image),
        ..v1::Built::default()
    };
    v1::BuildObservation {
        deployment: order.deployment,
        outcome: Some(v1::BuildOutcome {
            kind: Some(v1::build_outcome::Kind::Built(built)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(full: bool, ids: &[u128], desired: Desired) -> v1::Desired {
        let assignments = ids.iter().map(|id| v1::Assignment {
            allocation: id_bytes(*id),
            desired: enum_number(&Desired::ALL, &desired),
            ..v1::Assignment::default()
        });
        v1::Desired {
            full,
            set: Some(v1::DesiredSet {
                assignments: assignments.collect(),
                ..v1::DesiredSet::default()
            }),
            ..v1::Desired::default()
        }
    }

    fn states(word: &v1::ObservedSet) -> Vec<u32> {
        let of = |it: &v1::AllocationObservation| it.observed.as_ref().expect("it").state;
        word.allocations.iter().map(of).collect()
    }

    #[test]
    fn what_starts_is_healthy_in_its_time_and_counted_once() {
        let number = |state| enum_number(&State::ALL, &state);
        let (start, now) = (Duration::from_secs(1), Instant::now());
        let mut work = Work::new(start);
        work.obey(told(true, &[1], Desired::Run), now);
        let first = work.next().expect("full");
        assert_eq!(
            (first.full, states(&first)),
            (true, vec![number(State::Starting)])
        );
        assert_eq!(work.acknowledge(first.sequence), 0);
        work.start_due(now);
        assert_eq!(work.next(), None);
        work.start_due(now + start);
        let second = work.next().expect("news");
        assert_eq!(states(&second), [number(State::Healthy)]);
        assert_eq!(work.acknowledge(second.sequence), 1);
        work.begin();
        work.obey(told(true, &[1], Desired::Run), now + start);
        let again = work.next().expect("full");
        assert_eq!(states(&again), [number(State::Healthy)]);
        assert_eq!(work.acknowledge(again.sequence), 0, "it was counted");
    }

    #[test]
    fn what_is_stopped_uses_nothing() {
        let now = Instant::now();
        let mut work = Work::new(Duration::ZERO);
        work.obey(told(true, &[1, 2], Desired::Run), now);
        work.obey(told(false, &[1], Desired::Stop), now);
        let read = work.samples(1, 1_000);
        assert_eq!(read.allocations.len(), 1);
        assert_eq!(read.allocations[0].allocation, id_bytes(2));
    }
}
