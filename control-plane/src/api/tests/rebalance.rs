//! What is advised, what begins, and that it is not advised again.

use skep_model::allocation::{Allocation, Desired, Observed, State};
use skep_model::id::AllocationId;

use super::*;

const REBALANCE: &str = "/v1/rebalance";

/// Plays leader and agent: one healthy allocation of the live release on a node.
pub(super) async fn run_on(server: &Server, service: &str, id: u128, node: NodeId) {
    let view = server.context.store.view();
    let found = view
        .services()
        .find(|one| one.name == service)
        .expect("made");
    let healthy = Observed {
        state: State::Healthy,
        ..Observed::pending()
    };
    let allocation = Allocation {
        id: AllocationId::from_u128(id),
        service: found.id,
        target: found.live.expect("live"),
        node,
        desired: Desired::Run,
        reason: "test".into(),
        desired_ms: 0,
        desired_index: 0,
        observed: Observed::pending(),
        observed_ms: 0,
        created_ms: 0,
        job: None,
    };
    let base = v1::Base {
        id: id_bytes(node.as_u128()),
        generation: view.node(node).expect("joined").generation,
    };
    server
        .propose(Kind::ApplyPlan(v1::ApplyPlan {
            nodes: vec![base],
            starts: vec![(&allocation).into()],
            ..v1::ApplyPlan::default()
        }))
        .await;
    server
        .propose(Kind::Observe(v1::Observe {
            node: id_bytes(node.as_u128()),
            allocations: vec![v1::AllocationObservation {
                allocation: id_bytes(id),
                observed: Some((&healthy).into()),
            }],
            ..v1::Observe::default()
        }))
        .await;
}

/// A node that has something to give.
pub(super) async fn grown(server: &Server, name: &str) -> NodeId {
    let node = server.join(name).await;
    let facts = Facts {
        cpu_millis: 4_000,
        memory_bytes: 8 << 30,
        ..Facts::default()
    };
    let grown = v1::UpdateNode {
        node: id_bytes(node.as_u128()),
        facts: Some((&facts).into()),
    };
    server.propose(Kind::UpdateNode(grown)).await;
    node
}

/// Two services of one allocation each, on nodes of their own.
async fn scattered(server: &Server, placement: Value) -> [NodeId; 2] {
    let mut nodes = [NodeId::from_u128(0); 2];
    for (at, name) in ["n1", "n2"].into_iter().enumerate() {
        nodes[at] = grown(server, name).await;
    }
    for (at, name) in ["web", "api"].into_iter().enumerate() {
        let path = WEB.replace("web", name);
        let spec = json!({"spec": {"resources": {"cpu_millis": 500}, "placement": placement}});
        let made = server.put(&path, spec).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let image = json!({"type": "image", "reference": "app:1"});
        let answer = server.post(&format!("{path}/deployments"), image).await;
        server.bring_live(deployment_id(&answer.body)).await;
        run_on(server, name, 100 + at as u128, nodes[at]).await;
    }
    nodes
}

#[tokio::test]
async fn what_empties_a_node_is_advised_begins_once_and_then_stays() {
    let server = Server::start().await;
    let nodes = scattered(&server, json!({})).await;
    let shown = server.get(REBALANCE).await;
    assert_eq!(shown.status, 200, "{}", shown.body);
    assert_eq!(shown.body["mode"], "advise");
    let moves = shown.body["moves"].as_array().expect("a list");
    assert_eq!(moves.len(), 1, "{}", shown.body);
    assert_eq!(shown.body["emptied"], json!([moves[0]["from"]]));
    assert_ne!(moves[0]["from"], moves[0]["to"]);

    let begun = server.post("/v1/rebalance/run", Value::Null).await;
    assert_eq!(begun.status, 200, "{}", begun.body);
    assert_eq!(
        (&begun.body["begun"], &begun.body["left"]),
        (&shown.body["moves"], &json!(0))
    );
    let shown = server.get(REBALANCE).await;
    assert_eq!(shown.body["under_way"], begun.body["begun"]);
    assert_eq!(
        shown.body["moves"],
        json!([]),
        "what leaves is not moved again"
    );
    let again = server.post("/v1/rebalance/run", Value::Null).await;
    assert_eq!(again.body, json!({"begun": [], "left": 0}));
    // The planner is told where it goes.
    let view = server.context.store.view();
    let moved = view.rebalance().moves.iter().next().expect("one");
    let service = view.service(moved.1.service).expect("there");
    let around = crate::placement::surroundings(&view, service);
    assert_eq!(around.moving.get(moved.0), Some(&moved.1.to));
    assert!(nodes.contains(&moved.1.to));
}

#[tokio::test]
async fn what_has_wishes_of_its_own_stays_where_it_is() {
    for placement in [
        json!({"spread": ["node.name"]}),
        json!({"strategy": "spread"}),
        json!({"max_unavailable": 0}),
    ] {
        let server = Server::start().await;
        scattered(&server, placement.clone()).await;
        let shown = server.get(REBALANCE).await;
        assert_eq!(shown.body["moves"], json!([]), "{placement}");
    }
}

#[tokio::test]
async fn the_mode_and_the_pace_are_set_and_a_wrong_pace_is_refused() {
    let server = Server::start().await;
    scattered(&server, json!({})).await;
    let set = json!({"mode": "auto", "moves_per_minute": 4});
    let shown = server.put(REBALANCE, set).await;
    assert_eq!(
        (&shown.body["mode"], &shown.body["moves_per_minute"]),
        (&json!("auto"), &json!(4))
    );
    let off = server.put(REBALANCE, json!({"mode": "off"})).await;
    assert_eq!(
        (&off.body["moves"], &off.body["moves_per_minute"]),
        (&json!([]), &json!(4))
    );
    for pace in [0, 61] {
        let wrong = json!({"mode": "auto", "moves_per_minute": pace});
        let refused = server.put(REBALANCE, wrong).await;
        assert_problem(&refused, 400, "invalid", Some("moves_per_minute"));
    }
}
