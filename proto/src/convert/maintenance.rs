//! Physical hosts under maintenance.

use skep_model::id::NodeId;
use skep_model::maintenance::{Cause, Maintenance};

use super::{Error, enum_number, enum_value, id, id_bytes};
use crate::v1;

impl From<&Maintenance> for v1::Maintenance {
    fn from(maintenance: &Maintenance) -> Self {
        let nodes = maintenance.nodes.iter();
        Self {
            host: maintenance.host.clone(),
            cause: enum_number(&Cause::ALL, &maintenance.cause),
            since_ms: maintenance.since_ms,
            deadline_ms: maintenance.deadline_ms,
            nodes: nodes
                .map(|(node, was_cordoned)| v1::MaintainedNode {
                    node: id_bytes(node.as_u128()),
                    was_cordoned: *was_cordoned,
                })
                .collect(),
        }
    }
}

impl TryFrom<v1::Maintenance> for Maintenance {
    type Error = Error;

    fn try_from(message: v1::Maintenance) -> Result<Self, Error> {
        let nodes = message.nodes.into_iter();
        let nodes = nodes.map(|one| Ok((id!(NodeId, one.node), one.was_cordoned)));
        Ok(Self {
            host: message.host,
            cause: enum_value("cause", &Cause::ALL, message.cause)?,
            since_ms: message.since_ms,
            deadline_ms: message.deadline_ms,
            nodes: nodes.collect::<Result<_, Error>>()?,
        })
    }
}
