//! What a node may speak of: its own allocations, and services that exist, as its own ingress counts
//! them. Pure.

use skep_model::id::NodeId;
use skep_model::sample::Samples;
use skep_state::State;

/// Allocations of one node of which samples are kept: beyond what Docker bears on one machine.
const ALLOCATIONS_MAX: usize = 4_096;
/// Services counted by one ingress: as many as routes in a table that Traefik can bear.
const SERVICES_MAX: usize = 10_000;

/// What may be kept, and how much was left out.
pub(super) fn admit(view: &State, node: NodeId, mut said: Samples) -> (Samples, u64) {
    let count = |said: &Samples| {
        let services = said.ingress.as_ref().map_or(0, |it| it.services.len());
        said.allocations.len() + services
    };
    let before = count(&said);
    said.allocations.retain(|reading| {
        let allocation = view.allocation(reading.allocation);
        allocation.is_some_and(|of| of.node == node && of.is_live())
    });
    said.allocations.truncate(ALLOCATIONS_MAX);
    if let Some(ingress) = &mut said.ingress {
        let services = &mut ingress.services;
        services.retain(|(service, _)| view.service(*service).is_some());
        services.truncate(SERVICES_MAX);
    }
    let refused = before - count(&said);
    (said, refused as u64)
}
