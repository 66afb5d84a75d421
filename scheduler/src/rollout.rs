//! The one state machine that moves a service to its target, in successive plans: starting,
//! rolling update, scaling, withdrawing, stopping. Level-triggered: it compares what is wanted with
//! what is, remembers nothing, and planning again before anything was observed changes nothing.
//!
//! It never judges a deployment (that it failed, or is live, is said by whoever runs it) and never
//! knows of routes: that an allocation is out of every table is an input.
//!
//! An allocation goes `run -> drain -> stop`, and to `stop` directly where it has ended or its
//! service takes no traffic. Withdrawing keeps as many healthy ones as are wanted, while there are,
//! less those that may be missing.

pub mod analysis;
mod leaving;
pub mod phase;
mod withdraw;

use std::collections::BTreeMap;

use skep_model::allocation::{Allocation, Desired, State};
use skep_model::id::{AllocationId, NodeId};
use skep_model::node::unconfirmed;
use skep_model::problem::{Code, Problem};
use skep_model::service::{Release, Service, Target};

use leaving::Leaving;

use crate::backoff::{self, FAILURES_BEFORE_MOVING};
use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::filter::{Ask, Surroundings};
use crate::place::{self, Search};
use crate::plan::{Desire, Plan, Start};
use crate::preempt;
use crate::quota::Allowance;
use crate::refusal::Refusal;
use crate::room::Room;

/// Most starts that one plan has others make way for.
const MAX_WAYS: usize = 16;

/// Everything that one decision is made from, beside the cluster.
#[derive(Clone)]
pub struct Input<'a> {
    /// The service.
    pub service: &'a Service,
    /// The release of its target; none: there is no target, or its release is gone.
    pub release: Option<&'a Release>,
    /// The release that is live, to repair it while another one is tried beside it; none: nothing is,
    /// or it is gone.
    pub live_release: Option<&'a Release>,
    /// All allocations of the service that are known, ended ones included, in any order.
    pub allocations: Vec<&'a Allocation>,
    /// Cluster time, ms since the epoch.
    pub now_ms: u64,
    /// Whether a draining allocation may be stopped: every live ingress has acknowledged a table
    /// without it and has finished what it had there, or the time for that is over.
    pub drained: &'a dyn Fn(&Allocation) -> bool,
    /// What is known around the service.
    pub around: &'a Surroundings,
    /// What its workspace and its environment may have, and have.
    pub quotas: &'a [Allowance],
    /// Most starts and desires of the plan together: [`plan::MAX_CHANGES`](crate::plan::MAX_CHANGES)
    /// where it is to be proposed.
    pub limit: usize,
}

impl Input<'_> {
    /// Whether somebody may have connections to what is withdrawn: it is stopped when they have ended.
    pub(crate) fn drains(&self) -> bool {
        self.service.spec.takes_traffic() || self.around.has_callers
    }
}

/// Plans the next step. Starts are counted in the draft, so that plans made over the same draft
/// see each other; `ids` is asked once for each start.
pub fn plan(
    draft: &mut Draft<'_>,
    input: &Input<'_>,
    ids: &mut dyn FnMut() -> AllocationId,
) -> Plan {
    match phase::Beside::of(input) {
        Some(beside) => beside.plan(draft, input, ids),
        None => plan_target(draft, input, ids),
    }
}

/// Moves all of the service's allocations to its target.
fn plan_target(
    draft: &mut Draft<'_>,
    input: &Input<'_>,
    ids: &mut dyn FnMut() -> AllocationId,
) -> Plan {
    let mut planner = Planner::new(input, draft.cluster());
    planner.stop_what_is_done();
    planner.leave_nodes();
    planner.withdraw_surplus(draft.cluster());
    planner.withdraw_old();
    planner.withdraw_succeeded();
    let withdrawn_in_full = planner.plan.desires.len() <= input.limit;
    if withdrawn_in_full {
        planner.start_missing(draft, ids);
    }
    planner.plan.desires.truncate(input.limit);
    planner.plan.is_partial |= !withdrawn_in_full;
    planner.say_what_is_unconfirmed(draft.cluster());
    planner.judge();
    planner.plan
}

struct Planner<'a, 'i> {
    input: &'i Input<'a>,
    target: Option<Target>,
    wanted: usize,
    /// Of the target, meant to run, not ended.
    new: Vec<&'a Allocation>,
    /// Of anything else, meant to run, not ended.
    old: Vec<&'a Allocation>,
    /// On their way out of the routes.
    draining: Vec<&'a Allocation>,
    /// Over, and not put away yet.
    ended: Vec<&'a Allocation>,
    /// Meant to run, on nodes that have been silent for so long that others take their place.
    away: Vec<&'a Allocation>,
    /// Told to go, and not ended; of silent nodes nobody hears that.
    ending: usize,
    /// Of `old`: those of the target whose node is to be empty. Others of the target there are being
    /// moved.
    leaving: Leaving,
    plan: Plan,
}

impl<'a, 'i> Planner<'a, 'i> {
    fn new(input: &'i Input<'a>, cluster: &Cluster) -> Self {
        let service = input.service;
        let cut_off = input.release.map(|release| release.cut_off());
        let leaving = Leaving::of(cluster, input, cut_off.unwrap_or_default());
        let target = service.target();
        let is_live = |desired: Desired, allocation: &Allocation| {
            allocation.desired == desired && allocation.is_live()
        };
        let mut allocations = input.allocations.clone();
        allocations.sort_by_key(|allocation| allocation.id);
        let running = allocations.iter().filter(|a| is_live(Desired::Run, a));
        let (away, there): (Vec<_>, Vec<_>) = running.partition(|a| leaving.is_given_up(a.node));
        let (new, old) = there.into_iter().partition(|a: &&Allocation| {
            let is_moving = input.around.moving.contains_key(&a.id);
            Some(a.target) == target && !leaving.is_drained(a.node) && !is_moving
        });
        let draining = allocations.iter().filter(|a| is_live(Desired::Drain, a));
        let ended = allocations
            .iter()
            .filter(|a| !a.is_live() && a.desired != Desired::Stop);
        Self {
            input,
            target,
            wanted: target.map_or(0, |_| service.wanted() as usize),
            new,
            old,
            draining: draining.copied().collect(),
            ended: ended.copied().collect(),
            away,
            ending: allocations
                .iter()
                .filter(|a| a.is_live() && a.desired != Desired::Run)
                .filter(|a| !leaving.is_given_up(a.node))
                .count(),
            plan: Plan {
                service: service.id,
                service_generation: service.generation,
                nodes: Default::default(),
                target,
                ask: input.release.map(|release| Ask::of(release, input.around)),
                starts: Vec::new(),
                desires: Vec::new(),
                is_partial: false,
                displaced: Vec::new(),
                refusal: None,
                unplaced: 0,
                failed_new: Vec::new(),
                wake_at_ms: leaving.next_ms,
                advance: None,
                is_healthy: false,
                is_converged: false,
            },
            leaving,
        }
    }

    fn service(&self) -> &'a Service {
        self.input.service
    }

    /// Whether this target is being rolled out, rather than live.
    fn is_rolling_out(&self) -> bool {
        self.service().rollout.is_some()
    }

    /// An old one has ended before a new one starts.
    fn stops_first(&self) -> bool {
        self.service().spec.surge() == 0
    }

    /// How many fewer than are wanted may be healthy while they are replaced.
    fn may_miss(&self) -> usize {
        let may_miss = self.service().spec.rollout.max_unavailable as usize;
        match (self.stops_first(), self.is_rolling_out()) {
            (true, _) => may_miss.max(1),
            (false, true) => may_miss,
            (false, false) => 0,
        }
    }

    fn has_failed(&self, allocation: &Allocation) -> bool {
        Some(allocation.target) == self.target && allocation.observed.state == State::Failed
    }

    /// What ended is put away; what is drained is stopped.
    fn stop_what_is_done(&mut self) {
        for allocation in std::mem::take(&mut self.ended) {
            // Left as it is while its rollout lasts: what is put away may be forgotten, and then
            // this would look like one that was never tried.
            let is_evidence = self.is_rolling_out()
                && self.wanted > 0
                && allocation.desired == Desired::Run
                && self.has_failed(allocation);
            if is_evidence {
                self.plan.failed_new.push(allocation.id);
                continue;
            }
            let reason = match allocation.observed.state {
                State::Failed => "it failed",
                State::Lost => "its node is gone",
                _ => "it ended",
            };
            self.desire(allocation, Desired::Stop, reason);
        }
        for allocation in std::mem::take(&mut self.draining) {
            if !self.input.drains() {
                self.desire(allocation, Desired::Stop, "it takes no traffic");
            } else if (self.input.drained)(allocation) {
                self.desire(allocation, Desired::Stop, "drained");
            } else {
                self.draining.push(allocation);
            }
        }
    }

    /// What is on a node whose drain has reached its deadline goes at once; what is on a silent
    /// node that stops by itself is told so, should the node be heard of again.
    fn leave_nodes(&mut self) {
        for allocation in std::mem::take(&mut self.away) {
            if self.leaving.stops_alone {
                self.desire(allocation, Desired::Stop, "its node is silent");
            } else {
                self.away.push(allocation);
            }
        }
        let old = std::mem::take(&mut self.old).into_iter();
        let (late, old): (Vec<_>, Vec<_>) = old.partition(|a| self.leaving.is_late(a.node));
        self.old = old;
        for allocation in late {
            self.withdraw(allocation, "its node had to be empty by now");
        }
    }

    /// Starts what is missing, within the surge and not before what failed may be tried again.
    fn start_missing(&mut self, draft: &mut Draft<'_>, ids: &mut dyn FnMut() -> AllocationId) {
        let gap = self.wanted.saturating_sub(self.new.len());
        let missing = gap - self.held_back(gap);
        let surge = self.service().spec.surge() as usize;
        // Whoever stops first has ended, not only been told to.
        let ending = if self.stops_first() { self.ending } else { 0 };
        let in_use = self.new.len() + self.old.len() + ending;
        let due = missing.min((self.wanted + surge).saturating_sub(in_use));
        let room = self.input.limit - self.plan.desires.len();
        self.plan.is_partial = due > room;
        if due == 0 {
            return;
        }
        let (Some(release), Some(mut ask)) = (self.input.release, self.plan.ask.take()) else {
            self.plan.refusal = Some(self.release_is_gone());
            return;
        };
        ask.staying = Some(self.new.iter().map(|allocation| allocation.node).collect());
        if let Some(elsewhere) = self.elsewhere(draft, &ask) {
            ask = elsewhere;
        }
        self.start(draft, (release, &ask, due), ids);
        self.plan.ask = Some(ask);
    }

    fn start(
        &mut self,
        draft: &mut Draft<'_>,
        (release, ask, due): (&Release, &Ask, usize),
        ids: &mut dyn FnMut() -> AllocationId,
    ) {
        let room = self.input.limit - self.plan.desires.len();
        let each = Room::from(ask.resources);
        let quotas = self.input.quotas.iter();
        let tightest = quotas.min_by_key(|allowance| allowance.lets_in(each));
        let let_in = tightest.map_or(u64::MAX, |allowance| allowance.lets_in(each));
        let count = due
            .min(room)
            .min(usize::try_from(let_in).unwrap_or(usize::MAX));
        let mut search = Search::new(draft, ask, count);
        for started in 0..count {
            let Some(choice) = search.take(draft) else {
                self.refuse(draft, ask, due - started);
                // Of those beyond a quota no node takes any.
                let let_in = u32::try_from(count - started).unwrap_or(u32::MAX);
                self.plan.unplaced = self.plan.unplaced.min(let_in);
                return;
            };
            self.plan.nodes.insert(choice.node, choice.generation);
            self.plan.starts.push(Start {
                allocation: ids(),
                node: choice.node,
                reason: format!("release {}: {}", release.number, search.words(&choice)),
                score: choice.score,
            });
        }
        if let Some(allowance) = tightest.filter(|_| count < due.min(room)) {
            let allowance = allowance.after(each, count);
            let problem = allowance.problem(each, due - count, &self.service().name);
            self.plan.refusal = Some(problem);
        }
    }

    /// No node has room for the next one: who is less important may have to go.
    fn refuse(&mut self, draft: &mut Draft<'_>, ask: &Ask, unplaced: usize) {
        // Only for a move, which nobody waits for and nobody makes way for: it is given up in time.
        if !ask.around.moving.is_empty() {
            return;
        }
        // What this plan started is there now, and it stays.
        let mut ask = ask.clone();
        let started = self.plan.starts.iter().map(|start| start.node);
        ask.staying.get_or_insert_default().extend(started);
        let ask = &ask;
        let refusal = Refusal::explain(draft, ask);
        let mut problem = self.unplaceable(unplaced, &refusal);
        let name = &self.service().name;
        let mut is_coming = false;
        let mut without = unplaced;
        for _ in 0..unplaced.min(MAX_WAYS) {
            let Some(way) = preempt::make_way(draft, ask) else {
                break;
            };
            is_coming = true;
            without = without.saturating_sub(1);
            // What leaves anyhow makes room for one.
            if way.victims.is_empty() {
                break;
            }
            for victim in way.victims {
                draft.displace(victim);
                self.plan.displaced.push(Desire {
                    allocation: victim,
                    desired: Desired::Drain,
                    reason: format!("makes way for `{name}`, which has a higher priority"),
                });
            }
            draft.start(way.node, ask);
        }
        if is_coming {
            problem = problem.hint("room is being made: allocations of lower priority have to go");
        }
        self.plan.refusal = Some(problem);
        self.plan.unplaced = u32::try_from(without).unwrap_or(u32::MAX);
    }

    /// Another place for what keeps failing on the same nodes, where there is one: the node may be why.
    fn elsewhere(&self, draft: &Draft<'_>, ask: &Ask) -> Option<Ask> {
        let mut failures: BTreeMap<NodeId, u32> = BTreeMap::new();
        for failed in self.input.allocations.iter().filter(|a| self.has_failed(a)) {
            *failures.entry(failed.node).or_default() += 1;
        }
        failures.retain(|_, count| *count >= FAILURES_BEFORE_MOVING);
        if failures.is_empty() {
            return None;
        }
        let nodes = failures.keys().filter_map(|node| draft.node(*node));
        let elsewhere = ask.elsewhere(nodes);
        place::place(draft, &elsewhere).is_ok().then_some(elsewhere)
    }

    /// How many of the missing ones must wait because others failed; notes until when.
    fn held_back(&mut self, gap: usize) -> usize {
        if self.is_rolling_out() {
            return self.plan.failed_new.len().min(gap);
        }
        let failed = self.input.allocations.iter().filter(|a| self.has_failed(a));
        let mut due_ms = backoff::due_ms(failed.map(|allocation| allocation.observed_ms).collect());
        due_ms.retain(|due| *due > self.input.now_ms);
        let held = due_ms.len().min(gap);
        if held > 0 {
            // The wait whose end lets one more start: as many may be running as are missing.
            let due = due_ms[due_ms.len() - held];
            let sooner = self.plan.wake_at_ms.filter(|at| *at < due);
            self.plan.wake_at_ms = Some(sooner.unwrap_or(due));
        }
        held
    }

    fn desire(&mut self, allocation: &Allocation, desired: Desired, reason: &str) {
        self.plan.desires.push(Desire {
            allocation: allocation.id,
            desired,
            reason: reason.to_owned(),
        });
    }

    fn unplaceable(&self, unplaced: usize, refusal: &Refusal) -> Problem {
        let message = format!(
            "{unplaced} of {} allocations of `{}` cannot be placed: {refusal}",
            self.wanted,
            self.service().name
        );
        Problem::new(Code::Unplaceable, message).hint(&refusal.hint)
    }

    /// Where it waits for a node to be known to be dead, that is why.
    fn say_what_is_unconfirmed(&mut self, cluster: &Cluster) {
        let Some(node) = self.leaving.unconfirmed.filter(|_| self.wanted > 0) else {
            return;
        };
        let name = cluster
            .node(node)
            .map_or_else(|| node.to_string(), |it| it.name.to_owned());
        let why = self.input.around.fencing_waits.as_deref();
        self.plan.refusal = Some(unconfirmed(&self.service().name, &name, why));
    }

    fn release_is_gone(&self) -> Problem {
        let number = self.target.map_or(0, |target| target.release);
        let message = format!(
            "release {number} of `{}` does not exist any more",
            self.service().name
        );
        Problem::new(Code::NotFound, message).hint("deploy again")
    }

    fn judge(&mut self) {
        self.plan.is_healthy = healthy(&self.new) >= self.wanted;
        self.plan.is_converged = self.plan.is_healthy
            && self.plan.is_empty()
            && self.draining.is_empty()
            && self.away.is_empty()
            && self.leaving.next_ms.is_none()
            && self.leaving.unconfirmed.is_none();
    }
}

fn healthy(allocations: &[&Allocation]) -> usize {
    allocations
        .iter()
        .filter(|allocation| allocation.is_routable())
        .count()
}
