//! The world: servers, clients, agents and faults on one virtual clock.

mod chaos;
mod clients;
mod healing;

use std::collections::{BTreeMap, BTreeSet};

use crate::breakage::Breakage;
use crate::client::Client;
use crate::disk::Disk;
use crate::event::{Effect, Event, Payload, Slot};
use crate::invariants::{self, Invariants, Violation};
use crate::member::{Ended, Member, Surroundings};
use crate::network::Network;
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
