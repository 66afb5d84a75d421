//! Which allocations go, and in what order: more than are wanted, those of other releases, and what silent nodes have.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use skep_model::allocation::{Allocation, Desired};
use skep_model::id::AllocationId;

use super::{Planner, healthy};
use crate::cluster::Cluster;
use crate::lens::APART;
use crate::score::crowded;

impl<'a> Planner<'a, '_> {
    /// More of the target than are wanted: those that are not healthy go first, then what would leave more
    /// than a third on one host, then the newest.
    pub(super) fn withdraw_surplus(&mut self, cluster: &Cluster) {
        let surplus = self.new.len().saturating_sub(self.wanted);
        self.new.sort_by_key(|a| (a.created_ms, a.id));
        let beyond = match surplus {
            0 => BTreeMap::new(),
            _ => self.beyond_a_third(cluster),
        };
        self.new.sort_by_key(|a| {
            let beyond = beyond.get(&a.id).copied().unwrap_or(0);
            (a.is_routable(), Reverse((beyond, a.created_ms, a.id)))
        });
        let reason = if self.service().removing {
            "the service is being removed".to_owned()
        } else if self.service().stopped {
            "the service is stopped".to_owned()
        } else {
            format!("scaled down to {}", self.wanted)
        };
        let staying = self.new.split_off(surplus);
        for allocation in std::mem::replace(&mut self.new, staying) {
            self.withdraw(allocation, &reason);
        }
    }

    /// By allocation: how many there would be on its host beyond a third of those that are wanted, if those
    /// that are well and older stayed.
    fn beyond_a_third(&self, cluster: &Cluster) -> BTreeMap<AllocationId, u32> {
        let share = (self.wanted as u64).div_ceil(APART) as u32;
        let all = self.new.iter().copied();
        let (well, others): (Vec<_>, Vec<_>) = all.partition(|a| a.is_routable());
        let mut there: BTreeMap<u32, u32> = BTreeMap::new();
        let ranked = well.into_iter().chain(others).map(|a: &Allocation| {
            let on_host = there.entry(cluster.host_of(a.node)).or_default();
            let beyond = crowded(*on_host, share);
            *on_host += 1;
            (a.id, beyond)
        });
        ranked.collect()
    }

    /// Others than the target's make up for those of the target that are not healthy yet; the rest
    /// of them goes. Those that are not healthy go first, so that healthy ones stay as long as they
    /// are needed and ones that never get healthy do not hold up their repair; then those that a
    /// superseded rollout left, then the oldest. Where nothing is rolled out they are what a rollout
    /// that failed, or that the target replaced, left behind: of these only healthy ones stay, and
    /// only until the target has recovered.
    pub(super) fn withdraw_old(&mut self) {
        let live = self.service().live;
        self.old
            .sort_by_key(|a| (a.is_routable(), Some(a.target) == live, a.created_ms, a.id));
        let reason = match (self.wanted, self.target) {
            (0, _) if self.service().removing => "the service is being removed".to_owned(),
            (0, _) if self.service().stopped => "the service is stopped".to_owned(),
            (_, Some(target)) if self.is_rolling_out() => {
                format!("release {} takes over", target.release)
            }
            (_, Some(target)) => format!("release {} is live", target.release),
            (_, None) => "its deployment did not become live".to_owned(),
        };
        let at_least = self.wanted.saturating_sub(self.may_miss());
        let missing = at_least.saturating_sub(healthy(&self.new));
        let staying = if self.is_rolling_out() {
            missing
        } else {
            missing.min(healthy(&self.old))
        };
        let going = self.old.len().saturating_sub(staying);
        for allocation in self.old.drain(..going).collect::<Vec<_>>() {
            let is_moved = self.wanted > 0 && Some(allocation.target) == self.target;
            let is_packed = self.input.around.moving.contains_key(&allocation.id);
            let reason = match (is_moved, is_packed) {
                (true, true) => "moved to another node by the rebalancer",
                (true, false) => "its node is being drained",
                (false, _) => &reason,
            };
            self.withdraw(allocation, reason);
        }
    }

    /// What silent nodes have of another release than the target's is not wanted back once the target is
    /// there in full: a node that returns stops it, and no rollout waits for a node that is dead.
    pub(super) fn withdraw_succeeded(&mut self) {
        if healthy(&self.new) < self.wanted {
            return;
        }
        let (succeeded, away) = std::mem::take(&mut self.away)
            .into_iter()
            .partition(|a: &&Allocation| self.target.is_some() && Some(a.target) != self.target);
        self.away = away;
        let reason = self.target.map_or_else(String::new, |target| {
            format!(
                "its node is silent, and release {} is there",
                target.release
            )
        });
        for allocation in succeeded {
            self.withdraw(allocation, &reason);
        }
    }

    pub(super) fn withdraw(&mut self, allocation: &'a Allocation, reason: &str) {
        self.ending += 1;
        if self.input.drains() {
            // Also where it is not seen healthy: it may have become so meanwhile.
            self.desire(allocation, Desired::Drain, reason);
        } else {
            self.desire(allocation, Desired::Stop, reason);
        }
    }
}
