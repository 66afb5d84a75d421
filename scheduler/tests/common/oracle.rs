//! The oracle: one allocation placed by plain loops over the raw entities, written apart from the
//! crate, slow and meant to be obviously right. It knows no index, no heap and no group.

use std::collections::BTreeMap;

use skep_model::allocation::Allocation;
use skep_model::id::NodeId;
use skep_model::node::{Admin, Node, NodeStatus};
use skep_model::placement::{MaxPer, Spread, Strategy, Toward};
use skep_model::spec::Resources;
use skep_scheduler::packing::{Demand, Packing, Size, Supply};

use super::{MIB, World};

/// A node's attribute, as documented.
pub(crate) fn attribute<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    let own = match key {
        "node.name" => Some(&*node.name),
        "node.arch" => Some(&*node.facts.architecture),
        "node.kernel" => Some(&*node.facts.kernel),
        "node.pool" => node.meta.get("pool").map(|text| &**text),
        _ => node.meta.get(key).map(|text| &**text),
    };
    own.filter(|text| !text.is_empty())
}

fn own(world: &World) -> impl Iterator<Item = &Allocation> {
    world.allocations.values().filter(|a| a.is_live())
}

/// CPU, memory and disk that a node offers.
fn offered(node: &Node) -> [u64; 3] {
    let memory = node.facts.memory_bytes;
    let disk = node.facts.disk_bytes;
    [
        node.facts.cpu_millis.into(),
        memory.saturating_sub((memory / 100 * 5).max(64 * MIB)),
        disk.saturating_sub(disk / 100 * 5),
    ]
}

fn amounts(needs: Resources) -> [u64; 3] {
    [
        needs.cpu_millis.into(),
        needs.memory_bytes,
        needs.disk_bytes,
    ]
}

/// What is left on a node, added up from the entities.
fn left(world: &World, node: &Node) -> [u64; 3] {
    let mut left = offered(node);
    let own = own(world)
        .filter(|a| a.node == node.id)
        .map(|_| world.needs);
    let others = world.others.values().filter(|(on, _)| *on == node.id);
    for needs in own.chain(others.map(|(_, needs)| *needs)) {
        for (left, needs) in left.iter_mut().zip(amounts(needs)) {
            *left = left.saturating_sub(needs);
        }
    }
    left
}

/// How many of the service are on nodes with this value of the attribute.
fn count(world: &World, key: &str, value: Option<&str>) -> u64 {
    let there = own(world).filter_map(|a| world.nodes.get(&a.node));
    there.filter(|node| attribute(node, key) == value).count() as u64
}

/// The same, of those that a spread counts.
fn spread_count(world: &World, key: &str, value: Option<&str>) -> u64 {
    let there = spread_nodes(world);
    there.filter(|node| attribute(node, key) == value).count() as u64
}

fn spread_nodes(world: &World) -> impl Iterator<Item = &Node> {
    let there = own(world).filter_map(|a| world.nodes.get(&a.node));
    there.filter(|node| {
        let is_drained = matches!(node.admin, Admin::Draining { .. });
        let leaves = (is_drained && node.status == NodeStatus::Ready) || world.is_given_up(node);
        !(world.spreads_staying && leaves)
    })
}

/// The first rule against a node; none: one more allocation of the service fits there.
pub(crate) fn refuses(world: &World, id: NodeId) -> Option<String> {
    let node = &world.nodes[&id];
    let placement = &world.service.spec.placement;
    if let Some(rule) = breaks_rule(world, node) {
        return Some(rule);
    }
    for limit in &placement.max_per {
        let MaxPer { key, count: most } = limit;
        let on = own(world).filter(|a| a.node == id).count() as u64;
        let there = match &**key {
            "node.name" => on,
            key => count(world, key, attribute(node, key)),
        };
        if there >= u64::from(*most) {
            return Some(limit.to_string());
        }
    }
    for spread in &placement.spread {
        if breaks_skew(world, node, spread) {
            return Some(spread.to_string());
        }
    }
    let lacks = left(world, node)
        .into_iter()
        .zip(amounts(world.needs))
        .any(|(left, needs)| left < needs);
    if lacks {
        return Some("room".to_owned());
    }
    let mine = own(world).filter(|a| a.node == id).count() as u32;
    for (device, wanted) in &placement.devices {
        let has = node.facts.devices.get(device).copied().unwrap_or(0);
        if has.saturating_sub(mine * wanted) < *wanted {
            return Some(device.clone());
        }
    }
    (!placement.ports.is_empty() && mine > 0).then(|| "port".to_owned())
}

/// What has nothing to do with who else is there.
fn breaks_rule(world: &World, node: &Node) -> Option<String> {
    let placement = &world.service.spec.placement;
    if node.status != NodeStatus::Ready || node.admin != Admin::Eligible {
        return Some("state".to_owned());
    }
    if world.only_on.is_some_and(|holder| holder != node.id) {
        return Some("image".to_owned());
    }
    if let Some(pool) = &placement.pool
        && node.meta.get("pool") != Some(pool)
    {
        return Some("pool".to_owned());
    }
    let mut broken = broken(world, node);
    match placement.relaxed {
        true => None,
        false => broken.next(),
    }
}

fn broken<'a>(world: &'a World, node: &'a Node) -> impl Iterator<Item = String> + 'a {
    let constraints = world.service.spec.placement.constraints.iter();
    let broken = constraints.filter(|one| !one.judge().holds(attribute(node, &one.key)));
    broken.map(ToString::to_string)
}

fn breaks_skew(world: &World, node: &Node, spread: &Spread) -> bool {
    let Some(skew) = spread.max_skew else {
        return false;
    };
    let value = attribute(node, &spread.key);
    let next = spread_count(world, &spread.key, value) + 1;
    if !spread.percent.is_empty() {
        let total = spread_nodes(world).count() as u64;
        let fair = ((total + 1) * share(world, spread, value)).div_ceil(1_000_000);
        return next > fair + u64::from(skew);
    }
    let open = world
        .nodes
        .values()
        .filter(|node| breaks_rule(world, node).is_none());
    let counts = open.map(|node| spread_count(world, &spread.key, attribute(node, &spread.key)));
    next > counts.min().unwrap_or(0) + u64::from(skew)
}

/// Millionths of all that a value should have.
fn share(world: &World, spread: &Spread, value: Option<&str>) -> u64 {
    if let Some(percent) = value.and_then(|value| spread.percent.get(value)) {
        return u64::from(*percent) * 10_000;
    }
    let mut unnamed: Vec<Option<&str>> = world
        .nodes
        .values()
        .map(|node| attribute(node, &spread.key))
        .filter(|value| value.is_none_or(|value| !spread.percent.contains_key(value)))
        .collect();
    unnamed.sort_unstable();
    unnamed.dedup();
    let named: u64 = spread.percent.values().map(|one| u64::from(*one)).sum();
    (100 - named) * 10_000 / unnamed.len().max(1) as u64
}

fn level(world: &World, node: &Node, spread: &Spread) -> u64 {
    let value = attribute(node, &spread.key);
    let count = spread_count(world, &spread.key, value);
    if spread.percent.is_empty() {
        return count;
    }
    match share(world, spread, value) {
        0 => u64::MAX / 2 + count,
        share => (2 * count + 1) * 1_000_000_000 / share,
    }
}

fn affinity(world: &World, node: &Node) -> i64 {
    let mut sum = 0;
    for affinity in &world.service.spec.placement.affinities {
        let holds = match &affinity.toward {
            Toward::Nodes(rule) => rule.judge().holds(attribute(node, &rule.key)),
            Toward::Service { on, .. } => {
                let theirs = world.others.values().map(|(on, _)| *on);
                theirs.into_iter().any(|id| {
                    let other = world.nodes.get(&id);
                    other.is_some_and(|other| attribute(other, on) == attribute(node, on))
                })
            }
        };
        sum += if holds { i64::from(affinity.weight) } else { 0 };
    }
    sum
}

/// The formula for all that there are and for the group: its sums are counted here, its cost is
/// `packing`'s own and tested there.
fn packing(world: &World, group: u64) -> Packing {
    let own = own(world).map(|_| world.needs);
    let others = world.others.values().map(|(_, needs)| *needs);
    let mut demand = Demand::default();
    own.chain(others)
        .for_each(|needs| demand.put(size(amounts(needs))));
    let asked = demand.sum().with(size(amounts(world.needs)), group);
    let mut supply = Supply::default();
    for node in world.nodes.values() {
        let capacity = size(offered(node));
        let takes = node.status == NodeStatus::Ready && node.admin == Admin::Eligible;
        supply.largest = supply.largest.max(capacity);
        if takes {
            supply.put(capacity, left(world, node) == offered(node));
        }
    }
    Packing::with_drafted(&demand, asked, &supply)
}

fn size([cpu, memory, _]: [u64; 3]) -> Size {
    Size { cpu, memory }
}

fn cost(world: &World, node: &Node, packing: &Packing) -> i64 {
    let needs = amounts(world.needs);
    let after: [f64; 3] = std::array::from_fn(|r| (left(world, node)[r] - needs[r]) as f64);
    let of = offered(node);
    let strategy = world.service.spec.placement.strategy;
    let parts = [0, 1].map(|r| after[r] / (of[r].max(1)) as f64);
    let cost = match strategy.unwrap_or(Strategy::Binpack) {
        Strategy::Spread => -(parts[0] + parts[1]),
        Strategy::Balanced => (parts[0] - parts[1]).abs() + 0.03 * (parts[0] + parts[1]),
        Strategy::Binpack => {
            let free = left(world, node);
            let (parts, ask) = (packing.parts(size(free)), packing.parts(size(needs)));
            return packing.cost(parts, free == offered(node), ask);
        }
    };
    (cost * 1e9) as i64
}

/// Beyond a third of all that there will be: on the node's host, and on the node.
fn beyond(world: &World, node: &Node, share: u64) -> [u64; 2] {
    if !world.keeps_apart {
        return [0, 0];
    }
    let spread = &world.service.spec.placement.spread;
    let on_node = own(world).filter(|a| a.node == node.id).count() as u64;
    let on_host = match spread.iter().any(|spread| spread.key == "host") {
        true => 0,
        false => count(world, "host", attribute(node, "host")),
    };
    [on_host, on_node].map(|there| (there + 1).saturating_sub(share))
}

/// Where one more goes as one of a group: every node that can take it, sorted by the declared order.
pub(crate) fn best(world: &World, packing: &Packing, share: u64) -> Option<NodeId> {
    let placement = &world.service.spec.placement;
    let mut scored = Vec::new();
    for (id, node) in &world.nodes {
        if refuses(world, *id).is_some() {
            continue;
        }
        let broken = match placement.relaxed {
            true => broken(world, node).count(),
            false => 0,
        };
        let levels: Vec<u64> = placement
            .spread
            .iter()
            .map(|one| level(world, node, one))
            .collect();
        let same = own(world).filter(|a| a.node == *id).count();
        let key = (
            broken,
            levels,
            -affinity(world, node),
            beyond(world, node, share),
            cost(world, node, packing),
            same,
            *id,
        );
        scored.push(key);
    }
    scored.sort();
    scored.first().map(|key| key.6)
}

/// Where each of a group goes, one after the other; shorter where no more fit.
pub(crate) fn place(world: &World, group: usize) -> Vec<NodeId> {
    let mut world = world.clone();
    let packing = packing(&world, group as u64);
    let share = (own(&world).count() + group).div_ceil(3) as u64;
    let mut placed = Vec::new();
    while placed.len() < group {
        let Some(node) = best(&world, &packing, share) else {
            break;
        };
        let id = 9_000_000 + placed.len() as u128;
        let one = super::allocation(id, super::target(1, 1), node);
        world.allocations.insert(one.id, one);
        placed.push(node);
    }
    placed
}

/// How many of a list are on each value of an attribute.
pub(crate) fn tally(world: &World, key: &str, nodes: &[NodeId]) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for id in nodes {
        let value = attribute(&world.nodes[id], key).unwrap_or("none");
        *tally.entry(value.to_owned()).or_insert(0) += 1;
    }
    tally
}
