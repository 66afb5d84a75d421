//! Hosts: what would end with one, emptied for maintenance and taken back; and services that have come to be on one
//! host alone.

use skep_model::maintenance::Cause;
use skep_model::node::{Admin, HOST};
use skep_proxmox::calls::cluster::Host;

use super::rebalance::{grown, run_on};
use super::*;
use crate::hosts::{said, strayed};

const HOSTS: &str = "/v1/hosts";
const DRAIN: &str = "/v1/hosts/pve1/drain";

impl Server {
    async fn is_on(&self, node: &str, host: &str) {
        let path = format!("/v1/nodes/{node}/meta");
        let set = self.put(&path, json!({"set": {HOST: host}})).await;
        assert_eq!(set.status, 200, "{}", set.body);
    }

    async fn node_on(&self, name: &str, host: &str) -> NodeId {
        let node = grown(self, name).await;
        self.is_on(name, host).await;
        node
    }

    /// Two replicas of a service, on these nodes.
    async fn pair_on(&self, nodes: [NodeId; 2], spec: Value) {
        let made = self.put(WEB, json!({ "spec": spec })).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let image = json!({"type": "image", "reference": "app:1"});
        let answer = self.post(&format!("{WEB}/deployments"), image).await;
        self.bring_live(deployment_id(&answer.body)).await;
        for (at, node) in nodes.into_iter().enumerate() {
            run_on(self, "web", 100 + at as u128, node).await;
        }
    }

    fn admin(&self, node: NodeId) -> Admin {
        self.context.store.view().node(node).expect("there").admin
    }

    async fn undrain(&self) -> StatusCode {
        self.call(Method::DELETE, DRAIN, Value::Null).await.status
    }
}

fn pair() -> Value {
    json!({"replicas": 2, "resources": {"cpu_millis": 500}})
}

#[tokio::test]
async fn what_is_all_on_one_host_is_moved_apart_and_not_back() {
    let server = Server::start().await;
    let nodes = [
        server.node_on("n1", "pve1").await,
        server.node_on("n2", "pve1").await,
    ];
    server.pair_on(nodes, pair()).await;
    let shown = server.get("/v1/rebalance").await;
    assert_eq!(shown.body["moves"], json!([]), "there is no other host");
    let other = server.node_on("n3", "pve2").await;
    let shown = server.get("/v1/rebalance").await;
    let moves = shown.body["moves"].as_array().expect("a list");
    assert_eq!(moves.len(), 1, "{}", shown.body);
    assert_eq!(moves[0]["to"], "n3");
    let begun = server.post("/v1/rebalance/run", Value::Null).await;
    assert_eq!(begun.body["begun"], shown.body["moves"]);
    let again = server.get("/v1/rebalance").await;
    assert_eq!(again.body["moves"], json!([]), "{}", again.body);
    // A node on the same host is no other place, and neither is one without room.
    let server = Server::start().await;
    let nodes = [
        server.node_on("n1", "pve1").await,
        server.node_on("n2", "pve2").await,
    ];
    server.pair_on(nodes, pair()).await;
    server.node_on("n3", "pve2").await;
    let shown = server.get("/v1/rebalance").await;
    assert_eq!(shown.body["moves"], json!([]), "they are apart already");
    assert_ne!(nodes[0], other);
}

#[tokio::test]
async fn a_host_says_what_ends_with_it_and_is_emptied_and_taken_back() {
    let server = Server::start().await;
    let nodes = [
        server.node_on("n1", "pve1").await,
        server.node_on("n2", "pve1").await,
    ];
    server.pair_on(nodes, pair()).await;
    grown(&server, "n4").await;
    let shown = server.get(HOSTS).await;
    let host = &shown.body["hosts"][0];
    assert_eq!(
        (&host["name"], &host["nodes"], &host["maintenance"]),
        (&json!("pve1"), &json!(["n1", "n2"]), &Value::Null),
    );
    assert_eq!(host["services"].as_array().map(Vec::len), Some(1), "{host}");
    assert_eq!(shown.body["unknown"], json!(["n4"]));

    let plan = server.post(&format!("{DRAIN}?plan=true"), json!({})).await;
    let moves = plan.body["moves"].as_array().expect("a list");
    assert_eq!(moves.len(), 2, "{}", plan.body);
    assert!(moves.iter().all(|one| one["to"] == "n4"), "{}", plan.body);
    assert_eq!(server.admin(nodes[0]), Admin::Eligible, "nothing is done");

    let drained = server.post(DRAIN, json!({"deadline_ms": 60_000})).await;
    assert_eq!(drained.body, plan.body);
    for node in nodes {
        assert!(matches!(server.admin(node), Admin::Draining { .. }));
    }
    let shown = server.get(HOSTS).await;
    let maintenance = &shown.body["hosts"][0]["maintenance"];
    assert_eq!(maintenance["cause"], "operator", "{maintenance}");
    // Who joins there is not forgotten.
    server.is_on("n4", "pve1").await;
    let due: Vec<Kind> = strayed(&server.context.store.view()).collect();
    assert_eq!(due.len(), 1);
    assert_eq!(server.undrain().await, 204);
    assert_eq!(server.admin(nodes[1]), Admin::Eligible);
    assert_eq!(server.undrain().await, 404);
}

#[tokio::test]
async fn a_plan_says_what_cannot_move_and_a_host_of_nobody_is_refused() {
    let server = Server::start().await;
    let nodes = [
        server.node_on("n1", "pve1").await,
        server.node_on("n2", "pve1").await,
    ];
    server.pair_on(nodes, pair()).await;
    let plan = server.post(&format!("{DRAIN}?plan=true"), json!({})).await;
    for one in plan.body["moves"].as_array().expect("a list") {
        assert_eq!(one["to"], Value::Null);
        let why = one["against"].as_str().expect("why");
        assert!(why.contains("2 nodes are being drained"), "{why}");
    }
    let none = server.post("/v1/hosts/pve9/drain", json!({})).await;
    assert_eq!(none.status, 404);
    let long = server.post(DRAIN, json!({"deadline_ms": u64::MAX})).await;
    assert_eq!(long.status, 400, "{}", long.body);
}

#[tokio::test]
async fn what_a_provider_has_under_maintenance_is_drained_until_that_ends() {
    let server = Server::start().await;
    let node = server.node_on("n1", "pve1").await;
    let host = |name: &str, word: &str| -> Host {
        let host = json!({"node": name, "status": "online", "hastate": word});
        serde_json::from_value(host).expect("a host")
    };
    let due = |server: &Server, hosts: &[Host]| said(&server.context.store.view(), hosts, 1);
    let maintained = [host("pve1", "maintenance"), host("pve2", "maintenance")];
    let commands = due(&server, &maintained);
    assert_eq!(commands.len(), 1, "of hosts without nodes nothing is said");
    for command in commands {
        server.propose(command).await;
    }
    assert!(matches!(server.admin(node), Admin::Draining { .. }));
    assert_eq!(due(&server, &maintained), []);
    let shown = server.get(HOSTS).await;
    let cause = &shown.body["hosts"][0]["maintenance"]["cause"];
    assert_eq!(*cause, json!(Cause::Provider));
    // What an operator has said since is the operator's to end.
    let back = [host("pve1", "online")];
    assert_eq!(due(&server, &back).len(), 1);
    server.post(DRAIN, json!({})).await;
    assert_eq!(due(&server, &back), []);
}
