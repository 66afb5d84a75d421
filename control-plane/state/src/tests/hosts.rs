//! Hosts under maintenance: their nodes are drained together, and are what they were before once it ends.

use skep_model::maintenance::{Cause, Maintenance};
use skep_model::node::{Admin, HOST};
use skep_proto::convert::enum_number;

use super::*;
use crate::Change;

const HOUR_MS: u64 = 3_600_000;

fn set(host: &str, deadline_ms: u64) -> Kind {
    Kind::SetHostMaintenance(v1::SetHostMaintenance {
        host: host.into(),
        cause: enum_number(&Cause::ALL, &Cause::Operator),
        deadline_ms,
    })
}

fn end(host: &str) -> Kind {
    Kind::EndHostMaintenance(v1::EndHostMaintenance { host: host.into() })
}

fn follow(host: &str) -> Kind {
    Kind::FollowHostMaintenance(v1::FollowHostMaintenance { host: host.into() })
}

fn admin(node: NodeId, cordoned: bool, drain_deadline_ms: Option<u64>) -> Kind {
    Kind::SetNodeAdmin(v1::SetNodeAdmin {
        node: id_bytes(node.as_u128()),
        cordoned,
        drain_deadline_ms,
    })
}

impl World {
    /// Five nodes: one to three on `pve1`, four on `pve2`, and one that does not say.
    fn on_hosts() -> (Self, [NodeId; 5]) {
        let mut world = Self::with_service();
        let nodes = [5, 6, 7, 8, 9].map(NodeId::from_u128);
        for (node, name) in nodes
            .iter()
            .zip(["one", "two", "three", "four", "five"])
            .skip(1)
        {
            world.join(*node, name);
        }
        for (node, host) in nodes.iter().zip(["pve1", "pve1", "pve1", "pve2"]) {
            world.is_on(*node, host);
        }
        (world, nodes)
    }

    fn is_on(&mut self, node: NodeId, host: &str) {
        self.ok(Kind::SetNodeMeta(v1::SetNodeMeta {
            node: id_bytes(node.as_u128()),
            set: [(HOST.to_owned(), host.to_owned())].into(),
            unset: Vec::new(),
        }));
    }

    fn admins(&self, nodes: [NodeId; 5]) -> [Admin; 5] {
        nodes.map(|node| self.state.node(node).expect("there").admin)
    }
}

fn draining(deadline_ms: u64) -> Admin {
    Admin::Draining { deadline_ms }
}

#[test]
fn the_nodes_of_a_host_are_drained_together_and_given_back_as_they_were() {
    let (mut world, nodes) = World::on_hosts();
    world.ok(admin(nodes[1], true, None));
    world.ok(admin(nodes[2], true, Some(77)));
    let before = world.admins(nodes);
    let applied = world.apply(set("pve1", HOUR_MS));
    assert!(applied.outcome.is_ok());
    // Who waits for nodes is woken for each that is drained, once.
    for node in &nodes[..2] {
        assert!(applied.changes.contains(&Change::Node(*node)));
    }
    let eligible = Admin::Eligible;
    let hour = draining(HOUR_MS);
    let during = [hour, hour, draining(77), eligible, eligible];
    assert_eq!(world.admins(nodes), during);
    let longer = draining(2 * HOUR_MS);
    world.ok(set("pve1", 2 * HOUR_MS));
    let during = [longer, longer, draining(77), eligible, eligible];
    assert_eq!(world.admins(nodes), during, "again: with another deadline");
    world.ok(end("pve1"));
    assert_eq!(world.admins(nodes), before);
    assert_eq!(world.refused(end("pve1")), Code::NotFound);
    assert_eq!(world.refused(follow("pve1")), Code::NotFound);
}

#[test]
fn who_joins_there_is_drained_and_who_is_moved_away_is_not_any_more() {
    let (mut world, nodes) = World::on_hosts();
    world.ok(set("pve1", HOUR_MS));
    let strays = |world: &World| {
        let found: Vec<&Maintenance> = world.state.maintenances().map(|it| &**it).collect();
        found.iter().any(|it| world.state.has_strayed(it))
    };
    assert!(!strays(&world));
    world.is_on(nodes[4], "pve1");
    world.is_on(nodes[0], "pve3");
    assert!(strays(&world));
    world.ok(follow("pve1"));
    assert!(!strays(&world));
    let admins = world.admins(nodes);
    assert_eq!((admins[0], admins[4]), (Admin::Eligible, draining(HOUR_MS)));
    // What an operator takes back alone is drained again: the host is under maintenance.
    world.ok(admin(nodes[4], false, None));
    assert!(strays(&world));
    world.ok(follow("pve1"));
    assert_eq!(world.admins(nodes)[4], draining(HOUR_MS));
    // What an operator drains with a deadline of its own stays drained afterwards.
    world.ok(admin(nodes[1], true, Some(9)));
    world.ok(end("pve1"));
    let admins = world.admins(nodes);
    assert_eq!((admins[1], admins[4]), (draining(9), Admin::Eligible));
}

#[test]
fn a_snapshot_keeps_which_hosts_are_under_maintenance() {
    let (mut world, _) = World::on_hosts();
    world.ok(set("pve1", HOUR_MS));
    let back = State::decode(&world.state.encode()).expect("a snapshot");
    assert_eq!(back, world.state);
    assert_eq!(back.maintenance("pve1").expect("kept").nodes.len(), 3);
    assert_eq!(world.refused(set("", HOUR_MS)), Code::Invalid);
}
