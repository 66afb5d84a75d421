//! The data: persistent ordered maps of shared entities, and the indexes that go with them.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use skep_model::allocation::Allocation;
use skep_model::certificate::{Certificate, Challenge, DnsRecord, Issuer, LocalCa};
use skep_model::claim::Claim;
use skep_model::deployment::Deployment;
use skep_model::forge::{Connection, ForgeApp, Setup};
use skep_model::guest_pool::{GuestPool, PoolGuest};
use skep_model::id::{
    AllocationId, ClusterId, DeploymentId, EnvironmentId, ForgeAppId, GuestId, HookId, JobId,
    NodeId, ProjectId, ReceiverId, ServerId, ServiceId, TokenId, WorkspaceId,
};
use skep_model::image_push::PushRegistry;
use skep_model::job::{Job, JobBook};
use skep_model::maintenance::Maintenance;
use skep_model::network;
use skep_model::node::Node;
use skep_model::notify::{Notification, Receiver};
use skep_model::polling::Polled;
use skep_model::pool::Departed;
use skep_model::preview::{Preview, Rules};
use skep_model::provider::Provider;
use skep_model::pushed::Pushed;
use skep_model::quarantine::Quarantined;
use skep_model::rebalance::Rebalance;
use skep_model::registry::RegistryLogin;
use skep_model::server::{JoinToken, Server};
use skep_model::service::{Release, Service};
use skep_model::settings::{Pool, Scope, ScopeSettings};
use skep_model::stack::Stack;
use skep_model::tcp::Ports;
use skep_model::tenancy::{Environment, Project, Workspace};
use skep_model::variable::Sealed;
use skep_model::variable::SharedVariables;
use skep_model::webhook::Hook;

use crate::keys::Keys;

/// What is true of the cluster as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Identity.
    pub id: ClusterId,
    /// Raised when a backup is restored.
    pub incarnation: u64,
    /// Format of commands that every server understands.
    pub feature_level: u32,
    /// Certificate of the cluster's CA.
    pub ca_cert_pem: String,
    /// Its key, sealed under the data key.
    pub sealed_ca_key: Sealed,
    /// The data key, wrapped by the operator's key.
    pub wrapped_data_key: Sealed,
    /// Generated host names end in this.
    pub base_domain: String,
    /// SHA-256 of the administrator's token.
    pub admin_token_hash: Vec<u8>,
    /// The other CA, while one is replaced by another.
    pub other_ca: Option<OtherCa>,
    /// The next member id to give; 0: none was given since the founding.
    pub(crate) next_member: u64,
}

/// A CA that is trusted and does not sign: not yet, or not any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherCa {
    /// Its certificate.
    pub cert_pem: String,
    /// Its key, sealed under the data key.
    pub sealed_key: Sealed,
    /// It signed before the present one; else it will sign after it.
    pub is_older: bool,
}

/// A webhook delivery that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What came of it.
    pub deployment: DeploymentId,
    /// When, cluster time in ms since the epoch.
    pub at_ms: u64,
}

/// Member id of the founding server.
pub const FIRST_MEMBER: u64 = 1;

/// Everything that is replicated. Cloning is O(1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub(crate) time_ms: u64,
    pub(crate) index: u64,
    pub(crate) routes_revision: u64,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) workspaces: OrdMap<WorkspaceId, Arc<Workspace>>,
    pub(crate) projects: OrdMap<ProjectId, Arc<Project>>,
    pub(crate) environments: OrdMap<EnvironmentId, Arc<Environment>>,
    pub(crate) services: OrdMap<ServiceId, Arc<Service>>,
    pub(crate) releases: OrdMap<(ServiceId, u64), Arc<Release>>,
    pub(crate) deployments: OrdMap<DeploymentId, Arc<Deployment>>,
    pub(crate) allocations: OrdMap<AllocationId, Arc<Allocation>>,
    pub(crate) nodes: OrdMap<NodeId, Arc<Node>>,
    pub(crate) tokens: OrdMap<TokenId, Arc<JoinToken>>,
    pub(crate) deliveries: OrdMap<String, Delivery>,
    pub(crate) servers: OrdMap<ServerId, Arc<Server>>,
    pub(crate) quarantine: OrdMap<(NodeId, AllocationId), Arc<Quarantined>>,
    pub(crate) dismissed: OrdSet<(NodeId, AllocationId)>,
    pub(crate) keys: Keys,
    pub(crate) jobs: OrdMap<JobId, Arc<Job>>,
    pub(crate) job_books: OrdMap<ServiceId, Arc<JobBook>>,
    pub(crate) rebalance: Arc<Rebalance>,
    pub(crate) scopes: OrdMap<Scope, Arc<ScopeSettings>>,
    pub(crate) pools: OrdMap<String, Arc<Pool>>,
    pub(crate) registries: OrdMap<String, Arc<RegistryLogin>>,
    /// Of repositories.
    pub(crate) hooks: OrdMap<HookId, Arc<Hook>>,
    pub(crate) claims: OrdMap<String, Arc<Claim>>,
    pub(crate) issuer: Option<Arc<Issuer>>,
    pub(crate) local_ca: Option<Arc<LocalCa>>,
    pub(crate) certificates: OrdMap<String, Arc<Certificate>>,
    /// By token.
    pub(crate) challenges: OrdMap<String, Arc<Challenge>>,
    /// By name and value.
    pub(crate) dns_records: OrdMap<(String, String), Arc<DnsRecord>>,
    pub(crate) addresses: OrdMap<u32, Arc<network::PrivateAddress>>,
    pub(crate) private_pool: network::Pool,
    /// Of which services may have entries; none: they may not.
    pub(crate) tcp_ports: Option<Ports>,
    /// Projects prove that domains are theirs before they get hosts of them.
    pub(crate) domain_proof: bool,
    pub(crate) shared_variables: OrdMap<EnvironmentId, Arc<SharedVariables>>,
    /// What was found in the repositories of services.
    pub(crate) polled: OrdMap<ServiceId, Arc<Polled>>,
    /// What was pushed to services.
    pub(crate) pushed: OrdMap<ServiceId, Arc<Pushed>>,
    pub(crate) receivers: OrdMap<ReceiverId, Arc<Receiver>>,
    /// By receiver and number.
    pub(crate) notifications: OrdMap<(ReceiverId, u64), Arc<Notification>>,
    /// What environments say of their previews.
    pub(crate) preview_rules: OrdMap<EnvironmentId, Arc<Rules>>,
    /// Also of those that have ended a while ago.
    pub(crate) previews: OrdMap<EnvironmentId, Arc<Preview>>,
    /// By workspace and host.
    pub(crate) forges: OrdMap<(WorkspaceId, String), Arc<Connection>>,
    pub(crate) push_registries: OrdMap<WorkspaceId, Arc<PushRegistry>>,
    pub(crate) stacks: OrdMap<EnvironmentId, Arc<Stack>>,
    pub(crate) forge_apps: OrdMap<ForgeAppId, Arc<ForgeApp>>,
    /// By the digests of their secrets.
    pub(crate) forge_setups: OrdMap<Vec<u8>, Arc<Setup>>,
    pub(crate) providers: OrdMap<String, Arc<Provider>>,
    pub(crate) guest_pools: OrdMap<String, Arc<GuestPool>>,
    /// Of all pools.
    pub(crate) guests: OrdMap<GuestId, Arc<PoolGuest>>,
    /// Guests that are there no more, by pool.
    pub(crate) departed: OrdMap<(String, GuestId), Arc<Departed>>,
    /// By host.
    pub(crate) maintenances: OrdMap<String, Arc<Maintenance>>,
    // Indexes: derived from the maps above, rebuilt when a snapshot is read.
    pub(crate) names: Names,
    pub(crate) service_allocations: OrdSet<(ServiceId, AllocationId)>,
    pub(crate) node_allocations: OrdSet<(NodeId, AllocationId)>,
    pub(crate) service_deployments: OrdSet<(ServiceId, DeploymentId)>,
    pub(crate) node_builds: OrdSet<(NodeId, DeploymentId)>,
    pub(crate) active_deployments: OrdSet<DeploymentId>,
    pub(crate) delivery_order: OrdSet<(u64, String)>,
    pub(crate) service_jobs: OrdSet<(ServiceId, JobId)>,
    /// Host, path without its trailing `/`, and who answers there. More than one only where older
    /// rules let that happen.
    pub(crate) hosts: OrdSet<(String, String, ServiceId)>,
    /// Whose the entries of TCP routes are.
    pub(crate) entries: OrdMap<u16, ServiceId>,
    pub(crate) generated: OrdSet<(String, ServiceId)>,
    pub(crate) members: OrdMap<u64, ServerId>,
    pub(crate) service_addresses: OrdMap<ServiceId, u32>,
    /// Whose a block of private addresses is, and the blocks of each environment.
    pub(crate) blocks: OrdMap<u32, EnvironmentId>,
    pub(crate) environment_blocks: OrdSet<(EnvironmentId, u32)>,
    /// What is still to arrive: receiver, when, and number.
    pub(crate) pending_notifications: OrdSet<(ReceiverId, u64, u64)>,
}

/// Who has which name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) workspaces: OrdMap<String, WorkspaceId>,
    pub(crate) projects: OrdMap<(WorkspaceId, String), ProjectId>,
    pub(crate) environments: OrdMap<(ProjectId, String), EnvironmentId>,
    pub(crate) services: OrdMap<(EnvironmentId, String), ServiceId>,
    pub(crate) nodes: OrdMap<String, NodeId>,
    pub(crate) servers: OrdMap<String, ServerId>,
}

impl State {
    pub(crate) fn put_workspace(&mut self, workspace: Workspace) {
        self.names
            .workspaces
            .insert(workspace.name.clone(), workspace.id);
        self.workspaces.insert(workspace.id, Arc::new(workspace));
    }

    pub(crate) fn put_project(&mut self, project: Project) {
        self.names
            .projects
            .insert((project.workspace, project.name.clone()), project.id);
        self.projects.insert(project.id, Arc::new(project));
    }

    pub(crate) fn put_environment(&mut self, environment: Environment) {
        self.names.environments.insert(
            (environment.project, environment.name.clone()),
            environment.id,
        );
        self.environments
            .insert(environment.id, Arc::new(environment));
    }

    pub(crate) fn put_service(&mut self, service: impl Into<Arc<Service>>) {
        let service: Arc<Service> = service.into();
        let old = self.services.get(&service.id).cloned();
        // Writing what is there already would copy a part of the index all the same.
        let is_same = old.as_ref().is_some_and(|old| {
            let (old, new) = (&old.spec, &service.spec);
            old.domains == new.domains && old.routes == new.routes && old.tcp == new.tcp
        });
        if !is_same {
            if let Some(old) = &old {
                self.unindex_hosts(old);
            }
            self.index_hosts(&service);
        }
        if old.is_none() {
            let host = self.host_of(&service);
            self.generated.insert((host, service.id));
        }
        self.names
            .services
            .insert((service.environment, service.name.clone()), service.id);
        self.services.insert(service.id, service);
    }

    pub(crate) fn put_deployment(&mut self, deployment: impl Into<Arc<Deployment>>) {
        let deployment: Arc<Deployment> = deployment.into();
        self.service_deployments
            .insert((deployment.service, deployment.id));
        if deployment.status.is_active() {
            self.active_deployments.insert(deployment.id);
        } else {
            self.active_deployments.remove(&deployment.id);
        }
        let before = self.deployments.get(&deployment.id);
        if let Some(before) = before.and_then(|before| before.build.as_ref()) {
            // It may have gone on to another node.
            self.node_builds.remove(&(before.node, deployment.id));
        }
        if let Some(build) = &deployment.build {
            let key = (build.node, deployment.id);
            let is_wanted = deployment.status == skep_model::deployment::Status::Building
                && build.outcome.is_none();
            if is_wanted {
                self.node_builds.insert(key);
            } else {
                self.node_builds.remove(&key);
            }
        }
        self.deployments.insert(deployment.id, deployment);
    }

    pub(crate) fn remove_deployment(&mut self, id: DeploymentId) {
        if let Some(deployment) = self.deployments.remove(&id) {
            self.service_deployments.remove(&(deployment.service, id));
            self.active_deployments.remove(&id);
            if let Some(build) = &deployment.build {
                self.node_builds.remove(&(build.node, id));
            }
        }
    }

    pub(crate) fn put_allocation(&mut self, allocation: impl Into<Arc<Allocation>>) {
        let allocation: Arc<Allocation> = allocation.into();
        // An allocation never changes hands: its indexes are written once.
        if !self.allocations.contains_key(&allocation.id) {
            self.service_allocations
                .insert((allocation.service, allocation.id));
            self.node_allocations
                .insert((allocation.node, allocation.id));
        }
        self.allocations.insert(allocation.id, allocation);
    }

    pub(crate) fn remove_allocation(&mut self, id: AllocationId) {
        if let Some(allocation) = self.allocations.remove(&id) {
            self.service_allocations.remove(&(allocation.service, id));
            self.node_allocations.remove(&(allocation.node, id));
        }
    }

    pub(crate) fn put_job(&mut self, job: Job) {
        self.service_jobs.insert((job.service, job.id));
        self.jobs.insert(job.id, Arc::new(job));
    }

    pub(crate) fn remove_job(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            self.service_jobs.remove(&(job.service, id));
        }
    }

    pub(crate) fn put_node(&mut self, node: impl Into<Arc<Node>>) {
        let node: Arc<Node> = node.into();
        // Writing what is there already would copy a part of the index all the same.
        if self
            .nodes
            .get(&node.id)
            .is_none_or(|old| old.name != node.name)
        {
            self.names.nodes.insert(node.name.clone(), node.id);
        }
        self.nodes.insert(node.id, node);
    }

    pub(crate) fn remove_node(&mut self, node: &Node) {
        let held: Vec<AllocationId> = self
            .quarantine_on(node.id)
            .map(|entry| entry.allocation)
            .chain(self.dismissed_on(node.id))
            .collect();
        for allocation in held {
            self.quarantine.remove(&(node.id, allocation));
            self.dismissed.remove(&(node.id, allocation));
        }
        self.names.nodes.remove(&node.name);
        self.nodes.remove(&node.id);
    }

    pub(crate) fn put_server(&mut self, server: Server) {
        self.remove_server(server.id);
        self.names.servers.insert(server.name.clone(), server.id);
        self.members.insert(server.member, server.id);
        self.servers.insert(server.id, Arc::new(server));
    }

    pub(crate) fn remove_server(&mut self, id: ServerId) {
        if let Some(server) = self.servers.remove(&id) {
            self.names.servers.remove(&server.name);
            self.members.remove(&server.member);
        }
    }

    pub(crate) fn put_delivery(&mut self, key: String, delivery: Delivery) {
        self.delivery_order.insert((delivery.at_ms, key.clone()));
        self.deliveries.insert(key, delivery);
    }
}
