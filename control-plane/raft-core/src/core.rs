//! [`Core`]: the Raft library's node behind one `step`.
//!
//! Owns the order of the library's calls. Never writes, sends or waits.

mod collect;
mod peers;
mod propose;

use crate::Error;
use crate::event::{Input, Output, Peer, Reason, Refused, Role, Status, Taken};
use crate::storage::{MemoryLog, Position, Restored};
use peers::Heard;
use propose::Run;
use protobuf::Message as _;
use raft::eraftpb::{ConfState, HardState, Message, MessageType};
use raft::{RawNode, SnapshotStatus, StateRole};
use std::collections::BTreeSet;

/// Largest encoded message accepted from a peer: a full append (see [`MAX_APPEND_BYTES`]), one
/// command above it and slack for the envelope.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Entries are gathered into one append message up to this size.
pub const MAX_APPEND_BYTES: u64 = 1 << 20;

/// Appends in flight to one peer before the next waits for an answer.
const MAX_INFLIGHT_APPENDS: usize = 64;

/// Proposals are refused as busy above this many uncommitted bytes, which bounds the memory of a
/// leader without a quorum.
const MAX_UNCOMMITTED_BYTES: u64 = 64 << 20;

/// Committed entries handed out in one output, so that one step stays short.
const MAX_COMMITTED_BYTES: u64 = 4 << 20;

/// Applied entries are kept for peers that are a little behind, up to this size...
const MAX_TAIL_BYTES: usize = 16 << 20;

/// ...and up to this size for peers that are known to be reading them.
const MAX_HELD_BYTES: usize = 64 << 20;

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
    /// Applied entries that stay in memory for peers that are a little behind.
    pub tail_entries: usize,
    /// Entries are gathered into one append message up to this size: [`MAX_APPEND_BYTES`], and less
    /// only where a simulation wants many small messages.
    pub max_append_bytes: u64,
}

/// One member's Raft state; see the crate's documentation.
pub struct Core {
    raw: RawNode<MemoryLog>,
    config: Config,
    members: ConfState,
    status: Status,
    heard: Heard,
    /// The output whose snapshot the library has not yet been told is on disk.
    installing: Option<u64>,
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
            max_size_per_msg: config.max_append_bytes.min(MAX_APPEND_BYTES),
            max_inflight_msgs: MAX_INFLIGHT_APPENDS,
            check_quorum: true,
            pre_vote: true,
            // The library merges without regard to the size; proposals are merged before it.
            batch_append: false,
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
            heard: Heard::default(),
            installing: None,
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
        if self.installing.is_none() {
            self.raw.advance_apply();
        }
        let mut output = Output::default();
        let mut run = Run::default();
        for input in inputs {
            if let Input::Propose { id, data } = input {
                run.add(id, data);
                continue;
            }
            self.propose(&mut run, &mut output);
            self.feed(input, &mut output)?;
            self.draw_election_timeout();
        }
        self.propose(&mut run, &mut output);
        self.campaign_if_sole_voter()?;
        self.collect(&mut output)?;
        let status = status_of(&self.raw);
        if status != self.status {
            self.heard.restart();
            self.status = status;
            output.status = Some(status);
        }
        self.trim();
        output.wants_snapshot = self.raw.mut_store().take_wanted();
        Ok(output)
    }

    /// Role, leader and term after the last step.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The membership at the last committed entry handed out, in ascending order.
    pub fn members(&self) -> &ConfState {
        &self.members
    }

    /// Whether this member is the whole group: then no tick is needed and every write commits
    /// by itself. A learner beside it makes two.
    pub fn is_alone(&self) -> bool {
        self.is_sole_voter()
            && self.members.learners.is_empty()
            && self.members.learners_next.is_empty()
    }

    fn is_sole_voter(&self) -> bool {
        self.members.voters == [self.config.id] && self.members.voters_outgoing.is_empty()
    }

    /// Term, vote and commit as of the last step.
    pub fn hard_state(&self) -> HardState {
        self.raw.raft.hard_state()
    }

    /// Entries held in memory.
    pub fn log_entries(&self) -> usize {
        self.raw.store().len()
    }

    /// The first index that is still in memory, and the last.
    pub fn log_span(&self) -> (u64, u64) {
        (self.raw.store().first(), self.raw.store().last())
    }

    /// The position of `index`, if the log still knows its term.
    pub fn position(&self, index: u64) -> Option<Position> {
        self.raw
            .store()
            .term_at(index)
            .map(|term| Position { index, term })
    }

    /// Whether leadership is being handed over: no proposal is taken meanwhile. It ends with
    /// another leader, or, after an election timeout, with this one going on.
    pub fn is_transferring(&self) -> bool {
        self.raw.raft.lead_transferee.is_some()
    }

    /// The peers as a leader sees them, in ascending order; nobody else knows.
    pub fn peers(&self) -> Vec<Peer> {
        peers::of(&self.raw, &self.heard, self.active_ticks())
    }

    /// The voter that would take leadership over soonest: active, and with most of the log.
    pub fn successor(&self) -> Option<u64> {
        let voters = &self.members.voters;
        self.peers()
            .into_iter()
            .filter(|peer| peer.is_active && voters.contains(&peer.member))
            .max_by_key(|peer| (peer.matched, std::cmp::Reverse(peer.member)))
            .map(|peer| peer.member)
    }

    /// The indexes of the snapshots on disk that peers are being sent, or may be sent again.
    pub fn offered_snapshots(&self) -> BTreeSet<u64> {
        self.raw.store().offered()
    }

    fn feed(&mut self, input: Input, output: &mut Output) -> Result<(), Error> {
        match input {
            Input::Tick => {
                self.heard.tick(&self.raw);
                self.raw.tick();
            }
            // Gathered by the caller, so that a run of them costs one message for each peer.
            Input::Propose { id, data } => {
                let mut run = Run::default();
                run.add(id, data);
                self.propose(&mut run, output);
            }
            Input::ChangeMembers { id, change } => self.change_members(id, change, output),
            Input::Message(bytes) => self.receive(&bytes, false, output)?,
            Input::Snapshot(bytes) => self.receive(&bytes, true, output)?,
            Input::SnapshotTaken(taken) => self.raw.mut_store().set_newest(taken),
            Input::SnapshotStatus { to, ok } => {
                self.raw.mut_store().end_offer(to, ok);
                let status = match ok {
                    true => SnapshotStatus::Finish,
                    false => SnapshotStatus::Failure,
                };
                self.raw.report_snapshot(to, status);
            }
            Input::Unreachable { to } => self.raw.report_unreachable(to),
            Input::TransferLeader { to } => {
                if self.raw.raft.state == StateRole::Leader {
                    self.raw.transfer_leader(to);
                }
            }
            Input::Read { ctx } => match self.read_refusal() {
                Some(reason) => output.reads_refused.push(Refused { id: ctx, reason }),
                None => self.raw.read_index(ctx.to_be_bytes().to_vec()),
            },
            Input::Persisted { number } => {
                self.raw.on_persist_ready(number);
                if self
                    .installing
                    .is_some_and(|installing| installing <= number)
                {
                    self.installing = None;
                    self.raw.advance_apply();
                }
            }
        }
        Ok(())
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

    fn receive(
        &mut self,
        bytes: &[u8],
        is_snapshot: bool,
        output: &mut Output,
    ) -> Result<(), Error> {
        let message = match self.open_message(bytes, is_snapshot) {
            Ok(message) => message,
            Err(error) => {
                output.bad_messages.push(error);
                return Ok(());
            }
        };
        // The library would abort the process.
        let last = self.raw.raft.raft_log.last_index();
        if message.get_msg_type() == MessageType::MsgHeartbeat
            && message.term >= self.raw.raft.term
            && message.commit > last
        {
            let commit = message.commit;
            return Err(Error::LostLog { commit, last });
        }
        if let Err(error) = self.raw.step(message) {
            output.bad_messages.push(error.into());
        }
        Ok(())
    }

    fn open_message(&self, bytes: &[u8], is_snapshot: bool) -> Result<Message, Error> {
        let message = decode(bytes)?;
        if message.to != self.config.id {
            return Err(Error::Misrouted {
                to: message.to,
                id: self.config.id,
            });
        }
        let kind = message.get_msg_type();
        if kind == MessageType::MsgPropose || (kind == MessageType::MsgSnapshot) != is_snapshot {
            return Err(Error::Kind {
                kind: format!("{kind:?}"),
            });
        }
        Ok(message)
    }

    /// Nobody else can be elected, so there is nothing to wait for. Before committed membership
    /// changes are applied the library refuses to campaign; the next step tries again.
    fn campaign_if_sole_voter(&mut self) -> Result<(), Error> {
        if self.is_sole_voter() && self.raw.raft.state != StateRole::Leader {
            self.raw.campaign()?;
            self.draw_election_timeout();
        }
        Ok(())
    }

    fn trim(&mut self) {
        let log = self.raw.store();
        if log.len() <= self.config.tail_entries && log.bytes() <= MAX_TAIL_BYTES {
            return;
        }
        let mut limit = self.raw.raft.raft_log.applied();
        if log.bytes() <= MAX_HELD_BYTES {
            let needed = peers::least_needed(&self.raw, &self.heard, self.active_ticks());
            limit = limit.min(needed);
        }
        let tail = self.config.tail_entries;
        self.raw.mut_store().trim(limit, tail, MAX_TAIL_BYTES);
    }

    /// A live peer answers a heartbeat long before half an election timeout has passed.
    fn active_ticks(&self) -> u64 {
        self.config.election_ticks as u64 / 2
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

/// What the snapshot of an encoded snapshot message is of.
///
/// # Errors
/// [`Error::Decode`], [`Error::TooLarge`], or [`Error::Kind`] if it is another message.
pub fn snapshot_of(message: &[u8]) -> Result<Taken, Error> {
    let mut message = decode(message)?;
    let kind = message.get_msg_type();
    if kind != MessageType::MsgSnapshot {
        return Err(Error::Kind {
            kind: format!("{kind:?}"),
        });
    }
    let metadata = message.mut_snapshot().take_metadata();
    Ok(Taken {
        position: Position {
            index: metadata.index,
            term: metadata.term,
        },
        members: metadata.get_conf_state().clone(),
    })
}

fn decode(bytes: &[u8]) -> Result<Message, Error> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(Error::TooLarge {
            bytes: bytes.len(),
            limit: MAX_MESSAGE_BYTES,
        });
    }
    let mut message = Message::default();
    message.merge_from_bytes(bytes).map_err(Error::Decode)?;
    Ok(message)
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a cheap, well-spread hash.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
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
