//! Which containers run, as the keeper says it and the reader asks for it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use skep_model::id::AllocationId;

/// Containers that are read in one period; on a node with more they take turns.
const TURN_MAX: usize = 1_024;

/// The container of an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    /// Docker's id of it.
    pub(crate) container: Arc<str>,
    /// Its main process.
    pub(crate) pid: u32,
}

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<AllocationId, Running>,
    /// Where the next turn begins.
    after: Option<AllocationId>,
}

/// The containers that run. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    state: Arc<Mutex<State>>,
}

impl Board {
    /// The container that runs for an allocation; none: none does.
    pub(crate) fn set(&self, id: AllocationId, container: Option<(&str, u32)>) {
        let state = &mut *self.state.lock();
        let Some((container, pid)) = container else {
            state.running.remove(&id);
            return;
        };
        let known = state.running.get(&id);
        if known.is_none_or(|known| &*known.container != container || known.pid != pid) {
            let container = container.into();
            state.running.insert(id, Running { container, pid });
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(AllocationId, Running)> {
        let state = self.state.lock();
        let all = state.running.iter();
        all.map(|(id, it)| (*id, it.clone())).collect()
    }

    /// The containers to read now.
    pub(super) fn turn(&self) -> Vec<(AllocationId, Running)> {
        let state = &mut *self.state.lock();
        let from = state.after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = state.running.range((from, Bound::Unbounded));
        let mut turn: Vec<_> = behind
            .take(TURN_MAX)
            .map(|(id, it)| (*id, it.clone()))
            .collect();
        if state.running.len() > TURN_MAX {
            let rest = state.running.iter().take(TURN_MAX - turn.len());
            turn.extend(rest.map(|(id, it)| (*id, it.clone())));
            state.after = turn.last().map(|(id, _)| *id);
        } else {
            state.after = None;
            if from != Bound::Unbounded {
                let all = state.running.iter();
                turn = all.map(|(id, it)| (*id, it.clone())).collect();
            }
        }
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(containers: usize) -> Board {
        let board = Board::default();
        for n in 0..containers {
            let id = AllocationId::from_u128(n as u128);
            board.set(id, Some(("abc", 7)));
        }
        board
    }

    #[test]
    fn few_containers_are_all_read_each_time() {
        let board = board(3);
        assert_eq!((board.turn().len(), board.turn().len()), (3, 3));
        board.set(AllocationId::from_u128(1), None);
        assert_eq!(board.turn().len(), 2);
    }

    #[test]
    fn many_containers_take_turns_and_none_is_left_out() {
        let board = board(2 * TURN_MAX + 10);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let turn = board.turn();
            assert_eq!(turn.len(), TURN_MAX);
            seen.extend(turn.into_iter().map(|(id, _)| id));
        }
        assert_eq!(seen.len(), 2 * TURN_MAX + 10);
        for n in 3..2 * TURN_MAX + 10 {
            board.set(AllocationId::from_u128(n as u128), None);
        }
        assert_eq!(board.turn().len(), 3, "few again");
    }
}
