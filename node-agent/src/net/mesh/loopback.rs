//! Allocations of other nodes as addresses of this machine, for a proxy that knows nothing but addresses:
//! Traefik. Each has one of its own, the same after a restart, that only this machine can dial.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use skep_ingress::{Backend, Far, Place, Reach as _, Table};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Mesh;

/// The port of all of them: they differ by their address.
const PORT: u16 = 7076;
/// Addresses are taken from 127.64.0.0/10.
const FIRST: u32 = 0x7F40_0000;
const COUNT: u32 = 1 << 22;
/// Connections that wait to be taken.
const BACKLOG: i32 = 1_024;
/// Traefik may use an older table for so long after a newer one is there.
const STAYS: Duration = Duration::from_secs(60);
/// A container on another node took no connection in this time.
const REACH_LIMIT: Duration = Duration::from_secs(4);
/// What a connection buffers in each direction.
const COPY_BYTES: usize = 16 << 10;
/// Nothing tells when the kernel can give a connection again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Entry {
    address: SocketAddr,
    named: Instant,
    _until: DropGuard,
}

/// The addresses in use.
#[derive(Debug)]
pub(in crate::net) struct Loopback {
    mesh: Arc<Mesh>,
    entries: Mutex<HashMap<Far, Entry>>,
    /// None are made any more.
    closed: CancellationToken,
}

impl Loopback {
    pub(in crate::net) fn new(mesh: Arc<Mesh>, closed: CancellationToken) -> Self {
        Self {
            mesh,
            entries: Mutex::default(),
            closed,
        }
    }

    /// `table` as a proxy of this machine can use it: every backend has an address. One that gets none is
    /// left out, and said so.
    pub(in crate::net) fn localize(&self, table: &Table) -> Table {
        let far = |backend: &Backend| match backend.place {
            Place::Here(_) => None,
            Place::There { node, port } => Some(Far {
                node,
                allocation: backend.allocation,
                port,
            }),
        };
        let backends = || table.routes.iter().flat_map(|route| &route.backends);
        // Sorted: which of two has the better right to an address does not depend on the order of routes.
        let wanted: BTreeMap<Far, ()> = backends().filter_map(far).map(|it| (it, ())).collect();
        let now = Instant::now();
        let mut entries = self.entries.lock();
        entries.retain(|far, entry| {
            if wanted.contains_key(far) {
                entry.named = now;
            }
            now.duration_since(entry.named) < STAYS
        });
        let mut taken: Vec<SocketAddr> = entries.values().map(|it| it.address).collect();
        for far in wanted.into_keys() {
            if entries.contains_key(&far) || self.closed.is_cancelled() {
                continue;
            }
            match self.open(far, &taken) {
                Ok(entry) => {
                    taken.push(entry.address);
                    entries.insert(far, entry);
                }
                Err(error) => {
                    tracing::warn!(allocation = %far.allocation, %error, "no address for an allocation of another node: Traefik does not reach it");
                }
            }
        }
        let mut table = table.clone();
        for route in &mut table.routes {
            route.backends.retain_mut(|backend| match far(backend) {
                None => true,
                Some(it) => match entries.get(&it) {
                    Some(entry) => {
                        backend.place = Place::Here(entry.address);
                        true
                    }
                    None => false,
                },
            });
        }
        table
    }

    fn open(&self, far: Far, taken: &[SocketAddr]) -> io::Result<Entry> {
        let address = free(far, taken);
        let listener = TcpListener::from_std(listen(address)?)?;
        let until = self.closed.child_token();
        let serve = serve(listener, far, self.mesh.clone());
        let ends = until.clone();
        tokio::spawn(async move { ends.run_until_cancelled(serve).await });
        Ok(Entry {
            address,
            named: Instant::now(),
            _until: until.drop_guard(),
        })
    }
}

/// The first address from the one that its id gives on that nobody has.
fn free(far: Far, taken: &[SocketAddr]) -> SocketAddr {
    let bits = far.allocation.as_u128() ^ (u128::from(far.port) << 3);
    // SplitMix64's finalizer over both halves: ids of one moment are alike in their upper bits.
    let mut mixed = (bits as u64) ^ ((bits >> 64) as u64).rotate_left(32);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let start = (mixed >> 32) as u32 % COUNT;
    let address = |step: u32| {
        // Neither the first nor the last of a block of 256: some tools take them for nets.
        let ip = FIRST + (start.wrapping_add(step)) % COUNT;
        SocketAddr::new(Ipv4Addr::from(ip).into(), PORT)
    };
    let usable = |it: &SocketAddr| {
        let last = match it {
            SocketAddr::V4(v4) => v4.ip().octets()[3],
            SocketAddr::V6(_) => 0,
        };
        !matches!(last, 0 | 255) && !taken.contains(it)
    };
    (0..COUNT)
        .map(address)
        .find(usable)
        .unwrap_or_else(|| address(0))
}

fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // A process that takes over from this one serves the same addresses while this one finishes.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn serve(listener: TcpListener, far: Far, mesh: Arc<Mesh>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(carry(stream, far, mesh.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections to an allocation of another node");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection that does not come about is closed: the proxy tries another backend.
async fn carry(mut stream: TcpStream, far: Far, mesh: Arc<Mesh>) {
    let _ = stream.set_nodelay(true);
    let reached = timeout(REACH_LIMIT, mesh.reach(far)).await;
    let mut container = match reached {
        Ok(Ok(reached)) => reached.stream,
        Ok(Err(error)) => {
            let why = crate::error_chain(&error);
            tracing::debug!(allocation = %far.allocation, %why, "an allocation of another node is not reached");
            return;
        }
        Err(_) => return,
    };
    let copied = copy_bidirectional_with_sizes(&mut stream, &mut container, COPY_BYTES, COPY_BYTES);
    if let Err(error) = copied.await {
        tracing::debug!(allocation = %far.allocation, %error, "a connection to another node broke");
    }
}
