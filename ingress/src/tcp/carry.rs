//! One connection from its client to a backend: chosen, dialed, led in by whose it is, then bytes both ways
//! until both sides have said that nothing more comes, one breaks, or neither says anything for too long.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ppp::v2::{Builder, Command, Protocol, Version};
use socket2::SockRef;
use tokio::io::{
    AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy_bidirectional_with_sizes,
};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;

use super::At;
use crate::backend::InFlight;
use crate::ingress::Shared;
use crate::metrics::{Connected, ServiceMetrics};
use crate::reach::{Far, Stream};
use crate::table::{Backend, Place};

/// What a connection buffers in each direction.
const COPY_BYTES: usize = 64 << 10;
/// Backends that one connection tries.
const MAX_ATTEMPTS: usize = 3;

/// A connection that asks to be led somewhere.
#[derive(Debug)]
pub(crate) struct Call {
    /// By which route.
    pub(crate) at: At,
    /// Whose it is.
    pub(crate) client: SocketAddr,
    /// What the client dialed.
    pub(crate) dialed: SocketAddr,
}

/// The client's end.
pub(crate) trait Client: AsyncRead + AsyncWrite + Unpin {
    fn socket(&self) -> &TcpStream;
}

impl Client for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Client for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// The backend's end.
enum Reached {
    Here(TcpStream),
    There(Box<dyn Stream>),
}

/// Leads a connection to its end. One that no backend takes ends like one to a closed port.
pub(crate) async fn carry<C: Client>(shared: &Shared, call: &Call, client: C) {
    let _present = shared.registry.connections.enter();
    let Some((reached, in_flight, metrics)) = connect(shared, call).await else {
        return reset(client.socket());
    };
    let open = Connected::new(&metrics);
    let limit = shared.options.tcp_idle_timeout;
    let mut client = Counted::new(client, metrics);
    let copied = match reached {
        Reached::Here(mut backend) => {
            let copied = copy(&mut client, &mut backend, limit).await;
            if copied.is_err() {
                reset(&backend);
            }
            copied
        }
        // Dropped before its end, the stream is reset.
        Reached::There(mut backend) => copy(&mut client, &mut backend, limit).await,
    };
    if let Err(error) = copied {
        tracing::debug!(client = %call.client, at = ?call.at, %error, "a connection broke");
        reset(client.inner.socket());
    }
    drop((open, in_flight));
}

/// The other side is to see that it broke, not that it ended well.
pub(crate) fn reset(stream: &TcpStream) {
    // One that fails is closed all the same.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

type Ready = (Reached, InFlight, Arc<ServiceMetrics>);

/// To whichever backend takes it first, the less busy of two before others.
async fn connect(shared: &Shared, call: &Call) -> Option<Ready> {
    let mut tried = Vec::new();
    let mut silent: Option<InFlight> = None;
    loop {
        let choice = shared.choose_tcp(&call.at, &tried)?;
        let next = choice.in_flight.filter(|_| tried.len() < MAX_ATTEMPTS);
        // Nothing is gained by giving up the last one.
        let is_last = next.is_none();
        let limit = match is_last {
            true => shared.options.last_dial_timeout,
            false => shared.options.dial_timeout,
        };
        let Some(in_flight) = next.or_else(|| silent.take()) else {
            choice.metrics.tcp.add_failed();
            return None;
        };
        let backend = &in_flight.backend().backend;
        let header = choice.proxy_protocol.then(|| header(call));
        let dialed = timeout(limit, dial(shared, backend, header)).await;
        match dialed {
            Ok(Ok(reached)) => {
                in_flight.backend().connected();
                return Some((reached, in_flight, choice.metrics));
            }
            Ok(Err(error)) => {
                tracing::debug!(place = %backend.place, %error, "a backend refused a connection");
                in_flight.backend().failed(shared.options.failure_pause);
                tried.push(Arc::clone(in_flight.backend()));
            }
            Err(_) => {
                tracing::debug!(place = %backend.place, "a backend did not answer a connection in time");
                in_flight.backend().failed(shared.options.failure_pause);
                tried.push(Arc::clone(in_flight.backend()));
                silent = Some(in_flight).filter(|_| !is_last);
            }
        }
    }
}

async fn dial(
    shared: &Shared,
    backend: &Backend,
    header: Option<io::Result<Vec<u8>>>,
) -> io::Result<Reached> {
    let header = header.transpose()?.unwrap_or_default();
    Ok(match backend.place {
        Place::Here(address) => {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            stream.write_all(&header).await?;
            Reached::Here(stream)
        }
        Place::There { node, port } => {
            let far = Far {
                node,
                allocation: backend.allocation,
                port,
            };
            // It may be asked to leave: what is under way is finished, and this is.
            let mut stream = shared.reach.reach(far).await?.stream;
            stream.write_all(&header).await?;
            Reached::There(stream)
        }
        Place::Files(_) => return Err(io::ErrorKind::Unsupported.into()),
    })
}

/// Whose connection it is, as the PROXY protocol says it.
fn header(call: &Call) -> io::Result<Vec<u8>> {
    let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
    let (mut source, mut dialed) = (canonical(call.client), canonical(call.dialed));
    if source.is_ipv4() != dialed.is_ipv4() {
        // It knows pairs of one family alone.
        (source, dialed) = (wide(source), wide(dialed));
    }
    let command = Version::Two | Command::Proxy;
    Builder::with_addresses(command, Protocol::Stream, (source, dialed)).build()
}

fn wide(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), address.port()).into(),
        IpAddr::V6(_) => address,
    }
}

async fn copy<C: Client>(
    client: &mut Counted<C>,
    backend: &mut (impl AsyncRead + AsyncWrite + Unpin),
    limit: Duration,
) -> io::Result<()> {
    let moved = Arc::clone(&client.moved);
    let copied = copy_bidirectional_with_sizes(client, backend, COPY_BYTES, COPY_BYTES);
    tokio::select! {
        biased;
        copied = copied => copied.map(|_| ()),
        () = moved.idle(limit) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "neither side has said anything for too long",
        )),
    }
}

/// When bytes moved last.
#[derive(Debug)]
struct Moved {
    born: Instant,
    last_ms: AtomicU64,
}

impl Moved {
    fn note(&self) {
        let now_ms = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Waits until nothing has moved for `limit`.
    async fn idle(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let due = self.born + last + limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// The client's end; all bytes of both directions pass it.
struct Counted<C> {
    inner: C,
    metrics: Arc<ServiceMetrics>,
    moved: Arc<Moved>,
}

impl<C> Counted<C> {
    fn new(inner: C, metrics: Arc<ServiceMetrics>) -> Self {
        let moved = Arc::new(Moved {
            born: Instant::now(),
            last_ms: AtomicU64::new(0),
        });
        Self {
            inner,
            metrics,
            moved,
        }
    }

    fn sent(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = polled {
            self.moved.note();
            self.metrics.tcp.add_sent(count);
        }
        polled
    }
}

impl<C: Client> AsyncRead for Counted<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.moved.note();
        let count = buf.filled().len() - before;
        self.metrics.tcp.add_received(count);
        Poll::Ready(Ok(()))
    }
}

impl<C: Client> AsyncWrite for Counted<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.sent(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ppp::v2::{Addresses, Header};

    #[test]
    fn a_header_has_both_addresses_in_one_family() {
        for (client, dialed, is_v4) in [
            ("1.2.3.4:5", "6.7.8.9:10", true),
            ("[::ffff:1.2.3.4]:5", "6.7.8.9:10", true),
            ("1.2.3.4:5", "[2001:db8::1]:10", false),
            ("[2001:db8::2]:5", "[2001:db8::1]:10", false),
        ] {
            let call = Call {
                at: At::Entry(1),
                client: client.parse().expect("an address"),
                dialed: dialed.parse().expect("an address"),
            };
            let bytes = header(&call).expect("built");
            let read = Header::try_from(&*bytes).expect("a header");
            assert_eq!(
                matches!(read.addresses, Addresses::IPv4(_)),
                is_v4,
                "{client}"
            );
            assert!(!matches!(read.addresses, Addresses::Unspecified));
        }
    }
}
