//! Settings of workspaces, environments and pools.

use skep_model::id::{EnvironmentId, WorkspaceId};
use skep_model::placement::{PoolPolicy, Strategy};
use skep_model::settings::{Pool, Quota, Scope, ScopeSettings};

use super::{Error, enum_number, enum_value, error, id_bits, id_bytes};
use crate::v1;
use crate::v1::settings_scope::Scope as Message;

impl From<&Quota> for v1::Quota {
    fn from(quota: &Quota) -> Self {
        Self {
            cpu_millis: quota.cpu_millis,
            memory_bytes: quota.memory_bytes,
            disk_bytes: quota.disk_bytes,
            allocations: quota.allocations,
        }
    }
}

impl From<v1::Quota> for Quota {
    fn from(message: v1::Quota) -> Self {
        Self {
            cpu_millis: message.cpu_millis,
            memory_bytes: message.memory_bytes,
            disk_bytes: message.disk_bytes,
            allocations: message.allocations,
        }
    }
}

impl From<Scope> for v1::SettingsScope {
    fn from(scope: Scope) -> Self {
        let scope = match scope {
            Scope::Workspace(id) => Message::Workspace(id_bytes(id.as_u128())),
            Scope::Environment(id) => Message::Environment(id_bytes(id.as_u128())),
        };
        Self { scope: Some(scope) }
    }
}

impl TryFrom<v1::SettingsScope> for Scope {
    type Error = Error;

    fn try_from(message: v1::SettingsScope) -> Result<Self, Error> {
        Ok(match message.scope.ok_or(error("scope"))? {
            Message::Workspace(id) => {
                Self::Workspace(WorkspaceId::from_u128(id_bits("workspace", &id)?))
            }
            Message::Environment(id) => {
                Self::Environment(EnvironmentId::from_u128(id_bits("environment", &id)?))
            }
        })
    }
}

impl From<(Scope, &ScopeSettings)> for v1::ScopeSettings {
    fn from((scope, settings): (Scope, &ScopeSettings)) -> Self {
        Self {
            scope: Some(scope.into()),
            quota: Some((&settings.quota).into()),
            relaxed: settings.relaxed,
            base_domain: settings.base_domain.clone(),
        }
    }
}

impl TryFrom<v1::ScopeSettings> for (Scope, ScopeSettings) {
    type Error = Error;

    fn try_from(message: v1::ScopeSettings) -> Result<Self, Error> {
        let scope = message.scope.ok_or(error("scope"))?.try_into()?;
        let settings = ScopeSettings {
            quota: message.quota.ok_or(error("quota"))?.into(),
            relaxed: message.relaxed,
            base_domain: message.base_domain,
        };
        Ok((scope, settings))
    }
}

impl From<&Pool> for v1::Pool {
    fn from(pool: &Pool) -> Self {
        let policy = &pool.policy;
        let strategy = policy.strategy;
        Self {
            name: pool.name.clone(),
            cpu_percent: policy.cpu_percent,
            memory_percent: policy.memory_percent,
            reserved_cpu_millis: policy.reserved_cpu_millis,
            reserved_memory_percent: policy.reserved_memory_percent,
            reserved_disk_percent: policy.reserved_disk_percent,
            strategy: strategy.map_or(0, |one| enum_number(&Strategy::ALL, &one)),
            meta: pool.meta.clone().into_iter().collect(),
        }
    }
}

impl TryFrom<v1::Pool> for Pool {
    type Error = Error;

    fn try_from(message: v1::Pool) -> Result<Self, Error> {
        Ok(Self {
            name: message.name,
            policy: PoolPolicy {
                cpu_percent: message.cpu_percent,
                memory_percent: message.memory_percent,
                reserved_cpu_millis: message.reserved_cpu_millis,
                reserved_memory_percent: message.reserved_memory_percent,
                reserved_disk_percent: message.reserved_disk_percent,
                strategy: match message.strategy {
                    0 => None,
                    number => Some(enum_value("strategy", &Strategy::ALL, number)?),
                },
            },
            meta: message.meta.into_iter().collect(),
        })
    }
}
