//! Which nodes a service's allocations have to leave, and which are given up: drained by an
//! operator, or silent or with a Docker that hangs for too long. Reads nodes and the time; decides nothing of allocations.
//!
//! A silent node's allocations run on (an app outlives the control plane), so they count for a
//! while; then others are started in their place. Should the node come back, there are more than
//! are wanted, and one rule resolves it, the same as for scaling down: those that are not healthy
//! go first, then the newest. So the ones that were there before stay, if they are still well.

use std::collections::BTreeMap;

use skep_model::id::NodeId;
use skep_model::node::Admin;
use skep_model::placement::CutOff;

use super::Input;
use crate::cluster::{Cluster, Standing};

/// How long a node may be silent before what runs on is replaced: a reboot takes less.
const GIVE_UP_MS: u64 = 60_000;
/// Beyond the time after which an agent stops what it may not keep: clocks differ, and stopping
/// takes a while.
const MARGIN_MS: u64 = 30_000;

/// What becomes of a node's allocations.
enum Fate {
    /// They move when others are healthy, or at this time.
    Drained { deadline_ms: u64 },
    /// They are replaced at this time.
    Silent { until_ms: u64 },
}

pub(super) struct Leaving {
    fates: BTreeMap<NodeId, Fate>,
    now_ms: u64,
    /// Agents that are cut off stop the service's allocations by themselves.
    pub(super) stops_alone: bool,
    /// When time alone changes one of the answers.
    pub(super) next_ms: Option<u64>,
}

impl Leaving {
    pub(super) fn of(cluster: &Cluster, input: &Input<'_>, cut_off: CutOff) -> Self {
        let patience_ms = match cut_off {
            CutOff::Keep => GIVE_UP_MS,
            CutOff::Stop { after_ms } => {
                let grace_ms = input.release.map_or(0, |release| release.stop_grace_ms);
                after_ms.saturating_add(grace_ms).saturating_add(MARGIN_MS)
            }
        };
        let mut fates = BTreeMap::new();
        for allocation in input.allocations.iter().filter(|a| a.is_live()) {
            let Some(node) = cluster.node(allocation.node) else {
                continue;
            };
            let slot = cluster
                .ordinal(node.id)
                .map(|ordinal| cluster.slot(ordinal));
            let fate = match (node.standing, slot.map(|slot| (slot.admin, slot.status_ms))) {
                (Standing::Draining, Some((Admin::Draining { deadline_ms }, _))) => {
                    Fate::Drained { deadline_ms }
                }
                (Standing::Lost, Some((_, status_ms))) => Fate::Silent {
                    until_ms: status_ms.saturating_add(patience_ms),
                },
                // What runs there runs on and cannot be stopped, so what may not run twice stays.
                (Standing::RuntimeWedged, Some((_, status_ms))) if cut_off == CutOff::Keep => {
                    Fate::Silent {
                        until_ms: status_ms.saturating_add(GIVE_UP_MS),
                    }
                }
                _ => continue,
            };
            fates.insert(node.id, fate);
        }
        let times = fates.values().map(|fate| match fate {
            Fate::Drained { deadline_ms } => *deadline_ms,
            Fate::Silent { until_ms } => *until_ms,
        });
        let next_ms = times.filter(|at| *at > input.now_ms).min();
        Self {
            fates,
            now_ms: input.now_ms,
            stops_alone: matches!(cut_off, CutOff::Stop { .. }),
            next_ms,
        }
    }

    /// Whether others take the place of what is on this node.
    pub(super) fn is_given_up(&self, node: NodeId) -> bool {
        let fate = self.fates.get(&node);
        matches!(fate, Some(Fate::Silent { until_ms }) if self.now_ms >= *until_ms)
    }

    /// Whether an operator wants this node empty.
    pub(super) fn is_drained(&self, node: NodeId) -> bool {
        matches!(self.fates.get(&node), Some(Fate::Drained { .. }))
    }

    /// Whether it should be empty already.
    pub(super) fn is_late(&self, node: NodeId) -> bool {
        let fate = self.fates.get(&node);
        matches!(fate, Some(Fate::Drained { deadline_ms }) if self.now_ms >= *deadline_ms)
    }
}
