//! TLS with clients: versions, protocols, resumption, and how long and how many handshakes may be under way.
//! Which certificate is shown is [`crate::certificates`]'s.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::server::NoServerSessionStorage;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::acme::{self, Challenges};
use crate::certificates::{Certificates, Resolver, provider};
use crate::options::Options;
use crate::tcp::{self, Hello};

/// A listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up")]
pub struct TlsError(#[from] rustls::Error);

/// What the connections of a listener have in common.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    /// For what is not HTTP: no protocol is agreed upon in the handshake.
    any: TlsAcceptor,
    handshakes: Handshakes,
    limit: Duration,
}

impl Tls {
    pub(crate) fn new(
        certificates: Arc<Certificates>,
        challenges: Arc<Challenges>,
        options: &Options,
    ) -> Result<Self, TlsError> {
        let resolver = Resolver::new(certificates, challenges);
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![
            b"h2".to_vec(),
            b"http/1.1".to_vec(),
            acme::PROTOCOL.to_vec(),
        ];
        // Sessions live with clients, sealed by keys that change every six hours: nothing grows here.
        config.ticketer = Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let mut any = config.clone();
        any.alpn_protocols = Vec::new();
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            any: TlsAcceptor::from(Arc::new(any)),
            handshakes: Handshakes::new(options.max_handshakes),
            limit: options.handshake_timeout,
        })
    }

    /// The handshake with a client, in time.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.in_time(self.acceptor.accept(stream)).await
    }

    /// The same, whatever is spoken inside.
    pub(crate) async fn accept_any(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.in_time(self.any.accept(stream)).await
    }

    /// What the client asks for, in time; its handshake is still to come.
    pub(crate) async fn peek(&self, stream: &TcpStream) -> io::Result<Option<Hello>> {
        self.in_time(tcp::peek(stream)).await
    }

    async fn in_time<T>(&self, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let (_place, pushed_out) = self.handshakes.enter();
        tokio::select! {
            biased;
            done = timeout(self.limit, step) => {
                done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
            _ = pushed_out => Err(io::Error::other("too many handshakes are under way, and this one takes longest")),
        }
    }
}

/// Whether the handshake was all that the client wanted: a certificate authority, which has seen its proof.
pub(crate) fn is_proof(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(acme::PROTOCOL)
}

/// The handshakes under way, oldest first. Where there is no room, the oldest goes: an honest client is done
/// within some round trips, so that whoever stalls in hundreds of them pushes out their own.
#[derive(Debug)]
struct Handshakes {
    max: usize,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    /// Dropped, the sender tells its handshake to end.
    taken: BTreeMap<u64, oneshot::Sender<()>>,
}

/// One handshake's; free when it is dropped.
#[derive(Debug)]
struct Place<'a> {
    handshakes: &'a Handshakes,
    number: u64,
}

impl Handshakes {
    fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            places: Mutex::default(),
        }
    }

    fn enter(&self) -> (Place<'_>, oneshot::Receiver<()>) {
        let (sender, pushed_out) = oneshot::channel();
        let mut places = self.places.lock();
        if places.taken.len() >= self.max {
            places.taken.pop_first();
        }
        let number = places.next;
        places.next += 1;
        places.taken.insert(number, sender);
        let place = Place {
            handshakes: self,
            number,
        };
        (place, pushed_out)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.handshakes.places.lock().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_whoever_is_done_leaves_some() {
        let handshakes = Handshakes::new(2);
        let is_out = |pushed_out: &mut oneshot::Receiver<()>| {
            pushed_out.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        let (first, mut first_out) = handshakes.enter();
        let (second, mut second_out) = handshakes.enter();
        assert!(!is_out(&mut first_out));
        let (_third, mut third_out) = handshakes.enter();
        assert!(is_out(&mut first_out) && !is_out(&mut second_out));
        drop((first, second));
        let (_fourth, _fourth_out) = handshakes.enter();
        assert!(!is_out(&mut third_out));
        assert_eq!(handshakes.places.lock().taken.len(), 2);
    }
}
