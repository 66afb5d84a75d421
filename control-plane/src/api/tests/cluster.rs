//! Nodes, tokens, status, health and audit.

use skep_identity::token::JoinToken as TokenText;

use super::*;
use crate::agents::fleet::{RouteStatus, Runtime, Word};

#[tokio::test]
async fn status_and_nodes_tell_what_is_there() {
    let server = Server::start().await;
    let empty = server.get("/v1/status").await;
    assert_eq!(
        (&empty.body["is_leader"], &empty.body["ingress_port"]),
        (&json!(true), &Value::Null)
    );
    let there = server.join("n2").await;
    let here = server.join("n1").await;
    let status = server.get("/v1/status").await;
    assert_eq!(
        status.body["nodes"],
        json!({"total": 2, "ready": 2, "connected": 0})
    );
    // Counted wherever they are connected, and once.
    let fleet = &server.context.fleet;
    fleet.connect(here, 1);
    let word = |node| Word {
        node,
        connected: true,
        runtime: Runtime::Ok,
        routes: RouteStatus::default(),
        challenges: 0,
        silent: std::time::Duration::ZERO,
        ca: None,
        broke: false,
    };
    fleet.learn(ServerId::from_u128(2), true, vec![word(here), word(there)]);
    let status = server.get("/v1/status").await;
    assert_eq!(status.body["nodes"]["connected"], 2);
    assert_eq!(
        (&status.body["ingress_port"], &status.body["history"]["ok"]),
        (&json!(8080), &json!(true))
    );
    let nodes = server.get("/v1/nodes").await;
    assert_eq!(
        (
            &nodes.body["nodes"][0]["name"],
            &nodes.body["nodes"][0]["allocations"]
        ),
        (&json!("n1"), &json!(0))
    );
}

#[tokio::test]
async fn a_silent_node_is_lost_in_time_whatever_else_changes() {
    let server = Server::start().await;
    let node = server.join("n1").await;
    let context = &server.context;
    let duties = crate::reconcile::Parts {
        store: context.store.clone(),
        fleet: context.fleet.clone(),
        history: context.history.clone(),
        secrets: context.secrets.clone(),
        tokens: context.tokens.clone(),
        samples: context.samples.clone(),
        scaling: context.scaling.clone(),
        relay: context.relay.clone(),
        witnesses: context.witnesses.clone(),
        means: Default::default(),
        notify_allow: Vec::new(),
        tally: Default::default(),
        promises: Default::default(),
        programs: None,
        asked: Default::default(),
    };
    tokio::spawn(crate::reconcile::run(duties, context.shutdown.clone()));
    assert!(context.fleet.connect(node, 1));
    let is = async |status: NodeStatus| {
        for round in 0.. {
            let view = context.store.view();
            if view.node(node).is_some_and(|it| it.status == status) {
                return;
            }
            // Concerns no node, and comes more often than silence grows long enough.
            let spec = json!({ "spec": { "replicas": round % 2 } });
            let put = server.put(WEB, spec).await.status.as_u16();
            assert!(matches!(put, 200 | 201), "{put}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    // A node that has joined counts as lost until it is heard of.
    is(NodeStatus::Ready).await;
    let lost = tokio::time::timeout(std::time::Duration::from_secs(60), is(NodeStatus::Lost)).await;
    lost.expect("lost, while everything else goes on");
}

#[tokio::test]
async fn a_connected_node_is_not_removed_and_an_unknown_one_not_found() {
    let server = Server::start().await;
    let node = server.join("n1").await;
    let remove = |name: &'static str| server.call(Method::DELETE, name, Value::Null);
    assert_problem(
        &remove("/v1/nodes/n9").await,
        404,
        "not_found",
        Some("node"),
    );
    assert_problem(&remove("/v1/nodes/n1").await, 409, "conflict", None);
    server.judge(node, NodeStatus::Lost).await;
    assert_eq!(remove("/v1/nodes/n1").await.status, 204);
    assert_eq!(server.get("/v1/nodes").await.body, json!({"nodes": []}));
}

#[tokio::test]
async fn a_node_is_cordoned_drained_and_taken_back() {
    let server = Server::start().await;
    server.join("n1").await;
    let set = |body| server.put("/v1/nodes/n1/admin", body);
    let too_long = json!({"state": "draining", "deadline_ms": 3_000_000_000_u64});
    assert_problem(&set(too_long).await, 400, "invalid", Some("deadline_ms"));
    for bad in [
        json!({"state": "off"}),
        json!({}),
        json!({"state": "cordoned", "x": 1}),
        json!({"state": "cordoned", "deadline_ms": 1}),
    ] {
        assert_eq!(set(bad.clone()).await.status, 400, "{bad}");
    }
    let cordoned = set(json!({"state": "cordoned"})).await;
    assert_eq!(cordoned.body["admin"], json!({"state": "cordoned"}));
    let before = crate::store::now_ms();
    let draining = set(json!({"state": "draining", "deadline_ms": 60_000})).await;
    let at = draining.body["admin"]["deadline_ms"]
        .as_u64()
        .expect("a time");
    assert!(
        at >= before + 60_000 && at <= before + 90_000,
        "{}",
        draining.body
    );
    let nodes = server.get("/v1/nodes").await;
    assert_eq!(nodes.body["nodes"][0]["admin"]["state"], "draining");
    let back = set(json!({"state": "eligible"})).await;
    assert_eq!(back.body["admin"], json!({"state": "eligible"}));
    let nobody = server
        .put("/v1/nodes/n9/admin", json!({"state": "cordoned"}))
        .await;
    assert_problem(&nobody, 404, "not_found", Some("node"));
}

#[tokio::test]
async fn a_token_pins_the_ca_and_is_bounded() {
    let server = Server::start().await;
    for (body, field) in [(json!({"ttl_s": 5}), "ttl_s"), (json!({"uses": 0}), "uses")] {
        assert_problem(
            &server.post("/v1/tokens", body).await,
            400,
            "invalid",
            Some(field),
        );
    }
    let made = server.post("/v1/tokens", Value::Null).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let token: TokenText = made.body["token"]
        .as_str()
        .expect("text")
        .parse()
        .expect("a token");
    let status = server.get("/v1/status").await;
    assert_eq!(status.body["ca_fingerprint"], token.ca.to_string());
    let view = server.context.store.view();
    let kept = view.token(token.id).expect("kept");
    assert!(skep_identity::token::verify_secret(
        token.secret(),
        &kept.secret_hash
    ));
    assert_eq!(kept.uses_left, 1);
}

#[tokio::test]
async fn health_follows_shutdown() {
    let server = Server::start().await;
    let get = async |path: &str| {
        let request = Request::builder()
            .uri(path)
            .body(Body::empty())
            .expect("sound");
        server.send(request).await
    };
    for path in ["/healthz", "/readyz", "/health", "/v1/health"] {
        assert_eq!(get(path).await.status, 200, "{path}");
    }
    server.context.shutdown.cancel();
    assert_eq!(get("/healthz").await.status, 200);
    let answer = get("/readyz").await;
    assert_problem(&answer, 503, "unavailable", None);
    assert_eq!(answer.body["retryable"], true);
    assert_eq!(answer.headers["retry-after"], "1");
}

#[tokio::test]
async fn every_write_is_audited_with_its_outcome_and_reads_are_not() {
    let server = Server::start().await;
    server.put(WEB, Value::Null).await;
    server.get(WEB).await;
    server
        .post(&format!("{WEB}/deployments"), json!({"type": "redeploy"}))
        .await;
    // Behind the entries in the writer's queue: they are kept when this is.
    let _ = server
        .context
        .history
        .build_lines(DeploymentId::from_u128(1), 0, 0, vec!["x".into()])
        .await;
    let answer = server.get("/v1/audit?limit=10").await;
    let mut entries: Vec<_> = answer.body["entries"]
        .as_array()
        .expect("list")
        .iter()
        .map(|of| {
            let text = |name: &str| of[name].as_str().expect("text").to_owned();
            (
                text("principal"),
                text("action"),
                text("resource"),
                text("outcome"),
            )
        })
        .collect();
    entries.sort();
    let resource = WEB.trim_start_matches("/v1/");
    let entry = |action: &str, resource: String, outcome: &str| {
        (
            "admin".to_owned(),
            action.to_owned(),
            resource,
            outcome.to_owned(),
        )
    };
    let expected = [
        entry("deploy_service", format!("{resource}/deployments"), "409"),
        entry("put_service", resource.to_owned(), "201"),
    ];
    assert_eq!(entries, expected);
}
