//! What a decision is: an immutable value with everything it was based on, and the check that it
//! still holds. Somebody else proposes it; nothing here is carried out.

use std::collections::BTreeMap;

use skep_model::allocation::{Allocation, Desired, Observed};
use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::problem::Problem;
use skep_model::rollout::Phase;
use skep_model::service::Target;

use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::filter::{Ask, Reason};
use crate::lens::Lens;
use crate::score::Score;

/// Most starts and desires of one plan together, so that the command that carries it (about 150
/// bytes each) stays below the limit of 256 KiB. What is beyond comes with the next plan.
pub const MAX_CHANGES: usize = 1_000;

/// An allocation to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Its id.
    pub allocation: AllocationId,
    /// Where.
    pub node: NodeId,
    /// Why there, for a person.
    pub reason: String,
    /// Why there, in numbers.
    pub score: Score,
}

/// A new wish for an allocation that exists: always further on than the old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desire {
    /// Which.
    pub allocation: AllocationId,
    /// What is wanted of it now.
    pub desired: Desired,
    /// Why, for a person.
    pub reason: String,
}

/// What a rollout goes on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// The phase that begins.
    pub phase: Phase,
    /// Why now, for a person.
    pub reason: String,
}

/// The next step of one service towards its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Whose.
    pub service: ServiceId,
    /// Generation of the service that this was based on.
    pub service_generation: u64,
    /// Generations of the nodes that the starts were based on: those that get one.
    pub nodes: BTreeMap<NodeId, u64>,
    /// What the starts run; none: there is nothing to run.
    pub target: Option<Target>,
    /// What each start needs of its node; none: nothing can be started.
    pub ask: Option<Ask>,
    /// Allocations to make.
    pub starts: Vec<Start>,
    /// Allocations to withdraw, and to stop.
    pub desires: Vec<Desire>,
    /// More was due than [`MAX_CHANGES`], or than one release's starts: plan again once this one is
    /// applied.
    pub is_partial: bool,
    /// Allocations of other services, of lower priority, that have to go before the rest can start.
    pub displaced: Vec<Desire>,
    /// Why not all that is wanted could be started.
    pub refusal: Option<Problem>,
    /// Of what is due, how many no node can take and nobody makes way for: those that one more node may help.
    pub unplaced: u32,
    /// Allocations of the running rollout that failed. They are not replaced while it lasts: it is
    /// for the deployment to judge them.
    pub failed_new: Vec<AllocationId>,
    /// When time alone changes the answer, in cluster time.
    pub wake_at_ms: Option<u64>,
    /// The rollout's next phase, which is due before anything else of this plan.
    pub advance: Option<Advance>,
    /// As many allocations of the target are healthy as are wanted (so it is with none wanted): a
    /// rollout in this state may go live.
    pub is_healthy: bool,
    /// Healthy, nothing to do, no other allocation is in use or draining, and none on a node that is
    /// silent or being drained. Some may still be on their way out.
    pub is_converged: bool,
}

impl Plan {
    /// Changes nothing.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty() && self.desires.is_empty() && self.displaced.is_empty()
    }

    /// The allocations to make, as they enter the state; times and indexes are for apply to set.
    pub fn allocations(&self) -> impl Iterator<Item = Allocation> {
        self.starts.iter().filter_map(|start| {
            Some(Allocation {
                id: start.allocation,
                service: self.service,
                target: self.target?,
                node: start.node,
                desired: Desired::Run,
                reason: start.reason.clone(),
                desired_ms: 0,
                desired_index: 0,
                observed: Observed::pending(),
                observed_ms: 0,
                created_ms: 0,
                job: None,
            })
        })
    }
}

/// Why a plan no longer holds: plan again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It starts something and does not say what that needs.
    #[error("the plan starts allocations of no release")]
    NoAsk,
    /// It starts something on a node without naming the generation that it saw.
    #[error("the plan names no generation of node {0}")]
    NoBase(NodeId),
    /// The node was removed.
    #[error("node {0} is not in the cluster any more")]
    NodeGone(NodeId),
    /// The node is not as the plan saw it.
    #[error("node {node} is at generation {is}, the plan is based on {was}")]
    NodeChanged {
        /// Which.
        node: NodeId,
        /// What the plan saw.
        was: u64,
        /// What it is.
        is: u64,
    },
    /// The filters that the planner asked now say no.
    #[error("node {node} cannot take allocation {allocation}: {reason:?}")]
    Refused {
        /// Which.
        node: NodeId,
        /// The first start that does not fit.
        allocation: AllocationId,
        /// The filter's word.
        reason: Reason,
    },
}

/// Whether a plan holds on this cluster: the leader's last check before it proposes, by the very
/// filters that the planner asked. What happens between this and apply is caught there by the
/// generations.
///
/// # Errors
/// The first thing that is not as the plan needs it.
pub fn fits(cluster: &Cluster, plan: &Plan) -> Result<(), Misfit> {
    for (id, was) in &plan.nodes {
        let node = cluster.node(*id).ok_or(Misfit::NodeGone(*id))?;
        if node.generation != *was {
            return Err(Misfit::NodeChanged {
                node: *id,
                was: *was,
                is: node.generation,
            });
        }
    }
    let draft = Draft::new(cluster);
    let Some(ask) = &plan.ask else {
        return match plan.starts.is_empty() {
            true => Ok(()),
            false => Err(Misfit::NoAsk),
        };
    };
    if plan.starts.is_empty() {
        return Ok(());
    }
    fit_starts(draft, plan, ask)
}

fn fit_starts(mut draft: Draft<'_>, plan: &Plan, ask: &Ask) -> Result<(), Misfit> {
    let cluster = draft.cluster();
    let mut lens = Lens::new(&draft, ask);
    for start in &plan.starts {
        let known = cluster.node(start.node);
        let ordinal = known.and_then(|node| cluster.ordinal(node.id));
        let ordinal = ordinal.ok_or(Misfit::NodeGone(start.node))?;
        if !plan.nodes.contains_key(&start.node) {
            return Err(Misfit::NoBase(start.node));
        }
        if let Some(reason) = lens.refuses(&draft, ordinal) {
            return Err(Misfit::Refused {
                node: start.node,
                allocation: start.allocation,
                reason,
            });
        }
        draft.start_at(ordinal, ask.service, &lens.needs);
        lens.count(ordinal);
    }
    Ok(())
}
