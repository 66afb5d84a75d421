//! What keeps an allocation off a node: each filter checks one node and names its reason. Filters
//! know nothing of scores; counting reasons into an explanation is `refusal`'s part.

use skep_model::id::{NodeId, ServiceId};
use skep_model::node::NodeStatus;
use skep_model::service::Release;
use skep_model::spec::Resources;

use crate::cluster::Candidate;

/// What one allocation needs of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Whose: replicas of one service keep apart where the rest is equal.
    pub service: ServiceId,
    /// Requests; limits are not counted.
    pub resources: Resources,
    /// The node that alone has the image; none: any node can pull it.
    pub only_on: Option<NodeId>,
}

impl Ask {
    /// What an allocation of this release needs.
    pub fn of(release: &Release) -> Self {
        Self {
            service: release.service,
            resources: release.resources,
            only_on: release.image.node,
        }
    }
}

/// Why a node cannot take an allocation. In the order in which an explanation names them: what can
/// be remedied by a setting first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Too little CPU is free.
    Cpu,
    /// Too little memory is free.
    Memory,
    /// The image is on another node only.
    Image,
    /// Its runtime does not answer.
    RuntimeDown,
    /// Its agent is silent.
    Lost,
}

/// One test of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// The node is ready.
    Status,
    /// The image can be had there.
    Image,
    /// Enough CPU is free.
    Cpu,
    /// Enough memory is free.
    Memory,
}

impl Filter {
    /// Rules: a node that one of them refuses is not asked about its room.
    pub const RULES: [Self; 2] = [Self::Status, Self::Image];
    /// Room: a node may lack several at once, and is told of each.
    pub const ROOM: [Self; 2] = [Self::Cpu, Self::Memory];

    /// Why this filter refuses the node; none: it does not.
    pub fn check(self, ask: &Ask, node: &Candidate<'_>) -> Option<Reason> {
        match self {
            Self::Status => match node.status {
                NodeStatus::Ready => None,
                NodeStatus::RuntimeDown => Some(Reason::RuntimeDown),
                NodeStatus::Lost => Some(Reason::Lost),
            },
            Self::Image => {
                let is_elsewhere = ask.only_on.is_some_and(|holder| holder != node.id);
                is_elsewhere.then_some(Reason::Image)
            }
            Self::Cpu => {
                let lacks = u64::from(ask.resources.cpu_millis) > node.free.cpu_millis;
                lacks.then_some(Reason::Cpu)
            }
            Self::Memory => {
                let lacks = ask.resources.memory_bytes > node.free.memory_bytes;
                lacks.then_some(Reason::Memory)
            }
        }
    }
}

/// The first reason against the node; none: the allocation fits there. The one function behind
/// placing and behind the leader's check.
pub fn check(ask: &Ask, node: &Candidate<'_>) -> Option<Reason> {
    let filters = Filter::RULES.iter().chain(&Filter::ROOM);
    filters
        .into_iter()
        .find_map(|filter| filter.check(ask, node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Room;

    fn room(cpu_millis: u64, memory_bytes: u64) -> Room {
        Room {
            cpu_millis,
            memory_bytes,
        }
    }

    #[test]
    fn each_filter_refuses_for_its_own_reason_and_at_the_exact_bound() {
        let ask = Ask {
            service: ServiceId::from_u128(1),
            resources: Resources {
                cpu_millis: 500,
                memory_bytes: 100,
                cpu_limit_millis: 9_000,
            },
            only_on: Some(NodeId::from_u128(7)),
        };
        let good = Candidate {
            id: NodeId::from_u128(7),
            name: "a",
            status: NodeStatus::Ready,
            generation: 1,
            capacity: room(1_000, 1_000),
            free: room(500, 100),
        };
        let bad = [
            (
                Candidate {
                    free: room(499, 100),
                    ..good
                },
                Reason::Cpu,
            ),
            (
                Candidate {
                    free: room(500, 99),
                    ..good
                },
                Reason::Memory,
            ),
            (
                Candidate {
                    id: NodeId::from_u128(8),
                    ..good
                },
                Reason::Image,
            ),
            (
                Candidate {
                    status: NodeStatus::Lost,
                    ..good
                },
                Reason::Lost,
            ),
            (
                Candidate {
                    status: NodeStatus::RuntimeDown,
                    ..good
                },
                Reason::RuntimeDown,
            ),
        ];
        assert_eq!(check(&ask, &good), None);
        for (node, reason) in bad {
            assert_eq!(check(&ask, &node), Some(reason));
        }
    }
}
