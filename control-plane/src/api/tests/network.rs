//! Private networks and the network between nodes: nodes are asked on their sessions, and what they find is
//! told with what to do.

use std::time::Duration;

use skep_model::network_check::{Dialed, Found, NodeNetwork, Overlap};
use skep_proto::v1::to_agent::Kind as Said;

use super::*;
use crate::agents::relay::ToNode;

const PATIENCE: Duration = Duration::from_secs(10);

impl Server {
    /// A node whose data plane is reached there, and its session.
    async fn connect(&self, name: &str, address: &str) -> (NodeId, ToNode) {
        let node = self.join(name).await;
        let facts = Facts {
            mesh_address: Some(address.to_owned()),
            ..Facts::default()
        };
        self.propose(Kind::UpdateNode(v1::UpdateNode {
            node: id_bytes(node.as_u128()),
            facts: Some((&facts).into()),
        }))
        .await;
        assert!(self.context.fleet.connect(node, 1));
        (node, self.context.relay.connect(node).1)
    }

    /// Plays the agent of a node: answers one question with this.
    async fn answer(&self, (node, session): &mut (NodeId, ToNode), found: Found) -> v1::NetworkAsk {
        let asked = tokio::time::timeout(PATIENCE, session.recv()).await;
        let Ok(Some(Said::NetworkAsk(ask))) = asked else {
            panic!("{asked:?}");
        };
        let message = v1::NetworkFound {
            request: ask.request,
            ..(&found).into()
        };
        self.context.relay.network_found(*node, message);
        ask
    }
}

fn found(dialed: &[Dialed]) -> Found {
    Found {
        dialed: dialed.to_vec(),
        own: NodeNetwork {
            pool: Some("10.202.0.0/16".parse().expect("a pool")),
            ..NodeNetwork::default()
        },
    }
}

#[tokio::test]
async fn every_node_dials_all_others_and_what_is_blocked_is_named() {
    let server = Server::start().await;
    let mut a = server.connect("a", "10.0.0.3:7075").await;
    let mut b = server.connect("b", "10.0.0.4:7075").await;
    let well = async {
        server.answer(&mut a, found(&[Dialed::Reached])).await;
        server.answer(&mut b, found(&[Dialed::Reached])).await
    };
    let (checked, ask) = tokio::join!(server.post("/v1/network/check", Value::Null), well);
    assert_eq!(checked.body["ok"], true, "{}", checked.body);
    assert_eq!((&checked.body["checked"], ask.doors.len()), (&json!(2), 1));
    assert_eq!(ask.doors[0].address, "10.0.0.3:7075");

    // One direction is blocked, a node has no firewall, a third one is away.
    server.join("c").await;
    let badly = async {
        server.answer(&mut a, found(&[Dialed::Reached])).await;
        let mut said = found(&[Dialed::Refused]);
        said.own.trouble = "no iptables".into();
        server.answer(&mut b, said).await;
    };
    let (checked, ()) = tokio::join!(server.post("/v1/network/check", Value::Null), badly);
    let body = checked.body;
    assert_eq!((&body["ok"], &body["checked"]), (&json!(false), &json!(2)));
    let pair = &body["failing"][0];
    assert_eq!((&pair["from"], &pair["to"]), (&json!("b"), &json!("a")));
    assert_eq!(
        pair["text"],
        "node b cannot reach 10.0.0.3:7075 of node a: connection refused"
    );
    let fix = pair["fix"].to_string();
    assert!(fix.contains("open TCP 7075 from b to a"), "{fix}");
    assert_eq!(body["failing"][1], Value::Null);
    let problems: Vec<String> = (0..4)
        .map(|at| body["problems"][at]["text"].to_string())
        .collect();
    assert!(problems[0].contains("no iptables"), "{problems:?}");
    assert!(problems[1].contains("c is not connected"), "{problems:?}");
    assert!(problems[2].contains("c says no address"), "{problems:?}");
    assert_eq!(problems[3], "null");
}

#[tokio::test]
async fn another_pool_is_refused_with_the_names_of_what_is_in_the_way() {
    let server = Server::start().await;
    let mut a = server.connect("a", "10.0.0.3:7075").await;
    let pool = |text: &str| json!({ "pool": text });
    for odd in ["10.201.0.0", "8.8.0.0/16"] {
        let refused = server.put("/v1/network/pool", pool(odd)).await;
        assert_problem(&refused, 400, "invalid", Some("pool"));
    }
    let mut taken = found(&[]);
    taken.own.overlaps.push(Overlap {
        what: "route of eth0".into(),
        network: "10.99.4.0/24".into(),
    });
    let answer = server.answer(&mut a, taken);
    let (refused, ask) = tokio::join!(server.put("/v1/network/pool", pool("10.99.0.0/16")), answer);
    assert_eq!(ask.pool, "10.99.0.0/16");
    assert_problem(&refused, 409, "conflict", Some("pool"));
    let text = refused.body["message"].to_string();
    assert!(
        text.contains("10.99.4.0/24 (route of eth0 of node a)"),
        "{text}"
    );
    let answer = server.answer(&mut a, found(&[]));
    let (refused, _) = tokio::join!(
        server.put("/v1/network/pool", pool("10.202.4.0/24")),
        answer
    );
    assert_problem(&refused, 409, "conflict", Some("pool"));
    let text = refused.body["message"].to_string();
    assert!(text.contains("`--private-network` of node a"), "{text}");

    // Two environments have a block each.
    server.put(WEB, Value::Null).await;
    let other = "/v1/projects/blog/environments/production/services/web";
    server.put(other, Value::Null).await;
    let answer = server.answer(&mut a, found(&[]));
    let (small, _) = tokio::join!(server.put("/v1/network/pool", pool("10.98.0.0/27")), answer);
    assert_problem(&small, 400, "invalid", Some("pool"));
    let text = small.body["message"].to_string();
    assert!(
        text.contains("shop/production (1)") && text.contains("blog/production (1)"),
        "{text}"
    );

    let answer = server.answer(&mut a, found(&[]));
    let (set, _) = tokio::join!(server.put("/v1/network/pool", pool("10.98.0.0/26")), answer);
    assert_eq!(set.body, json!({ "pool": "10.98.0.0/26", "unheard": [] }));
    // What was given stays; what is new comes out of it.
    let third = "/v1/projects/third/environments/production/services/db";
    server.put(third, Value::Null).await;
    let shown = server.get("/v1/network").await.body;
    let blocks: Vec<&Value> = (0..3)
        .map(|at| &shown["environments"][at]["blocks"][0])
        .collect();
    assert_eq!(blocks, ["10.201.0.32/27", "10.201.0.0/27", "10.98.0.0/27"]);
    let service = &shown["environments"][2]["services"][0];
    assert_eq!(
        (&service["name"], &service["address"]),
        (&json!("db.internal"), &json!("10.98.0.1"))
    );
    assert_eq!(
        (&shown["blocks"], &shown["blocks_used"]),
        (&json!(2), &json!(3))
    );
}
