//! The working set of each container as it was seen in the last minutes: what is said of it when the kernel has
//! killed it. Pure, bounded by what runs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use skep_model::id::AllocationId;

/// Readings kept of a container: ten minutes of them, 4 bytes each.
const READINGS_MAX: usize = 300;
/// Containers remembered, those that have ended among them: beyond what Docker bears on one machine.
const CONTAINERS_MAX: usize = 4_096;
/// Fewer say nothing of what is usual.
const READINGS_MIN: usize = 5;

/// What was seen of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usual {
    /// 95 of 100 readings were not above it, in bytes.
    pub(crate) p95_bytes: u64,
    /// The largest of its life, in bytes.
    pub(crate) peak_bytes: u64,
}

#[derive(Debug)]
struct Seen {
    container: Arc<str>,
    /// In KiB, oldest first.
    readings: VecDeque<u32>,
    peak_bytes: u64,
}

/// What was seen of all.
#[derive(Debug, Default)]
pub(super) struct Memory {
    containers: BTreeMap<AllocationId, Seen>,
}

impl Memory {
    /// A reading of an allocation's container, which has this id; gives the largest of its life.
    pub(super) fn read(&mut self, id: AllocationId, container: &Arc<str>, bytes: u64) -> u64 {
        let new = || Seen {
            container: container.clone(),
            readings: VecDeque::new(),
            peak_bytes: 0,
        };
        let seen = self.containers.entry(id).or_insert_with(new);
        if seen.container != *container {
            *seen = new();
        }
        if seen.readings.len() == READINGS_MAX {
            seen.readings.pop_front();
        }
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
        seen.readings.push_back(kib);
        seen.peak_bytes = seen.peak_bytes.max(bytes);
        seen.peak_bytes
    }

    /// Forgets allocations that do not run, where they are too many.
    pub(super) fn retain(&mut self, runs: impl Fn(AllocationId) -> bool) {
        if self.containers.len() > CONTAINERS_MAX {
            self.containers.retain(|id, _| runs(*id));
        }
    }

    /// What is known of a container; none: it was not read often enough.
    pub(super) fn usual(&self, id: AllocationId, container: &str) -> Option<Usual> {
        let seen = self.containers.get(&id)?;
        if &*seen.container != container || seen.readings.len() < READINGS_MIN {
            return None;
        }
        let mut sorted: Vec<u32> = seen.readings.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * 95).div_ceil(100).max(1) - 1;
        Some(Usual {
            p95_bytes: u64::from(sorted[rank]) << 10,
            peak_bytes: seen.peak_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const ID: AllocationId = AllocationId::from_u128(1);

    #[test]
    fn the_95th_of_a_hundred_and_the_peak_of_a_life() {
        let mut memory = Memory::default();
        for n in 1..=100 {
            memory.read(ID, &"a".into(), n * MIB);
        }
        let usual = memory.usual(ID, "a").expect("known");
        assert_eq!((usual.p95_bytes, usual.peak_bytes), (95 * MIB, 100 * MIB));
        // The oldest fall out; the peak stays.
        for _ in 0..READINGS_MAX {
            memory.read(ID, &"a".into(), MIB);
        }
        let usual = memory.usual(ID, "a").expect("known");
        assert_eq!((usual.p95_bytes, usual.peak_bytes), (MIB, 100 * MIB));
    }

    #[test]
    fn another_container_begins_anew_and_few_readings_say_nothing() {
        let mut memory = Memory::default();
        for _ in 0..READINGS_MIN {
            memory.read(ID, &"a".into(), MIB);
        }
        assert!(memory.usual(ID, "a").is_some() && memory.usual(ID, "b").is_none());
        assert_eq!(memory.read(ID, &"b".into(), 5), 5);
        assert_eq!((memory.usual(ID, "a"), memory.usual(ID, "b")), (None, None));
    }

    #[test]
    fn what_has_ended_is_forgotten_where_there_is_much_of_it() {
        let mut memory = Memory::default();
        for n in 0..=CONTAINERS_MAX as u128 {
            memory.read(AllocationId::from_u128(n), &"a".into(), MIB);
            memory.retain(|id| id == ID);
        }
        assert_eq!(memory.containers.len(), 1);
    }
}
