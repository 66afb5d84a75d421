//! Connections to private addresses. The node's firewall redirects them to this port; which address and port
//! they were for the kernel tells (`SO_ORIGINAL_DST`). Another backend is tried only while nothing was sent.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use skep_ingress::{Far, Stream};
use socket2::{SockRef, Type};
use tokio::io::{copy_bidirectional_with_sizes, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::counters::Carried;
use super::streams::Open;
use super::{Backend, Network, Place, Private, bind};

/// Connections at a time from one environment of this node.
const STREAMS_MAX: usize = 8_192;
/// Backends that one connection tries.
const ATTEMPTS_MAX: usize = 3;
/// Containers of this machine, and of another one.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
const REACH_LIMIT: Duration = Duration::from_secs(4);
/// What a connection buffers in each direction.
const COPY_BYTES: usize = 16 << 10;
/// Nothing tells when the kernel can give a connection again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes connections on a gateway.
pub(super) async fn serve(private: Arc<Private>, gateway: Ipv4Addr) -> io::Result<()> {
    let socket = bind(gateway, private.ports.proxy, Type::STREAM)?;
    let listener = TcpListener::from_std(socket.into())?;
    let room = Arc::new(Semaphore::new(STREAMS_MAX));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections of a private network");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            if let Some(network) = private.network(gateway) {
                network.counters.failed.fetch_add(1, Ordering::Relaxed);
            }
            tracing::warn!(%gateway, "a private network has {STREAMS_MAX} connections: one more is refused");
            reset(&stream);
            continue;
        };
        let private = private.clone();
        tokio::spawn(async move {
            carry(&private, gateway, (stream, peer)).await;
            drop(permit);
        });
    }
}

/// A connection that does not come about ends like one to a closed port.
async fn carry(private: &Private, gateway: Ipv4Addr, (mut caller, peer): (TcpStream, SocketAddr)) {
    let asked = SockRef::from(&caller).original_dst_v4();
    let asked = asked.ok().and_then(|address| address.as_socket_ipv4());
    let network = private.network(gateway);
    let allowed = network.filter(|network| network.has(peer.ip()));
    let (Some(asked), Some(network)) = (asked, allowed) else {
        return reset(&caller);
    };
    let Some((mut target, _open)) = connect(private, &network, asked).await else {
        network.counters.failed.fetch_add(1, Ordering::Relaxed);
        return reset(&caller);
    };
    let _carried = Carried::begin(&network.counters);
    // A failure means that it is gone already: the first read will tell.
    let _ = caller.set_nodelay(true);
    let copied = copy_bidirectional_with_sizes(&mut caller, &mut target, COPY_BYTES, COPY_BYTES);
    if let Err(error) = copied.await {
        tracing::debug!(%peer, %asked, %error, "a private connection broke");
        reset(&caller);
    }
}

/// To the service at that address, at whichever of its backends takes it first.
async fn connect(
    private: &Private,
    network: &Network,
    asked: SocketAddrV4,
) -> Option<(Box<dyn Stream>, Open)> {
    let service = network.services.get(asked.ip())?;
    let count = service.backends.len();
    let first = service.turn.fetch_add(1, Ordering::Relaxed);
    for step in 0..count.min(ATTEMPTS_MAX) {
        let backend = &service.backends[first.wrapping_add(step) % count];
        let Some(open) = private.streams.open(backend.allocation) else {
            continue;
        };
        match reach(private, backend, asked.port()).await {
            Ok(stream) => return Some((stream, open)),
            Err(error) => {
                let allocation = backend.allocation;
                tracing::debug!(%allocation, %asked, %error, "an allocation takes no private connection");
            }
        }
    }
    None
}

/// A backend, at the port that was asked for; files answer at every one.
pub(super) async fn reach(
    private: &Private,
    backend: &Backend,
    port: u16,
) -> io::Result<Box<dyn Stream>> {
    match backend.place.clone() {
        Place::Here(ip) => {
            let connected = timeout(CONNECT_LIMIT, TcpStream::connect((ip, port))).await??;
            let _ = connected.set_nodelay(true);
            Ok(Box::new(connected))
        }
        Place::There(node) => {
            let far = Far {
                node,
                allocation: backend.allocation,
                port,
            };
            let reached = timeout(REACH_LIMIT, private.reach.reach(far)).await??;
            Ok(reached.stream)
        }
        Place::Files(bundle) => {
            let (ours, theirs) = duplex(COPY_BYTES);
            // Ends with the other half.
            tokio::spawn(bundle.serve(theirs));
            Ok(Box::new(ours))
        }
    }
}

/// The caller is to see that it was refused, not that it ended well.
fn reset(stream: &TcpStream) {
    // One that fails is closed all the same.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
