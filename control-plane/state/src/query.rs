//! Reading a state: look-ups by name and by owner.

mod cluster;
mod guest;
mod host;
mod jobs;
mod preview;
mod settings;
mod stack;
mod webhook;

use std::sync::Arc;

use skep_model::allocation::Allocation;
use skep_model::deployment::Deployment;
use skep_model::id::{
    AllocationId, DeploymentId, EnvironmentId, NodeId, ProjectId, ServiceId, TokenId, WorkspaceId,
};
use skep_model::name;
use skep_model::node::Node;
use skep_model::server::JoinToken;
use skep_model::service::{Release, Service};
use skep_model::settings::Scope;
use skep_model::tenancy::{Environment, Project, Workspace};

use crate::state::{Cluster, Delivery, State};

/// The names from workspace down to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePath {
    /// Workspace.
    pub workspace: String,
    /// Project.
    pub project: String,
    /// Environment.
    pub environment: String,
    /// Service.
    pub service: String,
}

impl State {
    /// Cluster time: the newest time that any command carried, ms since the epoch.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Index of the newest applied command.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Index of the command that last changed the route table.
    pub fn routes_revision(&self) -> u64 {
        self.routes_revision
    }

    /// The cluster; none before its first command.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// All workspaces, by id.
    pub fn workspaces(&self) -> impl Iterator<Item = &Arc<Workspace>> {
        self.workspaces.values()
    }

    /// All projects, by id.
    pub fn projects(&self) -> impl Iterator<Item = &Arc<Project>> {
        self.projects.values()
    }

    /// All environments, by id.
    pub fn environments(&self) -> impl Iterator<Item = &Arc<Environment>> {
        self.environments.values()
    }

    /// All services, by id.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// All allocations, by id.
    pub fn allocations(&self) -> impl Iterator<Item = &Arc<Allocation>> {
        self.allocations.values()
    }

    /// All deployments, by id (oldest first).
    pub fn deployments(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.deployments.values()
    }

    /// Deployments that are on their way, oldest first.
    pub fn active_deployments(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.active_deployments
            .iter()
            .filter_map(|id| self.deployments.get(id))
    }

    /// A workspace by name.
    pub fn workspace_named(&self, name: &str) -> Option<&Arc<Workspace>> {
        self.names
            .workspaces
            .get(name)
            .and_then(|id| self.workspaces.get(id))
    }

    /// A project by name.
    pub fn project_named(&self, workspace: WorkspaceId, name: &str) -> Option<&Arc<Project>> {
        self.names
            .projects
            .get(&(workspace, name.to_owned()))
            .and_then(|id| self.projects.get(id))
    }

    /// An environment by name.
    pub fn environment_named(&self, project: ProjectId, name: &str) -> Option<&Arc<Environment>> {
        self.names
            .environments
            .get(&(project, name.to_owned()))
            .and_then(|id| self.environments.get(id))
    }

    /// A service by name.
    pub fn service_named(&self, environment: EnvironmentId, name: &str) -> Option<&Arc<Service>> {
        self.names
            .services
            .get(&(environment, name.to_owned()))
            .and_then(|id| self.services.get(id))
    }

    /// A node by name.
    pub fn node_named(&self, name: &str) -> Option<&Arc<Node>> {
        self.names.nodes.get(name).and_then(|id| self.nodes.get(id))
    }

    /// A workspace.
    pub fn workspace(&self, id: WorkspaceId) -> Option<&Arc<Workspace>> {
        self.workspaces.get(&id)
    }

    /// A project.
    pub fn project(&self, id: ProjectId) -> Option<&Arc<Project>> {
        self.projects.get(&id)
    }

    /// An environment.
    pub fn environment(&self, id: EnvironmentId) -> Option<&Arc<Environment>> {
        self.environments.get(&id)
    }

    /// A service.
    pub fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }

    /// A release of a service.
    pub fn release(&self, service: ServiceId, number: u64) -> Option<&Arc<Release>> {
        self.releases.get(&(service, number))
    }

    /// The releases of a service that are kept, oldest first.
    pub fn releases_of(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Release>> {
        self.releases
            .range((service, 0)..=(service, u64::MAX))
            .map(|(_, release)| release)
    }

    /// A deployment.
    pub fn deployment(&self, id: DeploymentId) -> Option<&Arc<Deployment>> {
        self.deployments.get(&id)
    }

    /// The deployments of a service that are kept, oldest first.
    pub fn deployments_of(
        &self,
        service: ServiceId,
    ) -> impl DoubleEndedIterator<Item = &Arc<Deployment>> {
        let (low, high) = (
            DeploymentId::from_u128(0),
            DeploymentId::from_u128(u128::MAX),
        );
        self.service_deployments
            .range((service, low)..=(service, high))
            .filter_map(|(_, id)| self.deployments.get(id))
    }

    /// An allocation.
    pub fn allocation(&self, id: AllocationId) -> Option<&Arc<Allocation>> {
        self.allocations.get(&id)
    }

    /// The allocations of a service, oldest first, ended ones that are still kept included.
    pub fn allocations_of(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Allocation>> {
        let (low, high) = (
            AllocationId::from_u128(0),
            AllocationId::from_u128(u128::MAX),
        );
        self.service_allocations
            .range((service, low)..=(service, high))
            .filter_map(|(_, id)| self.allocations.get(id))
    }

    /// The allocations on a node, oldest first.
    pub fn allocations_on(&self, node: NodeId) -> impl Iterator<Item = &Arc<Allocation>> {
        let (low, high) = (
            AllocationId::from_u128(0),
            AllocationId::from_u128(u128::MAX),
        );
        self.node_allocations
            .range((node, low)..=(node, high))
            .filter_map(|(_, id)| self.allocations.get(id))
    }

    /// Allocations on a node that have not ended and have data that other nodes reach as well.
    pub fn shared_work_on(&self, node: NodeId) -> impl Iterator<Item = &Arc<Allocation>> {
        let live = self.allocations_on(node).filter(|it| it.is_live());
        live.filter(|it| {
            let release = self.release(it.service, it.target.release);
            release.is_some_and(|release| release.storage.is_shared())
        })
    }

    /// The deployments whose build this node is to do.
    pub fn builds_on(&self, node: NodeId) -> impl Iterator<Item = &Arc<Deployment>> {
        let (low, high) = (
            DeploymentId::from_u128(0),
            DeploymentId::from_u128(u128::MAX),
        );
        self.node_builds
            .range((node, low)..=(node, high))
            .filter_map(|(_, id)| self.deployments.get(id))
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// A join token.
    pub fn token(&self, id: TokenId) -> Option<&Arc<JoinToken>> {
        self.tokens.get(&id)
    }

    /// What came of a webhook delivery.
    pub fn delivery(&self, key: &str) -> Option<&Delivery> {
        self.deliveries.get(key)
    }

    /// The names above a service.
    pub fn path_of(&self, service: &Service) -> Option<ServicePath> {
        let environment = self.environment(service.environment)?;
        let project = self.project(environment.project)?;
        let workspace = self.workspace(project.workspace)?;
        Some(ServicePath {
            workspace: workspace.name.clone(),
            project: project.name.clone(),
            environment: environment.name.clone(),
            service: service.name.clone(),
        })
    }

    /// The label of a service in host names, container names and metrics.
    pub fn label_of(&self, service: &Service) -> String {
        self.path_of(service).map_or_else(
            || service.id.short(),
            |path| {
                name::host_label(
                    &path.service,
                    &path.environment,
                    &path.project,
                    &service.id.short(),
                )
            },
        )
    }

    /// The generated host name of a service.
    pub fn host_of(&self, service: &Service) -> String {
        let base = self.base_domain_of(service.environment);
        format!("{}.{base}", self.label_of(service))
    }

    /// What the generated names of an environment end in.
    pub fn base_domain_of(&self, environment: EnvironmentId) -> &str {
        let own = self.scopes.get(&Scope::Environment(environment));
        own.and_then(|settings| settings.base_domain.as_deref())
            .unwrap_or(self.base_domain())
    }

    /// The domains that generated names may end in.
    pub(crate) fn base_domains(&self) -> impl Iterator<Item = &str> {
        let own = self.scopes.values();
        let own = own.filter_map(|settings| settings.base_domain.as_deref());
        std::iter::once(self.base_domain()).chain(own)
    }

    fn base_domain(&self) -> &str {
        let cluster = self.cluster.as_ref();
        cluster.map_or("localhost", |cluster| cluster.base_domain.as_str())
    }
}
