//! What has which private address. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use skep_model::id::EnvironmentId;
use skep_model::network::{BLOCK, Names, block_of};
use skep_state::State as View;

use crate::api::types::{NetworkView, PrivateEnvironmentView, PrivateServiceView};

/// `project/environment`; of one that is gone its id.
pub(crate) fn environment_name(view: &View, id: EnvironmentId) -> String {
    let environment = view.environment(id);
    let project = environment.and_then(|it| view.project(it.project));
    match (project, environment) {
        (Some(project), Some(environment)) => format!("{}/{}", project.name, environment.name),
        _ => id.to_string(),
    }
}

/// All environments that have addresses, by name.
pub(crate) fn network(view: &View) -> NetworkView {
    let mut held: BTreeMap<EnvironmentId, Held> = BTreeMap::new();
    for address in view.private_addresses() {
        let own = held.entry(address.environment).or_default();
        own.blocks.insert(block_of(u32::from(address.address)));
        own.resting += u32::from(address.released_ms.is_some());
    }
    let one = |(id, held): (EnvironmentId, Held)| {
        let names: Names = view.names_of(id);
        let service = |(name, named): (&String, &skep_model::network::Named)| {
            let nodes: BTreeSet<_> = named.backends.iter().map(|it| it.node).collect();
            let nodes = nodes.into_iter().filter_map(|id| view.node(id));
            PrivateServiceView {
                name: format!("{name}.internal"),
                service: name.clone(),
                address: named.address.to_string(),
                healthy: u32::try_from(named.backends.len()).unwrap_or(u32::MAX),
                nodes: nodes.map(|node| node.name.clone()).collect(),
            }
        };
        let bits = u32::BITS - BLOCK.ilog2();
        let block = |block: u32| format!("{}/{bits}", Ipv4Addr::from(block));
        PrivateEnvironmentView {
            environment: environment_name(view, id),
            blocks: held.blocks.into_iter().map(block).collect(),
            services: names.services.iter().map(service).collect(),
            resting: held.resting,
        }
    };
    let mut environments: Vec<_> = held.into_iter().map(one).collect();
    environments.sort_by(|a, b| a.environment.cmp(&b.environment));
    let blocks: usize = environments.iter().map(|it| it.blocks.len()).sum();
    NetworkView {
        pool: view.private_pool().to_string(),
        blocks: view.private_pool().blocks(),
        blocks_used: u32::try_from(blocks).unwrap_or(u32::MAX),
        environments,
    }
}

/// What an environment has.
#[derive(Debug, Default)]
struct Held {
    blocks: BTreeSet<u32>,
    /// Addresses of services that are gone.
    resting: u32,
}
