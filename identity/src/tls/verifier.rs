//! How every client of the project judges a server's certificate: signed under a CA of the
//! cluster, valid now, and of the right name. Which CA and which name, a [`Judge`] knows.

use std::fmt::Debug;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientConfig, ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor,
};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::version::TLS13;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{PeerError, alpn_protocols, provider};
use crate::name::Identity;

/// What a server showed.
pub(super) struct Shown<'a> {
    leaf: &'a CertificateDer<'a>,
    /// What came with the leaf.
    pub(super) intermediates: &'a [CertificateDer<'a>],
    now: UnixTime,
    algorithms: &'a WebPkiSupportedAlgorithms,
}

impl Shown<'_> {
    /// Verifies that the leaf is a server certificate signed under `roots` and valid now, and reads
    /// its name.
    pub(super) fn verified_identity(&self, roots: &RootCertStore) -> Result<Identity, Error> {
        let parsed = ParsedCertificate::try_from(self.leaf)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            roots,
            self.intermediates,
            self.now,
            self.algorithms.all,
        )?;
        Ok(Identity::from_certificate(self.leaf).map_err(PeerError::Name)?)
    }
}

/// Who is trusted, and as whom.
pub(super) trait Judge: Debug + Send + Sync + 'static {
    /// Whether the client talks to this server. The address that was dialed does not matter.
    fn judge(&self, shown: &Shown<'_>) -> Result<(), Error>;
}

/// A client configuration that talks only to those whom `judge` accepts, and shows `certificate`.
pub(super) fn client_config(
    judge: impl Judge,
    certificate: Option<Arc<dyn ResolvesClientCert>>,
    alpn: &[&[u8]],
) -> ClientConfig {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("ring has the suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { judge, algorithms }));
    let mut config = match certificate {
        Some(resolver) => builder.with_client_cert_resolver(resolver),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn_protocols(alpn);
    config.resumption = Resumption::disabled();
    config
}

#[derive(Debug)]
struct Verifier<J> {
    judge: J,
    algorithms: WebPkiSupportedAlgorithms,
}

impl<J: Judge> ServerCertVerifier for Verifier<J> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge.judge(&Shown {
            leaf: end_entity,
            intermediates,
            now,
            algorithms: &self.algorithms,
        })?;
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
