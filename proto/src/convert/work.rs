//! What goes to nodes: routes and assignments.

use std::collections::BTreeSet;

use skep_model::allocation::Desired;
use skep_model::assignment::{
    Assignment, BuildOrder, DesiredSet, Generation, ImagePeer, MAX_IMAGE_PEERS, Names,
};
use skep_model::id::{AllocationId, ClusterId, DeploymentId, EnvironmentId, NodeId, ServiceId};
use skep_model::route::{Backend, Route, RoutePeer, RouteTable, TcpRoute};

use super::registry::{workspace_in, workspace_out};
use super::route::{rules_in, rules_out};
use super::spec::{pull, pull_number};
use super::{
    Error, build, container, enum_number, enum_value, error, id, id_bytes, need, port, ports,
};
use crate::v1;

impl From<&RouteTable> for v1::RouteTable {
    fn from(table: &RouteTable) -> Self {
        let route = |route: &Route| v1::Route {
            host: route.host.clone(),
            path_prefix: route.path_prefix.clone(),
            service: id_bytes(route.service.as_u128()),
            name: route.name.clone(),
            backends: route.backends.iter().map(Into::into).collect(),
            sleeps: route.sleeps,
            rules: rules_out(&route.rules),
            parts: route.parts.iter().map(Into::into).collect(),
            tried: route.tried.iter().map(Into::into).collect(),
        };
        let hosts = ruled_hosts(&table.routes);
        let (ruled, plain): (Vec<&Route>, Vec<&Route>) = table
            .routes
            .iter()
            .partition(|route| hosts.contains(route.host.as_str()));
        let peer = |peer: &RoutePeer| v1::RoutePeer {
            node: id_bytes(peer.node.as_u128()),
            address: peer.address.clone(),
        };
        Self {
            revision: table.revision,
            routes: plain.into_iter().map(route).collect(),
            incarnation: 0,
            ruled: ruled.into_iter().map(route).collect(),
            peers: table.peers.iter().map(peer).collect(),
            names: table.names.iter().map(Into::into).collect(),
            tcp: table.tcp.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Backend> for v1::RouteBackend {
    fn from(backend: &Backend) -> Self {
        Self {
            node: id_bytes(backend.node.as_u128()),
            allocation: id_bytes(backend.allocation.as_u128()),
            port: u32::from(backend.port),
        }
    }
}

/// The hosts of which a route has rules.
fn ruled_hosts(routes: &[Route]) -> BTreeSet<&str> {
    let ruled = routes.iter().filter(|route| route.rules.is_some());
    ruled.map(|route| route.host.as_str()).collect()
}

impl TryFrom<v1::RouteBackend> for Backend {
    type Error = Error;

    fn try_from(message: v1::RouteBackend) -> Result<Self, Error> {
        Ok(Self {
            node: id!(NodeId, message.node),
            allocation: id!(AllocationId, message.allocation),
            port: port("port", Some(message.port))?.ok_or(error("port"))?,
        })
    }
}

impl TryFrom<v1::Route> for Route {
    type Error = Error;

    fn try_from(message: v1::Route) -> Result<Self, Error> {
        Ok(Self {
            host: message.host,
            path_prefix: message.path_prefix,
            service: id!(ServiceId, message.service),
            name: message.name,
            backends: message
                .backends
                .into_iter()
                .map(Backend::try_from)
                .collect::<Result<_, _>>()?,
            sleeps: message.sleeps,
            rules: rules_in(message.rules)?,
            parts: message
                .parts
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            tried: message
                .tried
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<v1::RoutePeer> for RoutePeer {
    type Error = Error;

    fn try_from(message: v1::RoutePeer) -> Result<Self, Error> {
        Ok(Self {
            node: id!(NodeId, message.node),
            address: message.address,
        })
    }
}

impl TryFrom<v1::RouteTable> for RouteTable {
    type Error = Error;

    fn try_from(message: v1::RouteTable) -> Result<Self, Error> {
        let all = message.routes.into_iter().chain(message.ruled);
        let mut routes = all.map(Route::try_from).collect::<Result<Vec<_>, _>>()?;
        routes.sort_by(|a, b| (&a.host, &a.path_prefix).cmp(&(&b.host, &b.path_prefix)));
        Ok(Self {
            revision: message.revision,
            routes,
            tcp: message
                .tcp
                .into_iter()
                .map(TcpRoute::try_from)
                .collect::<Result<_, _>>()?,
            peers: message
                .peers
                .into_iter()
                .map(RoutePeer::try_from)
                .collect::<Result<_, _>>()?,
            names: message
                .names
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<Generation> for v1::Generation {
    fn from(generation: Generation) -> Self {
        Self {
            incarnation: generation.incarnation,
            number: generation.number,
        }
    }
}

impl From<v1::Generation> for Generation {
    fn from(message: v1::Generation) -> Self {
        Self {
            incarnation: message.incarnation,
            number: message.number,
        }
    }
}

fn image_peer(peer: &ImagePeer) -> v1::ImagePeer {
    v1::ImagePeer {
        node: id_bytes(peer.node.as_u128()),
        address: peer.address.clone(),
    }
}

/// More than there may be are left out: they are a choice, not a truth.
fn image_peers(messages: Vec<v1::ImagePeer>) -> Result<Vec<ImagePeer>, Error> {
    let peers = messages.into_iter().take(MAX_IMAGE_PEERS);
    let peers = peers.map(|message| {
        Ok(ImagePeer {
            node: id!(NodeId, message.node),
            address: message.address,
        })
    });
    peers.collect()
}

impl From<&Assignment> for v1::Assignment {
    fn from(assignment: &Assignment) -> Self {
        let entry = |(name, value): &(String, String)| v1::EnvironmentEntry {
            name: name.clone(),
            value: value.clone(),
        };
        Self {
            allocation: id_bytes(assignment.allocation.as_u128()),
            service: id_bytes(assignment.service.as_u128()),
            service_label: assignment.service_label.clone(),
            target: Some((&assignment.target).into()),
            desired: enum_number(&Desired::ALL, &assignment.desired),
            image: Some((&assignment.image).into()),
            port: assignment.port.map(u32::from),
            environment: assignment.environment.iter().map(entry).collect(),
            command: assignment.command.clone(),
            resources: Some((&assignment.resources).into()),
            health: Some((&assignment.health).into()),
            restart: Some((&assignment.restart).into()),
            stop_grace_ms: assignment.stop_grace_ms,
            job: assignment.job.as_ref().map(Into::into),
            stop_after_ms: assignment.stop_after_ms,
            ports: assignment.ports.iter().copied().map(u32::from).collect(),
            dynamic_ports: assignment.dynamic_ports,
            devices: assignment.devices.clone(),
            storage: super::storage::optional(&assignment.storage),
            container: container::container_out(&assignment.container),
            hooks: container::hooks_out(&assignment.hooks),
            image_peers: assignment.image_peers.iter().map(image_peer).collect(),
            project_name: assignment.names.project.clone(),
            environment_name: assignment.names.environment.clone(),
            service_name: assignment.names.service.clone(),
            network: assignment
                .network
                .map_or_else(Vec::new, |id| id_bytes(id.as_u128())),
            workspace: workspace_out(assignment.workspace),
        }
    }
}

impl TryFrom<v1::Assignment> for Assignment {
    type Error = Error;

    fn try_from(message: v1::Assignment) -> Result<Self, Error> {
        Ok(Self {
            allocation: id!(AllocationId, message.allocation),
            service: id!(ServiceId, message.service),
            service_label: message.service_label,
            names: Names {
                project: message.project_name,
                environment: message.environment_name,
                service: message.service_name,
            },
            target: need!(message.target),
            desired: enum_value("desired", &Desired::ALL, message.desired)?,
            image: need!(message.image),
            port: port("port", message.port)?,
            environment: message
                .environment
                .into_iter()
                .map(|entry| (entry.name, entry.value))
                .collect(),
            command: message.command,
            resources: need!(message.resources),
            health: need!(message.health),
            restart: need!(message.restart),
            stop_grace_ms: message.stop_grace_ms,
            job: message.job.map(TryInto::try_into).transpose()?,
            stop_after_ms: message.stop_after_ms,
            ports: ports(&message.ports)?,
            dynamic_ports: message.dynamic_ports,
            devices: message.devices,
            storage: super::storage::or_empty(message.storage)?,
            container: container::container_in(message.container)?,
            hooks: container::hooks_in(message.hooks),
            image_peers: image_peers(message.image_peers)?,
            network: match message.network.is_empty() {
                true => None,
                false => Some(id!(EnvironmentId, message.network)),
            },
            workspace: workspace_in(&message.workspace)?,
        })
    }
}

impl From<&BuildOrder> for v1::BuildOrder {
    fn from(order: &BuildOrder) -> Self {
        let (builder, builder_program) = build::builder_out(order.builder.as_ref());
        Self {
            deployment: id_bytes(order.deployment.as_u128()),
            service: id_bytes(order.service.as_u128()),
            service_label: order.service_label.clone(),
            origin: Some((&order.origin).into()),
            builder,
            dockerfile: order.dockerfile.clone(),
            timeout_ms: order.timeout_ms,
            pull: pull_number(order.pull),
            arguments: order.arguments.clone(),
            build: build::build_out(&order.build),
            nixpacks: build::nixpacks_out(&order.nixpacks),
            site: build::site_out(&order.site),
            fetch: build::fetch_out(&order.fetch),
            builder_program,
            variables: order.variables.iter().map(build::variable_out).collect(),
            no_cache: order.no_cache,
            workspace: workspace_out(order.workspace),
            ask_registry: order.ask_registry,
        }
    }
}

impl TryFrom<v1::BuildOrder> for BuildOrder {
    type Error = Error;

    fn try_from(message: v1::BuildOrder) -> Result<Self, Error> {
        Ok(Self {
            deployment: id!(DeploymentId, message.deployment),
            service: id!(ServiceId, message.service),
            service_label: message.service_label,
            origin: need!(message.origin),
            builder: build::builder_in(message.builder, message.builder_program)?,
            dockerfile: message.dockerfile,
            timeout_ms: message.timeout_ms,
            pull: pull(message.pull)?,
            arguments: message.arguments,
            build: build::build_in(message.build),
            nixpacks: build::nixpacks_in(message.nixpacks),
            site: build::site_in(message.site),
            fetch: build::fetch_in(message.fetch),
            variables: message
                .variables
                .into_iter()
                .map(build::variable_in)
                .collect(),
            no_cache: message.no_cache,
            workspace: workspace_in(&message.workspace)?,
            ask_registry: message.ask_registry,
        })
    }
}

impl From<&DesiredSet> for v1::DesiredSet {
    fn from(set: &DesiredSet) -> Self {
        Self {
            cluster: id_bytes(set.cluster.as_u128()),
            generation: Some(set.generation.into()),
            assignments: set.assignments.iter().map(Into::into).collect(),
            builds: set.builds.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::DesiredSet> for DesiredSet {
    type Error = Error;

    fn try_from(message: v1::DesiredSet) -> Result<Self, Error> {
        Ok(Self {
            cluster: id!(ClusterId, message.cluster),
            generation: message.generation.ok_or(error("generation"))?.into(),
            assignments: message
                .assignments
                .into_iter()
                .map(Assignment::try_from)
                .collect::<Result<_, _>>()?,
            builds: message
                .builds
                .into_iter()
                .map(BuildOrder::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}
