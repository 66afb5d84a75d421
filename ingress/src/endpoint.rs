//! What a proxy in front that knows addresses alone (Traefik) is given: each backend has an address of this
//! machine, and each route that sleeps one where its requests wait. Behind them is this ingress, so that what
//! is in flight is known, and a backend that does not answer is replaced by another.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use socket2::{Domain, Protocol, Socket, Type};

use crate::backend::LiveBackend;
use crate::index::{Index, Target};
use crate::ingress::mix;
use crate::metrics::ServiceMetrics;
use crate::table::Backend;

/// Addresses are taken from 127.64.0.0/10: only this machine can dial them.
const FIRST: u32 = 0x7F40_0000;
const COUNT: u32 = 1 << 22;
/// The proxy may use an older table for so long after a newer one is there.
const STAYS: Duration = Duration::from_secs(60);

/// Connections that wait to be taken.
const BACKLOG: i32 = 1_024;

/// Takes connections to all the addresses at `port` (0: any), and none that comes over a network.
///
/// # Errors
/// The port is taken.
pub fn listen_on_endpoints(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Free to all since Linux 5.7. Without it whoever dials another address is still turned away.
    if let Err(error) = socket.bind_device(Some(b"lo")) {
        tracing::warn!(%error, "the addresses for a proxy on this machine cannot be kept to the loopback device");
    }
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether `address` is one of those that are given away.
pub(crate) fn is_endpoint(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if (FIRST..FIRST + COUNT).contains(&u32::from(v4)))
}

/// Host and path prefix of a route, without a trailing `/`.
pub(crate) type At = (String, String);

/// What is behind one address.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// A route that leads here: its other backends stand in.
    pub(crate) at: At,
    /// The route's.
    pub(crate) name: Arc<str>,
    pub(crate) metrics: Arc<ServiceMetrics>,
    /// None: requests wait for the first one.
    pub(crate) backend: Option<Arc<LiveBackend>>,
}

/// The addresses of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Of backends.
    pub backends: HashMap<Backend, SocketAddr>,
    /// Of routes that sleep, by host and path prefix (without a trailing `/`).
    pub asleep: HashMap<(String, String), SocketAddr>,
}

/// Which address is whose. The same after a restart, but for two that want the same one: then the
/// smaller has it.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    by_address: RwLock<HashMap<Ipv4Addr, Arc<Endpoint>>>,
    named: Mutex<HashMap<Key, Named>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Backend(Backend),
    Asleep(At),
}

#[derive(Debug)]
struct Named {
    address: Ipv4Addr,
    last: Instant,
}

impl Endpoints {
    /// What is behind `address`; none: nothing any more.
    pub(crate) fn at(&self, address: IpAddr) -> Option<Arc<Endpoint>> {
        match address {
            IpAddr::V4(v4) => self.by_address.read().get(&v4).cloned(),
            IpAddr::V6(_) => None,
        }
    }

    /// An address at `port` for all that `index` has. What it no longer has keeps its own for a while.
    pub(crate) fn name(&self, index: &Index, port: u16) -> Addresses {
        let mut wanted: Vec<(Key, Endpoint)> = Vec::new();
        index.for_each(|at, target| {
            let backends = target.backends().iter();
            let alive = backends.map(|live| (Key::Backend(live.backend), Some(live)));
            let waits = target.sleeps && target.backends().is_empty();
            let asleep = waits.then(|| (Key::Asleep(at.clone()), None));
            let all = alive.chain(asleep);
            wanted.extend(all.map(|(key, live)| (key, endpoint(at, target, live))));
        });
        // Who has the better right to an address, and which of its routes an allocation is known by, does
        // not depend on the order of routes.
        wanted.sort_unstable_by(|(key, one), (other, two)| (key, &one.at).cmp(&(other, &two.at)));
        wanted.dedup_by(|(key, _), (kept, _)| key == kept);
        let now = Instant::now();
        let mut named = self.named.lock();
        for (key, _) in &wanted {
            if let Some(known) = named.get_mut(key) {
                known.last = now;
            }
        }
        named.retain(|_, it| now.duration_since(it.last) < STAYS);
        let mut addresses = Addresses::default();
        let mut by_address = self.by_address.write();
        let mut taken: HashMap<Ipv4Addr, Arc<Endpoint>> = HashMap::with_capacity(wanted.len());
        for it in named.values() {
            if let Some(older) = by_address.get(&it.address) {
                taken.insert(it.address, Arc::clone(older));
            }
        }
        for (key, endpoint) in wanted {
            let address = match named.get(&key) {
                Some(known) => known.address,
                None => free(&key, &taken),
            };
            taken.insert(address, Arc::new(endpoint));
            let dialed = SocketAddr::new(address.into(), port);
            match &key {
                Key::Backend(backend) => addresses.backends.insert(*backend, dialed),
                Key::Asleep(at) => addresses.asleep.insert(at.clone(), dialed),
            };
            named.insert(key, Named { address, last: now });
        }
        *by_address = taken;
        addresses
    }
}

fn endpoint(at: &At, target: &Target, live: Option<&Arc<LiveBackend>>) -> Endpoint {
    Endpoint {
        at: at.clone(),
        name: Arc::clone(&target.name),
        metrics: Arc::clone(&target.metrics),
        backend: live.cloned(),
    }
}

/// The first address from the one that its key gives on that nobody has.
fn free(key: &Key, taken: &HashMap<Ipv4Addr, Arc<Endpoint>>) -> Ipv4Addr {
    let bits = match key {
        Key::Backend(backend) => {
            let id = backend.allocation.as_u128();
            let parts = [
                id as u64,
                (id >> 64) as u64,
                u64::from(backend.place.port()),
            ];
            parts.into_iter().fold(0, |hash, part| mix(hash ^ part))
        }
        Key::Asleep((host, prefix)) => {
            let bytes = host.bytes().chain([b'/']).chain(prefix.bytes());
            bytes.fold(0, |hash, byte| mix(hash ^ u64::from(byte)))
        }
    };
    let start = (bits >> 32) as u32;
    // Neither the first nor the last of a block of 256: some tools take them for networks.
    let usable = |it: &Ipv4Addr| !matches!(it.octets()[3], 0 | 255) && !taken.contains_key(it);
    (0..COUNT)
        .map(|step| Ipv4Addr::from(FIRST + start.wrapping_add(step) % COUNT))
        .find(usable)
        .unwrap_or(Ipv4Addr::LOCALHOST)
}
