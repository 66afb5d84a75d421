//! The client side inside a cluster: shows the own certificate, and verifies that the peer is the
//! server or node it has to be. By its name in the certificate, not by the address that was dialed:
//! addresses move, identities do not.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientConfig, ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor,
};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use skep_model::id::ClusterId;

use super::{PeerError, Reloadable, alpn_protocols, provider};
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
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Verifier {
        credentials: credentials.clone(),
        expected,
        algorithms,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("ring has the suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(Resolver(credentials.clone())));
    config.alpn_protocols = alpn_protocols(alpn);
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Arc::new(config)
}

/// Verifies that `leaf` is a server certificate signed under `roots` and valid now, and reads its
/// name.
pub(super) fn verified_identity(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<Identity, Error> {
    let parsed = ParsedCertificate::try_from(leaf)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms.all)?;
    Ok(Identity::from_certificate(leaf).map_err(PeerError::Name)?)
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

#[derive(Debug)]
struct Verifier {
    credentials: Arc<Reloadable>,
    expected: Expected,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let current = self.credentials.current();
        let algorithms = &self.algorithms;
        let peer = verified_identity(end_entity, intermediates, &current.roots, now, algorithms)?;
        self.expected.check(current.identity.cluster, peer)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
