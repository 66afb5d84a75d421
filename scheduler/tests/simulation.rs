//! Rollouts in a simulated cluster: agents that lag, ingresses with old tables, servers that
//! forget, plans that are applied late; then failures, then healing. From seeds: a failure names
//! its own, and `SKEP_SEED=N cargo test -p skep-scheduler --test simulation` replays it.

#![allow(clippy::disallowed_methods, reason = "a test may be told its seed")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{World, node, resources, service, target};
use skep_model::allocation::{Allocation, Desired, State};
use skep_model::id::{AllocationId, NodeId};
use skep_model::node::NodeStatus;
use skep_model::rollout::{CanaryStep, Control, Phase, Policy, Progress, Promote, Strategy};
use skep_scheduler::cluster::Cluster;
use skep_scheduler::plan::{Plan, fits};
use skep_scheduler::room::Needs;

const SEEDS: u64 = 300;
const STEPS: usize = 600;
/// Rounds in which everybody acts once, until all is at rest.
const HEAL_ROUNDS: usize = 300;

/// SplitMix64, as published by Steele, Lea and Flood (2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())])
    }
}

/// A table as one ingress has it, and what the leader knows of that.
#[derive(Default)]
struct Ingress {
    backends: BTreeSet<AllocationId>,
    index: u64,
    acknowledged: u64,
}

struct Simulation {
    world: World,
    cluster: Cluster,
    ingresses: Vec<Ingress>,
    /// Containers that run.
    containers: BTreeSet<AllocationId>,
    in_flight: Option<Plan>,
    chance: Chance,
    deployments: u128,
    /// Backends that every ingress must have alive.
    floor: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let mut world = World::new(service(1, 1 + chance.below(4) as u32));
        world.service.spec.update.max_surge = 1 + chance.below(3) as u32;
        world.needs = resources(100, 128);
        for id in 1..=1 + chance.below(4) as u128 {
            let node = node(id, 4_000, 8_192);
            world.nodes.insert(node.id, node);
        }
        let mut simulation = Self {
            cluster: world.cluster(),
            world,
            ingresses: (0..1 + chance.below(3))
                .map(|_| Ingress::default())
                .collect(),
            containers: BTreeSet::new(),
            in_flight: None,
            chance,
            deployments: 0,
            floor: 0,
        };
        simulation.deploy();
        simulation.heal();
        simulation.floor = simulation.world.service.wanted() as usize;
        simulation
    }

    fn deploy(&mut self) {
        self.deployments += 1;
        let number = 1 + self.chance.below(4) as u64;
        let any_step = |chance: &mut Chance, percent| CanaryStep {
            percent,
            pause_ms: (chance.below(2) == 0).then_some(2_000),
        };
        let service = &mut self.world.service;
        // What has taken over is live when something newer begins.
        if matches!(service.progress.phase, Phase::Kept { .. }) {
            service.live = service.rollout;
        }
        service.spec.rollout = Policy {
            strategy: Strategy::ALL[self.chance.below(3)],
            promote: Promote::ALL[self.chance.below(2)],
            keep_ms: 1_500,
            steps: [20, 70]
                .map(|percent| any_step(&mut self.chance, percent))
                .into(),
            ..Policy::default()
        };
        service.rollout = Some(target(number, self.deployments));
        self.enter(Phase::Rolling);
        let policy = &self.world.service.spec.rollout;
        self.enter(policy.first_phase(self.world.service.live.is_some()));
    }

    fn enter(&mut self, phase: Phase) {
        self.world.index += 1;
        self.world.service.generation += 1;
        self.world.service.progress = Progress {
            phase,
            since_ms: self.world.now_ms,
            paused: false,
        };
    }

    /// What people do, by the state's rules.
    fn control(&mut self, control: Control) {
        let service = &mut self.world.service;
        let progress = service.progress;
        if service.rollout.is_none() {
            return;
        }
        let is_healthy = |a: &&Allocation| Some(a.target) == service.rollout && a.is_routable();
        let healthy = self.world.allocations.values().filter(is_healthy).count();
        let is_whole = healthy >= service.wanted() as usize;
        match (control, progress.phase) {
            (Control::Pause, _) => {
                service.progress.paused = true;
                service.generation += 1;
            }
            (Control::Resume, phase) => self.enter(phase),
            (Control::Promote, _) if progress.paused => {}
            (Control::Promote, Phase::Trial) if !is_whole => {}
            (Control::Promote, phase) => {
                let now_ms = self.world.now_ms;
                if let Some(next) = service.spec.rollout.next_phase(phase, (true, now_ms)) {
                    self.enter(next);
                }
            }
            (Control::Abort, _) => {
                service.rollout = None;
                self.enter(Phase::Rolling);
            }
        }
    }

    fn drained(&self) -> impl Fn(&Allocation) -> bool + use<> {
        let everywhere = self
            .ingresses
            .iter()
            .map(|i| i.acknowledged)
            .min()
            .unwrap_or(0);
        move |allocation| allocation.desired_index <= everywhere
    }

    fn propose(&mut self) {
        if self.in_flight.is_none() {
            let allocations = self.world.allocations.values().collect();
            let plan = self
                .world
                .plan_on(&self.cluster, &self.drained(), allocations);
            assert_eq!(fits(&self.cluster, &plan), Ok(()));
            self.in_flight = Some(plan);
        }
    }

    /// What was proposed some while ago arrives; the state refuses it where its base is gone.
    fn commit(&mut self) {
        let Some(plan) = self.in_flight.take() else {
            return;
        };
        let is_current = plan.service_generation == self.world.service.generation
            && plan.nodes.iter().all(|(id, generation)| {
                self.world
                    .nodes
                    .get(id)
                    .is_some_and(|node| node.generation == *generation)
            });
        if !is_current {
            return;
        }
        if let Some(advance) = plan.advance {
            return self.enter(advance.phase);
        }
        // With the generations as they were, the fit is as it was: that is what they are for.
        assert_eq!(fits(&self.cluster, &plan), Ok(()));
        self.world.apply(&plan);
        for start in &plan.starts {
            let needs = Needs::new(self.world.needs, &self.world.service.spec.placement);
            self.cluster
                .put_allocation(start.allocation, start.node, plan.service, &needs);
            self.cluster.put_node(&self.world.nodes[&start.node]);
        }
        self.judge();
    }

    /// The deployment: live when healthy, over when one of its allocations failed. Decided from a
    /// fresh plan, as the loop beside the scheduler does.
    fn judge(&mut self) {
        let Some(rollout) = self.world.service.rollout else {
            return;
        };
        let plan = self.world.plan(&|_| false);
        if plan.is_healthy {
            self.world.service.live = Some(rollout);
        } else if plan.failed_new.is_empty() {
            return;
        }
        self.world.service.rollout = None;
        self.enter(Phase::Rolling);
    }

    fn observe(&mut self, id: AllocationId, state: State) {
        let node = self.world.allocations[&id].node;
        self.world.observe(id, state);
        if state.is_terminal() {
            self.containers.remove(&id);
            self.cluster.remove_allocation(id);
            if let Some(node) = self.world.nodes.get(&node) {
                self.cluster.put_node(node);
            }
        }
    }

    /// One step of one agent with one allocation.
    fn act(&mut self, id: AllocationId) {
        let allocation = &self.world.allocations[&id];
        let (desired, state) = (allocation.desired, allocation.observed.state);
        let is_silent = self
            .world
            .nodes
            .get(&allocation.node)
            .is_none_or(|node| node.status == NodeStatus::Lost);
        if is_silent || state.is_terminal() {
            return;
        }
        if desired == Desired::Stop {
            self.containers.remove(&id);
            let is_stopping = state == State::Stopping;
            return self.observe(
                id,
                if is_stopping {
                    State::Stopped
                } else {
                    State::Stopping
                },
            );
        }
        match state {
            State::Pending => self.observe(id, State::Pulling),
            State::Pulling => self.observe(id, State::Starting),
            State::Starting => {
                self.containers.insert(id);
                self.observe(id, State::Running);
            }
            State::Running | State::Unhealthy => self.observe(id, State::Healthy),
            _ => {}
        }
    }

    fn poll(&mut self, ingress: usize) {
        let service = &self.world.service;
        let routable = self.world.allocations.values();
        let routable = routable.filter(|a| a.is_routable() && service.serves(a.target));
        let ingress = &mut self.ingresses[ingress];
        ingress.backends = routable.map(|a| a.id).collect();
        ingress.index = self.world.index;
        ingress.acknowledged = ingress.index;
    }

    fn calm_step(&mut self) {
        match self.chance.below(40) {
            0 => self.deploy(),
            1 => {
                let replicas = 1 + self.chance.below(5) as u32;
                self.world.service.spec.replicas = replicas;
                self.world.service.generation += 1;
                self.floor = self.floor.min(replicas as usize);
            }
            // Another server leads: what was acknowledged must be said again, plans are lost.
            2 => {
                self.in_flight = None;
                self.ingresses
                    .iter_mut()
                    .for_each(|ingress| ingress.acknowledged = 0);
            }
            3..=8 => self.propose(),
            9..=14 => self.commit(),
            15..=19 => {
                let ingress = self.chance.below(self.ingresses.len());
                self.poll(ingress);
            }
            20 => self.world.now_ms += 500,
            21 => {
                let control = Control::ALL[self.chance.below(4)];
                self.control(control);
            }
            _ => {
                let ids: Vec<_> = self.world.allocations.keys().copied().collect();
                if let Some(id) = self.chance.pick(&ids) {
                    self.act(id);
                }
            }
        }
    }

    fn faulty_step(&mut self) {
        let nodes: Vec<NodeId> = self.world.nodes.keys().copied().collect();
        let live = self.world.allocations.values().filter(|a| a.is_live());
        let live: Vec<_> = live.map(|a| a.id).collect();
        match self.chance.below(30) {
            0..=3 => {
                if let Some(id) = self.chance.pick(&live) {
                    self.observe(id, State::Failed);
                }
            }
            4..=6 => {
                let is_healthy = |id: &AllocationId| self.world.allocations[id].is_routable();
                let healthy: Vec<_> = live.into_iter().filter(is_healthy).collect();
                if let Some(id) = self.chance.pick(&healthy) {
                    self.observe(id, State::Unhealthy);
                }
            }
            7 | 8 => {
                let status = NodeStatus::ALL[self.chance.below(3)];
                if let Some(id) = self.chance.pick(&nodes) {
                    self.judge_node(id, status);
                }
            }
            9 => {
                if let Some(id) = self.chance.pick(&nodes) {
                    self.remove_node(id);
                }
            }
            10 => {
                // An id is never used twice: its generation would begin anew.
                self.world.index += 1;
                let id = 10 + self.world.index as u128;
                let small = node(id, 300, 1_024);
                self.cluster.put_node(&small);
                self.world.nodes.insert(small.id, small);
            }
            11 => {
                self.world.service.stopped = !self.world.service.stopped;
                self.world.service.generation += 1;
            }
            _ => self.calm_step(),
        }
    }

    fn judge_node(&mut self, id: NodeId, status: NodeStatus) {
        let node = self.world.nodes.get_mut(&id).unwrap();
        node.status = status;
        node.status_ms = self.world.now_ms;
        node.generation += 1;
        self.cluster.put_node(node);
    }

    fn remove_node(&mut self, id: NodeId) {
        let on = self
            .world
            .allocations
            .values()
            .filter(|a| a.node == id && a.is_live());
        for allocation in on.map(|a| a.id).collect::<Vec<_>>() {
            self.observe(allocation, State::Lost);
        }
        self.world.nodes.remove(&id);
        self.cluster.remove_node(id);
    }

    /// Everything works again and everybody acts in turn: it must come to rest, at the target.
    fn heal(&mut self) {
        self.in_flight = None;
        for id in self.world.nodes.keys().copied().collect::<Vec<_>>() {
            self.judge_node(id, NodeStatus::Ready);
        }
        let large = node(9, 16_000, 32_768);
        self.cluster.put_node(&large);
        self.world.nodes.insert(large.id, large);
        self.control(Control::Resume);
        for round in 0..HEAL_ROUNDS {
            self.judge();
            if round % 10 == 9 {
                self.control(Control::Promote);
            }
            self.propose();
            let is_converged = self
                .in_flight
                .as_ref()
                .is_some_and(|plan| plan.is_converged);
            let others_ended = self.world.allocations.values().all(|a| {
                a.desired == Desired::Run && a.is_live()
                    || a.desired == Desired::Stop && !a.is_live()
            });
            if is_converged && others_ended && self.world.service.rollout.is_none() {
                self.in_flight = None;
                return self.check_rest();
            }
            self.commit();
            for id in self.world.allocations.keys().copied().collect::<Vec<_>>() {
                if self.world.allocations.contains_key(&id) {
                    self.act(id);
                }
            }
            (0..self.ingresses.len()).for_each(|ingress| self.poll(ingress));
            self.world.now_ms += 1_000;
        }
        panic!(
            "not at rest: {:#?}\n{:#?}",
            self.world.service, self.world.allocations
        );
    }

    fn check_rest(&mut self) {
        (0..self.ingresses.len()).for_each(|ingress| self.poll(ingress));
        let service = &self.world.service;
        let wanted = service.live.map_or(0, |_| service.wanted() as usize);
        let live: Vec<_> = self
            .world
            .allocations
            .values()
            .filter(|a| a.is_live())
            .collect();
        assert_eq!(live.len(), wanted);
        assert!(
            live.iter()
                .all(|a| Some(a.target) == service.live && a.is_routable())
        );
        assert_eq!(self.cluster, self.world.cluster());
    }

    fn check_floor(&self) {
        for (number, ingress) in self.ingresses.iter().enumerate() {
            let alive = ingress.backends.intersection(&self.containers).count();
            assert!(
                alive >= self.floor,
                "ingress {number} at {}: {alive} alive of {:?}, {} at least: {:#?}",
                ingress.index,
                ingress.backends,
                self.floor,
                self.world.allocations
            );
        }
    }

    /// No node has more than it offers, whatever happens.
    fn check_room(&self) {
        let mut used: BTreeMap<NodeId, u64> = BTreeMap::new();
        for a in self.world.allocations.values().filter(|a| a.is_live()) {
            *used.entry(a.node).or_default() += u64::from(self.world.needs.cpu_millis);
        }
        for (id, cpu_millis) in used {
            let node = self.world.nodes.get(&id);
            assert!(node.is_none_or(|node| cpu_millis <= u64::from(node.facts.cpu_millis)));
        }
    }
}

/// Runs every seed, or the one asked for, and says which one failed.
fn for_each_seed(run: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let asked = std::env::var("SKEP_SEED")
        .ok()
        .map(|seed| seed.parse().expect("a number"));
    let seeds = asked.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("replay: SKEP_SEED={seed} cargo test -p skep-scheduler --test simulation");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn while_nothing_fails_no_ingress_runs_short_of_backends() {
    for_each_seed(|seed| {
        let mut simulation = Simulation::new(seed);
        for _ in 0..STEPS {
            simulation.calm_step();
            simulation.check_floor();
            simulation.check_room();
        }
        simulation.heal();
        assert!(simulation.deployments > 1, "the seed rolled nothing out");
    });
}

#[test]
fn whatever_fails_all_comes_to_rest_when_it_is_mended() {
    for_each_seed(|seed| {
        let mut simulation = Simulation::new(seed);
        for _ in 0..STEPS {
            simulation.faulty_step();
            simulation.check_room();
        }
        assert_eq!(simulation.cluster, simulation.world.cluster());
        simulation.heal();
    });
}
