//! The private networks of this node's environments: names that are answered on each bridge's gateway, and
//! connections to the addresses behind them, carried to healthy allocations here and on other nodes. Who
//! asks is known by the bridge it is on. Never makes bridges or firewall rules: those are the agent's.

mod counters;
mod dns;
mod proxy;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use skep_ingress::Reach;
use skep_ingress::files::Bundle;
use skep_model::id::{AllocationId, EnvironmentId, NodeId};
use skep_proto::convert::id_bits;
use skep_proto::v1;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::files::Opened;
use super::understand::Error;
use counters::Counters;
use streams::Streams;

/// Nothing tells when an address or a port becomes free.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// Connections that wait to be taken.
const BACKLOG: i32 = 1_024;

/// One environment's network on this node.
#[derive(Debug)]
pub(super) struct Network {
    environment: EnvironmentId,
    /// This node's address on its bridge.
    gateway: Ipv4Addr,
    /// The bridge's own addresses: first one, and bits.
    subnet: (u32, u32),
    names: BTreeMap<String, Ipv4Addr>,
    services: HashMap<Ipv4Addr, Service>,
    /// Those of the table before go on.
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Service {
    backends: Vec<Backend>,
    /// Where the next connection goes.
    turn: AtomicUsize,
}

/// An allocation that answers for a service.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Backend {
    allocation: AllocationId,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Here(IpAddr),
    There(NodeId),
    /// Nowhere: this process hands out its files.
    Files(Bundle),
}

impl Network {
    /// Whether an address is of its bridge, and not the gateway itself.
    fn has(&self, address: IpAddr) -> bool {
        let (first, bits) = self.subnet;
        match address {
            IpAddr::V4(v4) => {
                let shift = 32 - bits;
                v4 != self.gateway && u64::from(u32::from(v4)) >> shift == u64::from(first) >> shift
            }
            IpAddr::V6(_) => false,
        }
    }
}

/// What a message means.
pub(super) fn understand(
    messages: &[v1::PrivateNetwork],
    opened: &Opened,
) -> Result<Vec<Network>, Error> {
    let networks = messages.iter().map(|it| network(it, opened));
    networks.collect()
}

fn network(message: &v1::PrivateNetwork, opened: &Opened) -> Result<Network, Error> {
    let environment = id_bits("environment", &message.environment)?;
    let mut network = Network {
        environment: EnvironmentId::from_u128(environment),
        counters: Arc::default(),
        gateway: Ipv4Addr::from(message.gateway),
        subnet: (message.subnet, message.subnet_bits.min(32)),
        names: BTreeMap::new(),
        services: HashMap::new(),
    };
    for service in &message.services {
        let address = Ipv4Addr::from(service.virtual_address);
        let backends = service.backends.iter();
        let backends = backends.filter_map(|it| backend(it, opened).transpose());
        let backends = backends.collect::<Result<_, _>>()?;
        network.names.insert(service.name.clone(), address);
        let turn = AtomicUsize::new(0);
        network.services.insert(address, Service { backends, turn });
    }
    Ok(network)
}

fn backend(message: &v1::PrivateTarget, opened: &Opened) -> Result<Option<Backend>, Error> {
    let bundle = opened.get(&message.files);
    let place = match message.ip.is_empty() {
        true if !message.files.is_empty() => match bundle {
            Some(bundle) => Place::Files(bundle.clone()),
            None => return Ok(None),
        },
        true => Place::There(NodeId::from_u128(id_bits("node", &message.node)?)),
        false => Place::Here(message.ip.parse().map_err(|_| Error::Endpoint {
            ip: message.ip.clone(),
        })?),
    };
    Ok(Some(Backend {
        allocation: AllocationId::from_u128(id_bits("allocation", &message.allocation)?),
        place,
    }))
}

/// The ports on each gateway.
#[derive(Debug, Clone, Copy)]
struct Ports {
    dns: u16,
    proxy: u16,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Private {
    reach: Arc<dyn Reach>,
    ports: Ports,
    networks: RwLock<HashMap<Ipv4Addr, Arc<Network>>>,
    listening: Mutex<HashMap<Ipv4Addr, DropGuard>>,
    streams: Streams,
    /// Nothing is taken any more.
    closed: CancellationToken,
}

impl Private {
    pub(super) fn new(reach: Arc<dyn Reach>, closed: CancellationToken) -> Arc<Self> {
        let ports = Ports {
            dns: crate::network::DNS_PORT,
            proxy: crate::network::PROXY_PORT,
        };
        Self::with_ports(reach, ports, closed)
    }

    fn with_ports(reach: Arc<dyn Reach>, ports: Ports, closed: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            reach,
            ports,
            networks: RwLock::default(),
            listening: Mutex::default(),
            streams: Streams::default(),
            closed,
        })
    }

    /// Uses these from now on: when it returns no new connection goes to what they lack. Listens where a
    /// bridge is new, and no more where one is gone.
    pub(super) fn publish(self: &Arc<Self>, sequence: u64, networks: Vec<Network>) {
        let mut counting = self.counting();
        let counted = |mut network: Network| {
            if let Some(counters) = counting.remove(&network.environment) {
                network.counters = counters;
            }
            (network.gateway, Arc::new(network))
        };
        let networks: HashMap<_, _> = networks.into_iter().map(counted).collect();
        let services = networks.values().flat_map(|it| it.services.values());
        let named = services.flat_map(|service| &service.backends);
        let named = named.map(|backend| backend.allocation).collect();
        let mut listening = self.listening.lock();
        listening.retain(|gateway, _| networks.contains_key(gateway));
        for gateway in networks.keys() {
            if !listening.contains_key(gateway) && !self.closed.is_cancelled() {
                let until = self.closed.child_token();
                tokio::spawn(self.clone().listen(*gateway, until.clone()));
                listening.insert(*gateway, until.drop_guard());
            }
        }
        drop(listening);
        *self.networks.write() = networks;
        self.streams.publish(sequence, &named);
    }

    /// Up to which sequence no connection is open to what its table lacks; changes wake the receiver.
    pub(super) fn drained(&self) -> watch::Receiver<u64> {
        self.streams.drained()
    }

    /// Waits until no connection is open.
    pub(super) async fn idle(&self) {
        self.streams.idle().await;
    }

    /// What is counted, as Prometheus reads it.
    pub(super) fn metrics(&self) -> String {
        counters::render(&self.counting())
    }

    fn counting(&self) -> BTreeMap<EnvironmentId, Arc<Counters>> {
        let networks = self.networks.read();
        let counting = networks.values();
        let counting = counting.map(|it| (it.environment, it.counters.clone()));
        counting.collect()
    }

    fn network(&self, gateway: Ipv4Addr) -> Option<Arc<Network>> {
        self.networks.read().get(&gateway).cloned()
    }

    /// Names and connections on one gateway, until the bridge is gone.
    async fn listen(self: Arc<Self>, gateway: Ipv4Addr, until: CancellationToken) {
        let serve = async {
            tokio::join!(
                self.clone().keep("names over UDP", gateway, dns::udp),
                self.clone().keep("names over TCP", gateway, dns::tcp),
                self.clone().keep("connections", gateway, proxy::serve),
            );
        };
        until.run_until_cancelled(serve).await;
    }

    async fn keep<F>(
        self: Arc<Self>,
        what: &'static str,
        gateway: Ipv4Addr,
        serve: impl Fn(Arc<Self>, Ipv4Addr) -> F,
    ) where
        F: Future<Output = io::Result<()>>,
    {
        let mut is_told = false;
        loop {
            let ended = serve(self.clone(), gateway).await;
            if let (Err(error), false) = (ended, is_told) {
                tracing::error!(%gateway, what, %error, "a private network is not served: trying again");
                is_told = true;
            }
            sleep(LISTEN_AGAIN).await;
        }
    }
}

/// A socket on a gateway, which need not be there yet: a bridge without a container may be down. Beside
/// that of a process that hands over to this one.
fn bind(gateway: Ipv4Addr, port: u16, kind: Type) -> io::Result<Socket> {
    let protocol = match kind == Type::STREAM {
        true => Protocol::TCP,
        false => Protocol::UDP,
    };
    let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_freebind_v4(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&std::net::SocketAddr::from((gateway, port)).into())?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}
