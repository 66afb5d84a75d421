//! The world: servers, clients, agents and faults on one virtual clock.

mod chaos;

use std::collections::{BTreeMap, BTreeSet};

use crate::breakage::Breakage;
use crate::client::{Answer, Client, Open, Operation, Outcome, Request};
use crate::disk::Disk;
use crate::event::{Effect, Event, Payload, Slot};
use crate::invariants::{self, Invariants, Violation};
use crate::member::{Ended, Member, Surroundings};
use crate::network::Network;
use crate::workload;
use skep_raft_core::Input;

/// Length of a tick, ms.
const TICK_MS: u64 = 50;
/// Pause between rounds of the leader's duties, ms.
const DUTIES_MS: u64 = 120;
/// A client tries again after this, ms.
const PATIENCE_MS: u64 = 900;
/// An agent looks around about so often, ms.
const AGENT_MS: u64 = 700;
/// The cluster's time begins here, ms since the epoch.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// All must have converged so long after the last fault, ms.
const CONVERGE_MS: u64 = 60_000;
/// The number by which agents' requests are told from clients'.
const AGENT: usize = usize::MAX;

/// What a run is a function of.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Of everything that is drawn.
    pub seed: u64,
    /// Length of the chaos phase in simulated ms.
    pub chaos_ms: u64,
    /// A deliberate mistake.
    pub breakage: Option<Breakage>,
    /// Chance of a server to die at each point of a step, in a million; none: drawn.
    pub mortality: Option<u32>,
    /// Whether leaders fall one after another, each soon after it has begun (as in figure 8 of the
    /// Raft paper), instead of faults of every kind; none: drawn.
    pub falling_leaders: Option<bool>,
}

impl Options {
    /// The usual run of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            chaos_ms: 20_000,
            breakage: None,
            mortality: None,
            falling_leaders: None,
        }
    }
}

/// What a run did: to see that it was worth anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Operations of clients that were answered.
    pub operations: u64,
    /// Starts of servers after the first.
    pub restarts: u64,
    /// Snapshots that a member took over from another.
    pub installs: u64,
    /// Faults.
    pub faults: u64,
    /// Highest index that was applied.
    pub index: u64,
    /// Members that came to be, rebuilt ones included.
    pub members: u64,
}

/// A server's place: disk and, while it runs, the process.
struct Server {
    member: u64,
    disk: Disk,
    running: Option<Member>,
    /// Raised by every start and stop: events of earlier runs mean nothing.
    run: u64,
    /// Stands still until then.
    paused_until: u64,
    is_retired: bool,
    is_starting: bool,
}

struct World {
    options: Options,
    rng: fastrand::Rng,
    now: u64,
    sequence: u64,
    events: BTreeMap<(u64, u64), Event>,
    servers: Vec<Server>,
    wanted: BTreeSet<u64>,
    next_member: u64,
    clients: Vec<Client>,
    agent_attempts: u64,
    network: Network,
    invariants: Invariants,
    is_chaos: bool,
    mortality: u32,
    are_leaders_falling: bool,
    report: Report,
}

/// Runs a seed: chaos, then a heal phase in which everything must converge.
///
/// # Errors
/// The invariant that did not hold, or what did not converge.
pub fn run(options: Options) -> Result<Report, Violation> {
    let mut world = World::new(options);
    world.chaos_phase()?;
    world.heal_phase()?;
    Ok(world.report)
}

fn fault_of_ours(what: impl Into<String>) -> Violation {
    Violation {
        invariant: "goes-on",
        what: what.into(),
    }
}

impl World {
    fn new(options: Options) -> Self {
        let mut rng = fastrand::Rng::with_seed(options.seed);
        let drawn = rng.u32(..8) == 0;
        let are_leaders_falling = options.falling_leaders.unwrap_or(drawn);
        let founders = match are_leaders_falling {
            true => 5,
            false => [1, 3, 3, 3, 5][rng.usize(..5)],
        };
        let members: Vec<u64> = (1..=founders).collect();
        let servers = members
            .iter()
            .map(|&member| Server::new(member, Disk::founder(&members)))
            .collect();
        let clients = (0..rng.usize(2..5)).map(Client::new).collect();
        let mut world = Self {
            options,
            now: 0,
            sequence: 0,
            events: BTreeMap::new(),
            servers,
            wanted: members.iter().copied().collect(),
            next_member: founders + 1,
            clients,
            agent_attempts: 0,
            network: Network::rough(&mut rng),
            invariants: Invariants::default(),
            is_chaos: true,
            mortality: options
                .mortality
                .unwrap_or([0, 20, 100, 400, 3_000][rng.usize(..5)]),
            are_leaders_falling,
            report: Report::default(),
            rng,
        };
        if are_leaders_falling {
            // Slow enough that a leader falls between one entry's arrival and the next one's.
            world.network.delay_ms = world.rng.u64(20..200);
        }
        for slot in 0..world.servers.len() {
            world.servers[slot].is_starting = true;
            world.after(0, Event::Start { slot });
        }
        for client in 0..world.clients.len() {
            world.after(500, Event::Client { client, attempt: 0 });
        }
        world.after(AGENT_MS, Event::Agent);
        world.after(1_500, Event::Fault);
        world
    }

    fn after(&mut self, delay_ms: u64, event: Event) {
        self.sequence += 1;
        self.events
            .insert((self.now + delay_ms, self.sequence), event);
    }

    fn chaos_phase(&mut self) -> Result<(), Violation> {
        while self.now < self.options.chaos_ms {
            self.next_event()?;
        }
        Ok(())
    }

    /// No more faults: servers start, links are whole, and everybody must get where the others are.
    fn heal_phase(&mut self) -> Result<(), Violation> {
        self.is_chaos = false;
        self.mortality = 0;
        self.network = Network::calm();
        for slot in 0..self.servers.len() {
            self.servers[slot].paused_until = 0;
            self.start_soon(slot, 10);
        }
        let deadline = self.now + CONVERGE_MS;
        let mut checked = self.now;
        while self.now < deadline {
            self.next_event()?;
            if self.now >= checked + 500 {
                checked = self.now;
                self.retire();
                if self.has_converged() {
                    return self.last_look();
                }
            }
        }
        Err(self.not_converged())
    }

    fn next_event(&mut self) -> Result<(), Violation> {
        let Some(((at, _), event)) = self.events.pop_first() else {
            return Err(fault_of_ours("nothing happens any more"));
        };
        self.now = at;
        match event {
            Event::Tick { slot, run } => self.tick(slot, run),
            Event::Duties { slot, run } => self.duties(slot, run),
            Event::Arrive { to, payload } => self.arrive(to, payload),
            Event::Answer { client, answer } => self.answered(client, answer),
            Event::Client { client, attempt } => {
                self.client(client, attempt);
                Ok(())
            }
            Event::Agent => {
                self.agent();
                Ok(())
            }
            Event::Start { slot } => self.start(slot),
            Event::SnapshotStatus { from, to, ok } => match self.slot_of(from) {
                Some(slot) => self.feed(slot, vec![Input::SnapshotStatus { to, ok }]),
                None => Ok(()),
            },
            Event::Fault => self.fault(),
        }
    }

    fn tick(&mut self, slot: Slot, run: u64) -> Result<(), Violation> {
        if self.servers[slot].run != run {
            return Ok(());
        }
        // One tick however late, as the driver does after a standstill.
        let pause = self.servers[slot].paused_until.saturating_sub(self.now);
        self.after(TICK_MS.max(pause), Event::Tick { slot, run });
        if pause > 0 {
            return Ok(());
        }
        self.feed(slot, vec![Input::Tick])
    }

    fn duties(&mut self, slot: Slot, run: u64) -> Result<(), Violation> {
        if self.servers[slot].run != run {
            return Ok(());
        }
        self.after(DUTIES_MS, Event::Duties { slot, run });
        let wanted: Vec<u64> = self.wanted.iter().copied().collect();
        let now_ms = EPOCH_MS + self.now;
        self.step(slot, |member, world| member.duties(&wanted, now_ms, world))
    }

    fn arrive(&mut self, to: u64, payload: Payload) -> Result<(), Violation> {
        let Some(slot) = self.slot_of(to) else {
            if let Payload::Snapshot { from, .. } = payload {
                self.after(
                    1,
                    Event::SnapshotStatus {
                        from,
                        to,
                        ok: false,
                    },
                );
            }
            return Ok(());
        };
        let pause = self.servers[slot].paused_until.saturating_sub(self.now);
        if pause > 0 {
            self.after(pause, Event::Arrive { to, payload });
            return Ok(());
        }
        match payload {
            Payload::Raft(bytes) => self.feed(slot, vec![Input::Message(bytes)]),
            Payload::Snapshot {
                message,
                taken,
                state,
                from,
            } => {
                self.report.installs += 1;
                self.after(5, Event::SnapshotStatus { from, to, ok: true });
                self.step(slot, |member, world| {
                    member.receive_snapshot((taken, state), message, world)
                })
            }
            Payload::Request { request, hops } => {
                let now_ms = EPOCH_MS + self.now;
                self.step(slot, |member, world| {
                    member.request(request, hops, now_ms, world)
                })
            }
        }
    }

    fn feed(&mut self, slot: Slot, inputs: Vec<Input>) -> Result<(), Violation> {
        self.step(slot, |member, world| member.drive(inputs, world))
    }

    /// Runs one step of a server, and carries what it asks for into the world.
    fn step(
        &mut self,
        slot: Slot,
        step: impl FnOnce(&mut Member, &mut Surroundings<'_>) -> Result<Ended, String>,
    ) -> Result<(), Violation> {
        let server = &mut self.servers[slot];
        let Some(mut member) = server.running.take() else {
            return Ok(());
        };
        let mut effects = Vec::new();
        let mut surroundings = Surroundings {
            rng: &mut self.rng,
            disk: &mut server.disk,
            effects: &mut effects,
            mortality: self.mortality,
            breakage: self.options.breakage,
        };
        let ended = step(&mut member, &mut surroundings);
        let id = member.id;
        server.running = Some(member);
        for effect in effects {
            self.take_effect(id, effect)?;
        }
        match ended {
            Ok(Ended::Well) => Ok(()),
            Ok(Ended::Died) => {
                self.kill(slot);
                // Back at once, while messages of its last life are still on their way, or late.
                let longest = [5, 60, 3_000][self.rng.usize(..3)];
                let delay = self.rng.u64(1..longest);
                self.start_soon(slot, delay);
                Ok(())
            }
            Err(what) => Err(fault_of_ours(format!("member {id} cannot go on: {what}"))),
        }
    }

    fn take_effect(&mut self, member: u64, effect: Effect) -> Result<(), Violation> {
        match effect {
            Effect::Send { to, bytes } => {
                for delay in self.network.carry(&mut self.rng, member, to) {
                    let payload = Payload::Raft(bytes.clone());
                    self.after(delay, Event::Arrive { to, payload });
                }
                Ok(())
            }
            Effect::SendSnapshot {
                to,
                message,
                taken,
                state,
            } => {
                let payload = Payload::Snapshot {
                    message,
                    taken,
                    state,
                    from: member,
                };
                match self.network.carry(&mut self.rng, member, to).first() {
                    Some(delay) => self.after(delay + 20, Event::Arrive { to, payload }),
                    None => {
                        let (from, ok) = (member, false);
                        self.after(300, Event::SnapshotStatus { from, to, ok });
                    }
                }
                Ok(())
            }
            Effect::Answer { client, answer } => {
                // Answers get lost like anything else.
                if let Some(delay) = self.network.carry(&mut self.rng, member, 0).first() {
                    self.after(*delay, Event::Answer { client, answer });
                }
                Ok(())
            }
            Effect::Forward { to, request } => {
                if let Some(delay) = self.network.carry(&mut self.rng, member, to).first() {
                    let payload = Payload::Request { request, hops: 1 };
                    self.after(*delay, Event::Arrive { to, payload });
                }
                Ok(())
            }
            Effect::Leads { term } => self.invariants.leads(member, term),
            Effect::Members(members) => self.invariants.members(&members),
            Effect::Applied {
                position,
                command,
                is_first,
                digest,
                live,
            } => {
                self.report.index = self.report.index.max(position.index);
                self.invariants.applied(&invariants::Applied {
                    member,
                    position,
                    command: command.as_deref(),
                    is_first,
                    digest,
                    live,
                })
            }
        }
    }

    /// A client begins an operation, or tries the one under way again somewhere else.
    fn client(&mut self, id: usize, attempt: u64) {
        let registers = self.clients.len();
        let since = self.newest_index();
        let client = &mut self.clients[id];
        match client.current {
            Some(open) if open.request.attempt != attempt => return,
            Some(mut open) => {
                open.request.attempt = client.attempt();
                client.current = Some(open);
            }
            None if !self.is_chaos => return,
            None => {
                let operation = client.choose(&mut self.rng, registers);
                let at_least = match operation {
                    Operation::Read { register } => self.invariants.reads.at_least(register),
                    _ => 0,
                };
                let request = Request {
                    client: id,
                    attempt: client.attempt(),
                    key: self.rng.u128(..),
                    operation,
                    since,
                };
                client.current = Some(Open { request, at_least });
            }
        }
        let Some(open) = self.clients[id].current else {
            return;
        };
        self.send_request(open.request);
        let attempt = open.request.attempt;
        let patience = self.rng.u64(PATIENCE_MS / 2..PATIENCE_MS * 2);
        self.after(
            patience,
            Event::Client {
                client: id,
                attempt,
            },
        );
    }

    fn send_request(&mut self, request: Request) {
        let slot = self.rng.usize(..self.servers.len());
        let to = self.servers[slot].member;
        if let Some(delay) = self.network.carry(&mut self.rng, 0, to).first() {
            let payload = Payload::Request { request, hops: 0 };
            self.after(*delay, Event::Arrive { to, payload });
        }
    }

    fn answered(&mut self, id: usize, answer: Answer) -> Result<(), Violation> {
        if id == AGENT {
            return Ok(());
        }
        let client = &mut self.clients[id];
        let Some(open) = client.current else {
            return Ok(());
        };
        if open.request.attempt != answer.attempt {
            return Ok(());
        }
        match (open.request.operation, answer.result) {
            (Operation::Write { value }, Outcome::Written) => {
                client.acknowledged = client.acknowledged.max(value);
                self.invariants.acknowledged.wrote(id, value);
                self.invariants.reads.seen(id, value);
            }
            (Operation::Read { register }, Outcome::Value(value)) => {
                let sent = self.clients[register].newest_sent();
                let reads = &mut self.invariants.reads;
                reads.answered(register, value, (open.at_least, sent))?;
            }
            (Operation::Write { .. }, Outcome::Refused) => {}
            // The next attempt is already on the clock.
            _ => return Ok(()),
        }
        let client = &mut self.clients[id];
        client.current = None;
        client.done += 1;
        self.report.operations += 1;
        let pause = self.rng.u64(5..120);
        let attempt = self.clients[id].next_attempt;
        self.after(
            pause,
            Event::Client {
                client: id,
                attempt,
            },
        );
        Ok(())
    }

    /// An agent says that the exclusive service's allocation has failed: a new one is wanted.
    fn agent(&mut self) {
        let pause = self.rng.u64(AGENT_MS / 2..AGENT_MS * 2);
        self.after(pause, Event::Agent);
        let seen = self.servers.iter().filter_map(|server| {
            let member = server.running.as_ref()?;
            workload::live_allocation(&member.state)
        });
        let seen: Vec<u128> = seen.collect();
        if seen.is_empty() || !self.is_chaos {
            return;
        }
        self.agent_attempts += 1;
        let request = Request {
            client: AGENT,
            attempt: self.agent_attempts,
            key: self.rng.u128(..),
            operation: Operation::Fail {
                allocation: seen[self.rng.usize(..seen.len())],
            },
            since: self.newest_index(),
        };
        self.send_request(request);
    }

    fn newest_index(&self) -> u64 {
        self.servers
            .iter()
            .filter_map(|server| Some(server.running.as_ref()?.applied.index))
            .min()
            .unwrap_or_default()
    }

    fn start(&mut self, slot: Slot) -> Result<(), Violation> {
        let (seed, breakage) = (self.options.seed, self.options.breakage);
        let server = &mut self.servers[slot];
        server.is_starting = false;
        if server.running.is_some() || server.is_retired {
            return Ok(());
        }
        if server.disk.is_damaged() && breakage != Some(Breakage::VoteAfterDamage) {
            // It refuses to vote; somebody has it rebuilt, under a new member id.
            self.wanted.remove(&server.member);
            server.member = self.next_member;
            server.disk = Disk::default();
            self.wanted.insert(self.next_member);
            self.next_member += 1;
        }
        let server = &mut self.servers[slot];
        server.run += 1;
        let run = server.run;
        let nonce = (slot as u64) << 16 | run;
        let started = Member::start(server.member, seed, nonce, &server.disk, breakage);
        let member = started.map_err(|what| {
            fault_of_ours(format!("member {} does not start: {what}", server.member))
        })?;
        server.running = Some(member);
        self.report.restarts += u64::from(run > 1);
        self.report.members = self.next_member - 1;
        let offset = self.rng.u64(..TICK_MS);
        self.after(offset, Event::Tick { slot, run });
        self.after(DUTIES_MS + offset, Event::Duties { slot, run });
        self.feed(slot, Vec::new())
    }

    fn start_soon(&mut self, slot: Slot, delay_ms: u64) {
        let server = &mut self.servers[slot];
        if server.running.is_none() && !server.is_retired && !server.is_starting {
            server.is_starting = true;
            self.after(delay_ms, Event::Start { slot });
        }
    }

    fn slot_of(&self, member: u64) -> Option<Slot> {
        self.servers
            .iter()
            .position(|server| server.member == member)
    }

    fn kill(&mut self, slot: Slot) {
        let server = &mut self.servers[slot];
        if server.running.take().is_some() {
            server.run += 1;
            server.disk.crash(&mut self.rng);
        }
    }

    /// Servers that were taken out, and are no members any more, stop.
    fn retire(&mut self) {
        let members = self.servers.iter().find_map(|server| {
            let member = server.running.as_ref()?;
            member.leads().then(|| member.members().clone())
        });
        let Some(members) = members else { return };
        for slot in 0..self.servers.len() {
            let id = self.servers[slot].member;
            let is_member = members.voters.contains(&id)
                || members.learners.contains(&id)
                || members.voters_outgoing.contains(&id)
                || members.learners_next.contains(&id);
            if !is_member && !self.wanted.contains(&id) {
                self.kill(slot);
                self.servers[slot].is_retired = true;
            }
        }
    }

    fn live(&self) -> impl Iterator<Item = &Member> {
        self.servers
            .iter()
            .filter_map(|server| server.running.as_ref())
            .filter(|member| self.wanted.contains(&member.id))
    }

    fn has_converged(&self) -> bool {
        let newest = self.live().map(|member| member.applied.index).max();
        let leaders = self.live().filter(|member| member.leads()).count();
        let is_everybody_there = self.live().count() == self.wanted.len();
        let voters = self
            .live()
            .find(|member| member.leads())
            .map_or(0, |member| member.members().voters.len());
        leaders == 1
            && is_everybody_there
            && voters % 2 == 1
            && voters + 1 >= self.wanted.len().min(5)
            && self.clients.iter().all(|client| client.current.is_none())
            && self
                .live()
                .all(|member| Some(member.applied.index) == newest)
    }

    fn last_look(&mut self) -> Result<(), Violation> {
        let mut first = None;
        for member in self.live() {
            self.invariants.acknowledged.holds(member.id, |register| {
                workload::read(&member.state, register)
            })?;
            let bytes = member.state.encode();
            if first.get_or_insert_with(|| bytes.clone()) != &bytes {
                return invariants::broken(
                    "same-state-at-same-index",
                    format!("member {} ended in another state", member.id),
                );
            }
        }
        Ok(())
    }

    fn not_converged(&self) -> Violation {
        let servers: Vec<String> = self
            .servers
            .iter()
            .map(|server| match &server.running {
                Some(member) => format!(
                    "{}: at {}, leads {}, leader {:?}, voters {:?}+{:?} learners {:?}",
                    member.id,
                    member.applied.index,
                    member.leads(),
                    member.leader(),
                    member.members().voters,
                    member.members().voters_outgoing,
                    member.members().learners,
                ),
                None => format!("{}: down, retired {}", server.member, server.is_retired),
            })
            .collect();
        let open: Vec<_> = self
            .clients
            .iter()
            .filter_map(|client| Some((client.id, client.current?.request.operation)))
            .collect();
        Violation {
            invariant: "converges",
            what: format!(
                "{} ms after the last fault: {}; wanted {:?}; open {open:?}",
                CONVERGE_MS,
                servers.join("; "),
                self.wanted
            ),
        }
    }
}

impl Server {
    fn new(member: u64, disk: Disk) -> Self {
        Self {
            member,
            disk,
            running: None,
            run: 0,
            paused_until: 0,
            is_retired: false,
            is_starting: false,
        }
    }
}
