//! TLS with clients: versions, protocols, resumption, and how long and how many handshakes may be under way.
//! Which certificate is shown is [`crate::certificates`]'s.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::server::NoServerSessionStorage;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificates::{Certificates, Resolver, provider};
use crate::options::Options;

/// A listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up")]
pub struct TlsError(#[from] rustls::Error);

/// What the connections of a listener have in common.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    /// Places for handshakes. Whoever waits for one does so within its own deadline.
    handshakes: Semaphore,
    limit: Duration,
}

impl Tls {
    pub(crate) fn new(
        certificates: Arc<Certificates>,
        options: &Options,
    ) -> Result<Self, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver::new(certificates)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Sessions live with clients, sealed by keys that change every six hours: nothing grows here.
        config.ticketer = Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshakes: Semaphore::new(options.max_handshakes),
            limit: options.handshake_timeout,
        })
    }

    /// The handshake with a client, in time.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let handshake = async {
            let _place = self.handshakes.acquire().await.map_err(io::Error::other)?;
            self.acceptor.accept(stream).await
        };
        timeout(self.limit, handshake)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}
