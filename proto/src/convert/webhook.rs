//! Webhooks of repositories.

use skep_model::id::{HookId, WorkspaceId};
use skep_model::variable::Sealed;
use skep_model::webhook::Hook;

use super::{Error, id_bits, id_bytes};
use crate::v1;

impl From<&Hook> for v1::Hook {
    fn from(hook: &Hook) -> Self {
        Self {
            id: id_bytes(hook.id.as_u128()),
            workspace: id_bytes(hook.workspace.as_u128()),
            repository: hook.repository.clone(),
            sealed_secret: hook.secret.0.clone(),
            changed_ms: hook.changed_ms,
        }
    }
}

impl TryFrom<v1::Hook> for Hook {
    type Error = Error;

    fn try_from(message: v1::Hook) -> Result<Self, Error> {
        Ok(Self {
            id: HookId::from_u128(id_bits("id", &message.id)?),
            workspace: WorkspaceId::from_u128(id_bits("workspace", &message.workspace)?),
            repository: message.repository,
            secret: Sealed(message.sealed_secret),
            changed_ms: message.changed_ms,
        })
    }
}
