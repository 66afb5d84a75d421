//! Settings of workspaces, environments and pools.

use skep_model::gate::{Freeze, Gates, Window};
use skep_model::id::{EnvironmentId, WorkspaceId};
use skep_model::placement::{Builds, PoolPolicy, Strategy};
use skep_model::settings::{Pool, Quota, Scope, ScopeSettings};

use super::{Error, enum_number, enum_value, error, id_bits, id_bytes};
use crate::v1;
use crate::v1::freeze::Window as WindowMessage;
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
            gates: (!settings.gates.is_empty()).then(|| (&settings.gates).into()),
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
            gates: message
                .gates
                .map(Gates::try_from)
                .transpose()?
                .unwrap_or_default(),
        };
        Ok((scope, settings))
    }
}

impl From<&Gates> for v1::Gates {
    fn from(gates: &Gates) -> Self {
        Self {
            approval: gates.approval,
            freezes: gates.freezes.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Gates> for Gates {
    type Error = Error;

    fn try_from(message: v1::Gates) -> Result<Self, Error> {
        let freezes = message.freezes.into_iter().map(TryInto::try_into);
        Ok(Self {
            approval: message.approval,
            freezes: freezes.collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Freeze> for v1::Freeze {
    fn from(freeze: &Freeze) -> Self {
        let window = match &freeze.window {
            Window::Once { from_ms, until_ms } => WindowMessage::Once(v1::FreezeOnce {
                from_ms: *from_ms,
                until_ms: *until_ms,
            }),
            Window::Again {
                schedule,
                time_zone,
                for_ms,
            } => WindowMessage::Again(v1::FreezeAgain {
                schedule: schedule.clone(),
                time_zone: time_zone.clone(),
                for_ms: *for_ms,
            }),
        };
        Self {
            name: freeze.name.clone(),
            reason: freeze.reason.clone(),
            window: Some(window),
        }
    }
}

impl TryFrom<v1::Freeze> for Freeze {
    type Error = Error;

    fn try_from(message: v1::Freeze) -> Result<Self, Error> {
        let window = match message.window.ok_or(error("window"))? {
            WindowMessage::Once(once) => Window::Once {
                from_ms: once.from_ms,
                until_ms: once.until_ms,
            },
            WindowMessage::Again(again) => Window::Again {
                schedule: again.schedule,
                time_zone: again.time_zone,
                for_ms: again.for_ms,
            },
        };
        Ok(Self {
            name: message.name,
            window,
            reason: message.reason,
        })
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
            builds: enum_number(&Builds::ALL, &policy.builds),
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
                builds: match message.builds {
                    0 => Builds::Also,
                    number => enum_value("builds", &Builds::ALL, number)?,
                },
            },
            meta: message.meta.into_iter().collect(),
        })
    }
}
