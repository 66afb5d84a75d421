//! From what the library has ready to an [`Output`].
//!
//! Owns which message leaves when, and keeps the log in memory in step with what the caller is
//! told to write. Takes nothing in.

use super::Core;
use crate::Error;
use crate::event::{Body, Committed, Outgoing, Output, ReadState, SnapshotOut, Taken};
use crate::storage::{Position, includes};
use protobuf::Message as _;
use raft::StateRole;
use raft::eraftpb::{
    ConfChange, ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType, Snapshot,
};

impl Core {
    pub(super) fn collect(&mut self, output: &mut Output) -> Result<(), Error> {
        if !self.raw.has_ready() {
            return Ok(());
        }
        let mut ready = self.raw.ready();
        output.number = Some(ready.number());
        output.must_sync = ready.must_sync();
        output.hard_state = ready.hs().cloned();
        let before = ready.take_messages();
        output.messages = sort_out(before, &mut output.snapshots_to_send);
        let after = ready.take_persisted_messages();
        output.messages_after_persist = sort_out(after, &mut output.snapshots_to_send);
        output.entries = ready.take_entries();
        for state in ready.take_read_states() {
            if let Ok(ctx) = <[u8; 8]>::try_from(state.request_ctx.as_slice()) {
                let ctx = u64::from_be_bytes(ctx);
                output.read_states.push(ReadState {
                    ctx,
                    index: state.index,
                });
            }
        }
        let committed = ready.take_committed_entries();
        if committed.iter().any(changes_members) {
            // A member that restarts with an older commit index would act under the older
            // membership, in which it may be a quorum that it no longer is.
            output.must_sync = true;
            output.hard_state = Some(self.raw.raft.hard_state());
        }
        if !ready.snapshot().is_empty() {
            output.snapshot = Some(self.install(ready.snapshot(), ready.number()));
            output.hard_state = Some(self.raw.raft.hard_state());
        }
        let store = self.raw.mut_store();
        store.append(&output.entries);
        if let Some(hard_state) = &output.hard_state {
            store.set_hard_state(hard_state.clone());
        }
        self.raw.advance_append_async(ready);
        for entry in committed {
            output.committed.push(self.commit(entry)?);
        }
        self.forget_offers();
        Ok(())
    }

    fn install(&mut self, snapshot: &Snapshot, number: u64) -> Taken {
        let metadata = snapshot.get_metadata();
        let taken = Taken {
            position: Position {
                index: metadata.index,
                term: metadata.term,
            },
            members: sorted(metadata.get_conf_state().clone()),
        };
        self.raw.mut_store().replace(&taken);
        self.members = taken.members.clone();
        self.installing = Some(number);
        taken
    }

    fn commit(&mut self, entry: Entry) -> Result<Committed, Error> {
        let (index, term) = (entry.index, entry.term);
        let damaged = |source| Error::Membership { index, source };
        let body = match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => Body::Empty,
            EntryType::EntryNormal => Body::Command(entry),
            EntryType::EntryConfChange => {
                let mut change = ConfChange::default();
                change.merge_from_bytes(&entry.data).map_err(damaged)?;
                self.members = sorted(self.raw.apply_conf_change(&change)?);
                Body::Members(self.members.clone())
            }
            EntryType::EntryConfChangeV2 => {
                let mut change = ConfChangeV2::default();
                change.merge_from_bytes(&entry.data).map_err(damaged)?;
                self.members = sorted(self.raw.apply_conf_change(&change)?);
                Body::Members(self.members.clone())
            }
        };
        if let Body::Members(_) = body {
            self.step_down_if_removed();
        }
        Ok(Committed { index, term, body })
    }

    /// A change that an earlier leader proposed may take out the member that leads by now. The
    /// library lets it lead on, and panics when it next counts who has what.
    fn step_down_if_removed(&mut self) {
        let raft = &mut self.raw.raft;
        let is_voter = raft.prs().conf().voters().contains(raft.id);
        if raft.state == StateRole::Leader && !is_voter {
            raft.become_follower(raft.term, raft::INVALID_ID);
            self.draw_election_timeout();
        }
    }

    fn forget_offers(&mut self) {
        let is_leader = self.raw.raft.state == StateRole::Leader;
        let members = &self.members;
        let store = self.raw.mut_store();
        store.retain_offers(|peer| is_leader && includes(members, peer));
    }
}

fn changes_members(entry: &Entry) -> bool {
    entry.get_entry_type() != EntryType::EntryNormal
}

/// The library keeps memberships in hash order; theirs must not depend on history.
fn sorted(mut members: ConfState) -> ConfState {
    members.voters.sort_unstable();
    members.learners.sort_unstable();
    members.voters_outgoing.sort_unstable();
    members.learners_next.sort_unstable();
    members
}

/// Encodes messages and sets those aside that go with a snapshot's file.
fn sort_out(messages: Vec<Message>, snapshots: &mut Vec<SnapshotOut>) -> Vec<Outgoing> {
    let mut outgoing = Vec::with_capacity(messages.len());
    for message in messages {
        let bytes = message
            .write_to_bytes()
            .expect("a message that the library built has all its required fields");
        let to = message.to;
        if message.get_msg_type() == MessageType::MsgSnapshot {
            let metadata = message.get_snapshot().get_metadata();
            let position = Position {
                index: metadata.index,
                term: metadata.term,
            };
            let snapshot = SnapshotOut {
                to,
                position,
                bytes,
            };
            snapshots.push(snapshot);
        } else {
            outgoing.push(Outgoing { to, bytes });
        }
    }
    outgoing
}
