//! What nodes run and the state does not know; metadata of nodes.

use skep_model::quarantine::Quarantined;

use super::*;
use crate::Change;

fn entry(allocation: u128, release: u64) -> Quarantined {
    Quarantined {
        node: NODE,
        allocation: AllocationId::from_u128(allocation),
        service: SERVICE,
        service_label: "web-production-shop".into(),
        target: Target {
            release,
            deployment: DeploymentId::from_u128(50),
        },
        since_ms: 0,
    }
}

pub(crate) fn report(node: NodeId, entries: &[(u128, u64)]) -> Kind {
    let entries = entries.iter().map(|(id, release)| {
        let entry = Quarantined {
            node,
            ..entry(*id, *release)
        };
        (&entry).into()
    });
    Kind::Observe(v1::Observe {
        node: id_bytes(node.as_u128()),
        quarantine: Some(v1::QuarantineList {
            entries: entries.collect(),
        }),
        ..v1::Observe::default()
    })
}

pub(crate) fn settle(allocation: u128, adopt: bool) -> Kind {
    Kind::SettleQuarantine(v1::SettleQuarantine {
        node: id_bytes(NODE.as_u128()),
        allocation: id_bytes(allocation),
        adopt,
    })
}

impl World {
    fn quarantined(&self) -> Vec<u128> {
        let all = self.state.quarantine();
        all.map(|entry| entry.allocation.as_u128()).collect()
    }

    fn dismissed(&self) -> Vec<u128> {
        let all = self.state.dismissed_on(NODE);
        all.map(AllocationId::as_u128).collect()
    }
}

#[test]
fn the_list_is_what_the_node_says_without_what_is_known() {
    let (mut world, allocation) = World::with_live_release();
    let first = world.apply(report(
        NODE,
        &[(allocation.as_u128(), 1), (200, 1), (201, 9)],
    ));
    assert_eq!(first.changes, [Change::Quarantine(NODE)]);
    assert_eq!(world.quarantined(), [200, 201]);
    let since = world.state.quarantine().next().expect("one").since_ms;
    let again = world.apply(report(NODE, &[(200, 1), (201, 9)]));
    assert_eq!(again.changes, []);
    assert_eq!(
        world.state.quarantine().next().expect("one").since_ms,
        since
    );
    world.ok(report(NODE, &[(201, 9)]));
    assert_eq!(world.quarantined(), [201]);
    world.observe(allocation, Seen::Healthy);
    assert_eq!(world.quarantined(), [201], "no word on it is no news");
}

#[test]
fn what_is_adopted_becomes_an_allocation_of_its_service() {
    let (mut world, _) = World::with_live_release();
    world.ok(report(NODE, &[(200, 1), (201, 9)]));
    let generation = world.state.node(NODE).expect("node").generation;
    world.ok(settle(200, true));
    let adopted = world
        .state
        .allocation(AllocationId::from_u128(200))
        .expect("adopted");
    assert_eq!((adopted.desired, adopted.node), (Desired::Run, NODE));
    assert!(world.state.node(NODE).expect("node").generation > generation);
    let problem = world
        .apply(settle(201, true))
        .outcome
        .expect_err("no release 9");
    assert!(problem.message.contains("release 9"), "{problem}");
    assert_eq!(world.quarantined(), [201]);
    assert_eq!(world.refused(settle(200, true)), Code::NotFound);
}

#[test]
fn what_is_dismissed_is_told_to_stop_until_it_is_gone() {
    let (mut world, _) = World::with_live_release();
    world.ok(report(NODE, &[(200, 1), (201, 1)]));
    world.ok(settle(200, false));
    assert_eq!(
        (world.quarantined(), world.dismissed()),
        (vec![201], vec![200])
    );
    world.ok(report(NODE, &[(200, 1), (201, 1)]));
    assert_eq!(
        (world.quarantined(), world.dismissed()),
        (vec![201], vec![200])
    );
    let gone = world.apply(report(NODE, &[(201, 1)]));
    assert_eq!(gone.changes, [Change::Quarantine(NODE)]);
    assert_eq!(
        (world.quarantined(), world.dismissed()),
        (vec![201], vec![])
    );
}

#[test]
fn a_node_speaks_of_its_own_quarantine_and_takes_it_along() {
    let (mut world, _) = World::with_live_release();
    let two = NodeId::from_u128(6);
    world.join(two, "two");
    world.ok(report(NODE, &[(200, 1), (201, 1)]));
    world.ok(settle(200, false));
    world.ok(report(two, &[(300, 1)]));
    let mut foreign = entry(400, 1);
    foreign.node = two;
    world.ok(Kind::Observe(v1::Observe {
        node: id_bytes(NODE.as_u128()),
        quarantine: Some(v1::QuarantineList {
            entries: vec![(&foreign).into(), (&entry(201, 1)).into()],
        }),
        ..v1::Observe::default()
    }));
    assert_eq!(world.quarantined(), [201, 300]);
    world.ok(Kind::RemoveNode(v1::RemoveNode {
        node: id_bytes(NODE.as_u128()),
    }));
    assert_eq!(
        (world.quarantined(), world.dismissed()),
        (vec![300], vec![])
    );
}

#[test]
fn a_list_has_an_end() {
    let (mut world, _) = World::with_live_release();
    let many: Vec<_> = (1_000..1_700).map(|id| (id, 1)).collect();
    world.ok(report(NODE, &many));
    assert_eq!(world.quarantined().len(), 500);
}

#[test]
fn metadata_is_checked_bounded_and_counts_as_a_change_of_the_node() {
    let mut world = World::with_service();
    let meta = |set: &[(&str, &str)], unset: &[&str]| {
        Kind::SetNodeMeta(v1::SetNodeMeta {
            node: id_bytes(NODE.as_u128()),
            set: set
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            unset: unset.iter().map(|k| (*k).into()).collect(),
        })
    };
    let generation = world.state.node(NODE).expect("node").generation;
    world.ok(meta(&[("zone", "a"), ("rack", "1")], &[]));
    let applied = world.apply(meta(&[("zone", "b")], &["rack", "other"]));
    assert_eq!(applied.changes, [Change::Node(NODE)]);
    assert_eq!(world.apply(meta(&[("zone", "b")], &["rack"])).changes, []);
    let node = world.state.node(NODE).expect("node");
    assert_eq!(node.meta, BTreeMap::from([("zone".into(), "b".into())]));
    assert_eq!(node.generation, generation + 2);
    assert_eq!(world.refused(meta(&[("Zone", "b")], &[])), Code::Invalid);
    let keys: Vec<String> = (0..64).map(|n| format!("k{n}")).collect();
    let many: Vec<(&str, &str)> = keys.iter().map(|k| (k.as_str(), "")).collect();
    assert_eq!(world.refused(meta(&many, &[])), Code::Invalid);
    world.ok(meta(&many, &["zone"]));
}
