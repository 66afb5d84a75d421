//! What a node is told to do: the part of the desired state that concerns it, resolved so far
//! that the agent needs to ask nobody.

use std::collections::BTreeMap;
use std::fmt;

use crate::allocation::Desired;
use crate::build::{Build, Builder, Fetch, Nixpacks, StaticSite};
use crate::container::Container;
use crate::deployment::Origin;
use crate::health::Health;
use crate::hooks::Hooks;
use crate::id::{
    AllocationId, ClusterId, DeploymentId, EnvironmentId, NodeId, ServiceId, WorkspaceId,
};
use crate::job::Attempt;
use crate::service::{Image, Target};
use crate::spec::{Pull, Resources, Restart};
use crate::storage::Storage;

/// Which desired set is newer: a restored backup raises the incarnation, commands the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Generation {
    /// Of the cluster.
    pub incarnation: u64,
    /// Raft index that the set shows.
    pub number: u64,
}

/// Most nodes that an assignment names as having its image.
pub const MAX_IMAGE_PEERS: usize = 5;

/// A node that has an image, and hands it to other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePeer {
    /// Which: its certificate must say so.
    pub node: NodeId,
    /// Where it serves: `host:port`.
    pub address: String,
}

/// One allocation as its node is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Which.
    pub allocation: AllocationId,
    /// Whose.
    pub service: ServiceId,
    /// For names and labels: `service-environment-project`.
    pub service_label: String,
    /// The same, for the labels of its logs.
    pub names: Names,
    /// What it runs.
    pub target: Target,
    /// Run, drain or stop.
    pub desired: Desired,
    /// The image.
    pub image: Image,
    /// The port that health checks and traffic use; none: a worker.
    pub port: Option<u16>,
    /// Complete environment in plain text: only ever sent over mTLS and stored sealed.
    pub environment: Vec<(String, String)>,
    /// Replaces the image's command; empty: the image's own.
    pub command: Vec<String>,
    /// Limits.
    pub resources: Resources,
    /// Fitness for traffic.
    pub health: Health,
    /// Restarts.
    pub restart: Restart,
    /// Time between SIGTERM and SIGKILL, in ms.
    pub stop_grace_ms: u64,
    /// Run to completion, as an attempt of a job; none: kept running.
    pub job: Option<Attempt>,
    /// After so long without a server the agent stops it, in ms; none: it runs on.
    pub stop_after_ms: Option<u64>,
    /// Ports of the node that reach the same port of the container.
    pub ports: Vec<u16>,
    /// How many more of them, whichever: the agent's choice.
    pub dynamic_ports: u32,
    /// Devices of the node for itself alone, by name and count.
    pub devices: BTreeMap<String, u32>,
    /// What is mounted into it.
    pub storage: Storage,
    /// How it is confined.
    pub container: Container,
    /// What runs before it and before its end; the release phase is a job's.
    pub hooks: Hooks,
    /// Nodes that have the image, the one that built it first; empty where a registry has it. At most
    /// [`MAX_IMAGE_PEERS`].
    pub image_peers: Vec<ImagePeer>,
    /// The environment on whose private network it is; none: an older server, or cluster, which has none.
    pub network: Option<EnvironmentId>,
    /// Whose logins at registries are for its image; none: an older server, which has none but the cluster's.
    pub workspace: Option<WorkspaceId>,
}

/// Whose logs they are, in the words of people. Empty: an older server, which does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// The project.
    pub project: String,
    /// The environment.
    pub environment: String,
    /// The service.
    pub service: String,
}

/// One build as its node is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOrder {
    /// Names the build: a deployment has one.
    pub deployment: DeploymentId,
    /// Whose.
    pub service: ServiceId,
    /// For names: `service-environment-project`.
    pub service_label: String,
    /// What from.
    pub origin: Origin,
    /// Explicit builder, where the user said one.
    pub builder: Option<Builder>,
    /// Path of the Dockerfile inside the app's folder.
    pub dockerfile: Option<String>,
    /// Whether a ready image is asked for at its registry.
    pub pull: Pull,
    /// When to give up, in ms from its start: until the app's own file says otherwise.
    pub timeout_ms: u64,
    /// What the build is told beside the source, as build arguments.
    pub arguments: BTreeMap<String, String>,
    /// What it is given, and how far it may go.
    pub build: Build,
    /// What Nixpacks is told.
    pub nixpacks: Nixpacks,
    /// A site of files.
    pub site: StaticSite,
    /// How the repository is fetched.
    pub fetch: Fetch,
    /// The service's variables in plain text: only ever sent over mTLS and stored sealed. A build gets
    /// those of them that are declared.
    pub variables: Vec<BuildVariable>,
    /// Built even where there is an image of the same source.
    pub no_cache: bool,
    /// As in [`Assignment::workspace`].
    pub workspace: Option<WorkspaceId>,
    /// A ready image is of a registry where workspaces keep theirs: it has to say that this one may have it, even
    /// where the node has the image already.
    pub ask_registry: bool,
}

/// A variable of a service as its build is told of it.
#[derive(Clone, PartialEq, Eq)]
pub struct BuildVariable {
    /// Its name.
    pub name: String,
    /// In plain text.
    pub value: String,
    /// Shown to nobody: it is masked in the build's log.
    pub secret: bool,
}

impl fmt::Debug for BuildVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildVariable")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Everything one node is told, at one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredSet {
    /// Whose.
    pub cluster: ClusterId,
    /// How new.
    pub generation: Generation,
    /// Allocations, by id.
    pub assignments: Vec<Assignment>,
    /// Builds, by deployment.
    pub builds: Vec<BuildOrder>,
}
