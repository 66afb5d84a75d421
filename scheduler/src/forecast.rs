//! What a change would do: the plans that would follow each other if everything went well, made by
//! the very planner. Each start becomes healthy, each withdrawn one drains, each stopped one ends; what a
//! rollout waits for comes at once.
//! Proposes nothing; the cluster that it is given is left as it is.

use skep_model::allocation::{Allocation, Desired, State};
use skep_model::id::AllocationId;
use skep_model::problem::Problem;

use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::plan::{Desire, Plan, Start};
use crate::rollout::{self, Input, phase};

/// Most steps that are told: a rolling update of 100 takes about three each.
pub const MAX_STEPS: usize = 300;

/// One plan of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Allocations that are made.
    pub starts: Vec<Start>,
    /// Allocations of the service that are withdrawn or stopped.
    pub desires: Vec<Desire>,
    /// Allocations of other services that make way.
    pub displaced: Vec<Desire>,
}

/// All that would happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// In order; empty: nothing changes.
    pub steps: Vec<Step>,
    /// Why in the end not all that is wanted runs; none: it does.
    pub refusal: Option<Problem>,
    /// There are more than [`MAX_STEPS`] steps: the rest is left out.
    pub is_cut: bool,
}

/// Plans, pretends that it was carried out, and plans again, until nothing changes any more.
pub fn forecast(
    cluster: &Cluster,
    input: &Input<'_>,
    ids: &mut dyn FnMut() -> AllocationId,
) -> Forecast {
    let mut cluster = cluster.clone();
    let mut allocations: Vec<Allocation> = input.allocations.iter().map(|&a| a.clone()).collect();
    let mut service = input.service.clone();
    let mut steps = Vec::new();
    loop {
        let input = Input {
            service: &service,
            allocations: allocations.iter().collect(),
            drained: &|_| true,
            ..input.clone()
        };
        let plan = rollout::plan(&mut Draft::new(&cluster), &input, ids);
        let is_cut = steps.len() >= MAX_STEPS;
        let is_done = plan.is_empty();
        let next = phase::next_without_waiting(&service, input.now_ms);
        if let Some(next) = next.filter(|_| is_done && plan.refusal.is_none()) {
            service.progress.phase = next;
            continue;
        }
        if is_done || is_cut {
            return Forecast {
                steps,
                refusal: plan.refusal,
                is_cut: !is_done,
            };
        }
        pretend(&mut cluster, &mut allocations, &plan);
        steps.push(Step {
            starts: plan.starts,
            desires: plan.desires,
            displaced: plan.displaced,
        });
    }
}

fn pretend(cluster: &mut Cluster, allocations: &mut Vec<Allocation>, plan: &Plan) {
    for desire in &plan.displaced {
        cluster.remove_allocation(desire.allocation);
    }
    for desire in &plan.desires {
        let found = allocations.iter_mut().find(|a| a.id == desire.allocation);
        let Some(allocation) = found else { continue };
        allocation.desired = desire.desired;
        cluster.set_leaving(allocation.id, true);
        if desire.desired == Desired::Stop {
            // What has ended by itself stays what it is.
            if allocation.is_live() {
                allocation.observed.state = State::Stopped;
            }
            cluster.remove_allocation(allocation.id);
        }
    }
    for mut allocation in plan.allocations() {
        allocation.observed.state = State::Healthy;
        if let Some(ask) = &plan.ask {
            let (id, node) = (allocation.id, allocation.node);
            cluster.put_allocation(id, node, allocation.service, &ask.needs());
        }
        allocations.push(allocation);
    }
}
