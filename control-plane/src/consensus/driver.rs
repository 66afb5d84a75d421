//! [`Driver`]: the one owner of core, log and state machine.
//!
//! Owns the order of things: persist, then send what depends on it, then apply, then publish,
//! then answer. Runs on a thread of its own, because appending blocks on the disk.

mod apply;
mod snapshots;

use super::group::Publisher;
use super::handle::{self, Event, Reply, Shared};
use super::incoming;
use super::keeper::Keeper;
use super::log::LogStore;
use super::machine::StateMachine;
use super::metrics::{add, set};
use super::service::Error;
use super::snapshot::{Snapshots, Taken};
use super::transport::Transport;
use super::waiting::{Proposals, Proposer, Reads};
use skep_raft_core::{
    Committed, ConfState, Core, Entry, HardState, Input, Outgoing, Output, Position, Role,
};
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Events taken into one step, so that one append stays a few MiB with ordinary commands.
const MAX_STEP_EVENTS: usize = 4096;
/// Command and message bytes taken into one step.
const MAX_STEP_BYTES: usize = 4 << 20;

/// Everything that moves when the log moves. Fields are dropped in order: the lock goes last.
pub(super) struct Driver<M: StateMachine> {
    pub(super) core: Core,
    /// Away on the snapshot thread while a leader's snapshot is decoded.
    pub(super) machine: Option<M>,
    pub(super) transport: Box<dyn Transport>,
    pub(super) shared: Arc<Shared<M>>,
    pub(super) proposals: Proposals<M>,
    pub(super) reads: Reads<M>,
    pub(super) keeper: Keeper<M>,
    pub(super) store: Arc<dyn LogStore>,
    pub(super) snapshots: Snapshots,
    pub(super) server: u64,
    pub(super) applied: Position,
    /// The membership at `applied`.
    pub(super) members: ConfState,
    pub(super) disk_origin: u64,
    pub(super) tick: Duration,
    pub(super) pending: Pending,
    pub(super) publisher: Publisher,
    pub(super) _lock: Arc<File>,
}

/// What waits for a later moment.
#[derive(Default)]
pub(super) struct Pending {
    /// The commit index has moved since the last write, which costs no write of its own.
    is_commit_unsaved: bool,
    /// A peer needs a snapshot that does not exist yet.
    is_snapshot_wanted: bool,
    /// Peers whose snapshot could not be handed out: the core is told in the next step.
    unsent: Vec<u64>,
    /// Committed while the machine was away.
    backlog: Vec<Committed>,
    /// What the machine, while it is away, is being restored to.
    restoring: Option<Taken>,
    /// A snapshot that was handed in together with the message in this step.
    arrival: Option<Arrival>,
    transfers: Vec<Reply<()>>,
}

struct Arrival {
    staged: Option<Taken>,
    reply: incoming::Answer,
}

impl<M: StateMachine> Driver<M> {
    /// Runs until told to stop or until the disk fails.
    pub(super) fn run(&mut self, events: &Receiver<Event<M>>) -> Result<(), Error> {
        let mut next_tick = Instant::now() + self.tick;
        loop {
            let first = self.wait(events, next_tick);
            let mut inputs = Vec::new();
            if !self.core.is_alone() && Instant::now() >= next_tick {
                // One tick however late: a process that was suspended must hear its peers
                // before it concludes that they are gone.
                inputs.push(Input::Tick);
                self.reads.tick();
                next_tick = Instant::now() + self.tick;
            }
            let unsent = self.pending.unsent.drain(..);
            inputs.extend(unsent.map(|to| Input::SnapshotStatus { to, ok: false }));
            let more = self.gather(first, events, &mut inputs)?;
            inputs.extend(self.reads.ask().map(|ctx| Input::Read { ctx }));
            self.drive(inputs)?;
            if !more {
                return self.save_commit();
            }
        }
    }

    fn wait(&self, events: &Receiver<Event<M>>, next_tick: Instant) -> Option<Event<M>> {
        let tick = (!self.core.is_alone()).then_some(next_tick);
        let Some(deadline) = tick.into_iter().chain(self.publisher.due()).min() else {
            // Nobody else can lead: time means nothing, and an idle server sleeps.
            return Some(events.recv().unwrap_or(Event::Stop));
        };
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Event::Stop),
        }
    }

    /// Takes what is waiting, up to a limit. False when told to stop.
    fn gather(
        &mut self,
        first: Option<Event<M>>,
        events: &Receiver<Event<M>>,
        inputs: &mut Vec<Input>,
    ) -> Result<bool, Error> {
        let mut bytes = 0;
        let mut next = first;
        while let Some(event) = next {
            match event {
                Event::Stop => return Ok(false),
                // Its message must be the only one that can replace the state in this step.
                Event::Install {
                    message,
                    staged,
                    reply,
                } => {
                    inputs.extend(self.arrive(message, staged, reply)?);
                    break;
                }
                event => bytes += self.take(event, inputs)?,
            }
            if inputs.len() >= MAX_STEP_EVENTS || bytes >= MAX_STEP_BYTES {
                break;
            }
            next = events.try_recv().ok();
        }
        Ok(true)
    }

    /// Turns one event into inputs, and says how many bytes they are.
    fn take(&mut self, event: Event<M>, inputs: &mut Vec<Input>) -> Result<usize, Error> {
        let mut bytes = 0;
        match event {
            Event::Propose {
                command,
                reply,
                room,
            } => {
                bytes = command.len();
                let id = self.proposals.add(Proposer::command(reply, room));
                inputs.push(Input::Propose { id, data: command });
            }
            Event::ChangeMembers {
                change,
                reply,
                room,
            } => {
                let id = self.proposals.add(Proposer::members(reply, room));
                inputs.push(Input::ChangeMembers { id, change });
            }
            Event::Read { reply, room } => self.reads.add(reply, room),
            Event::Message {
                bytes: message,
                room,
            } => {
                bytes = message.len();
                drop(room);
                inputs.push(Input::Message(message));
            }
            Event::Transfer { to, reply } => inputs.extend(self.begin_transfer(to, reply)),
            Event::Unreachable(to) => inputs.push(Input::Unreachable { to }),
            Event::SnapshotSent { to, ok } => inputs.push(Input::SnapshotStatus { to, ok }),
            Event::SnapshotDone(result) => inputs.extend(self.snapshot_done(result)?),
            Event::Restored(result) => self.restored(result?)?,
            // Handled by the caller.
            Event::Install { .. } | Event::Stop => {}
        }
        Ok(bytes)
    }

    /// Steps the core and carries out what it says, until it has nothing more to say.
    pub(super) fn drive(&mut self, inputs: Vec<Input>) -> Result<(), Error> {
        let mut has_status_changed = false;
        let mut output = self.core.step(inputs)?;
        loop {
            let number = output.number;
            has_status_changed |= output.status.is_some();
            self.carry_out(output)?;
            let Some(number) = number else { break };
            output = self.core.step([Input::Persisted { number }])?;
        }
        self.end_arrival()?;
        set(
            &self.shared.counters.log_entries,
            self.core.log_entries() as u64,
        );
        set(
            &self.shared.counters.commit_index,
            self.core.hard_state().commit,
        );
        self.snapshot_if_due()?;
        self.publish_group(has_status_changed);
        self.end_transfers();
        Ok(())
    }

    fn carry_out(&mut self, output: Output) -> Result<(), Error> {
        for error in &output.bad_messages {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "message of a server dropped"
            );
        }
        self.reads.park(&output.read_states);
        if let Some(status) = output.status {
            self.reads.forget(status.leader);
            self.publish_leadership();
        }
        add(
            &self.shared.counters.proposals,
            output.accepted.len() as u64,
        );
        self.proposals
            .settle_places(&output.accepted, output.refused);
        self.reads.refuse(output.reads_refused);
        self.send(output.messages);
        if let Some(taken) = output.snapshot {
            self.install(taken)?;
        }
        if output.must_sync || !output.entries.is_empty() {
            let hard_state = output.hard_state.unwrap_or_else(|| self.core.hard_state());
            self.append(&output.entries, &hard_state)?;
        } else {
            self.pending.is_commit_unsaved |= output.hard_state.is_some();
        }
        self.send(output.messages_after_persist);
        for snapshot in output.snapshots_to_send {
            self.send_snapshot(snapshot);
        }
        self.pending.is_snapshot_wanted |= output.wants_snapshot;
        self.apply_or_keep(output.committed)?;
        let shared = &self.shared;
        self.reads
            .serve(self.applied.index, || shared.published.read().1.clone());
        Ok(())
    }

    fn send(&mut self, messages: Vec<Outgoing>) {
        if !messages.is_empty() {
            self.transport.send(messages);
        }
    }

    fn append(&mut self, entries: &[Entry], hard_state: &HardState) -> Result<(), Error> {
        self.store.append(entries, hard_state)?;
        add(&self.shared.counters.fsyncs, 1);
        self.pending.is_commit_unsaved = false;
        Ok(())
    }

    fn save_commit(&mut self) -> Result<(), Error> {
        if self.pending.is_commit_unsaved {
            let hard_state = self.core.hard_state();
            self.append(&[], &hard_state)?;
        }
        Ok(())
    }

    fn begin_transfer(&mut self, to: Option<u64>, reply: Reply<()>) -> Option<Input> {
        let status = self.core.status();
        let refusal = if status.role != Role::Leader {
            Some(handle::Error::NotLeader {
                leader: status.leader,
            })
        } else {
            let why = match to.or_else(|| self.core.successor()) {
                Some(to) if to == self.server => "this server leads already",
                Some(to) if !self.core.members().voters.contains(&to) => {
                    "only a server that votes can lead"
                }
                Some(to) => {
                    self.pending.transfers.push(reply);
                    return Some(Input::TransferLeader { to });
                }
                None => "no other server that votes is active",
            };
            Some(handle::Error::Refused {
                why: why.to_owned(),
            })
        };
        // Whoever asked may have gone away.
        let _gone = refusal.map(|error| reply.send(Err(error)));
        None
    }

    fn end_transfers(&mut self) {
        if self.pending.transfers.is_empty() || self.core.is_transferring() {
            return;
        }
        let status = self.core.status();
        let answer = match (status.role, status.leader) {
            (Role::Leader, _) => Err(handle::Error::NotMoved),
            (_, Some(_)) => Ok(()),
            // Stepped down, and the next one is not known yet.
            (_, None) => return,
        };
        for reply in self.pending.transfers.drain(..) {
            let _gone = reply.send(answer.clone());
        }
    }
}

impl<M: StateMachine> Drop for Driver<M> {
    /// However the thread ends, nobody here may go on as leader.
    fn drop(&mut self) {
        self.shared.leadership.send_modify(|current| {
            current.is_leader = false;
            current.leader = None;
        });
        self.shared.group.send_modify(|group| {
            group.is_leader = false;
            group.leader = None;
        });
    }
}
