//! What an allocation asks of a node, and the reasons for which a node refuses it. Owns the words
//! for both; [`crate::lens`] does the asking, `refusal` the counting.

use std::collections::BTreeMap;

use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::placement::{Constraint, Operator, Placement};
use skep_model::service::Release;
use skep_model::spec::Resources;
use skep_model::storage::Storage;

use crate::cluster::Candidate;
use crate::lens::NODE;
use crate::room::Needs;

/// What is known around a service that its release does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// Name of the workspace that it belongs to: some nodes are for some workspaces only.
    pub workspace: Option<String>,
    /// It is a build: some nodes are for builds only, some for anything else.
    pub is_build: bool,
    /// The services of its environment, by name: affinities name them.
    pub services: BTreeMap<String, ServiceId>,
    /// The node that alone has its data, or has them in use where they are on shared storage; none: it has no volume
    /// yet, or nobody uses it.
    pub data_on: Option<NodeId>,
    /// What keeps the lost node that has its data in use from being known to be dead; none: nobody has looked.
    pub fencing_waits: Option<String>,
    /// Allocations of it that are to go to another node, and where: what is started meanwhile goes
    /// to one of these nodes. Empty: nothing of it is moved.
    pub moving: BTreeMap<AllocationId, NodeId>,
    /// Constraints are preferences, whatever its release says.
    pub relaxed: bool,
    /// The release phase of what is rolled out has ended well.
    pub prepared: bool,
    /// Containers of its environment may have connections to it by its private name: what is withdrawn
    /// is drained, though it may have no routes.
    pub has_callers: bool,
}

/// What one allocation needs of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Whose: spread, limits and neighbours count the allocations of one service.
    pub service: ServiceId,
    /// Requests; limits are not counted.
    pub resources: Resources,
    /// Where it may run, and where rather.
    pub placement: Placement,
    /// The node that alone has the image; none: any node can pull it.
    pub only_on: Option<NodeId>,
    /// What is mounted into it.
    pub storage: Storage,
    /// Nodes hand its image to each other: one that keeps no images cannot get it.
    pub shares_image: bool,
    /// What its release does not say.
    pub around: Surroundings,
    /// Where those allocations of the service are that are to stay, one entry each: only these are
    /// spread, so that an update ends as even as it began. None: all of them.
    pub staying: Option<Vec<NodeId>>,
}

impl Ask {
    /// What an allocation of this release needs.
    pub fn of(release: &Release, around: &Surroundings) -> Self {
        Self {
            service: release.service,
            resources: release.requests(),
            placement: Placement {
                relaxed: release.placement.relaxed || around.relaxed,
                ..release.placement.clone()
            },
            storage: release.storage.clone(),
            only_on: release.image.only_on(),
            shares_image: release.image.shared,
            around: around.clone(),
            staying: None,
        }
    }

    /// The same, on other nodes than these.
    pub(crate) fn elsewhere<'a>(&self, nodes: impl Iterator<Item = Candidate<'a>>) -> Self {
        let names = nodes.map(|node| node.name.to_owned());
        let mut ask = self.clone();
        ask.placement.constraints.push(Constraint {
            key: NODE.to_owned(),
            operator: Operator::NotIn(names.collect()),
        });
        ask
    }

    /// What it takes of its node.
    pub fn needs(&self) -> Needs {
        Needs::new(self.resources, &self.placement)
    }
}

/// Why a node cannot take an allocation. In the order in which an explanation names them: what can
/// be remedied by a setting first. Numbers are positions in the ask's placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Too little CPU is free.
    Cpu,
    /// Too little memory is free.
    Memory,
    /// Too little disk is free.
    Disk,
    /// Too few of the device with this position by name are free.
    Device(u8),
    /// This port is taken.
    Port(u16),
    /// Too few ports are free.
    DynamicPorts,
    /// As many as the limit allows are there, or on the same value of its attribute.
    MaxPer(u8),
    /// One more would break the skew of this spread.
    Skew(u8),
    /// It is in another pool.
    Pool,
    /// It does not fulfil this constraint.
    Constraint(u8),
    /// The image is not made for its architecture.
    Architecture,
    /// It does not offer the private network.
    PrivateNetwork,
    /// Its agent knows no volumes, host paths or secrets as files.
    Storage,
    /// Its operator does not offer the host path with this number.
    HostPath(u8),
    /// It does not have the shared storage with this number, by name.
    SharedStorage(u8),
    /// It is for other workspaces.
    Workspace,
    /// Its pool is for builds only; for a build: its pool is for none.
    Builds,
    /// The image is on another node only.
    Image,
    /// The data is on another node.
    Data,
    /// Something of the service is being moved, and not there.
    Elsewhere,
    /// An operator wants no new ones there.
    Cordoned,
    /// An operator wants it empty.
    Draining,
    /// Its runtime does not answer.
    RuntimeDown,
    /// Its runtime answers a ping, and does nothing else.
    RuntimeWedged,
    /// Nobody knows how much memory it has.
    MemoryUnknown,
    /// Its agent is silent.
    Lost,
}

impl Reason {
    /// Whether it is about what is left, rather than about a rule.
    pub const fn is_room(self) -> bool {
        matches!(
            self,
            Self::Cpu
                | Self::Memory
                | Self::Disk
                | Self::Device(_)
                | Self::Port(_)
                | Self::DynamicPorts
        )
    }
}
