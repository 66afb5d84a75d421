//! Forge connections, and what forges were told.

use skep_model::deployment::Status;
use skep_model::forge::{Access, Connection, Installation, Kept, Kind, Told};
use skep_model::id::WorkspaceId;
use skep_model::notify::Standing;
use skep_model::variable::Sealed;

use super::{Error, enum_number, enum_value, error, id, id_bytes};
use crate::v1;
use crate::v1::forge_kept::Standing as Left;
use crate::v1::forge_told::Standing as Stands;

impl From<&Connection> for v1::ForgeConnection {
    fn from(connection: &Connection) -> Self {
        Self {
            workspace: id_bytes(connection.workspace.as_u128()),
            host: connection.host.clone(),
            kind: enum_number(&Kind::ALL, &connection.kind),
            api_url: connection.api_url.clone(),
            sealed_token: match &connection.access {
                Access::Token(token) => token.0.clone(),
                Access::App(_) => Vec::new(),
            },
            ca_pem: connection.ca_pem.clone(),
            made_ms: connection.made_ms,
            changed_ms: connection.changed_ms,
            is_refused: connection.is_refused,
            resume_ms: connection.resume_ms,
            problem: connection.problem.clone(),
            asked_ms: connection.asked_ms,
            installations: connection.installations().iter().map(Into::into).collect(),
            is_app: connection.is_app(),
        }
    }
}

impl TryFrom<v1::ForgeConnection> for Connection {
    type Error = Error;

    fn try_from(message: v1::ForgeConnection) -> Result<Self, Error> {
        Ok(Self {
            workspace: id!(WorkspaceId, message.workspace),
            kind: enum_value("kind", &Kind::ALL, message.kind)?,
            host: message.host,
            api_url: message.api_url,
            access: match message.is_app {
                true => {
                    let all = message.installations.into_iter();
                    Access::App(all.map(Installation::try_from).collect::<Result<_, _>>()?)
                }
                false => Access::Token(Sealed(message.sealed_token)),
            },
            ca_pem: message.ca_pem,
            made_ms: message.made_ms,
            changed_ms: message.changed_ms,
            is_refused: message.is_refused,
            resume_ms: message.resume_ms,
            problem: message.problem,
            asked_ms: message.asked_ms,
        })
    }
}

impl From<&Told> for v1::ForgeTold {
    fn from(told: &Told) -> Self {
        let standing = match told.standing {
            Standing::Pending { next_ms } => Stands::NextMs(next_ms),
            Standing::Delivered => Stands::Delivered(true),
            Standing::GivenUp => Stands::GivenUp(true),
        };
        Self {
            status: enum_number(&Status::ALL, &told.status),
            standing: Some(standing),
            attempts: told.attempts,
            since_ms: told.since_ms,
            at_ms: told.at_ms,
        }
    }
}

impl TryFrom<v1::ForgeTold> for Told {
    type Error = Error;

    fn try_from(message: v1::ForgeTold) -> Result<Self, Error> {
        let standing = match message.standing.ok_or(error("standing"))? {
            Stands::NextMs(next_ms) => Standing::Pending { next_ms },
            Stands::Delivered(_) => Standing::Delivered,
            Stands::GivenUp(_) => Standing::GivenUp,
        };
        Ok(Self {
            status: enum_value("status", &Status::ALL, message.status)?,
            standing,
            attempts: message.attempts,
            since_ms: message.since_ms,
            at_ms: message.at_ms,
        })
    }
}

impl From<&Kept> for v1::ForgeKept {
    fn from(comment: &Kept) -> Self {
        let standing = match comment.standing {
            Standing::Pending { next_ms } => Left::NextMs(next_ms),
            Standing::Delivered => Left::Delivered(true),
            Standing::GivenUp => Left::GivenUp(true),
        };
        Self {
            id: comment.id,
            digest: comment.digest,
            standing: Some(standing),
            attempts: comment.attempts,
            since_ms: comment.since_ms,
            at_ms: comment.at_ms,
            problem: comment.problem.clone(),
        }
    }
}

impl TryFrom<v1::ForgeKept> for Kept {
    type Error = Error;

    fn try_from(message: v1::ForgeKept) -> Result<Self, Error> {
        let standing = match message.standing.ok_or(error("standing"))? {
            Left::NextMs(next_ms) => Standing::Pending { next_ms },
            Left::Delivered(_) => Standing::Delivered,
            Left::GivenUp(_) => Standing::GivenUp,
        };
        Ok(Self {
            id: message.id,
            digest: message.digest,
            standing,
            attempts: message.attempts,
            since_ms: message.since_ms,
            at_ms: message.at_ms,
            problem: message.problem,
        })
    }
}
