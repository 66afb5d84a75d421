//! The client side from outside: somebody who holds no certificate and knows of the cluster only
//! the fingerprint of its CA (the command line, and a machine that joins).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::version::TLS13;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::client::verified_identity;
use super::{Expected, PeerError, alpn_protocols, provider};
use crate::fingerprint::Fingerprint;
use crate::name::{self, Role};

/// A client configuration without a certificate that talks only to servers of the cluster whose CA
/// has this fingerprint. The chain must contain that CA, which is then the only trust anchor for
/// the leaf; the leaf must be a server's (a node of the same cluster is refused). The address that
/// was dialed does not matter.
pub fn pinned_client_config(ca: Fingerprint, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("ring has the suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { ca, algorithms }))
        .with_no_client_auth();
    config.alpn_protocols = alpn_protocols(alpn);
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[derive(Debug)]
struct Verifier {
    ca: Fingerprint,
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
        let ca = intermediates
            .iter()
            .find(|certificate| Fingerprint::of_der(certificate) == self.ca)
            .ok_or(PeerError::Fingerprint { expected: self.ca })?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let peer = verified_identity(end_entity, intermediates, &roots, now, &self.algorithms)?;
        let cluster = name::cluster_of_ca(ca).map_err(PeerError::Name)?;
        Expected::Role(Role::Server).check(cluster, peer)?;
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
