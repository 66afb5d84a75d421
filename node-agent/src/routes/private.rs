//! An environment's network as its data plane is told of it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::id::{AllocationId, EnvironmentId, NodeId};
use skep_model::network::{NameBackend, Named, Names};
use skep_proto::convert::id_bytes;
use skep_proto::v1;

use super::Spot;
use crate::network::{Bridge, SUBNET_BITS};

/// What is known around it: this node, the addresses of what is fit for traffic here, and whose data planes
/// are reached.
pub(super) type Around<'a> = (
    NodeId,
    &'a BTreeMap<AllocationId, Spot>,
    &'a BTreeSet<NodeId>,
);

/// The network behind a bridge; without names where the server has not told them yet.
pub(super) fn network(
    (environment, bridge): (EnvironmentId, &Bridge),
    names: Option<&Names>,
    (node, local, reached): Around<'_>,
) -> v1::PrivateNetwork {
    let target = |backend: &NameBackend| {
        let allocation = id_bytes(backend.allocation.as_u128());
        // What runs here is judged by this node alone.
        if backend.node == node {
            let (ip, files) = match local.get(&backend.allocation)? {
                Spot::At(ip) => (ip.to_string(), String::new()),
                Spot::Files(folder) => (String::new(), folder.display().to_string()),
            };
            return Some(v1::PrivateTarget {
                allocation,
                ip,
                node: Vec::new(),
                files,
            });
        }
        reached.contains(&backend.node).then(|| v1::PrivateTarget {
            allocation,
            ip: String::new(),
            node: id_bytes(backend.node.as_u128()),
            files: String::new(),
        })
    };
    let service = |(name, named): (&String, &Named)| v1::PrivateService {
        name: name.clone(),
        virtual_address: u32::from(named.address),
        backends: named.backends.iter().filter_map(target).collect(),
    };
    let services = names.into_iter().flat_map(|names| &names.services);
    v1::PrivateNetwork {
        environment: id_bytes(environment.as_u128()),
        gateway: u32::from(bridge.gateway),
        subnet: u32::from(bridge.subnet),
        subnet_bits: SUBNET_BITS,
        services: services.map(service).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn what_is_fit_here_and_reached_elsewhere_answers() {
        let [here, there, silent] = [1, 2, 3].map(NodeId::from_u128);
        let at = |node, id| NameBackend {
            node,
            allocation: AllocationId::from_u128(id),
        };
        let mut backends = vec![at(here, 10), at(here, 11), at(there, 12), at(silent, 13)];
        backends.push(at(here, 14));
        let address = Ipv4Addr::new(10, 201, 0, 1);
        let environment = EnvironmentId::from_u128(7);
        let names = Names {
            environment,
            services: [("api".to_owned(), Named { address, backends })].into(),
        };
        let bridge = Bridge {
            network: "n".into(),
            interface: "i".into(),
            gateway: Ipv4Addr::new(10, 202, 0, 1),
            subnet: Ipv4Addr::new(10, 202, 0, 0),
        };
        let ip = Ipv4Addr::new(10, 202, 0, 9).into();
        let files = Spot::Files(std::path::Path::new("/b").into());
        let local = [(10, Spot::At(ip)), (14, files)];
        let local = local
            .map(|(id, spot)| (AllocationId::from_u128(id), spot))
            .into();
        let reached = [there].into();
        let around = (here, &local, &reached);
        let told = network((environment, &bridge), Some(&names), around);
        let api = &told.services[0];
        let ips: Vec<_> = api.backends.iter().map(|it| it.ip.as_str()).collect();
        assert_eq!(
            (api.name.as_str(), ips),
            ("api", vec!["10.202.0.9", "", ""])
        );
        assert_eq!(api.backends[2].files, "/b");
        assert_eq!(api.backends[1].node, id_bytes(there.as_u128()));
        assert!(
            network((environment, &bridge), None, around)
                .services
                .is_empty()
        );
    }
}
