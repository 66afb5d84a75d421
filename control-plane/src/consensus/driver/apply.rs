//! Applying what is committed, and showing it.
//!
//! Owns the order in which others see it: the view, then the changes, then the index, then the
//! proposers' answers. Writes nothing.

use super::Driver;
use crate::consensus::group::Group;
use crate::consensus::machine::{Batch, Leadership, StateMachine};
use crate::consensus::metrics::set;
use crate::consensus::service::Error;
use crate::consensus::snapshot::Sum;
use crate::consensus::waiting::Fate;
use skep_raft_core::{Body, Committed, Position, Role};
use std::sync::Arc;

impl<M: StateMachine> Driver<M> {
    /// While the machine is away, entries wait for it; the log goes on.
    pub(super) fn apply_or_keep(&mut self, committed: Vec<Committed>) -> Result<(), Error> {
        if committed.is_empty() {
            return Ok(());
        }
        match self.machine.take() {
            None => self.pending.backlog.extend(committed),
            Some(mut machine) => {
                let result = self.apply(&mut machine, committed);
                self.machine = Some(machine);
                result?;
                self.publish_leadership();
            }
        }
        Ok(())
    }

    fn apply(&mut self, machine: &mut M, committed: Vec<Committed>) -> Result<(), Error> {
        let mut changes = Vec::new();
        let mut answers = Vec::new();
        let mut have_members_changed = false;
        for Committed { index, term, body } in committed {
            let fate = match body {
                Body::Command(entry) => {
                    self.keeper.count(entry.data.len());
                    let (outcome, changed) = machine.apply(index, &entry.data);
                    if let Some(reason) = machine.halted() {
                        return Err(Error::Halted { index, reason });
                    }
                    changes.extend(changed);
                    Fate::Applied(outcome)
                }
                Body::Members(members) => {
                    tracing::info!(
                        voters = ?members.voters,
                        learners = ?members.learners,
                        outgoing = ?members.voters_outgoing,
                        "members"
                    );
                    self.members = members;
                    have_members_changed = true;
                    Fate::Changed
                }
                Body::Empty => Fate::Empty,
            };
            answers.extend(self.proposals.settle(index, term, fate));
            self.applied = Position { index, term };
        }
        self.show(machine.view(), changes, false);
        if have_members_changed {
            self.publish_group(true);
        }
        for answer in answers {
            answer.give();
        }
        Ok(())
    }

    fn show(&mut self, view: M::View, changes: Vec<M::Change>, is_reset: bool) {
        let index = self.applied.index;
        *self.shared.published.write() = (index, view);
        if is_reset || !changes.is_empty() {
            let batch = Batch {
                index,
                changes,
                is_reset,
            };
            // No receiver is no error: whoever subscribes later starts from a view.
            let _listeners = self.shared.changes.send(Arc::new(batch));
        }
        self.shared.applied.send_replace(index);
        set(&self.shared.counters.applied_index, index);
        self.publisher.touch();
    }

    /// The machine is back: what was committed meanwhile is applied in one go.
    pub(super) fn restored(&mut self, (machine, sum): (Box<M>, Sum)) -> Result<(), Error> {
        let taken = self
            .pending
            .restoring
            .take()
            .expect("the machine is away only while it is restored to something");
        self.keeper.restored(taken.position.index, sum);
        let mut machine = *machine;
        self.applied = taken.position;
        self.members = taken.members;
        tracing::info!(
            index = self.applied.index,
            "the state is the leader's snapshot"
        );
        self.show(machine.view(), Vec::new(), true);
        let backlog = std::mem::take(&mut self.pending.backlog);
        if !backlog.is_empty() {
            self.apply(&mut machine, backlog)?;
        }
        self.machine = Some(machine);
        self.publish_leadership();
        let shared = &self.shared;
        self.reads
            .serve(self.applied.index, || shared.published.read().1.clone());
        Ok(())
    }

    /// The first entry of a term is the leader's own: once it is applied, so is everything that
    /// earlier leaders acknowledged.
    fn leadership(&self) -> Leadership {
        let status = self.core.status();
        Leadership {
            is_leader: status.role == Role::Leader && self.applied.term == status.term,
            term: status.term,
            leader: status.leader,
        }
    }

    pub(super) fn publish_leadership(&mut self) {
        let leadership = self.leadership();
        set(&self.shared.counters.term, leadership.term);
        self.shared.leadership.send_if_modified(|current| {
            let changed = *current != leadership;
            if changed {
                *current = leadership;
                tracing::info!(
                    is_leader = leadership.is_leader,
                    term = leadership.term,
                    leader = leadership.leader,
                    "leadership"
                );
            }
            changed
        });
    }

    pub(super) fn publish_group(&mut self, has_status_changed: bool) {
        let leadership = self.leadership();
        let is_urgent = {
            let group = self.shared.group.borrow();
            has_status_changed
                || group.is_leader != leadership.is_leader
                || group.members != self.members
        };
        if leadership.is_leader && !self.core.is_alone() {
            // Peers move without anything being applied here.
            self.publisher.touch();
        }
        let (first_index, last_index) = self.core.log_span();
        let (core, members, applied) = (&self.core, &self.members, self.applied.index);
        self.publisher
            .publish(&self.shared.group, is_urgent, || Group {
                term: leadership.term,
                leader: leadership.leader,
                is_leader: leadership.is_leader,
                members: members.clone(),
                commit: core.hard_state().commit,
                applied,
                first_index,
                last_index,
                peers: core.peers(),
            });
    }
}
