//! The client side inside a cluster: shows the own certificate, and verifies that the peer is the
//! server or node it has to be. By its name in the certificate, not by the address that was dialed:
//! addresses move, identities do not.

use std::sync::Arc;

use rustls::client::{ClientConfig, ResolvesClientCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, SignatureScheme};
use skep_model::id::ClusterId;

use super::verifier::{self, Judge, Shown};
use super::{PeerError, Reloadable};
use crate::name::{Identity, Role, Subject};

/// Who has to be at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Anybody of this role in the own cluster.
    Role(Role),
    /// This server or node of the own cluster.
    Exactly(Subject),
}

impl Expected {
    /// Judges the name of a verified peer.
    pub(super) fn check(self, cluster: ClusterId, peer: Identity) -> Result<(), PeerError> {
        let theirs = peer.role();
        match self {
            _ if peer.cluster != cluster => Err(PeerError::Cluster {
                theirs: peer.cluster,
                expected: cluster,
            }),
            Self::Role(expected) if theirs != expected => Err(PeerError::Role { theirs, expected }),
            Self::Exactly(expected) if peer.subject != expected => Err(PeerError::Subject {
                theirs: peer.subject,
                expected,
            }),
            Self::Role(_) | Self::Exactly(_) => Ok(()),
        }
    }
}

/// A client configuration over `credentials`, following their replacement, that talks to nobody
/// but `expected`.
pub fn client_config(
    credentials: &Arc<Reloadable>,
    expected: Expected,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    let judge = OfCluster {
        credentials: credentials.clone(),
        expected,
    };
    let resolver = Arc::new(Resolver(credentials.clone()));
    let mut config = verifier::client_config(judge, Some(resolver), alpn);
    config.enable_sni = false;
    Arc::new(config)
}

/// The same without showing a certificate: for whoever has none that is valid, and asks for one.
pub fn anonymous_client_config(
    credentials: &Arc<Reloadable>,
    expected: Expected,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    let judge = OfCluster {
        credentials: credentials.clone(),
        expected,
    };
    let mut config = verifier::client_config(judge, None, alpn);
    config.enable_sni = false;
    Arc::new(config)
}

#[derive(Debug)]
struct Resolver(Arc<Reloadable>);

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().as_client.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Trusts the CA of the own credentials at that moment.
#[derive(Debug)]
struct OfCluster {
    credentials: Arc<Reloadable>,
    expected: Expected,
}

impl Judge for OfCluster {
    fn judge(&self, shown: &Shown<'_>) -> Result<(), Error> {
        let current = self.credentials.current();
        let peer = shown.verified_identity(&current.roots)?;
        Ok(self.expected.check(current.identity.cluster, peer)?)
    }
}
