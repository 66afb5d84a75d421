//! The server side: shows the current certificate with its CA, and verifies clients.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{PeerError, Reloadable, alpn_protocols, provider};
use crate::name::Identity;

/// Whether clients have to show a certificate. One that is shown is verified in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate, no connection.
    Required,
    /// For joining and for the HTTPS API, whose callers prove themselves by a token.
    Optional,
}

/// A server configuration over `credentials`, following their replacement.
pub fn server_config(
    credentials: &Arc<Reloadable>,
    auth: ClientAuth,
    alpn: &[&[u8]],
) -> Arc<ServerConfig> {
    let verifier = Verifier {
        credentials: credentials.clone(),
        auth,
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("ring has the suites of TLS 1.3")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(Resolver(credentials.clone())));
    config.alpn_protocols = alpn_protocols(alpn);
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

#[derive(Debug)]
struct Resolver(Arc<Reloadable>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().as_server.clone())
    }
}

#[derive(Debug)]
struct Verifier {
    credentials: Arc<Reloadable>,
    auth: ClientAuth,
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.auth == ClientAuth::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A Skep client has one certificate and needs no hint.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let current = self.credentials.current();
        let verified =
            current
                .client_verifier
                .verify_client_cert(end_entity, intermediates, now)?;
        let theirs = Identity::from_certificate(end_entity)
            .map_err(PeerError::Name)?
            .cluster;
        let expected = current.identity.cluster;
        if theirs != expected {
            return Err(PeerError::Cluster { theirs, expected }.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.credentials
            .current()
            .client_verifier
            .verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.credentials
            .current()
            .client_verifier
            .verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.credentials
            .current()
            .client_verifier
            .supported_verify_schemes()
    }
}
