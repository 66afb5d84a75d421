//! The vocabulary of the step: what may go in and what comes out.
//!
//! Owns the types only; the order in which an output must be carried out is on [`Output`].

use crate::{Error, Position};
use raft::eraftpb::{ConfChangeV2, ConfState, Entry, HardState};

/// One thing that happened to this member.
#[derive(Debug)]
pub enum Input {
    /// One unit of logical time has passed.
    Tick,
    /// Append a command. Answered in the same output by `accepted` or `refused`.
    Propose {
        /// The caller's name for the proposal; only echoed.
        id: u64,
        /// The command's bytes.
        data: Vec<u8>,
    },
    /// Append a membership change. Answered like [`Input::Propose`]; while an earlier change is
    /// under way it is committed as an empty entry, one that makes no sense is refused.
    ChangeMembers {
        /// The caller's name for the proposal; only echoed.
        id: u64,
        /// The change.
        change: ConfChangeV2,
    },
    /// An encoded message from a peer, already authenticated by the transport.
    Message(Vec<u8>),
    /// A leader's snapshot message, whose state has been received, verified and synced beside
    /// the log. Answered by `snapshot` in the same output if it is to be installed.
    Snapshot(Vec<u8>),
    /// A snapshot of the own state is on disk: peers that need entries which are gone get it.
    SnapshotTaken(Taken),
    /// How the sending of a snapshot ended.
    SnapshotStatus {
        /// The member it was for.
        to: u64,
        /// Whether the member has it.
        ok: bool,
    },
    /// Messages for this member are being lost.
    Unreachable {
        /// The member.
        to: u64,
    },
    /// Hand leadership over; see [`Core::is_transferring`](crate::Core::is_transferring).
    TransferLeader {
        /// A voter.
        to: u64,
    },
    /// Ask for the index at which a read is linearizable. Answered by `read_states`, maybe in
    /// a later output, or at once by `reads_refused`; a change of term drops open reads.
    Read {
        /// The caller's name for the read; must never repeat within the group.
        ctx: u64,
    },
    /// Output `number` and all before it are on disk.
    Persisted {
        /// [`Output::number`].
        number: u64,
    },
}

/// What the caller must do, in this order: send `messages`; install `snapshot`, durably; write
/// `entries` and `hard_state` as one atomic batch (durably if `must_sync`); send
/// `messages_after_persist` and `snapshots_to_send`; apply `committed`; then step again, with
/// [`Input::Persisted`] if there is a `number`. Applying may lag behind: the core needs to know
/// nothing of it.
#[derive(Debug, Default)]
pub struct Output {
    /// Names the batch to be acknowledged; `None` when there was nothing to do.
    pub number: Option<u64>,
    /// Send before the write (a leader replicates while its own disk works).
    pub messages: Vec<Outgoing>,
    /// The whole log, up to this position and whatever is behind it, is replaced by the snapshot
    /// of [`Input::Snapshot`].
    pub snapshot: Option<Taken>,
    /// Entries to write; the first overwrites what the log holds at its index and after.
    pub entries: Vec<Entry>,
    /// Term, vote and commit index to write, if changed.
    pub hard_state: Option<HardState>,
    /// Whether the write must be on disk before anything that follows. False when at most the
    /// commit index has changed: such a write may be postponed or merged into the next. A
    /// committed membership is always on disk before it is acted under.
    pub must_sync: bool,
    /// Send only when the write, and all before it, are on disk.
    pub messages_after_persist: Vec<Outgoing>,
    /// Snapshots to send; each is answered by [`Input::SnapshotStatus`].
    pub snapshots_to_send: Vec<SnapshotOut>,
    /// A peer needs a snapshot and none on disk will do: take one now.
    pub wants_snapshot: bool,
    /// Committed entries in log order, each exactly once from the restored position on.
    pub committed: Vec<Committed>,
    /// Reads that may be served once `index` has been applied.
    pub read_states: Vec<ReadState>,
    /// Proposals that got a place in the log.
    pub accepted: Vec<Accepted>,
    /// Proposals that did not.
    pub refused: Vec<Refused>,
    /// Reads that cannot be served here now.
    pub reads_refused: Vec<Refused>,
    /// Messages of peers that were dropped, and why.
    pub bad_messages: Vec<Error>,
    /// Present when role, leader or term have changed.
    pub status: Option<Status>,
}

/// An encoded message for one peer; the transport may lose, repeat or reorder it.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The member it is for.
    pub to: u64,
    /// Opaque to the transport.
    pub bytes: Vec<u8>,
}

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Taken {
    /// The last entry in it.
    pub position: Position,
    /// The membership there.
    pub members: ConfState,
}

/// A snapshot for one peer: the message goes with the file of the state at `position`.
#[derive(Debug, Clone)]
pub struct SnapshotOut {
    /// The member it is for.
    pub to: u64,
    /// Of which state.
    pub position: Position,
    /// The encoded message, opaque to the transport.
    pub bytes: Vec<u8>,
}

/// A peer as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Member id.
    pub member: u64,
    /// The last log index that it is known to have on disk.
    pub matched: u64,
    /// Whether it has answered lately.
    pub is_active: bool,
    /// The index of the snapshot that is being sent to it.
    pub snapshot: Option<u64>,
}

/// One committed entry.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Log index.
    pub index: u64,
    /// Term of the entry.
    pub term: u64,
    /// What it holds.
    pub body: Body,
}

/// What a committed entry holds.
#[derive(Debug, Clone)]
pub enum Body {
    /// A command for the state machine, in `entry.data`.
    Command(Entry),
    /// A leader's first entry, or a change that was refused: nothing to apply.
    Empty,
    /// The membership from this index on.
    Members(ConfState),
}

/// A proposal's place in the log: it is committed if an entry with this very term is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The proposal.
    pub id: u64,
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// A proposal or read that was turned down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The proposal's id or the read's ctx.
    pub id: u64,
    /// Why.
    pub reason: Reason,
}

/// Why a proposal or read was turned down. None of them has had any effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// This member does not lead; `leader` does, if known.
    NotLeader {
        /// Member id.
        leader: Option<u64>,
    },
    /// This member leads but has not yet committed an entry of its term, or is handing leadership over.
    NotReady,
    /// Too many uncommitted bytes.
    Busy,
    /// The membership change makes no sense on the membership of this moment.
    Invalid {
        /// In the library's words.
        why: String,
    },
}

/// The index a read has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadState {
    /// The read.
    pub ctx: u64,
    /// Serve it once this index has been applied.
    pub index: u64,
}

/// The role of this member in its term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Follows, or knows no leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Role, leader and term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Own role.
    pub role: Role,
    /// The leader's member id, if known.
    pub leader: Option<u64>,
    /// Current term.
    pub term: u64,
}
