//! The cluster's CA on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where the replacement of the CA stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CaPhase {
    /// One CA; nothing is being replaced.
    Steady,
    /// A new CA is trusted, the old one still signs.
    Begun,
    /// The new CA signs, the old one is still trusted.
    Activated,
}

/// A step of replacing the CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CaStep {
    /// Make a new CA, trusted beside the old one.
    Begin,
    /// Let the new one sign; everybody renews.
    Activate,
    /// Trust the old one no more.
    Finish,
}

/// One step of replacing the CA is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateCaRequest {
    /// Which one.
    pub step: CaStep,
    /// Do it though it leaves servers or nodes behind, which then have to join again.
    #[serde(default)]
    pub force: bool,
}

/// The cluster's CAs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CaView {
    /// Where the replacement stands.
    pub phase: CaPhase,
    /// Every CA that is trusted; the first one signs.
    pub trusted: Vec<TrustedCa>,
    /// How many servers and nodes the next step would leave behind.
    pub waiting_count: usize,
    /// The first 100 of them.
    pub waiting_for: Vec<WaitingFor>,
}

/// A CA of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrustedCa {
    /// SHA-256 of its certificate: what tokens and contexts pin.
    pub fingerprint: String,
    /// Its certificate (PEM).
    pub certificate_pem: String,
    /// Whether it signs.
    pub signs: bool,
}

/// Who would be left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitingFor {
    /// Its name.
    pub name: String,
    /// A server, else a node.
    pub is_server: bool,
    /// What is missing.
    pub why: String,
}
