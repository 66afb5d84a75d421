//! Amounts of what nodes have and allocations request. Owns the arithmetic; knows no node.

use skep_model::node::Facts;
use skep_model::placement::{Placement, PoolPolicy};
use skep_model::service::Release;
use skep_model::spec::Resources;

/// Least memory kept for a node's system, Docker and the agent: an idle agent and data plane alone
/// use about 20 MiB, dockerd 50.
pub const RESERVED_MEMORY_MIN_BYTES: u64 = 64 << 20;

/// What nodes have by amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Room {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Bytes under Docker's data root; a node that does not know its disk has none to give.
    pub disk_bytes: u64,
}

impl Room {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            disk_bytes: self.disk_bytes.saturating_add(other.disk_bytes),
        }
    }

    /// What is left of the first after the second; never below nothing (a node may shrink under
    /// what runs on it).
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            disk_bytes: self.disk_bytes.saturating_sub(other.disk_bytes),
        }
    }

    /// Whether the other fits into it.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        // Without branches: asked of every node of the cluster.
        (self.cpu_millis >= other.cpu_millis)
            & (self.memory_bytes >= other.memory_bytes)
            & (self.disk_bytes >= other.disk_bytes)
    }

    /// What a node offers under its pool's policy.
    pub(crate) fn offered(facts: &Facts, policy: &PoolPolicy) -> Self {
        // Divided first: a node may say any number of bytes.
        let percent = |amount: u64, percent: u32| (amount / 100).saturating_mul(percent.into());
        let memory = facts.memory_bytes;
        let reserved = percent(memory, policy.reserved_memory_percent);
        let memory = memory.saturating_sub(reserved.max(RESERVED_MEMORY_MIN_BYTES));
        let cpu = facts.cpu_millis.saturating_sub(policy.reserved_cpu_millis);
        let disk = facts.disk_bytes;
        Self {
            cpu_millis: u64::from(cpu) * u64::from(policy.cpu_percent) / 100,
            memory_bytes: match policy.memory_percent {
                100 => memory,
                other => percent(memory, other),
            },
            disk_bytes: disk.saturating_sub(percent(disk, policy.reserved_disk_percent)),
        }
    }
}

impl From<Resources> for Room {
    /// Requests count, limits do not.
    fn from(resources: Resources) -> Self {
        Self {
            cpu_millis: resources.cpu_millis.into(),
            memory_bytes: resources.memory_bytes,
            disk_bytes: resources.disk_bytes,
        }
    }
}

/// What is counted by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    /// One port of the node.
    Port(u16),
    /// Any ports of the node.
    DynamicPorts,
    /// Devices of a kind.
    Device(String),
}

/// Everything that one allocation takes of its node, and whom it may have to yield to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Needs {
    /// By amount.
    pub room: Room,
    /// By name, each once.
    pub named: Vec<(Named, u32)>,
    /// Yields to what is higher.
    pub priority: i32,
    /// How many of its service may be displaced at one time.
    pub max_unavailable: u32,
}

impl Needs {
    /// Of an allocation with these resources and this placement.
    pub fn new(resources: Resources, placement: &Placement) -> Self {
        let ports = placement.ports.iter().map(|port| (Named::Port(*port), 1));
        let dynamic = placement.dynamic_ports;
        let dynamic = (dynamic > 0).then_some((Named::DynamicPorts, dynamic));
        let devices = placement.devices.iter();
        let devices = devices.map(|(name, count)| (Named::Device(name.clone()), *count));
        Self {
            room: resources.into(),
            named: ports.chain(dynamic).chain(devices).collect(),
            priority: placement.priority,
            max_unavailable: placement.max_unavailable.unwrap_or(1),
        }
    }

    /// Of an allocation of this release.
    pub fn of(release: &Release) -> Self {
        Self::new(release.requests(), &release.placement)
    }
}
