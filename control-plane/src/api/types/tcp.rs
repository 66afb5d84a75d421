//! Ports for connections, as clients see them.

use serde::{Deserialize, Serialize};
use skep_model::tcp::Ports;
use utoipa::ToSchema;

/// The ports that services may have as entries of TCP routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TcpPortsView {
    /// Those that an operator offers; none: none.
    pub ports: Option<Ports>,
    /// Those that are taken, in their order.
    pub entries: Vec<TcpPortView>,
}

/// A port that a service has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TcpPortView {
    /// The port, on every node that serves apps.
    pub port: u16,
    /// Name of the project.
    pub project: String,
    /// Name of the service's environment.
    pub environment: String,
    /// Name of the service.
    pub service: String,
}

/// The ports that services may have from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpPortsRequest {
    /// A range; none: they may have none.
    pub ports: Option<Ports>,
}
