//! The view and its upkeep.

use std::collections::BTreeMap;

use skep_model::placement::Placement;
use skep_model::spec::Resources;

use super::*;

fn node(id: u128, cpu_millis: u32, memory_bytes: u64) -> Node {
    Node {
        id: NodeId::from_u128(id),
        name: format!("n{id}"),
        facts: Facts {
            cpu_millis,
            memory_bytes,
            ..Facts::default()
        },
        status: NodeStatus::Ready,
        status_ms: 0,
        generation: 1,
        joined_ms: 0,
        meta: BTreeMap::new(),
        admin: Admin::Eligible,
        seat: 0,
        witnesses: Vec::new(),
        fencing: Default::default(),
    }
}

fn needs(cpu_millis: u32, memory_bytes: u64) -> Needs {
    let resources = Resources {
        cpu_millis,
        memory_bytes,
        ..Resources::default()
    };
    Needs::new(resources, &Placement::default())
}

#[test]
fn the_reserve_is_a_share_and_has_a_floor() {
    let mut cluster = Cluster::default();
    for (id, memory, left) in [
        (1, 100 << 30, 95 << 30),
        (2, 1 << 30, (1 << 30) - (64 << 20)),
        (3, 32 << 20, 0),
    ] {
        cluster.put_node(&node(id, 1_000, memory));
        let capacity = cluster.node(NodeId::from_u128(id)).unwrap().capacity;
        assert_eq!(capacity.memory_bytes.div_ceil(1 << 20), left >> 20, "{id}");
        assert_eq!(capacity.cpu_millis, 1_000);
    }
}

#[test]
fn a_pools_policy_changes_what_its_nodes_offer_at_once() {
    let mut cluster = Cluster::default();
    let mut own = node(1, 1_000, 1 << 40);
    own.meta.insert("pool".into(), "dense".into());
    cluster.put_node(&own);
    cluster.put_node(&node(2, 1_000, 1 << 40));
    let before = cluster.clone();
    let policy = PoolPolicy {
        cpu_percent: 400,
        reserved_cpu_millis: 100,
        ..PoolPolicy::default()
    };
    cluster.put_policy("dense", Some(policy));
    let cpu = |cluster: &Cluster, id| {
        let node = cluster.node(NodeId::from_u128(id)).unwrap();
        node.capacity.cpu_millis
    };
    assert_eq!((cpu(&cluster, 1), cpu(&cluster, 2)), (3_600, 1_000));
    assert_eq!(cluster.supply().largest.cpu, 3_600);
    cluster.put_policy("dense", None);
    assert_eq!(cluster, before);
}

#[test]
fn what_is_put_and_removed_leaves_no_trace_in_any_order() {
    let (web, a) = (ServiceId::from_u128(9), NodeId::from_u128(1));
    let one = AllocationId::from_u128(1);
    let mut cluster = Cluster::default();
    cluster.put_allocation(one, a, web, &needs(500, 1 << 20));
    assert_eq!(cluster.nodes().count(), 0);
    cluster.put_node(&node(1, 1_000, 1 << 30));
    assert_eq!(cluster.node(a).unwrap().free.cpu_millis, 500);
    cluster.put_allocation(one, a, web, &needs(300, 1 << 20));
    assert_eq!(cluster.node(a).unwrap().free.cpu_millis, 700);
    assert_eq!(cluster.spread_of(web).unwrap()[&0], 1);

    cluster.remove_node(a);
    assert_eq!(cluster.node(a), None);
    cluster.put_node(&node(1, 1_000, 1 << 30));
    assert_eq!(cluster.node(a).unwrap().free.cpu_millis, 700);
    cluster.remove_node(a);
    cluster.remove_allocation(one);
    cluster.remove_allocation(one);
    assert_eq!(cluster, Cluster::default());
}

#[test]
fn a_node_that_shrank_has_nothing_free() {
    let mut cluster = Cluster::default();
    cluster.put_node(&node(1, 2_000, 1 << 30));
    let (a, web) = (NodeId::from_u128(1), ServiceId::from_u128(9));
    cluster.put_allocation(AllocationId::from_u128(1), a, web, &needs(1_500, 1 << 20));
    cluster.put_node(&node(1, 1_000, 1 << 30));
    assert_eq!(cluster.node(a).unwrap().free.cpu_millis, 0);
}
