//! Which nodes would take one more of a service, whatever is left there of CPU and memory: that is the
//! floor's affair.

use std::collections::BTreeSet;

use skep_model::id::NodeId;

use crate::draft::Draft;
use crate::filter::{Ask, Reason};
use crate::lens::Lens;

/// The nodes against which no rule, limit or other resource speaks, with the service's allocations
/// where they are: the one that moves goes only when the one that replaces it is well.
pub fn allowed(draft: &Draft<'_>, ask: &Ask) -> BTreeSet<NodeId> {
    let lens = Lens::new(draft, ask);
    let (rules, cluster) = (lens.allowed(), draft.cluster());
    let packed = |reason: &Reason| matches!(reason, Reason::Cpu | Reason::Memory);
    cluster
        .nodes()
        .filter_map(|node| cluster.ordinal(node.id))
        .filter(|ordinal| rules[*ordinal as usize] && lens.limits_against(*ordinal).is_empty())
        .filter(|ordinal| lens.room_against(draft, *ordinal).iter().all(packed))
        .map(|ordinal| cluster.id_of(ordinal))
        .collect()
}
