//! The client side from outside: somebody who holds no certificate and knows of the cluster only
//! the fingerprint of its CA (the command line, and a machine that joins).

use std::sync::Arc;

use rustls::client::ClientConfig;
use rustls::{Error, RootCertStore};

use super::verifier::{self, Judge, Shown};
use super::{Expected, PeerError};
use crate::fingerprint::Fingerprint;
use crate::name::{self, Role};

/// A client configuration without a certificate that talks only to servers of the cluster whose CA
/// has this fingerprint. The chain must contain that CA, which is then the only trust anchor for
/// the leaf; the leaf must be a server's (a node of the same cluster is refused). The address that
/// was dialed does not matter.
pub fn pinned_client_config(ca: Fingerprint, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    Arc::new(verifier::client_config(Pinned { ca }, None, alpn))
}

/// Trusts whatever CA of the chain has the fingerprint.
#[derive(Debug)]
struct Pinned {
    ca: Fingerprint,
}

impl Judge for Pinned {
    fn judge(&self, shown: &Shown<'_>) -> Result<(), Error> {
        let ca = shown
            .intermediates
            .iter()
            .find(|certificate| Fingerprint::of_der(certificate) == self.ca)
            .ok_or(PeerError::Fingerprint { expected: self.ca })?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let peer = shown.verified_identity(&roots)?;
        let cluster = name::cluster_of_ca(ca).map_err(PeerError::Name)?;
        Ok(Expected::Role(Role::Server).check(cluster, peer)?)
    }
}
