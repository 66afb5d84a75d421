//! How the private network is on this node, looked at when somebody asks.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bollard::models::Network;
use skep_model::network::Pool;
use skep_model::network_check::{MAX_OVERLAPS, NodeNetwork, Overlap};

use super::Networks;
use super::subnet::{self, Subnet};

impl Networks {
    /// From where bridges get their networks, what keeps them from working, and what is in the way of the
    /// cluster's pool of private addresses.
    pub(crate) async fn report(&self, cluster: Pool) -> NodeNetwork {
        let (known, mut trouble) = match self.runtime.networks(None).await {
            Ok(known) => (known, None),
            Err(error) => (Vec::new(), Some(error.message())),
        };
        let routes = subnet::named_routes();
        let overlaps = overlaps(cluster, &known, &routes);
        let Some(pool) = self.pool else {
            return NodeNetwork {
                overlaps,
                ..NodeNetwork::default()
            };
        };
        if let Err(error) = self.look_at_firewall().await {
            trouble = Some(error.to_string());
        }
        let taken = known.iter().flat_map(subnet::of_network);
        let taken: Vec<Subnet> = taken.chain(routes.into_iter().map(|(_, it)| it)).collect();
        if trouble.is_none() && subnet::free(pool, &taken).is_none() {
            trouble = Some(format!(
                "{pool} has no network left for another environment: Docker or a route of the machine has \
                 a part of each"
            ));
        }
        let bridges = self.bridges.borrow().len();
        NodeNetwork {
            pool: Some(pool),
            trouble: trouble.unwrap_or_default(),
            bridges: u32::try_from(bridges).unwrap_or(u32::MAX),
            overlaps,
        }
    }
}

/// What shares addresses with the pool: Docker's networks, and routes that are not theirs.
fn overlaps(pool: Pool, known: &[Network], routes: &[(String, Subnet)]) -> Vec<Overlap> {
    let mut found: BTreeMap<Subnet, String> = BTreeMap::new();
    for (interface, route) in routes {
        found.insert(*route, format!("route of {interface}"));
    }
    for network in known {
        let name = network.name.as_deref().unwrap_or_default();
        for own in subnet::of_network(network) {
            found.insert(own, format!("Docker's network {name}"));
        }
    }
    let mine = found.into_iter().filter(|(own, _)| pool.shares(*own));
    let overlap = |((first, bits), what): (Subnet, String)| Overlap {
        what,
        network: format!("{}/{bits}", Ipv4Addr::from(first)),
    };
    mine.map(overlap).take(MAX_OVERLAPS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{Ipam, IpamConfig};

    #[test]
    fn what_is_in_the_way_is_named_once() {
        let pool: Pool = "10.201.0.0/16".parse().expect("a pool");
        let config = IpamConfig {
            subnet: Some("10.201.4.0/24".into()),
            ..Default::default()
        };
        let docker = Network {
            name: Some("shop".into()),
            ipam: Some(Ipam {
                config: Some(vec![config]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let at = |text: &str, bits| (u32::from(text.parse::<Ipv4Addr>().expect("it")), bits);
        let routes = [
            ("br-1".to_owned(), at("10.201.4.0", 24)),
            ("eth0".to_owned(), at("10.0.0.0", 8)),
            ("eth1".to_owned(), at("10.202.0.0", 16)),
        ];
        let found = overlaps(pool, &[docker], &routes);
        let shown: Vec<_> = found
            .iter()
            .map(|it| format!("{} {}", it.what, it.network))
            .collect();
        assert_eq!(
            shown,
            [
                "route of eth0 10.0.0.0/8",
                "Docker's network shop 10.201.4.0/24"
            ]
        );
    }
}
