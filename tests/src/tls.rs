//! TLS as a client from outside has it: it trusts one CA, shows a certificate where it has one, and
//! reaches servers by whatever address. Names in certificates are not looked at: several clusters
//! of a test have the same addresses one after the other, and each has a CA of its own.

use std::borrow::Cow;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, ring as tls_ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// Of TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(5);
/// As the windows of a cluster's own connections: nothing waits for them at the rates measured.
const WINDOW_BYTES: u32 = 4 << 20;

/// A certificate chain and its key, as PEM.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The chain, own certificate first.
    pub chain_pem: &'a str,
    /// The key.
    pub key_pem: &'a str,
}

/// Trusts the CA (or CAs) in `ca_pem` and speaks the protocol `alpn`.
///
/// # Errors
/// A PEM is none.
pub fn client(ca_pem: &str, shown: Option<Shown<'_>>, alpn: &[u8]) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(tls_ring::default_provider());
    let verifier = Arc::new(OfCa {
        trust: Trust::Roots(roots),
        provider: provider.clone(),
    });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match shown {
        Some(shown) => {
            let chain = CertificateDer::pem_slice_iter(shown.chain_pem.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(shown.key_pem.as_bytes())?;
            builder.with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// Trusts the CA with this fingerprint (SHA-256 of all of it, in hex), as a join token names it; servers show it with their
/// chain.
///
/// # Errors
/// No version of TLS is to be had.
pub fn client_of_pinned_ca(fingerprint: &str, alpn: &[u8]) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(tls_ring::default_provider());
    let verifier = Arc::new(OfCa {
        trust: Trust::Pin(fingerprint.to_owned()),
        provider: provider.clone(),
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// Dials and shakes hands.
///
/// # Errors
/// Refused, not trusted, or not in time.
pub async fn connect(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        TlsConnector::from(config).connect(name, stream).await
    };
    tokio::time::timeout(CONNECT, connecting).await?
}

/// The same where the name that is asked for decides.
///
/// # Errors
/// As `connect`.
pub async fn connect_named(
    (address, host): (SocketAddr, &str),
    config: &ClientConfig,
) -> Result<TlsStream<TcpStream>> {
    let mut config = config.clone();
    config.enable_sni = true;
    let name = ServerName::try_from(host.to_owned())?;
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    };
    Ok(tokio::time::timeout(CONNECT, connecting).await??)
}

/// A gRPC connection, made before this answers.
///
/// # Errors
/// As `connect`.
pub async fn channel(address: SocketAddr, config: Arc<ClientConfig>) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .origin(format!("https://{address}").parse()?)
        .connect_timeout(CONNECT)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let dial = tower::service_fn(move |_| {
        let config = config.clone();
        async move { connect(address, config).await.map(TokioIo::new) }
    });
    let channel = endpoint.connect_with_connector(dial).await;
    channel.with_context(|| format!("no gRPC connection with {address}"))
}

/// Where a chain ends.
#[derive(Debug)]
enum Trust {
    /// At one of these.
    Roots(RootCertStore),
    /// At the certificate of the chain that has this fingerprint.
    Pin(String),
}

impl Trust {
    fn roots(&self, chain: &[CertificateDer<'_>]) -> Result<Cow<'_, RootCertStore>, Error> {
        let fingerprint = match self {
            Self::Roots(roots) => return Ok(Cow::Borrowed(roots)),
            Self::Pin(fingerprint) => fingerprint,
        };
        let mut roots = RootCertStore::empty();
        let of = |der: &[u8]| hex::encode(digest(&SHA256, der));
        for pinned in chain.iter().filter(|it| of(it) == *fingerprint) {
            roots.add(pinned.clone().into_owned())?;
        }
        Ok(Cow::Owned(roots))
    }
}

/// Wants a chain that ends where it should, whatever its names.
#[derive(Debug)]
struct OfCa {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OfCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let roots = self.trust.roots(intermediates)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            roots.as_ref(),
            intermediates,
            now,
            algorithms,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
