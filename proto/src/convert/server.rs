//! Servers, join tokens and what is in quarantine.

use skep_model::id::{AllocationId, NodeId, ServerId, ServiceId, TokenId};
use skep_model::quarantine::Quarantined;
use skep_model::server::{JoinToken, Role, Server};

use super::{Error, enum_number, enum_value, id, id_bytes, need};
use crate::v1;

impl From<&Server> for v1::Server {
    fn from(server: &Server) -> Self {
        Self {
            id: id_bytes(server.id.as_u128()),
            member: server.member,
            name: server.name.clone(),
            cluster_address: server.cluster_address.clone(),
            api_address: server.api_address.clone(),
            version: server.version.clone(),
            feature_level: server.feature_level,
            joined_ms: server.joined_ms,
        }
    }
}

impl TryFrom<v1::Server> for Server {
    type Error = Error;

    fn try_from(message: v1::Server) -> Result<Self, Error> {
        Ok(Self {
            id: id!(ServerId, message.id),
            member: message.member,
            name: message.name,
            cluster_address: message.cluster_address,
            api_address: message.api_address,
            version: message.version,
            feature_level: message.feature_level,
            joined_ms: message.joined_ms,
        })
    }
}

impl From<&JoinToken> for v1::JoinToken {
    fn from(token: &JoinToken) -> Self {
        Self {
            id: id_bytes(token.id.as_u128()),
            secret_hash: token.secret_hash.clone(),
            expires_ms: token.expires_ms,
            uses_left: token.uses_left,
            role: enum_number(&Role::ALL, &token.role).saturating_sub(1),
            note: token.note.clone(),
            created_ms: token.created_ms,
        }
    }
}

impl TryFrom<v1::JoinToken> for JoinToken {
    type Error = Error;

    fn try_from(message: v1::JoinToken) -> Result<Self, Error> {
        let number = message.role.saturating_add(1);
        Ok(Self {
            id: id!(TokenId, message.id),
            secret_hash: message.secret_hash,
            expires_ms: message.expires_ms,
            uses_left: message.uses_left,
            role: enum_value("role", &Role::ALL, number)?,
            note: message.note,
            created_ms: message.created_ms,
        })
    }
}

impl From<&Quarantined> for v1::Quarantined {
    fn from(quarantined: &Quarantined) -> Self {
        Self {
            node: id_bytes(quarantined.node.as_u128()),
            allocation: id_bytes(quarantined.allocation.as_u128()),
            service: id_bytes(quarantined.service.as_u128()),
            service_label: quarantined.service_label.clone(),
            target: Some((&quarantined.target).into()),
            since_ms: quarantined.since_ms,
        }
    }
}

impl TryFrom<v1::Quarantined> for Quarantined {
    type Error = Error;

    fn try_from(message: v1::Quarantined) -> Result<Self, Error> {
        Ok(Self {
            node: id!(NodeId, message.node),
            allocation: id!(AllocationId, message.allocation),
            service: id!(ServiceId, message.service),
            service_label: message.service_label,
            target: need!(message.target),
            since_ms: message.since_ms,
        })
    }
}
