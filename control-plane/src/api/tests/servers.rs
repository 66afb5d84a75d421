//! Servers, join tokens, operators, metadata; old answers on request, and writes that happen once.

use skep_identity::name::Role as CertifiedRole;

use super::*;

fn with_header(
    method: Method,
    path: &str,
    header: (&'static str, &str),
    body: &Value,
) -> Request<Body> {
    let mut request = request(method, path, Body::from(body.to_string()));
    let value = header.1.parse().expect("a value");
    request.headers_mut().insert(header.0, value);
    request
}

#[tokio::test]
async fn a_server_reports_and_is_listed() {
    let server = Server::start().await;
    let listed = server.get("/v1/servers").await;
    assert_eq!(listed.status, 200, "{}", listed.body);
    let own = &listed.body["servers"][0];
    assert_eq!(
        (&own["name"], &own["role"], &own["healthy"], &own["lag"]),
        (&json!("s1"), &json!("leader"), &json!(true), &json!(0)),
        "{own}"
    );
    assert_eq!(listed.body["leader"], own["id"]);
    assert_eq!(listed.headers[SERVERS_HEADER], "1");
    let report = server.get("/v1/server").await;
    assert_eq!(report.body["id"], own["id"]);
    assert!(
        report.body["disk_free_bytes"].as_u64() > Some(0),
        "{}",
        report.body
    );

    let remove = server
        .call(Method::DELETE, "/v1/servers/s1", Value::Null)
        .await;
    assert_problem(&remove, 409, "conflict", None);
    let remove = server
        .call(Method::DELETE, "/v1/servers/s9", Value::Null)
        .await;
    assert_problem(&remove, 404, "not_found", Some("server"));
    let stays = server.post("/v1/servers/s1/leader", Value::Null).await;
    assert_eq!(stays.status, 204);
}

/// A machine that takes connections and says nothing, as one whose server is frozen.
#[tokio::test]
async fn a_server_that_says_nothing_is_told_soon() {
    let server = Server::start().await;
    let frozen = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let token = JoinToken {
        id: TokenId::from_u128(77),
        secret_hash: vec![7; 32],
        expires_ms: now_ms() + 60_000,
        uses_left: 1,
        role: skep_model::server::Role::Server,
        note: String::new(),
        created_ms: 0,
    };
    server
        .propose(Kind::PutToken(v1::PutToken {
            token: Some((&token).into()),
        }))
        .await;
    let second = skep_model::server::Server {
        id: ServerId::from_u128(2),
        name: "s2".into(),
        api_address: frozen.local_addr().expect("bound").to_string(),
        cluster_address: "127.0.0.1:9".into(),
        ..own_server()
    };
    server
        .propose(Kind::JoinServer(v1::JoinServer {
            token: id_bytes(token.id.as_u128()),
            secret_hash: token.secret_hash.clone(),
            server: Some((&second).into()),
            rebuild: false,
        }))
        .await;
    let begun = std::time::Instant::now();
    let listed = server.get("/v1/servers").await;
    // Far from both: the bound is 1 s, any other call between servers may take 3 s.
    assert!(begun.elapsed() < std::time::Duration::from_secs(2));
    let seen = &listed.body["servers"][1];
    let why = seen["unreachable"].as_str().expect("a reason");
    assert!(why.contains("no answer") && why.contains("1 s"), "{why}");
    assert_eq!(
        (&seen["name"], &seen["healthy"]),
        (&json!("s2"), &json!(false))
    );
    assert_eq!(listed.body["servers"][0]["healthy"], true);
}

#[tokio::test]
async fn tokens_have_a_role_are_listed_without_secrets_and_revoked() {
    let server = Server::start().await;
    let made = server
        .post(
            "/v1/tokens",
            json!({"role": "server", "note": "rack b", "uses": 2}),
        )
        .await;
    assert_eq!(
        (made.status.as_u16(), &made.body["role"]),
        (201, &json!("server"))
    );
    let listed = server.get("/v1/tokens").await;
    let token = &listed.body["tokens"][0];
    assert_eq!(
        (
            &token["role"],
            &token["note"],
            &token["uses_left"],
            &token["token"]
        ),
        (&json!("server"), &json!("rack b"), &json!(2), &Value::Null)
    );
    let long = json!({"note": "x".repeat(201)});
    assert_problem(
        &server.post("/v1/tokens", long).await,
        400,
        "invalid",
        Some("note"),
    );
    let odd = json!({"role": "admin"});
    assert_problem(&server.post("/v1/tokens", odd).await, 400, "invalid", None);
    let path = format!("/v1/tokens/{}", token["id"].as_str().expect("an id"));
    let revoke = || server.call(Method::DELETE, &path, Value::Null);
    assert_eq!(revoke().await.status, 204);
    assert_eq!(server.get("/v1/tokens").await.body, json!({"tokens": []}));
    assert_eq!(revoke().await.status, 404);
}

#[tokio::test]
async fn an_operator_is_certified_for_a_key_of_its_own() {
    let server = Server::start().await;
    let key = KeyAndRequest::generate().expect("key");
    let csr = json!({"csr_pem": key.csr_pem});
    let made = server.post("/v1/operators", csr).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let text = |name: &str| made.body[name].as_str().expect("text").to_owned();
    let credentials = key.certified(text("certificate_pem"), text("ca_pem"));
    let identity = credentials.identity().expect("a name");
    assert_eq!(identity.role(), CertifiedRole::Operator);
    assert!(identity.to_string().ends_with(&text("id")));
    for (body, field) in [
        (json!({"csr_pem": "none"}), "csr_pem"),
        (json!({"csr_pem": "none", "ttl_s": 5}), "ttl_s"),
    ] {
        let refused = server.post("/v1/operators", body).await;
        assert_problem(&refused, 400, "invalid", Some(field));
    }
}

#[tokio::test]
async fn metadata_of_nodes_is_set_unset_and_shown() {
    let server = Server::start().await;
    let id = server.join("n1").await;
    let set = json!({"set": {"rack": "b2", "disk": "ssd"}});
    let answer = server.put("/v1/nodes/n1/meta", set).await;
    assert_eq!(answer.body, json!({"meta": {"disk": "ssd", "rack": "b2"}}));
    let answer = server
        .put("/v1/nodes/n1/meta", json!({"unset": ["disk"]}))
        .await;
    assert_eq!(answer.body, json!({"meta": {"rack": "b2"}}));
    let nodes = server.get("/v1/nodes").await;
    assert_eq!(nodes.body["nodes"][0]["meta"], json!({"rack": "b2"}));
    let by_id = format!("/v1/nodes/{id}/meta");
    let answer = server.put(&by_id, json!({"set": {"row": "7"}})).await;
    assert_eq!(answer.body, json!({"meta": {"rack": "b2", "row": "7"}}));
    let nobody = NodeId::from_u128(1).to_string();
    for missing in ["n9", nobody.as_str()] {
        let path = format!("/v1/nodes/{missing}/meta");
        let missing = server.put(&path, json!({})).await;
        assert_problem(&missing, 404, "not_found", Some("node"));
    }
    let odd = server
        .put("/v1/nodes/n1/meta", json!({"set": {"NO": "x"}}))
        .await;
    assert_eq!(
        (odd.status.as_u16(), &odd.body["code"]),
        (400, &json!("invalid"))
    );
}

#[tokio::test]
async fn old_answers_are_given_on_request_and_say_how_old() {
    let server = Server::start().await;
    server.put(WEB, Value::Null).await;
    let fresh = server.get("/v1/services?project=shop").await;
    assert!(!fresh.headers.contains_key("skep-stale-ms"));
    for query in [
        "stale=true",
        "stale=true&project=shop",
        "project=shop&stale=true",
    ] {
        let stale = server.get(&format!("/v1/services?{query}")).await;
        assert_eq!(
            (stale.status.as_u16(), &stale.body),
            (200, &fresh.body),
            "{query}"
        );
        assert!(stale.headers.contains_key("skep-stale-ms"), "{query}");
    }
    let odd = server.get("/v1/services?stale=1").await;
    assert_problem(&odd, 400, "invalid", Some("stale"));
}

#[tokio::test]
async fn a_write_under_a_key_happens_once() {
    let server = Server::start().await;
    server.put(WEB, Value::Null).await;
    let path = format!("{WEB}/deployments");
    let image = json!({"type": "image", "reference": "app:1"});
    let deploy = async |key: &str| {
        let header = ("idempotency-key", key);
        let answer = server
            .send(with_header(Method::POST, &path, header, &image))
            .await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        deployment_id(&answer.body)
    };
    let first = deploy("k1").await;
    assert_eq!(deploy("k1").await, first);
    assert_ne!(deploy("k2").await, first);
    // Another request under a used key is no repetition, whatever the body or the command is.
    let other = json!({"type": "image", "reference": "app:2"});
    let header = ("idempotency-key", "k1");
    let answer = server
        .send(with_header(Method::POST, &path, header, &other))
        .await;
    assert_problem(&answer, 409, "conflict", Some("Idempotency-Key"));
    let header = ("idempotency-key", "scale");
    let scale = async |replicas: u32| {
        let path = format!("{WEB}/scale");
        let body = json!({ "replicas": replicas });
        server
            .send(with_header(Method::POST, &path, header, &body))
            .await
    };
    assert_eq!(scale(2).await.status, 200);
    assert_eq!(scale(2).await.status, 200);
    assert_problem(&scale(3).await, 409, "conflict", Some("Idempotency-Key"));
    assert_eq!(server.get(WEB).await.body["spec"]["replicas"], 2);
    for bad in ["", "a b", &"x".repeat(129)] {
        let header = ("idempotency-key", bad);
        let answer = server
            .send(with_header(Method::POST, &path, header, &image))
            .await;
        assert_problem(&answer, 400, "invalid", Some("Idempotency-Key"));
    }
}
