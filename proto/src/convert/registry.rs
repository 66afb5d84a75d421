//! Logins at registries.

use skep_model::registry::{RegistryAccess, RegistryLogin};
use skep_model::variable::Sealed;

use super::Error;
use crate::v1;

impl From<&RegistryLogin> for v1::RegistryLogin {
    fn from(login: &RegistryLogin) -> Self {
        Self {
            host: login.host.clone(),
            user: login.user.clone(),
            sealed_password: login.password.0.clone(),
            changed_ms: login.changed_ms,
        }
    }
}

impl TryFrom<v1::RegistryLogin> for RegistryLogin {
    type Error = Error;

    fn try_from(message: v1::RegistryLogin) -> Result<Self, Error> {
        Ok(Self {
            host: message.host,
            user: message.user,
            password: Sealed(message.sealed_password),
            changed_ms: message.changed_ms,
        })
    }
}

impl From<RegistryAccess> for v1::RegistryAccess {
    fn from(access: RegistryAccess) -> Self {
        Self {
            host: access.host,
            user: access.user,
            password: access.password,
        }
    }
}

impl From<v1::RegistryAccess> for RegistryAccess {
    fn from(message: v1::RegistryAccess) -> Self {
        Self {
            host: message.host,
            user: message.user,
            password: message.password,
        }
    }
}
