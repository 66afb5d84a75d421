//! [`Core`]: the Raft library's node behind one `step`.
//!
//! Owns the order of the library's calls. Never writes, sends or waits.

use crate::Error;
use crate::event::{
    Accepted, Body, Committed, Input, Outgoing, Output, ReadState, Reason, Refused, Role, Status,
};
use crate::storage::{MemoryLog, Position, Restored};
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChange, ConfChangeV2, ConfState, Entry, EntryType, HardState, Message, MessageType,
};
use raft::{RawNode, StateRole};

/// Largest encoded message accepted from a peer: a full append (see [`MAX_APPEND_BYTES`]), one
/// command above it and slack for the envelope.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Entries are gathered into one append message up to this size.
const MAX_APPEND_BYTES: u64 = 1 << 20;

/// Appends in flight to one peer before the next waits for an answer.
const MAX_INFLIGHT_APPENDS: usize = 64;

/// Proposals are refused as busy above this many uncommitted bytes, which bounds the memory of a
/// leader without a quorum.
const MAX_UNCOMMITTED_BYTES: u64 = 64 << 20;

/// Committed entries handed out in one output, so that one step stays short.
const MAX_COMMITTED_BYTES: u64 = 4 << 20;

/// What one member needs to know about itself.
#[derive(Debug, Clone)]
pub struct Config {
    /// Member id; not 0, never reused in the group.
    pub id: u64,
    /// Where election timeouts are drawn from, together with id and term.
    pub seed: u64,
    /// Ticks without a leader before an election, at least; at most twice as many.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats; less than `election_ticks`.
    pub heartbeat_ticks: usize,
}

/// One member's Raft state; see the crate's documentation.
pub struct Core {
    raw: RawNode<MemoryLog>,
    config: Config,
    members: ConfState,
    status: Status,
}

impl Core {
    /// Takes up the stored parts.
    ///
    /// # Errors
    /// [`Error::Restore`] if they contradict each other, [`Error::Raft`] on a bad configuration.
    pub fn new(config: Config, parts: Restored) -> Result<Self, Error> {
        let members = parts.members.clone();
        let applied = parts.applied;
        let log = MemoryLog::restore(parts)?;
        let raft_config = raft::Config {
            id: config.id,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: applied.index,
            max_size_per_msg: MAX_APPEND_BYTES,
            max_inflight_msgs: MAX_INFLIGHT_APPENDS,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
            max_committed_size_per_ready: MAX_COMMITTED_BYTES,
            ..raft::Config::default()
        };
        raft_config.validate()?;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&raft_config, log, &logger)?;
        let status = status_of(&raw);
        let mut core = Self {
            raw,
            config,
            members,
            status,
        };
        core.draw_election_timeout();
        Ok(core)
    }

    /// Feeds `inputs` in order and says what to do about all of them together. Step again while
    /// the output has a `number`: it may have made more work.
    ///
    /// # Errors
    /// Only what makes it unsafe to go on; a bad message of a peer is in `bad_messages`.
    pub fn step(&mut self, inputs: impl IntoIterator<Item = Input>) -> Result<Output, Error> {
        self.raw.advance_apply();
        let mut output = Output::default();
        for input in inputs {
            self.feed(input, &mut output);
            self.draw_election_timeout();
        }
        self.campaign_if_alone()?;
        self.collect(&mut output)?;
        let status = status_of(&self.raw);
        if status != self.status {
            self.status = status;
            output.status = Some(status);
        }
        Ok(output)
    }

    /// Role, leader and term after the last step.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The membership at the last committed entry handed out.
    pub fn members(&self) -> &ConfState {
        &self.members
    }

    /// Whether this member is the whole group: then no tick is needed and every write commits
    /// by itself.
    pub fn is_alone(&self) -> bool {
        self.members.voters == [self.config.id]
            && self.members.voters_outgoing.is_empty()
            && self.members.learners.is_empty()
            && self.members.learners_next.is_empty()
    }

    /// Term, vote and commit as of the last step.
    pub fn hard_state(&self) -> HardState {
        self.raw.raft.hard_state()
    }

    /// Entries held in memory.
    pub fn log_entries(&self) -> usize {
        self.raw.store().len()
    }

    /// The position of `index`, if the log still knows its term.
    pub fn position(&self, index: u64) -> Option<Position> {
        self.raw
            .store()
            .term_at(index)
            .map(|term| Position { index, term })
    }

    fn feed(&mut self, input: Input, output: &mut Output) {
        match input {
            Input::Tick => {
                self.raw.tick();
            }
            Input::Propose { id, data } => {
                let result = self
                    .raw_if_leader()
                    .and_then(|raw| raw.propose(Vec::new(), data));
                self.answer(id, result, output);
            }
            Input::ChangeMembers { id, change } => {
                let result = self
                    .raw_if_leader()
                    .and_then(|raw| raw.propose_conf_change(Vec::new(), change));
                self.answer(id, result, output);
            }
            Input::Message(bytes) => {
                if let Err(error) = self.receive(&bytes) {
                    output.bad_messages.push(error);
                }
            }
            Input::Read { ctx } => match self.read_refusal() {
                Some(reason) => output.reads_refused.push(Refused { id: ctx, reason }),
                None => self.raw.read_index(ctx.to_be_bytes().to_vec()),
            },
            Input::Persisted { number } => self.raw.on_persist_ready(number),
            Input::Compact { to_index } => {
                let to_index = to_index.min(self.raw.raft.raft_log.applied());
                self.raw.mut_store().compact(to_index);
            }
        }
    }

    /// Followers do not forward proposals inside Raft: whoever proposes must learn its index.
    fn raw_if_leader(&mut self) -> Result<&mut RawNode<MemoryLog>, raft::Error> {
        if self.raw.raft.state == StateRole::Leader {
            Ok(&mut self.raw)
        } else {
            Err(raft::Error::ProposalDropped)
        }
    }

    fn answer(&self, id: u64, result: Result<(), raft::Error>, output: &mut Output) {
        let raft = &self.raw.raft;
        match result {
            Ok(()) => output.accepted.push(Accepted {
                id,
                index: raft.raft_log.last_index(),
                term: raft.term,
            }),
            Err(_) if raft.state == StateRole::Leader => {
                output.refused.push(Refused {
                    id,
                    reason: Reason::Busy,
                });
            }
            Err(_) => output.refused.push(Refused {
                id,
                reason: self.not_leader(),
            }),
        }
    }

    fn not_leader(&self) -> Reason {
        Reason::NotLeader {
            leader: known(self.raw.raft.leader_id),
        }
    }

    /// The library drops such reads without a word, so they are refused before it sees them.
    fn read_refusal(&self) -> Option<Reason> {
        let raft = &self.raw.raft;
        match raft.state {
            StateRole::Leader if raft.commit_to_current_term() => None,
            StateRole::Leader => Some(Reason::NotReady),
            _ if raft.leader_id == raft::INVALID_ID => Some(self.not_leader()),
            _ => None,
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(Error::TooLarge {
                bytes: bytes.len(),
                limit: MAX_MESSAGE_BYTES,
            });
        }
        let mut message = Message::default();
        message.merge_from_bytes(bytes).map_err(Error::Decode)?;
        if message.to != self.config.id {
            return Err(Error::Misrouted {
                to: message.to,
                id: self.config.id,
            });
        }
        let kind = message.get_msg_type();
        if matches!(kind, MessageType::MsgPropose | MessageType::MsgSnapshot) {
            return Err(Error::Kind {
                kind: format!("{kind:?}"),
            });
        }
        Ok(self.raw.step(message)?)
    }

    /// Nobody else can be elected, so there is nothing to wait for. Before committed membership
    /// changes are applied the library refuses to campaign; the next step tries again.
    fn campaign_if_alone(&mut self) -> Result<(), Error> {
        if self.is_alone() && self.raw.raft.state != StateRole::Leader {
            self.raw.campaign()?;
            self.draw_election_timeout();
        }
        Ok(())
    }

    fn collect(&mut self, output: &mut Output) -> Result<(), Error> {
        if !self.raw.has_ready() {
            return Ok(());
        }
        let mut ready = self.raw.ready();
        output.number = Some(ready.number());
        output.must_sync = ready.must_sync();
        output.hard_state = ready.hs().cloned();
        output.messages = encode(ready.take_messages());
        output.messages_after_persist = encode(ready.take_persisted_messages());
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
        let store = self.raw.mut_store();
        store.append(&output.entries);
        if let Some(hard_state) = &output.hard_state {
            store.set_hard_state(hard_state.clone());
        }
        self.raw.advance_append_async(ready);
        for entry in committed {
            output.committed.push(self.commit(entry)?);
        }
        Ok(())
    }

    fn commit(&mut self, entry: Entry) -> Result<Committed, Error> {
        let (index, term) = (entry.index, entry.term);
        let body = match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => Body::Empty,
            EntryType::EntryNormal => Body::Command(entry),
            EntryType::EntryConfChange => {
                let mut change = ConfChange::default();
                change
                    .merge_from_bytes(&entry.data)
                    .map_err(|source| Error::Membership { index, source })?;
                self.members = self.raw.apply_conf_change(&change)?;
                Body::Members(self.members.clone())
            }
            EntryType::EntryConfChangeV2 => {
                let mut change = ConfChangeV2::default();
                change
                    .merge_from_bytes(&entry.data)
                    .map_err(|source| Error::Membership { index, source })?;
                self.members = self.raw.apply_conf_change(&change)?;
                Body::Members(self.members.clone())
            }
        };
        Ok(Committed { index, term, body })
    }

    /// The library draws from the thread's random generator at every reset; overwriting it after
    /// every input keeps a run a function of its seed.
    fn draw_election_timeout(&mut self) {
        let ticks = self.config.election_ticks;
        let (seed, id, term) = (self.config.seed, self.config.id, self.raw.raft.term);
        let extra = mix(seed ^ mix(id ^ mix(term))) % ticks as u64;
        self.raw
            .raft
            .set_randomized_election_timeout(ticks + extra as usize);
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a cheap, well-spread hash.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn changes_members(entry: &Entry) -> bool {
    entry.get_entry_type() != EntryType::EntryNormal
}

fn known(leader: u64) -> Option<u64> {
    (leader != raft::INVALID_ID).then_some(leader)
}

fn status_of(raw: &RawNode<MemoryLog>) -> Status {
    let role = match raw.raft.state {
        StateRole::Leader => Role::Leader,
        StateRole::Follower => Role::Follower,
        StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
    };
    Status {
        role,
        leader: known(raw.raft.leader_id),
        term: raw.raft.term,
    }
}

fn encode(messages: Vec<Message>) -> Vec<Outgoing> {
    messages
        .into_iter()
        .map(|message| Outgoing {
            to: message.to,
            bytes: message
                .write_to_bytes()
                .expect("a message that the library built has all its required fields"),
        })
        .collect()
}
