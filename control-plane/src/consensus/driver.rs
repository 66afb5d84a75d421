//! [`Driver`]: the one owner of core, log and state machine.
//!
//! Owns the order of things: persist, then send what depends on it, then apply, then publish,
//! then answer. Runs on a thread of its own, because appending blocks on the disk.

use super::handle::{Event, Shared};
use super::keeper::Keeper;
use super::log::{LogStore, Origin};
use super::machine::{Batch, Leadership, StateMachine};
use super::metrics::{add, set};
use super::service::Error;
use super::snapshot::{self, Meta};
use super::transport::Transport;
use super::waiting::{Proposals, Reads};
use skep_raft_core::{
    Body, Committed, Core, Entry, HardState, Input, Outgoing, Output, Position, Role,
};
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Events taken into one step, so that one append stays a few MiB with ordinary commands.
const MAX_STEP_EVENTS: usize = 4096;
/// Command bytes taken into one step.
const MAX_STEP_BYTES: usize = 4 << 20;

/// Everything that moves when the log moves. Fields are dropped in order: the lock goes last.
pub(super) struct Driver<M: StateMachine> {
    pub(super) core: Core,
    pub(super) machine: M,
    pub(super) transport: Box<dyn Transport>,
    pub(super) shared: Arc<Shared<M>>,
    pub(super) proposals: Proposals<M>,
    pub(super) reads: Reads<M>,
    pub(super) keeper: Keeper<M>,
    pub(super) store: Arc<dyn LogStore>,
    pub(super) server: u64,
    pub(super) applied: Position,
    pub(super) disk_origin: u64,
    pub(super) tail_entries: u64,
    pub(super) tick: Duration,
    /// The commit index has moved since the last write, which costs no write of its own.
    pub(super) is_commit_unsaved: bool,
    pub(super) _lock: File,
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
                next_tick = Instant::now() + self.tick;
            }
            let more = self.gather(first, events, &mut inputs)?;
            inputs.extend(self.reads.ask().map(|ctx| Input::Read { ctx }));
            self.drive(inputs)?;
            if !more {
                return self.save_commit();
            }
        }
    }

    fn wait(&self, events: &Receiver<Event<M>>, next_tick: Instant) -> Option<Event<M>> {
        if self.core.is_alone() {
            // Nobody else can lead: time means nothing, and an idle server sleeps.
            return Some(events.recv().unwrap_or(Event::Stop));
        }
        match events.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
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
                Event::Propose {
                    command,
                    reply,
                    room,
                } => {
                    bytes += command.len();
                    let id = self.proposals.add(reply, room);
                    inputs.push(Input::Propose { id, data: command });
                }
                Event::Read { reply, room } => self.reads.add(reply, room),
                Event::Message {
                    bytes: message,
                    room,
                } => {
                    bytes += message.len();
                    drop(room);
                    inputs.push(Input::Message(message));
                }
                Event::SnapshotDone(result) => inputs.extend(self.snapshot_done(result)?),
                Event::Stop => return Ok(false),
            }
            if inputs.len() >= MAX_STEP_EVENTS || bytes >= MAX_STEP_BYTES {
                break;
            }
            next = events.try_recv().ok();
        }
        Ok(true)
    }

    /// Steps the core and carries out what it says, until it has nothing more to say.
    pub(super) fn drive(&mut self, inputs: Vec<Input>) -> Result<(), Error> {
        let mut output = self.core.step(inputs)?;
        loop {
            let number = output.number;
            self.carry_out(output)?;
            let Some(number) = number else { break };
            output = self.core.step([Input::Persisted { number }])?;
        }
        set(
            &self.shared.counters.log_entries,
            self.core.log_entries() as u64,
        );
        set(
            &self.shared.counters.commit_index,
            self.core.hard_state().commit,
        );
        self.snapshot_if_due()
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
        self.proposals.accept(&output.accepted);
        self.proposals.refuse(&output.refused);
        self.reads.refuse(&output.reads_refused);
        self.send(output.messages);
        if output.must_sync || !output.entries.is_empty() {
            let hard_state = output.hard_state.unwrap_or_else(|| self.core.hard_state());
            self.append(&output.entries, &hard_state)?;
        } else {
            self.is_commit_unsaved |= output.hard_state.is_some();
        }
        self.send(output.messages_after_persist);
        if !output.committed.is_empty() {
            self.apply(output.committed);
            self.publish_leadership();
        }
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
        self.is_commit_unsaved = false;
        Ok(())
    }

    /// Applies a run of entries, shows the state, then tells of the changes, then answers.
    fn apply(&mut self, committed: Vec<Committed>) {
        let mut changes = Vec::new();
        let mut answers = Vec::new();
        for Committed { index, term, body } in committed {
            let outcome = match body {
                Body::Command(entry) => {
                    self.keeper.count(entry.data.len());
                    let (outcome, changed) = self.machine.apply(index, &entry.data);
                    changes.extend(changed);
                    Some(outcome)
                }
                Body::Empty | Body::Members(_) => None,
            };
            answers.extend(self.proposals.settle(index, term, outcome));
            self.applied = Position { index, term };
        }
        let index = self.applied.index;
        *self.shared.published.write() = (index, self.machine.view());
        if !changes.is_empty() {
            // No receiver is no error: whoever subscribes later starts from a view.
            let _listeners = self.shared.changes.send(Arc::new(Batch { index, changes }));
        }
        self.shared.applied.send_replace(index);
        set(&self.shared.counters.applied_index, index);
        for answer in answers {
            answer.give();
        }
    }

    /// The first entry of a term is the leader's own: once it is applied, so is everything that
    /// earlier leaders acknowledged.
    fn publish_leadership(&self) {
        let status = self.core.status();
        let leadership = Leadership {
            is_leader: status.role == Role::Leader && self.applied.term == status.term,
            term: status.term,
            leader: status.leader,
        };
        set(&self.shared.counters.term, status.term);
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

    fn snapshot_if_due(&mut self) -> Result<(), Error> {
        if self.keeper.has_failed() {
            return Err(Error::SnapshotThread);
        }
        if !self.keeper.is_due() {
            return Ok(());
        }
        // A snapshot must never be ahead of the commit index on disk.
        self.save_commit()?;
        let meta = Meta {
            position: self.applied,
            members: self.core.members().clone(),
        };
        let (_, view) = self.shared.published.read().clone();
        self.keeper.begin(meta, view);
        Ok(())
    }

    fn save_commit(&mut self) -> Result<(), Error> {
        if self.is_commit_unsaved {
            let hard_state = self.core.hard_state();
            self.append(&[], &hard_state)?;
        }
        Ok(())
    }

    fn snapshot_done(
        &mut self,
        result: Result<Meta, snapshot::Error>,
    ) -> Result<Option<Input>, Error> {
        let meta = match result {
            Ok(meta) => meta,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "no snapshot was written"
                );
                add(&self.shared.counters.snapshot_failures, 1);
                self.keeper.finish(None);
                return Ok(None);
            }
        };
        let index = meta.position.index;
        set(&self.shared.counters.last_snapshot_index, index);
        self.keeper.finish(Some(meta));
        self.compact_disk()?;
        let to_index = index.saturating_sub(self.tail_entries);
        Ok(Some(Input::Compact { to_index }))
    }

    fn compact_disk(&mut self) -> Result<(), Error> {
        let Some(Meta { position, members }) = self.keeper.forgettable().cloned() else {
            return Ok(());
        };
        if position.index <= self.disk_origin {
            return Ok(());
        }
        let origin = Origin {
            server: self.server,
            position,
            members,
        };
        self.store.compact(&origin, &self.core.hard_state())?;
        add(&self.shared.counters.fsyncs, 1);
        self.is_commit_unsaved = false;
        self.disk_origin = position.index;
        self.keeper.purge();
        Ok(())
    }
}

impl<M: StateMachine> Drop for Driver<M> {
    /// However the thread ends, nobody here may go on as leader.
    fn drop(&mut self) {
        self.shared.leadership.send_modify(|current| {
            current.is_leader = false;
            current.leader = None;
        });
    }
}
