//! Where a service could run and why not, and what a change would do.

use serde::{Deserialize, Serialize};
use skep_model::allocation::Desired;
use skep_model::id::{AllocationId, NodeId};
use skep_model::spec::ServiceSpec;
use utoipa::ToSchema;

use super::ErrorBody;

/// One node's answer to one more allocation of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeAnswer {
    /// Which.
    pub id: NodeId,
    /// Its name.
    pub node: String,
    /// Allocations of the service that are there.
    pub allocations: u32,
    /// Place among those that could take one more, from 1; none: it could not.
    pub rank: Option<u32>,
    /// Why it could not: all of it.
    pub reasons: Vec<String>,
}

/// Why an allocation is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AllocationReason {
    /// Which.
    pub id: AllocationId,
    /// The name of its node.
    pub node: String,
    /// What is wanted of it.
    pub desired: Desired,
    /// Why it was put there, or is taken away.
    pub reason: String,
}

/// Where a service runs and could run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhyView {
    /// Whose setting makes constraints preferences, for a person; none: nobody's.
    pub relaxed_by: Option<String>,
    /// Those that have not ended.
    pub allocations: Vec<AllocationReason>,
    /// Those that could take one more first, the best first.
    pub nodes: Vec<NodeAnswer>,
    /// Why not all that is wanted runs; none: nothing is missing, or it is on its way.
    pub refusal: Option<ErrorBody>,
}

/// A change to be thought through.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PlanRequest {
    /// The whole specification instead of the present one.
    pub spec: Option<ServiceSpec>,
    /// How many allocations, instead of what the specification says.
    pub replicas: Option<u32>,
}

/// An allocation that would be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedStart {
    /// The name of the node.
    pub node: String,
    /// Why there.
    pub reason: String,
}

/// An allocation that would be withdrawn, stopped or displaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedEnd {
    /// Which; one that this plan starts itself has no identity yet.
    pub allocation: Option<AllocationId>,
    /// The name of its node.
    pub node: String,
    /// What would be wanted of it.
    pub desired: Desired,
    /// Why.
    pub reason: String,
}

/// What would be done together, once all before it has come to pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedStep {
    /// Made.
    pub starts: Vec<PlannedStart>,
    /// Withdrawn or stopped.
    pub ends: Vec<PlannedEnd>,
    /// Of other services, to make way.
    pub displaced: Vec<PlannedEnd>,
}

/// What a change would do, if everything that is started becomes healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// A new release would be needed: what runs was made with another configuration.
    pub new_release: bool,
    /// In order; empty: nothing changes.
    pub steps: Vec<PlannedStep>,
    /// Why in the end not all that is wanted would run.
    pub refusal: Option<ErrorBody>,
    /// There are more steps than are told.
    pub is_cut: bool,
}
