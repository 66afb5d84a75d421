//! The TLS configurations of the project: version 1.3 only, both sides verified against the
//! cluster's CA and by the name in the certificate, credentials replaceable at run time.
//!
//! Sessions are never resumed: each connection is checked against the credentials and trust of
//! that moment. There is no way to ask for less.

mod client;
mod diagnosis;
mod pinned;
mod reload;
mod server;
#[cfg(test)]
mod tests;
mod unjudged;
mod verifier;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, CommonState, OtherError};
use skep_model::id::ClusterId;

pub use client::{Expected, anonymous_client_config, client_config};
pub use diagnosis::{OutOfTime, out_of_time};
pub use pinned::pinned_client_config;
pub use reload::{LoadError, Reloadable};
pub use server::{ClientAuth, server_config};
pub use unjudged::unjudged_client_config;

use crate::fingerprint::Fingerprint;
use crate::name::{self, Identity, Role, Subject};

/// ALPN of gRPC: HTTP/2 only.
pub const ALPN_GRPC: &[&[u8]] = &[b"h2"];
/// ALPN of the HTTPS API.
pub const ALPN_HTTPS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// A peer whose certificate may be valid but who is not who it has to be. Found as the source of a
/// failed handshake's error.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// No Skep name in the certificate.
    #[error("the peer's certificate names no server, node or operator")]
    Name(#[from] name::Error),
    /// Another cluster.
    #[error("the peer belongs to cluster {theirs}, expected is {expected}")]
    Cluster {
        /// Its cluster.
        theirs: ClusterId,
        /// Ours.
        expected: ClusterId,
    },
    /// The wrong role.
    #[error("the peer is a {theirs}, expected is a {expected}")]
    Role {
        /// Its role.
        theirs: Role,
        /// The role to be talked to.
        expected: Role,
    },
    /// The right role, but another one.
    #[error("the peer is {theirs:?}, expected is {expected:?}")]
    Subject {
        /// Who it is.
        theirs: Subject,
        /// Who was to be talked to.
        expected: Subject,
    },
    /// The pinned CA is not in the chain.
    #[error(
        "the server does not belong to the cluster whose CA has the fingerprint {expected}; \
         if its CA was replaced since, a new token or login is needed"
    )]
    Fingerprint {
        /// The pinned fingerprint.
        expected: Fingerprint,
    },
}

impl From<PeerError> for rustls::Error {
    fn from(error: PeerError) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    }
}

/// Who the peer of an established connection proved to be; none when it showed no certificate.
pub fn peer_identity(connection: &CommonState) -> Option<Identity> {
    let leaf = connection.peer_certificates()?.first()?;
    Identity::from_certificate(leaf).ok()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn alpn_protocols(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}
