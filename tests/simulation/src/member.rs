//! A running server: the driver's order of things around the pure step, with a chance to die
//! between any two of them.

use std::collections::BTreeMap;

use skep_raft_core::members::{self, Plan};
use skep_raft_core::{
    Body, Committed, Config, Core, Input, Outgoing, Output, Position, Role, Taken,
};
use skep_state::State;

use crate::breakage::Breakage;
use crate::client::{Answer, Operation, Outcome, Request};
use crate::disk::{Disk, Write};
use crate::event::Effect;
use crate::workload;

/// A snapshot is taken after this many applied entries.
const SNAPSHOT_EVERY: u64 = 40;
/// A digest of the whole state is compared at multiples of this index.
const DIGEST_EVERY: u64 = 16;
/// How far behind a member may be and still count as caught up.
const CAUGHT_UP: u64 = 32;
/// Ticks without a leader before an election, and between heartbeats.
const ELECTION_TICKS: usize = 10;
const HEARTBEAT_TICKS: usize = 2;
/// Entries behind a snapshot that stay for members a little behind: few, so that snapshots are sent.
const TAIL_ENTRIES: usize = 8;

/// How a step of a server may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It goes on.
    Well,
    /// It died in the middle.
    Died,
}

/// What a step is given from outside.
pub(crate) struct Surroundings<'a> {
    pub(crate) rng: &'a mut fastrand::Rng,
    pub(crate) disk: &'a mut Disk,
    pub(crate) effects: &'a mut Vec<Effect>,
    /// Chance to die at each point, in a million.
    pub(crate) mortality: u32,
    pub(crate) breakage: Option<Breakage>,
}

/// A server that runs.
pub(crate) struct Member {
    pub(crate) id: u64,
    core: Core,
    pub(crate) state: State,
    pub(crate) applied: Position,
    snapshot_index: u64,
    next: u64,
    proposals: BTreeMap<u64, Request>,
    placed: BTreeMap<u64, (u64, Request)>,
    asked: BTreeMap<u64, Request>,
    parked: Vec<(u64, Request)>,
    is_commit_unsaved: bool,
}

impl Member {
    /// Starts from what is on disk. `nonce` must differ from start to start.
    pub(crate) fn start(
        id: u64,
        seed: u64,
        nonce: u64,
        disk: &Disk,
        breakage: Option<Breakage>,
    ) -> Result<Self, String> {
        let config = Config {
            id,
            seed,
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: HEARTBEAT_TICKS,
            tail_entries: TAIL_ENTRIES,
            // One entry a message: every order of arrival and loss is worth a try.
            max_append_bytes: 0,
        };
        let loaded = disk.load();
        let state = match &loaded.state {
            Some(bytes) => State::decode(bytes).map_err(|error| error.to_string())?,
            None => State::default(),
        };
        let mut restored = loaded.restored;
        let snapshot_index = restored.applied.index;
        if breakage == Some(Breakage::ApplyTwice) && restored.origin.index > 1 {
            restored.applied = restored.origin;
        }
        let applied = restored.applied;
        let core = Core::new(config, restored).map_err(|error| error.to_string())?;
        Ok(Self {
            id,
            core,
            state,
            applied,
            snapshot_index,
            next: nonce << 32,
            proposals: BTreeMap::new(),
            placed: BTreeMap::new(),
            asked: BTreeMap::new(),
            parked: Vec::new(),
            is_commit_unsaved: false,
        })
    }

    pub(crate) fn leads(&self) -> bool {
        let status = self.core.status();
        status.role == Role::Leader && self.applied.term == status.term
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        self.core.status().leader
    }

    pub(crate) fn members(&self) -> &skep_raft_core::ConfState {
        self.core.members()
    }

    /// Takes a request in: proposes, asks, or passes it on to whom it takes for the leader.
    pub(crate) fn request(
        &mut self,
        request: Request,
        hops: u32,
        now_ms: u64,
        world: &mut Surroundings<'_>,
    ) -> Result<Ended, String> {
        if let Operation::Read { .. } = request.operation {
            if world.breakage == Some(Breakage::StaleReads) {
                self.answer_read(&request, world);
                return Ok(Ended::Well);
            }
            let ctx = self.fresh();
            self.asked.insert(ctx, request);
            return self.drive(vec![Input::Read { ctx }], world);
        }
        let status = self.core.status();
        match status.leader {
            Some(leader) if leader != self.id && hops == 0 => {
                world.effects.push(Effect::Forward {
                    to: leader,
                    request,
                });
                return Ok(Ended::Well);
            }
            _ => {}
        }
        let Some(data) = workload::write(&request, now_ms) else {
            return Ok(Ended::Well);
        };
        let id = self.fresh();
        self.proposals.insert(id, request);
        self.drive(vec![Input::Propose { id, data }], world)
    }

    /// What the leader does by itself: bring the cluster about, schedule, see to the membership.
    pub(crate) fn duties(
        &mut self,
        wanted: &[u64],
        now_ms: u64,
        world: &mut Surroundings<'_>,
    ) -> Result<Ended, String> {
        if !self.leads() {
            return Ok(Ended::Well);
        }
        let allocation = (u128::from(self.id) << 64) | u128::from(self.fresh());
        let command = workload::found(&self.state, now_ms)
            .or_else(|| workload::schedule(&self.state, allocation, now_ms));
        let mut inputs = Vec::new();
        if let Some(data) = command {
            let id = self.fresh();
            inputs.push(Input::Propose { id, data });
        }
        let (_, last) = self.core.log_span();
        let caught_up = self
            .core
            .peers()
            .into_iter()
            .filter(|peer| peer.is_active && peer.matched + CAUGHT_UP >= last)
            .map(|peer| peer.member)
            .collect();
        match members::plan(wanted, self.id, self.core.members(), &caught_up) {
            Plan::Change(change) => {
                let id = self.fresh();
                inputs.push(Input::ChangeMembers { id, change });
            }
            Plan::TransferFirst { to } => inputs.push(Input::TransferLeader { to }),
            Plan::Nothing | Plan::Wait(_) => {}
        }
        self.drive(inputs, world)
    }

    pub(crate) fn transfer(&mut self, world: &mut Surroundings<'_>) -> Result<Ended, String> {
        match self.core.successor() {
            Some(to) if self.leads() => self.drive(vec![Input::TransferLeader { to }], world),
            _ => Ok(Ended::Well),
        }
    }

    /// A snapshot has arrived: on disk first, then to the core.
    pub(crate) fn receive_snapshot(
        &mut self,
        (taken, state): (Taken, Vec<u8>),
        message: Vec<u8>,
        world: &mut Surroundings<'_>,
    ) -> Result<Ended, String> {
        world.disk.write(Write::Stage(taken, state));
        world.disk.sync();
        self.drive(vec![Input::Snapshot(message)], world)
    }

    /// Steps the core and carries out what it says, until it has nothing more to say.
    pub(crate) fn drive(
        &mut self,
        inputs: Vec<Input>,
        world: &mut Surroundings<'_>,
    ) -> Result<Ended, String> {
        let mut output = self.core.step(inputs).map_err(|error| error.to_string())?;
        loop {
            let number = output.number;
            let wants_snapshot = output.wants_snapshot;
            if self.carry_out(output, world)? == Ended::Died {
                return Ok(Ended::Died);
            }
            let mut next: Vec<Input> = Vec::new();
            if wants_snapshot || self.applied.index >= self.snapshot_index + SNAPSHOT_EVERY {
                if die(world) {
                    return Ok(Ended::Died);
                }
                next.extend(self.take_snapshot(world));
            }
            next.extend(number.map(|number| Input::Persisted { number }));
            if next.is_empty() {
                break;
            }
            output = self.core.step(next).map_err(|error| error.to_string())?;
        }
        if world.breakage == Some(Breakage::CountOlderTerms) {
            self.count_older_terms(world);
        }
        Ok(Ended::Well)
    }

    fn carry_out(&mut self, output: Output, world: &mut Surroundings<'_>) -> Result<Ended, String> {
        for accepted in &output.accepted {
            if let Some(request) = self.proposals.remove(&accepted.id) {
                self.placed.insert(accepted.index, (accepted.term, request));
            }
        }
        for refused in &output.refused {
            if let Some(request) = self.proposals.remove(&refused.id) {
                // Nothing has happened: the client tries again, maybe elsewhere.
                answer(&request, Outcome::Again, world);
            }
        }
        for refused in &output.reads_refused {
            if let Some(request) = self.asked.remove(&refused.id) {
                answer(&request, Outcome::Again, world);
            }
        }
        for read in &output.read_states {
            if let Some(request) = self.asked.remove(&read.ctx) {
                self.parked.push((read.index, request));
            }
        }
        send(output.messages, world);
        if die(world) {
            return Ok(Ended::Died);
        }
        let hard_state = output
            .hard_state
            .clone()
            .unwrap_or_else(|| self.core.hard_state());
        if let Some(taken) = output.snapshot {
            self.install(taken, &hard_state, world)?;
        }
        let is_vote_only = output.entries.is_empty();
        if output.must_sync || !output.entries.is_empty() {
            world.disk.write(Write::Append(output.entries, hard_state));
            if die(world) {
                return Ok(Ended::Died);
            }
            let forgets = match world.breakage {
                Some(Breakage::AckBeforeFlush) => true,
                Some(Breakage::VoteBeforeFlush) => is_vote_only,
                _ => false,
            };
            if !forgets {
                world.disk.sync();
            }
            self.is_commit_unsaved = false;
        } else {
            self.is_commit_unsaved |= output.hard_state.is_some();
        }
        send(output.messages_after_persist, world);
        for out in output.snapshots_to_send {
            if let Some((taken, state)) = world.disk.snapshot(out.position.index).cloned() {
                world.effects.push(Effect::SendSnapshot {
                    to: out.to,
                    message: out.bytes,
                    taken,
                    state,
                });
            }
        }
        if die(world) {
            return Ok(Ended::Died);
        }
        self.apply(output.committed, world);
        if let Some(status) = output.status.filter(|status| status.role == Role::Leader) {
            world.effects.push(Effect::Leads { term: status.term });
        }
        self.serve_reads(world);
        Ok(match die(world) {
            true => Ended::Died,
            false => Ended::Well,
        })
    }

    fn install(
        &mut self,
        taken: Taken,
        hard_state: &skep_raft_core::HardState,
        world: &mut Surroundings<'_>,
    ) -> Result<(), String> {
        let index = taken.position.index;
        let (_, bytes) = world
            .disk
            .snapshot(index)
            .ok_or_else(|| format!("snapshot {index} is to be installed and is not on disk"))?;
        self.state = State::decode(bytes).map_err(|error| error.to_string())?;
        self.applied = taken.position;
        self.snapshot_index = index;
        self.placed.clear();
        world
            .disk
            .write(Write::Install(taken.clone(), hard_state.clone()));
        world.disk.sync();
        world.effects.push(Effect::Members(taken.members));
        Ok(())
    }

    fn apply(&mut self, committed: Vec<Committed>, world: &mut Surroundings<'_>) {
        for entry in committed {
            let is_known = entry.index <= self.applied.index;
            if is_known && world.breakage == Some(Breakage::CountOlderTerms) {
                continue;
            }
            let command = match entry.body {
                Body::Command(command) => Some(command.data.to_vec()),
                Body::Empty => None,
                Body::Members(members) => {
                    world.effects.push(Effect::Members(members));
                    None
                }
            };
            let position = Position {
                index: entry.index,
                term: entry.term,
            };
            self.apply_one(position, command, world);
        }
    }

    fn apply_one(
        &mut self,
        position: Position,
        command: Option<Vec<u8>>,
        world: &mut Surroundings<'_>,
    ) {
        let mut is_first = false;
        let mut result = Outcome::Again;
        if let Some(bytes) = &command {
            let applied = self.state.apply(position.index, bytes);
            is_first = applied.repeat == skep_state::Repeat::First && applied.outcome.is_ok();
            result = match (applied.repeat, &applied.outcome) {
                (skep_state::Repeat::TooLate, _) => Outcome::Again,
                (_, Ok(_)) => Outcome::Written,
                (_, Err(_)) => Outcome::Refused,
            };
        }
        self.applied = position;
        let digest = position
            .index
            .is_multiple_of(DIGEST_EVERY)
            .then(|| digest(&self.state.encode()));
        world.effects.push(Effect::Applied {
            position,
            command,
            is_first,
            digest,
            live: workload::live_allocations(&self.state),
        });
        if let Some((term, request)) = self.placed.remove(&position.index) {
            let is_ours = term == position.term;
            answer(
                &request,
                if is_ours { result } else { Outcome::Again },
                world,
            );
        }
    }

    fn serve_reads(&mut self, world: &mut Surroundings<'_>) {
        let (now, later) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|(index, _)| *index <= self.applied.index);
        self.parked = later;
        let now: Vec<(u64, Request)> = now;
        for (_, request) in now {
            self.answer_read(&request, world);
        }
    }

    fn answer_read(&self, request: &Request, world: &mut Surroundings<'_>) {
        if let Operation::Read { register } = request.operation {
            let value = workload::read(&self.state, register);
            answer(request, Outcome::Value(value), world);
        }
    }

    fn take_snapshot(&mut self, world: &mut Surroundings<'_>) -> Option<Input> {
        if self.applied.index <= 1 || self.state.cluster().is_none() {
            return None;
        }
        let hard_state = self.core.hard_state();
        let taken = Taken {
            position: self.applied,
            members: self.core.members().clone(),
        };
        // The commit index first: a snapshot must never be ahead of it.
        world
            .disk
            .write(Write::Append(Vec::new(), hard_state.clone()));
        world.disk.sync();
        self.is_commit_unsaved = false;
        world
            .disk
            .write(Write::Snapshot(taken.clone(), self.state.encode()));
        world.disk.sync();
        if world.breakage != Some(Breakage::ApplyTwice) {
            world.disk.write(Write::Compact(taken.clone(), hard_state));
            world.disk.sync();
        }
        world.disk.purge(&self.core.offered_snapshots());
        self.snapshot_index = self.applied.index;
        Some(Input::SnapshotTaken(taken))
    }

    /// The mistake of figure 8 of the Raft paper: a majority has it, so it is taken for committed.
    fn count_older_terms(&mut self, world: &mut Surroundings<'_>) {
        if self.core.status().role != Role::Leader {
            return;
        }
        let voters = &self.core.members().voters;
        let (_, own) = self.core.log_span();
        let mut matched: Vec<u64> = self
            .core
            .peers()
            .iter()
            .filter(|peer| voters.contains(&peer.member) && peer.member != self.id)
            .map(|peer| peer.matched)
            .chain(voters.contains(&self.id).then_some(own))
            .collect();
        matched.sort_unstable();
        let Some(&counted) = matched.get(matched.len().saturating_sub(1) / 2) else {
            return;
        };
        while self.applied.index < counted {
            let Some(entry) = world.disk.entry(self.applied.index + 1).cloned() else {
                return;
            };
            if entry.get_entry_type() != skep_raft_core::EntryType::EntryNormal {
                return;
            }
            let position = Position {
                index: entry.index,
                term: entry.term,
            };
            let command = (!entry.data.is_empty()).then(|| entry.data.to_vec());
            self.apply_one(position, command, world);
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

fn die(world: &mut Surroundings<'_>) -> bool {
    world.mortality > 0 && world.rng.u32(..1_000_000) < world.mortality
}

fn send(messages: Vec<Outgoing>, world: &mut Surroundings<'_>) {
    world.effects.extend(
        messages
            .into_iter()
            .map(|Outgoing { to, bytes }| Effect::Send { to, bytes }),
    );
}

fn answer(request: &Request, result: Outcome, world: &mut Surroundings<'_>) {
    world.effects.push(Effect::Answer {
        client: request.client,
        answer: Answer {
            attempt: request.attempt,
            result,
        },
    });
}

/// FNV-1a: enough to tell two states apart, and the same everywhere.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
