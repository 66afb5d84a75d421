//! Plans of the scheduler, accepted by compare-and-set, and what agents observe.

use skep_model::allocation::{Allocation, Desired, Observed, State as AllocationState};
use skep_model::deployment::{BuildOutcome, Status};
use skep_model::id::{AllocationId, DeploymentId, NodeId, ServiceId};
use skep_model::node::Node;
use skep_model::problem::{Code, Problem};
use skep_proto::convert::enum_value;
use skep_proto::v1;

use super::quarantine::quarantine_list;
use super::{Context, Outcome, Reply, bits, changed_meanwhile, missing, not_found, understood};
use crate::change::Change;

/// Ended allocations kept per service: `ps` says how they ended, and the scheduler counts failures
/// among them for its back-off, which needs seven to reach its longest wait.
const KEEP_ENDED: usize = 8;

impl Context<'_> {
    pub(super) fn apply_plan(&mut self, message: v1::ApplyPlan) -> Outcome {
        self.check_bases(&message)?;
        for start in message.starts {
            self.start(understood(start)?)?;
        }
        for desire in message.desires {
            let id = AllocationId::from_u128(bits("allocation", &desire.allocation)?);
            let desired = enum_value("desired", &Desired::ALL, desire.desired)
                .map_err(|_| missing("desired"))?;
            self.desire(id, desired, desire.reason);
        }
        Ok(Reply::Done)
    }

    fn check_bases(&self, message: &v1::ApplyPlan) -> Result<(), Problem> {
        for base in &message.nodes {
            let id = NodeId::from_u128(bits("node", &base.id)?);
            let node = self.state.node(id).ok_or_else(|| not_found("node", id))?;
            if node.generation != base.generation {
                return Err(changed_meanwhile("node"));
            }
        }
        for base in &message.services {
            let id = ServiceId::from_u128(bits("service", &base.id)?);
            let service = self
                .state
                .service(id)
                .ok_or_else(|| not_found("service", id))?;
            if service.generation != base.generation {
                return Err(changed_meanwhile("service"));
            }
        }
        Ok(())
    }

    fn start(&mut self, allocation: Allocation) -> Result<(), Problem> {
        if self.state.allocation(allocation.id).is_some() {
            return Err(Problem::new(
                Code::Conflict,
                "there is an allocation with this id already",
            ));
        }
        if self
            .state
            .release(allocation.service, allocation.target.release)
            .is_none()
        {
            return Err(not_found("release", allocation.target.release));
        }
        let node = self
            .state
            .node(allocation.node)
            .cloned()
            .ok_or_else(|| not_found("node", allocation.node))?;
        self.raise_node(&node);
        let (now, index) = (self.state.time_ms, self.state.index);
        self.put_allocation(Allocation {
            desired: Desired::Run,
            desired_ms: now,
            desired_index: index,
            observed: Observed::pending(),
            observed_ms: now,
            created_ms: now,
            ..allocation
        });
        Ok(())
    }

    /// Desired only ever goes forward: a stopped allocation is never revived.
    fn desire(&mut self, id: AllocationId, desired: Desired, reason: String) {
        let Some(old) = self.state.allocation(id).cloned() else {
            return;
        };
        if old.desired >= desired {
            return;
        }
        let (service, is_live, of_jobs) = (old.service, old.is_live(), old.job.is_some());
        self.put_allocation(Allocation {
            desired,
            reason,
            desired_ms: self.state.time_ms,
            desired_index: self.state.index,
            ..(*old).clone()
        });
        self.touch_routes_of(service);
        if !is_live {
            self.prune_ended(service, of_jobs);
        }
    }

    pub(super) fn observe(&mut self, message: v1::Observe) -> Outcome {
        let node = NodeId::from_u128(bits("node", &message.node)?);
        // All is read before the first of it is written: see `checks_first`.
        let mut allocations = Vec::with_capacity(message.allocations.len());
        for observation in message.allocations {
            let id = AllocationId::from_u128(bits("allocation", &observation.allocation)?);
            let observed = observation.observed.ok_or_else(|| missing("observed"))?;
            allocations.push((id, understood(observed)?));
        }
        let mut builds = Vec::with_capacity(message.builds.len());
        for observation in message.builds {
            let id = DeploymentId::from_u128(bits("deployment", &observation.deployment)?);
            let outcome = observation.outcome.ok_or_else(|| missing("outcome"))?;
            builds.push((id, understood(outcome)?));
        }
        let quarantine = message.quarantine.map(quarantine_list).transpose()?;
        for (id, observed) in allocations {
            self.observe_allocation(node, id, observed);
        }
        for (id, outcome) in builds {
            self.observe_build(node, id, outcome);
        }
        if let Some(entries) = quarantine {
            self.observe_quarantine(node, entries);
        }
        Ok(Reply::Done)
    }

    /// A node speaks of its own allocations only; a terminal state stays.
    fn observe_allocation(&mut self, node: NodeId, id: AllocationId, observed: Observed) {
        let Some(old) = self.state.allocation(id).cloned() else {
            return;
        };
        if old.node != node || !old.is_live() || old.observed == observed {
            return;
        }
        let next = Allocation {
            observed_ms: self.state.time_ms,
            observed,
            ..(*old).clone()
        };
        let (was_routable, is_routable) = (old.is_routable(), next.is_routable());
        let (ended, service, of_jobs) = (!next.is_live(), next.service, next.job.is_some());
        self.put_allocation(next);
        if was_routable != is_routable {
            self.touch_routes_of(service);
        }
        if ended {
            if let Some(node) = self.state.node(node).cloned() {
                self.raise_node(&node);
            }
            self.prune_ended(service, of_jobs);
        }
    }

    fn observe_build(&mut self, node: NodeId, id: DeploymentId, outcome: BuildOutcome) {
        let Some(deployment) = self.state.deployment(id).cloned() else {
            return;
        };
        let is_awaited = deployment.status == Status::Building
            && deployment
                .build
                .as_ref()
                .is_some_and(|build| build.node == node && build.outcome.is_none());
        if !is_awaited {
            return;
        }
        let mut next = (*deployment).clone();
        if let Some(build) = &mut next.build {
            build.outcome = Some(outcome);
        }
        next.generation += 1;
        self.put_deployment(next);
    }

    pub(super) fn put_allocation(&mut self, allocation: Allocation) {
        let (id, node, service) = (allocation.id, allocation.node, allocation.service);
        self.state.put_allocation(allocation);
        self.changes.push(Change::Allocation {
            allocation: id,
            node,
            service,
        });
    }

    /// Room on the node changed: a plan made before must not be accepted any more.
    pub(super) fn raise_node(&mut self, node: &Node) {
        self.state.put_node(Node {
            generation: node.generation + 1,
            ..node.clone()
        });
        self.changes.push(Change::Node(node.id));
    }

    fn prune_ended(&mut self, service: ServiceId, of_jobs: bool) {
        let ended: Vec<(AllocationId, NodeId)> = self
            .state
            .allocations_of(service)
            .filter(|allocation| !allocation.is_live() && allocation.desired == Desired::Stop)
            // Attempts of jobs do not push out the failures that the back-off counts, nor the other
            // way round.
            .filter(|allocation| allocation.job.is_some() == of_jobs)
            .map(|allocation| (allocation.id, allocation.node))
            .collect();
        let surplus = ended.len().saturating_sub(KEEP_ENDED);
        for (allocation, node) in ended.into_iter().take(surplus) {
            self.state.remove_allocation(allocation);
            self.changes.push(Change::Allocation {
                allocation,
                node,
                service,
            });
        }
    }

    /// The allocations of a node that was removed or fenced are lost.
    pub(super) fn lose_allocations(&mut self, node: NodeId, why: &str) {
        let lost: Vec<_> = self
            .state
            .allocations_on(node)
            .filter(|a| a.is_live())
            .cloned()
            .collect();
        for allocation in lost {
            let problem = Problem::new(Code::Runtime, why);
            let observed = Observed {
                state: AllocationState::Lost,
                problem: Some(problem),
                ..allocation.observed.clone()
            };
            self.put_allocation(Allocation {
                observed,
                observed_ms: self.state.time_ms,
                ..(*allocation).clone()
            });
        }
        self.touch_routes();
    }
}
