//! Logins at registries as clients see them.

use std::fmt;

use serde::{Deserialize, Serialize};
use skep_model::registry::RegistryShown;
use utoipa::ToSchema;

/// A login at a registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryRequest {
    /// As whom.
    pub user: String,
    /// Password or token.
    pub password: String,
}

impl fmt::Debug for RegistryRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryRequest({})", self.user)
    }
}

/// Registries at which nodes log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegistriesView {
    /// By host.
    pub registries: Vec<RegistryShown>,
}
