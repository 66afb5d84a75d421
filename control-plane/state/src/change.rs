//! What a command changed: the feed that wakes loops. It only wakes: everything can be read again
//! from a view.

use skep_model::id::{
    AllocationId, DeploymentId, EnvironmentId, JobId, NodeId, ServerId, ServiceId,
};

/// One changed thing, after the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The cluster came into being, or its feature level, CA or incarnation changed.
    Cluster,
    /// A service was made or changed.
    Service(ServiceId),
    /// A service was forgotten.
    ServiceDropped(ServiceId),
    /// A deployment was made or changed.
    Deployment(DeploymentId),
    /// A build was given to a node, ended there, or is no longer wanted of it.
    Build(NodeId),
    /// An allocation was made, changed, or forgotten.
    Allocation {
        /// Which.
        allocation: AllocationId,
        /// Where it is.
        node: NodeId,
        /// Whose it is.
        service: ServiceId,
    },
    /// A job was made, changed, or forgotten.
    Job {
        /// Which.
        job: JobId,
        /// Whose it is.
        service: ServiceId,
    },
    /// A node joined or changed.
    Node(NodeId),
    /// A server joined, changed or was removed.
    Server(ServerId),
    /// What a node has in quarantine, or is to stop of it, changed.
    Quarantine(NodeId),
    /// Settings of a workspace, an environment or a pool changed.
    Settings,
    /// Logins at registries changed.
    Registries,
    /// Where the images of a workspace are pushed changed.
    PushRegistries,
    /// Who issues certificates changed, or what is shown with them.
    Certificates,
    /// What proves to an issuer whose hosts are changed.
    Challenges,
    /// The route table has a new revision.
    Routes,
    /// What is known by name in an environment changed.
    Names(EnvironmentId),
    /// Receivers of notifications changed, or what waits for them.
    Notifications,
    /// Forge connections changed.
    Forges,
    /// Providers, pools that make nodes, guests, or hosts under maintenance changed.
    Guests,
    /// A preview was made, pushed to, put off, ended, or told of.
    Preview(EnvironmentId),
    /// A stack was connected, asked for, read, carried out, or forgotten.
    Stack(EnvironmentId),
}
