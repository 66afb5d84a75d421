//! What a proxy in front that knows addresses alone (Traefik) is given: each backend has an address of this
//! machine, and each route that sleeps one where its requests wait. Behind them is this ingress, so that what
//! is in flight is known, and a backend that does not answer is replaced by another.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use socket2::{Domain, Protocol, Socket, Type};

use crate::backend::LiveBackend;
use crate::index::Index;
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
    /// Of who answers.
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
    /// Of routes of connections by name, by host.
    pub named: HashMap<String, SocketAddr>,
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
        let wanted = wanted(index);
        let now = Instant::now();
        let mut named = self.named.lock();
        for it in &wanted {
            if let Some(known) = named.get_mut(&it.key) {
                known.last = now;
            }
        }
        named.retain(|_, it| now.duration_since(it.last) < STAYS);
        let mut by_address = self.by_address.write();
        // Taken by what has an address already, wanted or not.
        let mut taken: HashMap<Ipv4Addr, Arc<Endpoint>> = HashMap::with_capacity(wanted.len());
        for it in named.values() {
            if let Some(older) = by_address.remove(&it.address) {
                taken.insert(it.address, older);
            }
        }
        let mut addresses = Addresses::default();
        for it in wanted {
            let address = match named.get(&it.key) {
                Some(known) => known.address,
                None => {
                    let address = free(&it.key, &taken);
                    named.insert(it.key.clone(), Named { address, last: now });
                    address
                }
            };
            match taken.entry(address) {
                // What leads there is as it was.
                Entry::Occupied(older) if it.is(older.get()) => {}
                Entry::Occupied(mut older) => drop(older.insert(Arc::new(it.endpoint()))),
                Entry::Vacant(place) => drop(place.insert(Arc::new(it.endpoint()))),
            }
            let dialed = SocketAddr::new(address.into(), port);
            match it.key {
                Key::Backend(backend) => addresses.backends.insert(backend, dialed),
                Key::Asleep(at) => addresses.asleep.insert(at, dialed),
            };
        }
        *by_address = taken;
        addresses
    }
}

/// What is to have an address.
struct Wanted<'a> {
    key: Key,
    host: Cow<'a, str>,
    prefix: &'a str,
    /// Whose the requests are.
    taker: (&'a Arc<str>, &'a Arc<ServiceMetrics>),
    /// Services share the route.
    is_split: bool,
    backend: Option<&'a Arc<LiveBackend>>,
}

impl Wanted<'_> {
    fn endpoint(&self) -> Endpoint {
        Endpoint {
            at: (self.host.clone().into_owned(), self.prefix.to_owned()),
            name: Arc::clone(self.taker.0),
            metrics: Arc::clone(self.taker.1),
            backend: self.backend.cloned(),
        }
    }

    fn is(&self, endpoint: &Endpoint) -> bool {
        let is_same = match (self.backend, &endpoint.backend) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        is_same
            && Arc::ptr_eq(self.taker.1, &endpoint.metrics)
            && *self.taker.0 == endpoint.name
            && (&*self.host, self.prefix) == (&*endpoint.at.0, &*endpoint.at.1)
    }
}

/// Each once, by a route that does not depend on the order of routes; in the order of who has the better
/// right to an address.
fn wanted(index: &Index) -> Vec<Wanted<'_>> {
    let mut wanted = Vec::with_capacity(index.backends.len());
    index.for_each(|host, prefix, target| {
        let want = |key, backend| Wanted {
            key,
            host: host.clone(),
            prefix,
            taker: target.taker(backend),
            is_split: target.is_split(),
            backend,
        };
        for live in target.backends() {
            wanted.push(want(Key::Backend(live.backend.clone()), Some(live)));
        }
        if target.sleeps && target.backends().is_empty() {
            let at = (host.clone().into_owned(), prefix.to_owned());
            wanted.push(want(Key::Asleep(at), None));
        }
    });
    // A backend is known by a route of its service alone where there is one: whoever stands in for it is
    // right for all its routes then.
    wanted.sort_unstable_by(|one: &Wanted<'_>, other| {
        let place = (&one.key, one.is_split, &one.host, one.prefix);
        place.cmp(&(&other.key, other.is_split, &other.host, other.prefix))
    });
    wanted.dedup_by(|it, kept| it.key == kept.key);
    wanted
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
    free_address(bits, |it| taken.contains_key(it))
}

/// The first address from the one that `bits` give on that nobody has.
pub(crate) fn free_address(bits: u64, is_taken: impl Fn(&Ipv4Addr) -> bool) -> Ipv4Addr {
    let start = (bits >> 32) as u32;
    // Neither the first nor the last of a block of 256: some tools take them for networks.
    let usable = |it: &Ipv4Addr| !matches!(it.octets()[3], 0 | 255) && !is_taken(it);
    (0..COUNT)
        .map(|step| Ipv4Addr::from(FIRST + start.wrapping_add(step) % COUNT))
        .find(usable)
        .unwrap_or(Ipv4Addr::LOCALHOST)
}
