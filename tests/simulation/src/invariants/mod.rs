//! What must hold at any moment of any run: one file each, named as in `docs/invariants.md`.

mod acknowledged_survives;
mod committed_never_lost;
mod exclusive_never_overlaps;
mod membership_safe;
mod obeyed_once;
mod one_leader_a_term;
mod reads_never_go_back;
mod same_state_at_same_index;

use skep_raft_core::{ConfState, Position};

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

pub(crate) type Held = Result<(), Violation>;

pub(crate) fn broken(invariant: &'static str, what: String) -> Held {
    Err(Violation { invariant, what })
}

/// An entry that a member applied.
pub(crate) struct Applied<'a> {
    pub(crate) member: u64,
    pub(crate) position: Position,
    pub(crate) command: Option<&'a [u8]>,
    pub(crate) is_first: bool,
    pub(crate) digest: Option<u64>,
    pub(crate) live: usize,
}

/// All of them, with what they remember of the run.
#[derive(Default)]
pub(crate) struct Invariants {
    leaders: one_leader_a_term::Leaders,
    committed: committed_never_lost::Committed,
    states: same_state_at_same_index::States,
    members: membership_safe::Members,
    obeyed: obeyed_once::Obeyed,
    pub(crate) reads: reads_never_go_back::Reads,
    pub(crate) acknowledged: acknowledged_survives::Acknowledged,
}

impl Invariants {
    pub(crate) fn leads(&mut self, member: u64, term: u64) -> Held {
        self.leaders.leads(member, term)
    }

    pub(crate) fn applied(&mut self, applied: &Applied<'_>) -> Held {
        self.committed.applied(applied)?;
        self.obeyed.applied(applied)?;
        exclusive_never_overlaps::applied(applied)?;
        self.states.applied(applied)
    }

    pub(crate) fn members(&mut self, members: &ConfState) -> Held {
        self.members.now(members)
    }
}
