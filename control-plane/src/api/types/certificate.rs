//! Certificates of apps as clients see them.

use std::fmt;

use serde::{Deserialize, Serialize};
use skep_model::certificate::{CertificateShown, ChallengeKind, DnsProvider, IssuerShown};
use utoipa::ToSchema;

/// A certificate with its key, both PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// The leaf first, then what links it to its root.
    pub chain: String,
    /// The leaf's, unencrypted.
    pub key: String,
}

impl fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateRequest({} bytes)", self.chain.len())
    }
}

/// Who is to issue certificates.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerRequest {
    /// URL of its ACME directory, `https://`.
    pub directory: String,
    /// Mail address that it writes to; empty: none.
    #[serde(default)]
    pub contact: String,
    /// Its terms were read and are agreed to.
    pub terms_agreed: bool,
    /// How hosts are proved.
    pub challenge: ChallengeKind,
    /// Who writes the records in DNS; needed for `dns-01`, and for nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsRequest>,
    /// Certificates that prove who answers at the directory, PEM; empty: those that the servers' systems trust.
    #[serde(default)]
    pub root: String,
    /// Name of the key that binds the account to another one there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eab_key_id: Option<String>,
    /// That key, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eab_hmac: Option<String>,
}

impl fmt::Debug for IssuerRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuerRequest({})", self.directory)
    }
}

/// Who writes records in DNS, and what opens it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DnsRequest {
    /// Who.
    pub provider: DnsProvider,
    /// Its key (`rfc2136`: base64) or token; sealed, and never shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl fmt::Debug for DnsRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DnsRequest({:?})", self.provider)
    }
}

/// Certificates of apps, and who issues them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificatesView {
    /// None: nobody.
    pub issuer: Option<IssuerShown>,
    /// By name.
    pub certificates: Vec<CertificateShown>,
}

/// How certificates are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateCounts {
    /// Those that are shown.
    pub held: u32,
    /// Of which the last attempt failed.
    pub failing: u32,
    /// Past the time at which they were to be renewed, or with little left where nobody renews them.
    pub ending: u32,
}

/// The authority for private names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LocalCaView {
    /// What people trust, PEM.
    pub root: String,
    /// When it was made, ms since the epoch.
    pub made_ms: u64,
}
