//! The bridges of environments on this node: one Docker network each, fenced off by the firewall before the
//! first container is on it. Made when it is needed, removed when nothing of its environment is assigned any
//! more. Never answers names or carries connections: that is the data plane's.

mod check;
mod firewall;
mod report;
mod subnet;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{Ipam, IpamConfig, Network, NetworkCreateRequest};
use parking_lot::Mutex;
use skep_model::id::{EnvironmentId, NodeId};
use skep_model::machine::Warning;
use skep_model::network::{Pool, block_of};
use skep_model::problem::{Code, Problem};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::net::client::NetStatusLocal;
use crate::routes::Content;
use crate::runtime::{Runtime, network_environment};
pub(crate) use check::Checks;
use firewall::{Fence, Firewall};
pub(crate) use subnet::BITS as SUBNET_BITS;

/// Where the data plane answers names, on each bridge's gateway: the firewall sends port 53 there.
pub(crate) const DNS_PORT: u16 = 7053;
/// Where it takes connections to private addresses.
pub(crate) const PROXY_PORT: u16 = 7077;
/// The firewall is looked at so often: whoever flushes it opens no environment for longer.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Looks between two sweeps of bridges that nobody needs.
const SWEEP_EVERY: u32 = 6;

/// An environment's bridge on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bridge {
    /// Docker's name of the network.
    pub(crate) network: String,
    /// The kernel's of the bridge.
    pub(crate) interface: String,
    /// This node on it.
    pub(crate) gateway: Ipv4Addr,
    /// Its first address.
    pub(crate) subnet: Ipv4Addr,
}

/// All bridges.
pub(crate) type Bridges = BTreeMap<EnvironmentId, Bridge>;

#[derive(Debug, Default)]
struct Inner {
    /// Environments of which something is assigned; none: not known yet.
    wanted: Option<BTreeSet<EnvironmentId>>,
    /// What is wrong, in words.
    trouble: Option<String>,
    /// Where the data plane serves apps, as it said last.
    entrances: BTreeSet<SocketAddr>,
}

/// Makes and removes bridges. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Networks {
    runtime: Runtime,
    node: NodeId,
    /// None: this node has no private networks.
    pool: Option<Pool>,
    bridges: watch::Sender<Bridges>,
    content: watch::Receiver<Option<Arc<Content>>>,
    net: watch::Receiver<Option<NetStatusLocal>>,
    firewall: Arc<Firewall>,
    inner: Arc<Mutex<Inner>>,
    /// One change at a time.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl Networks {
    pub(crate) fn new(
        runtime: Runtime,
        node: NodeId,
        pool: Option<Pool>,
        (content, net): (
            watch::Receiver<Option<Arc<Content>>>,
            watch::Receiver<Option<NetStatusLocal>>,
        ),
    ) -> Self {
        Self {
            firewall: Arc::new(Firewall::new(&short(node.as_u128()))),
            bridges: runtime.bridges().clone(),
            runtime,
            node,
            pool,
            content,
            net,
            inner: Arc::default(),
            changing: Arc::default(),
        }
    }

    /// The bridges that are there; changes wake the receiver.
    pub(crate) fn bridges(&self) -> watch::Receiver<Bridges> {
        self.bridges.subscribe()
    }

    /// Whether this node has private networks, as far as it is known.
    pub(crate) fn works(&self) -> bool {
        self.pool.is_some() && self.inner.lock().trouble.is_none()
    }

    /// What keeps this node from having private networks.
    pub(crate) fn warning(&self) -> Option<Warning> {
        let text = self.inner.lock().trouble.clone()?;
        Some(Warning {
            text,
            fix: "install iptables and run the agent as root, or leave --private-network away"
                .into(),
        })
    }

    /// Environments of which something is assigned.
    pub(crate) fn use_only(&self, environments: BTreeSet<EnvironmentId>) {
        self.inner.lock().wanted = Some(environments);
    }

    /// The environment has its bridge, fenced off. Without one where this node has no private networks, or
    /// may not change its firewall: then containers are where they always were.
    ///
    /// # Errors
    /// Docker made none, or none of the pool is free.
    pub(crate) async fn ensure(&self, environment: Option<EnvironmentId>) -> Result<(), Problem> {
        let (Some(environment), Some(pool)) = (environment, self.pool) else {
            return Ok(());
        };
        let _one_at_a_time = self.changing.lock().await;
        let is_there = self.bridges.borrow().contains_key(&environment);
        if is_there {
            return Ok(());
        }
        if let Err(error) = self.firewall.probe().await {
            self.is_in_trouble(&error.to_string());
            return Ok(());
        }
        let made = self.make(environment, pool).await?;
        let mut all = self.bridges.borrow().clone();
        all.insert(environment, made);
        // Before any container is on it.
        if let Err(error) = self.firewall.apply(&self.fences(&all)).await {
            let text = format!("the private network cannot be fenced off: {error}");
            return Err(Problem::new(Code::Runtime, text).hint("see `skep agent doctor`"));
        }
        self.bridges.send_replace(all);
        Ok(())
    }

    async fn make(&self, environment: EnvironmentId, pool: Pool) -> Result<Bridge, Problem> {
        let failed = |error: crate::runtime::Error| {
            let text = format!("no bridge for the private network: {}", error.message());
            Problem::new(Code::Runtime, text)
        };
        let known = self.runtime.networks(None).await.map_err(failed)?;
        // Of an agent before this one. Another environment's may have the same name: Docker says so then.
        let mut own = known
            .iter()
            .filter(|network| network_environment(network) == Some(environment))
            .filter(|network| network.name == Some(bridge(self.node, environment, 0).network));
        if let Some((first, _)) = own.next().and_then(|own| subnet::of_network(own).next()) {
            return Ok(bridge(self.node, environment, first));
        }
        let taken = known.iter().flat_map(subnet::of_network);
        let taken: Vec<_> = taken.chain(subnet::of_routes()).collect();
        let Some(first) = subnet::free(pool, &taken) else {
            let text = format!("{pool} has no network left for another environment on this node");
            return Err(Problem::new(Code::Runtime, text)
                .hint("give the agent a larger one: --private-network"));
        };
        let bridge = bridge(self.node, environment, first);
        let request = request(&bridge, self.runtime.network_labels(environment));
        self.runtime.create_network(request).await.map_err(failed)?;
        tracing::info!(%environment, network = bridge.network, subnet = %bridge.subnet, "a private network begins");
        Ok(bridge)
    }

    /// Finds what is there, keeps the fences up and removes what nobody needs, until `cancel`.
    pub(crate) async fn keep(self, cancel: CancellationToken) {
        if self.pool.is_none() {
            return;
        }
        let work = async {
            let (mut content, mut net) = (self.content.clone(), self.net.clone());
            let mut tick = interval(LOOK_AGAIN);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut looks = 0_u32;
            loop {
                tokio::select! {
                    _ = tick.tick() => {
                        looks = looks.wrapping_add(1);
                        if looks.is_multiple_of(SWEEP_EVERY) {
                            self.sweep().await;
                        }
                        self.look().await;
                    }
                    changed = content.changed() => {
                        if changed.is_err() { return }
                    }
                    is_there = self.moved(&mut net) => {
                        if !is_there { return }
                    }
                }
                self.fence().await;
            }
        };
        cancel.run_until_cancelled(work).await;
    }

    /// What Docker has of ours, as an agent finds it that was not there.
    pub(crate) async fn look(&self) {
        let _one_at_a_time = self.changing.lock().await;
        let Ok(known) = self.runtime.networks(Some(self.node)).await else {
            return;
        };
        let found = known.iter().filter_map(|network| {
            let environment = network_environment(network)?;
            let (first, _) = subnet::of_network(network).next()?;
            Some((environment, bridge(self.node, environment, first)))
        });
        let found: Bridges = found.collect();
        self.bridges.send_if_modified(|bridges| {
            let is_other = *bridges != found;
            *bridges = found;
            is_other
        });
    }

    /// Whether the data plane serves apps elsewhere than was known. One that is away says nothing new.
    fn is_elsewhere(&self, status: Option<NetStatusLocal>) -> bool {
        status.is_some_and(|status| {
            let said: BTreeSet<SocketAddr> = status.entrances.into_iter().flatten().collect();
            said != self.inner.lock().entrances
        })
    }

    /// Waits until the data plane serves apps elsewhere. False: nobody says it any more.
    async fn moved(&self, net: &mut watch::Receiver<Option<NetStatusLocal>>) -> bool {
        let moved = net.wait_for(|status| self.is_elsewhere(*status)).await;
        moved.is_ok()
    }

    async fn fence(&self) {
        let _one_at_a_time = self.changing.lock().await;
        let fences = self.fences(&self.bridges.borrow());
        if fences.is_empty() && self.firewall.is_untouched() {
            return;
        }
        let trouble = match self.firewall.ensure(&fences).await {
            Ok(()) => None,
            Err(error) => Some(error.to_string()),
        };
        match trouble {
            None => self.inner.lock().trouble = None,
            Some(why) => self.is_in_trouble(&why),
        }
    }

    /// Whether the firewall may be changed and is as it should be, at this moment.
    async fn look_at_firewall(&self) -> Result<(), firewall::Error> {
        let _one_at_a_time = self.changing.lock().await;
        let fences = self.fences(&self.bridges.borrow());
        self.firewall.probe().await?;
        match fences.is_empty() {
            true => Ok(()),
            false => self.firewall.look(&fences).await,
        }
    }

    fn fences(&self, bridges: &Bridges) -> Vec<Fence> {
        let entrances = {
            let mut inner = self.inner.lock();
            if let Some(status) = *self.net.borrow() {
                inner.entrances = status.entrances.into_iter().flatten().collect();
            }
            inner.entrances.clone()
        };
        let content = self.content.borrow().clone();
        let fence = |(environment, bridge): (&EnvironmentId, &Bridge)| {
            let networks = content.iter().flat_map(|content| &content.networks);
            let id = skep_proto::convert::id_bytes(environment.as_u128());
            let own = networks.filter(|network| network.environment == id);
            let services = own.flat_map(|network| &network.services);
            Fence {
                interface: bridge.interface.clone(),
                gateway: bridge.gateway,
                entrances: entrances.clone(),
                bridges: self.pool,
                blocks: services
                    .map(|service| block_of(service.virtual_address))
                    .collect(),
            }
        };
        bridges.iter().map(fence).collect()
    }

    /// Removes bridges of environments of which nothing is assigned. Docker keeps those that have a container.
    async fn sweep(&self) {
        let _one_at_a_time = self.changing.lock().await;
        let Some(wanted) = self.inner.lock().wanted.clone() else {
            return;
        };
        let all = self.bridges.borrow().clone();
        for (environment, bridge) in all {
            if wanted.contains(&environment) {
                continue;
            }
            match self.runtime.remove_network(&bridge.network).await {
                Ok(()) => {
                    tracing::info!(%environment, network = bridge.network, "a private network ends");
                    self.bridges.send_modify(|bridges| {
                        bridges.remove(&environment);
                    });
                }
                Err(error) => {
                    let why = error.message();
                    tracing::debug!(network = bridge.network, why, "a private network stays");
                }
            }
        }
    }

    fn is_in_trouble(&self, why: &str) {
        let text = format!("no private network: {why}");
        let mut inner = self.inner.lock();
        if inner.trouble.as_ref() != Some(&text) {
            tracing::warn!("{text}");
            inner.trouble = Some(text);
        }
    }
}

/// The last bits of an id, which are drawn at random.
fn short(id: u128) -> String {
    format!("{:06x}", id & 0xFF_FFFF)
}

fn bridge(node: NodeId, environment: EnvironmentId, first: u32) -> Bridge {
    // The kernel takes 15 characters; several nodes may share a machine.
    let (node, environment) = (short(node.as_u128()), short(environment.as_u128()));
    Bridge {
        network: format!("skep-{node}-{environment}"),
        interface: format!("sk{node}{environment}"),
        gateway: Ipv4Addr::from(first + 1),
        subnet: Ipv4Addr::from(first),
    }
}

fn request(
    bridge: &Bridge,
    labels: std::collections::HashMap<String, String>,
) -> NetworkCreateRequest {
    let config = IpamConfig {
        subnet: Some(format!("{}/{}", bridge.subnet, subnet::BITS)),
        gateway: Some(bridge.gateway.to_string()),
        ..Default::default()
    };
    let name = "com.docker.network.bridge.name".to_owned();
    NetworkCreateRequest {
        name: bridge.network.clone(),
        driver: Some("bridge".to_owned()),
        ipam: Some(Ipam {
            config: Some(vec![config]),
            ..Default::default()
        }),
        options: Some([(name, bridge.interface.clone())].into()),
        labels: Some(labels),
        ..Default::default()
    }
}

/// Whether `network` is Docker's and has this label.
pub(crate) fn label<'a>(network: &'a Network, name: &str) -> Option<&'a str> {
    network.labels.as_ref()?.get(name).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_has_a_name_that_the_kernel_takes_and_another_node_does_not_have() {
        let environment = EnvironmentId::from_u128(0xABCD_EF01);
        let [one, two] = [1, 2].map(|id| bridge(NodeId::from_u128(id), environment, 10 << 24));
        assert!(one.interface.len() <= 15, "{}", one.interface);
        assert_ne!(one.interface, two.interface);
        assert_eq!(one.gateway, Ipv4Addr::new(10, 0, 0, 1));
    }
}
