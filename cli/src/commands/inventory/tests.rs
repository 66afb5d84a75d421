use serde_json::json;
use skep_model::node::Facts;

use super::*;

fn server(name: &str, member: u64, address: &str) -> ServerView {
    let server = json!({
        "id": format!("0000000000000000000000000{member}"),
        "name": name,
        "member": member,
        "role": "voter",
        "cluster_address": address,
        "api_address": address,
        "version": "0.1.0",
        "feature_level": 1,
        "joined_ms": 1,
        "healthy": true,
        "lag": 0,
        "report": null,
    });
    serde_json::from_value(server).expect("a server")
}

fn node(name: &str, number: u64, facts: Value) -> NodeView {
    let mut all = json!(Facts::default());
    let all = all.as_object_mut().expect("an object");
    all.extend(pairs(facts));
    let node = json!({
        "id": format!("0000000000000000000000000{number}"),
        "name": name,
        "status": "ready",
        "status_ms": 1,
        "joined_ms": 1,
        "facts": all,
        "allocations": 0,
        "cpu_millis_requested": 0,
        "memory_bytes_requested": 0,
        "meta": {},
        "admin": { "state": "eligible" },
    });
    serde_json::from_value(node).expect("a node")
}

/// A small cluster with one of everything.
fn cluster() -> (ServersView, Vec<NodeView>) {
    let servers = vec![
        server("alone", 1, "10.0.0.1:7072"),
        server("both", 2, "10.0.0.2:7072"),
        server("clash", 3, "10.0.0.3:7072"),
    ];
    let view = ServersView {
        leader: Some(servers[1].id),
        term: 4,
        feature_level: 1,
        servers,
    };
    let mut nodes = vec![
        node(
            "both",
            1,
            json!({ "mesh_address": "10.0.0.2:7075", "machine": { "guest": "vm" } }),
        ),
        node(
            "clash",
            2,
            json!({ "image_address": "10.0.1.3:7074", "machine": { "guest": "lxc" } }),
        ),
        node("silent", 3, json!({ "meta": { "pool": "batch-1" } })),
        node(
            "six",
            4,
            json!({ "mesh_address": "[2001:db8::6]:7075", "meta": { "pool": "theirs" } }),
        ),
    ];
    nodes[2].admin = Admin::Draining { deadline_ms: 9 };
    // The operators' word comes before the agent's.
    nodes[3].meta.insert("pool".into(), "web".into());
    (view, nodes)
}

#[test]
fn the_inventory_is_the_documented_one() {
    let (servers, nodes) = cluster();
    let inventory = Inventory::of(&servers, &nodes);
    let made = format!("{}\n", text(&inventory.document()));
    assert_eq!(made, include_str!("../../../golden/inventory.json"));
}

#[test]
fn every_host_is_in_a_group_and_every_member_is_a_host() {
    let (servers, nodes) = cluster();
    let inventory = Inventory::of(&servers, &nodes);
    let members: BTreeSet<&String> = inventory.groups.values().flatten().collect();
    let hosts: BTreeSet<&String> = inventory.hosts.keys().collect();
    assert_eq!(members, hosts);
    // Seven are spoken of, and one machine is two of them.
    assert_eq!(hosts.len(), 6);
    for name in inventory.groups.keys() {
        assert!(
            name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
            "{name}"
        );
    }
}
