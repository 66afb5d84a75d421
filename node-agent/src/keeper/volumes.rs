//! Whoever writes to a volume does so alone. The cluster starts one allocation of a service after the other; what this node
//! has that the cluster does not know of is held against it here.

use std::collections::BTreeMap;

use skep_model::assignment::Assignment;
use skep_model::id::{AllocationId, ServiceId};
use skep_model::problem::{Code, Problem};
use tokio::time::Instant;

use super::Keeper;
use super::entry::Entry;
use super::quarantine::kept_by;

impl Entry {
    /// The service whose containers run, by what they say of themselves.
    fn runs_for(&self) -> Option<ServiceId> {
        let running = self.containers.iter().filter(|seen| seen.is_running());
        running.filter_map(|seen| seen.service).next()
    }
}

impl Keeper {
    /// Whether somebody who is assigned no more still has the volumes that this one wants: whoever leaves wakes it.
    pub(super) fn is_left_by_others(&self, id: AllocationId, wanted: &Assignment) -> bool {
        let mut others = self.entries.iter().filter(|(other, _)| **other != id);
        !wanted.storage.volumes.is_empty()
            && others.any(|(_, other)| other.leaves == Some(wanted.service))
    }

    /// An allocation is assigned no more: until it is gone it has the volumes that it had.
    pub(super) fn leave(&mut self, id: AllocationId, had: Option<&Assignment>) {
        let had = had.filter(|it| !it.storage.volumes.is_empty());
        let is_kept = self.quarantine.contains_key(&id);
        if let Some(entry) = self.entries.get_mut(&id).filter(|_| !is_kept) {
            entry.leaves = had.map(|it| it.service);
        }
    }

    /// The same of what was found in Docker, as after an agent's own end. A container does not say whether it has volumes:
    /// whoever wants any of its service waits for it.
    pub(super) fn leave_what_is_nobodys(&mut self) {
        for (id, entry) in &mut self.entries {
            if kept_by(&self.assignments, &self.quarantine, *id).is_none() {
                entry.leaves = entry.leaves.or_else(|| entry.runs_for());
            }
        }
    }

    /// Whoever waits for the volumes of `service`, which somebody has left.
    pub(super) fn wake_who_waits(&mut self, service: Option<ServiceId>) {
        let Some(service) = service else { return };
        let waits = |it: &&Assignment| it.service == service && !it.storage.volumes.is_empty();
        let waiting = self.assignments.values().filter(waits);
        let waiting: Vec<AllocationId> = waiting.map(|it| it.allocation).collect();
        for id in waiting {
            self.wake_at(id, Instant::now());
        }
    }

    /// What runs in quarantine with the volumes that `wanted` wants. It is not known to the cluster, which therefore
    /// does not wait for it.
    pub(super) fn keeps_volumes_of(&self, wanted: &Assignment) -> Option<AllocationId> {
        with_volumes_of(&self.quarantine, wanted).find(|id| self.runs(*id))
    }
}

/// What of `quarantine` has volumes that `wanted` wants, which is not in quarantine itself.
fn with_volumes_of<'a>(
    quarantine: &'a BTreeMap<AllocationId, Assignment>,
    wanted: &'a Assignment,
) -> impl Iterator<Item = AllocationId> + 'a {
    let is_asked =
        !wanted.storage.volumes.is_empty() && !quarantine.contains_key(&wanted.allocation);
    let all = quarantine.values().filter(move |_| is_asked);
    let with = all.filter(|it| it.service == wanted.service && !it.storage.volumes.is_empty());
    with.map(|it| it.allocation)
}

/// Why nothing is begun on volumes that `kept` writes to.
pub(super) fn kept(kept: AllocationId) -> Problem {
    let text =
        format!("its volumes are in use by allocation {kept}, which runs here in quarantine");
    Problem::new(Code::Conflict, text).hint(format!(
        "decide which of the two goes on: `skep alloc adopt {kept}` or `skep alloc dismiss {kept}`"
    ))
}

#[cfg(test)]
mod tests {
    use skep_model::storage::Volume;

    use super::*;
    use crate::testing::assignment;

    fn with_volume(id: u128) -> Assignment {
        let mut one = assignment(id);
        one.storage.volumes = vec![Volume {
            name: "data".to_owned(),
            path: "/data".to_owned(),
            owner: None,
            size_bytes: 0,
            read_only: false,
            storage: None,
        }];
        one
    }

    /// Who is in the way of `wanted`, where `kept` is in quarantine.
    fn in_the_way(kept: &Assignment, wanted: &Assignment) -> Option<u128> {
        let quarantine = [(kept.allocation, kept.clone())].into();
        let mut found = with_volumes_of(&quarantine, wanted);
        found.next().map(|id| id.as_u128())
    }

    #[test]
    fn what_is_in_quarantine_is_in_the_way_of_who_wants_its_volumes() {
        assert_eq!(in_the_way(&with_volume(4), &with_volume(1)), Some(4));
        let mut other = with_volume(4);
        other.service = ServiceId::from_u128(9);
        assert_eq!(
            in_the_way(&other, &with_volume(1)),
            None,
            "of another service"
        );
        assert_eq!(
            in_the_way(&assignment(4), &with_volume(1)),
            None,
            "has none"
        );
        assert_eq!(
            in_the_way(&with_volume(4), &assignment(1)),
            None,
            "wants none"
        );
        assert_eq!(in_the_way(&with_volume(4), &with_volume(4)), None, "itself");
    }

    #[test]
    fn it_says_how_to_decide() {
        let told = kept(AllocationId::from_u128(4));
        let id = AllocationId::from_u128(4).to_string();
        assert!(told.message.contains(&id) && told.message.contains("quarantine"));
        let hint = told.hint.expect("advice");
        for verb in ["adopt", "dismiss"] {
            assert!(hint.contains(&format!("skep alloc {verb} {id}")), "{hint}");
        }
    }
}
