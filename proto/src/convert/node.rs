//! Nodes and what they tell of themselves.

use skep_model::id::NodeId;
use skep_model::node::{Admin, Facts, Fenced, Fencing, Node, NodeStatus};
use skep_model::storage::HeldVolume;

use super::{Error, enum_number, enum_value, id, id_bytes, need, port};
use crate::v1;

impl From<&Facts> for v1::Facts {
    fn from(facts: &Facts) -> Self {
        Self {
            hostname: facts.hostname.clone(),
            architecture: facts.architecture.clone(),
            kernel: facts.kernel.clone(),
            cpu_millis: facts.cpu_millis,
            memory_bytes: facts.memory_bytes,
            disk_bytes: facts.disk_bytes,
            docker_version: facts.docker_version.clone(),
            agent_version: facts.agent_version.clone(),
            ingress_port: facts.ingress_port.map(u32::from),
            builder: facts.builder,
            devices: facts.devices.clone(),
            private_network: facts.private_network,
            meta: facts.meta.clone(),
            storage: facts.storage,
            volumes: facts.volumes.iter().map(Into::into).collect(),
            host_paths: facts.host_paths.clone(),
            image_address: facts.image_address.clone().unwrap_or_default(),
            mesh_address: facts.mesh_address.clone().unwrap_or_default(),
            machine: (!facts.machine.is_silent()).then(|| (&facts.machine).into()),
            builders: facts.builders.clone(),
            shared_storage: facts.shared_storage.clone(),
        }
    }
}

impl TryFrom<v1::Facts> for Facts {
    type Error = Error;

    fn try_from(message: v1::Facts) -> Result<Self, Error> {
        Ok(Self {
            hostname: message.hostname,
            architecture: message.architecture,
            kernel: message.kernel,
            cpu_millis: message.cpu_millis,
            memory_bytes: message.memory_bytes,
            disk_bytes: message.disk_bytes,
            docker_version: message.docker_version,
            agent_version: message.agent_version,
            ingress_port: port("ingress_port", message.ingress_port)?,
            builder: message.builder,
            devices: message.devices,
            private_network: message.private_network,
            meta: message.meta,
            storage: message.storage,
            volumes: held(message.volumes)?,
            host_paths: message.host_paths,
            image_address: said(message.image_address),
            mesh_address: said(message.mesh_address),
            machine: match message.machine {
                Some(machine) => machine.try_into()?,
                None => Default::default(),
            },
            builders: message.builders,
            shared_storage: message.shared_storage,
        })
    }
}

fn said(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn held(volumes: Vec<v1::HeldVolume>) -> Result<Vec<HeldVolume>, Error> {
    volumes.into_iter().map(TryInto::try_into).collect()
}

impl From<&Node> for v1::Node {
    fn from(node: &Node) -> Self {
        Self {
            id: id_bytes(node.id.as_u128()),
            name: node.name.clone(),
            facts: Some((&node.facts).into()),
            status: enum_number(&NodeStatus::ALL, &node.status),
            status_ms: node.status_ms,
            generation: node.generation,
            joined_ms: node.joined_ms,
            meta: node.meta.clone(),
            cordoned: node.admin == Admin::Cordoned,
            drain_deadline_ms: match node.admin {
                Admin::Draining { deadline_ms } => Some(deadline_ms),
                Admin::Eligible | Admin::Cordoned => None,
            },
            seat: super::optional_id_bytes(node.seat),
            witnesses: (node.witnesses.iter())
                .map(|witness| id_bytes(witness.as_u128()))
                .collect(),
            incarnation: node.fencing.incarnation,
            fenced: node.fencing.fenced.as_ref().map(|it| v1::Fenced {
                at_ms: it.at_ms,
                by: it.by.clone(),
                why: it.why.clone(),
            }),
            fencing_waits: node.fencing.waits.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Node> for Node {
    type Error = Error;

    fn try_from(message: v1::Node) -> Result<Self, Error> {
        Ok(Self {
            id: id!(NodeId, message.id),
            name: message.name,
            facts: need!(message.facts),
            status: enum_value("status", &NodeStatus::ALL, message.status)?,
            status_ms: message.status_ms,
            generation: message.generation,
            joined_ms: message.joined_ms,
            meta: message.meta,
            admin: match message.drain_deadline_ms {
                Some(deadline_ms) => Admin::Draining { deadline_ms },
                None if message.cordoned => Admin::Cordoned,
                None => Admin::Eligible,
            },
            seat: super::optional_id_bits("seat", &message.seat)?,
            witnesses: super::node_ids(&message.witnesses)?,
            fencing: Fencing {
                incarnation: message.incarnation,
                fenced: message.fenced.map(|it| Fenced {
                    at_ms: it.at_ms,
                    by: it.by,
                    why: it.why,
                }),
                waits: said(message.fencing_waits),
            },
        })
    }
}
