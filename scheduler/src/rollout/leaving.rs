//! Which nodes a service's allocations have to leave, and which are given up: drained by an operator, or
//! silent, or with a Docker that hangs for too long. Reads nodes and the time; decides nothing of
//! allocations.
//!
//! What runs on a silent node runs on (an app outlives the control plane), and nobody can know; so others
//! are started in its place, at once: silence was waited for already when the node was judged lost. Where
//! most of the nodes fall silent together it is rather the way to them that is broken, and what is left
//! would only be filled up: then it is given a while. Should a node come back, there are more than
//! are wanted, and one rule resolves it, the same as for scaling down: those that are not healthy
//! go first, then the newest. So the ones that were there before stay, if they are still well.

use std::collections::BTreeMap;

use skep_model::id::NodeId;
use skep_model::node::Admin;
use skep_model::placement::CutOff;

use super::Input;
use crate::cluster::{Cluster, Standing};

/// How long what runs on lost nodes is left alone where most nodes were lost together.
const OUTAGE_MS: u64 = 60_000;
/// How long a Docker that hangs may come back before others take the place of what it ran.
const WEDGED_MS: u64 = 60_000;
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
    /// A lost node with data that others reach as well: no time is enough, it has to be known to be dead.
    pub(super) unconfirmed: Option<NodeId>,
}

impl Leaving {
    pub(super) fn of(cluster: &Cluster, input: &Input<'_>, cut_off: CutOff) -> Self {
        // All nodes are looked at for this, so once, and only where one of them is lost.
        let mut patience_ms = None;
        let mut patience_ms = || {
            *patience_ms.get_or_insert_with(|| match cut_off {
                CutOff::Keep if is_outage(cluster, input.now_ms) => OUTAGE_MS,
                CutOff::Keep => 0,
                CutOff::Stop { after_ms } => {
                    let grace_ms = input.release.map_or(0, |release| release.stop_grace_ms);
                    after_ms.saturating_add(grace_ms).saturating_add(MARGIN_MS)
                }
            })
        };
        let is_shared = input.release.is_some_and(|it| it.storage.is_shared());
        let (mut fates, mut unconfirmed) = (BTreeMap::new(), None);
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
                // What is known to be dead has ended, and is not live any more.
                (Standing::Lost, _) if is_shared => {
                    unconfirmed = Some(node.id);
                    continue;
                }
                (Standing::Lost, Some((_, status_ms))) => Fate::Silent {
                    until_ms: status_ms.saturating_add(patience_ms()),
                },
                // What runs there runs on and cannot be stopped, so what may not run twice stays.
                (Standing::RuntimeWedged, Some((_, status_ms))) if cut_off == CutOff::Keep => {
                    Fate::Silent {
                        until_ms: status_ms.saturating_add(WEDGED_MS),
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
            unconfirmed,
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

/// Whether more than half of the nodes that were there lately have been lost since. Those that were lost
/// long ago say nothing of now.
fn is_outage(cluster: &Cluster, now_ms: u64) -> bool {
    let (mut lost, mut there) = (0_usize, 0_usize);
    for (ordinal, standing) in (0..).zip(&cluster.standing) {
        match standing {
            Standing::Absent => {}
            Standing::Lost => {
                let lost_ms = cluster.slot(ordinal).status_ms;
                let is_recent = now_ms < lost_ms.saturating_add(OUTAGE_MS);
                lost += usize::from(is_recent);
                there += usize::from(is_recent);
            }
            _ => there += 1,
        }
    }
    2 * lost > there
}
