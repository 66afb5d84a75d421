//! Proposals: what gets a place in the log, and what does not.
//!
//! Owns the merging of proposals that follow each other. Knows nothing of what becomes of them.

use super::Core;
use crate::event::{Accepted, Output, Reason, Refused};
use crate::storage::MemoryLog;
use raft::eraftpb::{ConfChangeV2, Entry, Message, MessageType};
use raft::{Changer, RawNode, StateRole};

/// Proposals that follow each other.
#[derive(Default)]
pub(super) struct Run {
    ids: Vec<u64>,
    entries: Vec<Entry>,
}

impl Run {
    pub(super) fn add(&mut self, id: u64, data: Vec<u8>) {
        self.ids.push(id);
        self.entries.push(Entry {
            data: data.into(),
            ..Entry::default()
        });
    }
}

impl Core {
    /// Followers do not forward proposals inside Raft: whoever proposes must learn its index.
    pub(super) fn propose(&mut self, run: &mut Run, output: &mut Output) {
        if run.ids.is_empty() {
            return;
        }
        let mut message = Message {
            from: self.config.id,
            entries: std::mem::take(&mut run.entries).into(),
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgPropose);
        let raft = &mut self.raw.raft;
        let is_taken = raft.state == StateRole::Leader && raft.step(message).is_ok();
        let (last, term) = (raft.raft_log.last_index(), raft.term);
        let first = last + 1 - run.ids.len() as u64 * u64::from(is_taken);
        for (id, index) in run.ids.drain(..).zip(first..) {
            if is_taken {
                output.accepted.push(Accepted { id, index, term });
            } else {
                let reason = self.refusal();
                output.refused.push(Refused { id, reason });
            }
        }
        self.draw_election_timeout();
    }

    /// A change that the library refuses when it is applied would stop every server at the same
    /// entry, so it is tried out first.
    pub(super) fn change_members(&mut self, id: u64, change: ConfChangeV2, output: &mut Output) {
        if self.raw.raft.state == StateRole::Leader
            && let Err(error) = try_change(&self.raw, &change)
        {
            let why = error.to_string();
            let reason = Reason::Invalid { why };
            output.refused.push(Refused { id, reason });
            return;
        }
        let result = match self.raw.raft.state {
            StateRole::Leader => self.raw.propose_conf_change(Vec::new(), change),
            _ => Err(raft::Error::ProposalDropped),
        };
        match result {
            Ok(()) => output.accepted.push(Accepted {
                id,
                index: self.raw.raft.raft_log.last_index(),
                term: self.raw.raft.term,
            }),
            Err(_) => output.refused.push(Refused {
                id,
                reason: self.refusal(),
            }),
        }
    }

    fn refusal(&self) -> Reason {
        match self.raw.raft.state {
            // Over in a moment, one way or the other: nothing that the caller should slow down for.
            StateRole::Leader if self.raw.raft.lead_transferee.is_some() => Reason::NotReady,
            StateRole::Leader => Reason::Busy,
            _ => self.not_leader(),
        }
    }
}

fn try_change(raw: &RawNode<MemoryLog>, change: &ConfChangeV2) -> raft::Result<()> {
    let mut changer = Changer::new(raw.raft.prs());
    if change.leave_joint() {
        changer.leave_joint()?;
    } else if let Some(is_left_by_itself) = change.enter_joint() {
        changer.enter_joint(is_left_by_itself, &change.changes)?;
    } else {
        changer.simple(&change.changes)?;
    }
    Ok(())
}
