//! What a desired set that came down changes. Pure.
//!
//! A full set of a newer incarnation comes from a cluster that was restored: what it does not name it
//! may not know. What ran goes on as it was, in quarantine; what had been on its way out goes.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::allocation::Desired;
use skep_model::assignment::{Assignment, BuildOrder, Generation};
use skep_model::id::{AllocationId, DeploymentId};

use crate::ledger::Change;
use crate::session::DesiredChange;

/// What is held before the change.
pub(super) struct Held<'a> {
    /// Of the desired set on disk.
    pub(super) generation: Option<Generation>,
    /// What is assigned.
    pub(super) assignments: &'a BTreeMap<AllocationId, Assignment>,
    /// What is in quarantine.
    pub(super) quarantine: &'a BTreeMap<AllocationId, Assignment>,
    /// What is to be built.
    pub(super) orders: &'a BTreeMap<DeploymentId, BuildOrder>,
    /// Whether an allocation was begun and has not ended for good.
    pub(super) runs: &'a dyn Fn(AllocationId) -> bool,
}

/// The changes for the ledger, in an order that a crash may cut short anywhere; and the allocations
/// that they concern.
pub(super) fn diff(held: &Held<'_>, change: &DesiredChange) -> (Vec<Change>, Vec<AllocationId>) {
    let set = &change.set;
    let mut changes = Vec::new();
    let mut touched = Vec::new();
    let mut gone = change.removed_allocations.clone();
    if change.full {
        let named: BTreeSet<AllocationId> = set.assignments.iter().map(|a| a.allocation).collect();
        gone.extend(held.assignments.keys().filter(|id| !named.contains(id)));
    }
    for id in gone {
        changes.extend(kept(held, change, id).map(|kept| Change::Quarantine(Box::new(kept))));
        changes.push(Change::Unassign(id));
        touched.push(id);
    }
    for assignment in &set.assignments {
        let id = assignment.allocation;
        if held.assignments.get(&id) != Some(assignment) {
            changes.push(Change::Assign(Box::new(assignment.clone())));
            touched.push(id);
        }
        if held.quarantine.contains_key(&id) {
            changes.push(Change::Unquarantine(id));
            touched.push(id);
        }
    }
    for id in &change.dismissed {
        let kept = held.quarantine.get(id);
        if let Some(kept) = kept.filter(|kept| kept.desired != Desired::Stop) {
            let mut ended = kept.clone();
            ended.desired = Desired::Stop;
            changes.push(Change::Quarantine(Box::new(ended)));
            touched.push(*id);
        }
    }
    changes.extend(diff_builds(held, change));
    // Last: a crash in the middle of a large set leaves the older generation in force.
    changes.push(Change::Generation(set.generation));
    (changes, touched)
}

/// The assignment as it is kept in quarantine; none: it is not.
fn kept(held: &Held<'_>, change: &DesiredChange, id: AllocationId) -> Option<Assignment> {
    let before = held.generation.map(|generation| generation.incarnation);
    let is_restored = before.is_some_and(|before| before < change.set.generation.incarnation);
    let assignment = held.assignments.get(&id)?;
    let is_kept =
        is_restored && change.full && assignment.desired != Desired::Stop && (held.runs)(id);
    is_kept.then(|| assignment.clone())
}

fn diff_builds(held: &Held<'_>, change: &DesiredChange) -> Vec<Change> {
    let set = &change.set;
    let mut ended = change.removed_builds.clone();
    if change.full {
        let ordered: BTreeSet<DeploymentId> = set.builds.iter().map(|b| b.deployment).collect();
        ended.extend(held.orders.keys().filter(|id| !ordered.contains(id)));
    }
    let mut changes: Vec<Change> = ended.into_iter().map(Change::Unorder).collect();
    for order in &set.builds {
        if held.orders.get(&order.deployment) != Some(order) {
            changes.push(Change::Order(Box::new(order.clone())));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use skep_model::assignment::DesiredSet;
    use skep_model::id::ClusterId;

    use super::*;
    use crate::testing::assignment;

    fn id(bits: u128) -> AllocationId {
        AllocationId::from_u128(bits)
    }

    fn full(incarnation: u64, named: &[u128]) -> DesiredChange {
        DesiredChange {
            full: true,
            set: DesiredSet {
                cluster: ClusterId::from_u128(1),
                generation: Generation {
                    incarnation,
                    number: 5,
                },
                assignments: named.iter().map(|bits| assignment(*bits)).collect(),
                builds: Vec::new(),
            },
            removed_allocations: Vec::new(),
            removed_builds: Vec::new(),
            dismissed: Vec::new(),
        }
    }

    /// What of assignments 1 to 4, held in incarnation 2, the change keeps in quarantine and what it
    /// lets go: 2 is to stop, 3 never ran, 9 is in quarantine.
    fn tell(change: &DesiredChange) -> String {
        let all = (1..=4).map(|bits| (id(bits), assignment(bits)));
        let mut assignments: BTreeMap<_, _> = all.collect();
        assignments.get_mut(&id(2)).expect("held").desired = Desired::Stop;
        let quarantine = [(id(9), assignment(9))].into();
        let held = Held {
            generation: Some(Generation {
                incarnation: 2,
                number: 90,
            }),
            assignments: &assignments,
            quarantine: &quarantine,
            orders: &BTreeMap::new(),
            runs: &|of| of != id(3),
        };
        let (changes, touched) = diff(&held, change);
        let words = changes.iter().filter_map(|change| match change {
            Change::Quarantine(kept) if kept.desired == Desired::Stop => {
                Some(format!("end {}", kept.allocation.as_u128()))
            }
            Change::Quarantine(kept) => Some(format!("keep {}", kept.allocation.as_u128())),
            Change::Unquarantine(id) => Some(format!("adopt {}", id.as_u128())),
            Change::Unassign(id) => Some(format!("drop {}", id.as_u128())),
            _ => None,
        });
        for change in &changes {
            if let Change::Quarantine(kept) = change {
                assert!(touched.contains(&kept.allocation));
            }
        }
        words.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_ran_and_a_restored_cluster_does_not_know_is_kept() {
        assert_eq!(tell(&full(3, &[1])), "drop 2, drop 3, keep 4, drop 4");
        assert_eq!(tell(&full(3, &[1, 2, 3, 4])), "");
    }

    #[test]
    fn within_an_incarnation_what_is_not_named_goes() {
        assert_eq!(tell(&full(2, &[1])), "drop 2, drop 3, drop 4");
        let mut delta = full(3, &[]);
        delta.full = false;
        delta.removed_allocations = vec![id(4)];
        assert_eq!(tell(&delta), "drop 4");
    }

    #[test]
    fn what_was_adopted_or_dismissed_leaves_quarantine() {
        assert_eq!(tell(&full(2, &[1, 2, 3, 4, 9])), "adopt 9");
        let mut change = full(2, &[1, 2, 3, 4]);
        change.dismissed = vec![id(9), id(77), id(1)];
        assert_eq!(tell(&change), "end 9");
    }
}
