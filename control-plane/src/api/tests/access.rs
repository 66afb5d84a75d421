//! Who may call what; the document; the one error shape.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use axum::extract::ConnectInfo;

use super::*;

/// Every path and method of the document.
fn documented() -> Vec<(String, String)> {
    let document = serde_json::to_value(document()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths").clone();
    let mut all = Vec::new();
    for (path, item) in paths {
        for method in item.as_object().expect("item").keys() {
            all.push((method.clone(), path.clone()));
        }
    }
    all
}

fn document() -> OpenApi {
    tokio::runtime::Runtime::new()
        .expect("runtime")
        .block_on(async {
            let server = Server::start().await;
            paths::assemble(&App::from(server.context.clone())).into_openapi()
        })
}

#[test]
fn the_checked_in_document_is_this_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let mut text = serde_json::to_string_pretty(&document()).expect("JSON");
    text.push('\n');
    if std::env::var_os("SKEP_BLESS").is_some() {
        std::fs::write(&path, &text).expect("write");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = kept
        .lines()
        .zip(text.lines())
        .find(|(kept, made)| kept != made);
    assert!(
        kept == text,
        "docs/openapi.json differs from the routes ({differs:?}); SKEP_BLESS=1 rewrites it"
    );
}

#[test]
fn every_operation_is_told_apart_and_described() {
    let document = serde_json::to_value(document()).expect("JSON");
    let mut ids = BTreeSet::new();
    for item in document["paths"].as_object().expect("paths").values() {
        for operation in item.as_object().expect("item").values() {
            let id = operation["operationId"].as_str().expect("id");
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            assert!(operation["summary"].is_string(), "{id} has no summary");
            assert!(
                operation["responses"]["default"].is_object(),
                "{id} has no problems"
            );
        }
    }
    assert!(ids.len() > 25, "{ids:?}");
}

/// The list of handlers without authorisation, beside the explicitly public ones, is empty.
#[test]
fn no_handler_answers_without_a_token_but_the_public_ones() {
    let all = documented();
    let public: BTreeSet<(String, String)> = PUBLIC
        .iter()
        .map(|(method, path)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    for entry in &public {
        assert!(
            all.contains(entry),
            "{entry:?} is public but does not exist"
        );
    }
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let open: Vec<_> = runtime.block_on(async {
        let server = Server::start().await;
        let mut open = Vec::new();
        for (method, path) in all {
            for token in [
                None,
                Some("Bearer wrong"),
                Some("Bearer "),
                Some("Basic eDp5"),
                Some(TOKEN),
            ] {
                let concrete = path.replace(['{', '}'], "");
                let mut builder = Request::builder()
                    .method(Method::from_bytes(method.to_uppercase().as_bytes()).expect("method"))
                    .uri(concrete);
                if let Some(token) = token {
                    builder = builder.header("authorization", token);
                }
                let answer = server
                    .send(builder.body(Body::empty()).expect("sound"))
                    .await;
                if answer.status != StatusCode::UNAUTHORIZED {
                    open.push((method.clone(), path.clone()));
                    break;
                }
                // Git shows what is text, and nothing else.
                if path.starts_with("/git/") {
                    assert!(answer.headers.contains_key("www-authenticate"), "{path}");
                    continue;
                }
                assert_problem(&answer, 401, "unauthenticated", None);
                assert_eq!(answer.headers["www-authenticate"], "Bearer");
            }
        }
        open
    });
    // Metrics ask for a token by themselves where the caller is not on loopback, and a webhook's
    // path is not an id here.
    let unexpected: Vec<_> = open
        .iter()
        .filter(|entry| !public.contains(*entry))
        .collect();
    assert!(
        unexpected.is_empty(),
        "without authorisation: {unexpected:?}"
    );
    assert!(!open.contains(&("get".to_owned(), "/metrics".to_owned())));
}

#[test]
fn each_action_has_a_word_of_its_own() {
    assert_eq!(Action::DeployService.as_str(), "deploy_service");
    assert!(Action::DeployService.is_write() && !Action::ReadLogs.is_write());
    assert_eq!(
        authorize(Principal::Admin, Action::RemoveNode, "nodes/n1"),
        Ok(())
    );
}

#[tokio::test]
async fn metrics_are_for_loopback_or_a_token() {
    let server = Server::start().await;
    let get = |from: Option<&str>| {
        let mut request = Request::builder()
            .uri("/metrics")
            .body(Body::empty())
            .expect("sound");
        if let Some(from) = from {
            let address: SocketAddr = from.parse().expect("address");
            request.extensions_mut().insert(ConnectInfo(address));
        }
        request
    };
    assert_problem(&server.send(get(None)).await, 401, "unauthenticated", None);
    assert_problem(
        &server.send(get(Some("192.0.2.1:9"))).await,
        401,
        "unauthenticated",
        None,
    );
    let answer = server.send(get(Some("127.0.0.1:9"))).await;
    assert_eq!(answer.status, 200);
    let text = answer.body.as_str().expect("text");
    for line in [
        "skep_raft_is_leader 1\n",
        "skep_nodes{status=\"ready\"} 0\n",
        "skep_history_up 1\n",
        "skep_peer_messages_sent_total 0\n",
        "skep_peer_messages_dropped_total 0\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(server.get("/metrics").await.status, 200);
}

#[tokio::test]
async fn every_refusal_has_the_one_shape() {
    let server = Server::start().await;
    assert_problem(&server.get("/v1/nothing").await, 404, "not_found", None);
    assert_problem(
        &server.call(Method::DELETE, "/v1/status", Value::Null).await,
        405,
        "invalid",
        None,
    );
    let bad = |text: &'static str| server.send(request(Method::PUT, WEB, Body::from(text)));
    assert_problem(&bad("{").await, 400, "invalid", None);
    assert_problem(&bad("[1]").await, 400, "invalid", None);
    assert_problem(
        &bad(r#"{"specc": {}}"#).await,
        400,
        "invalid",
        Some("specc"),
    );
    assert_problem(
        &bad(r#"{"spec": {"prot": 1}}"#).await,
        400,
        "invalid",
        Some("prot"),
    );
    let large = format!(r#"{{"spec": null, "x": "{}"}}"#, "y".repeat(1 << 20));
    let answer = server
        .send(request(Method::PUT, WEB, Body::from(large)))
        .await;
    assert_problem(&answer, 413, "too_large", None);
    assert_problem(
        &server.get("/v1/deployments/web").await,
        400,
        "invalid",
        None,
    );
    assert_problem(
        &server.get("/v1/allocations?color=red").await,
        400,
        "invalid",
        None,
    );
    assert_problem(
        &server
            .get("/v1/projects/%ff/environments/a/services/b")
            .await,
        400,
        "invalid",
        Some("project"),
    );
    assert!(
        server
            .get("/healthz")
            .await
            .headers
            .contains_key("x-request-id")
    );
}

#[tokio::test]
async fn odd_names_are_refused_by_field_and_harmless() {
    let server = Server::start().await;
    let path = |project: &str, environment: &str, service: &str| {
        format!("/v1/projects/{project}/environments/{environment}/services/{service}")
    };
    for (path, field) in [
        (path("Shop", "production", "web"), "project"),
        (path("shop", "pro%20duction", "web"), "environment"),
        (path("shop", "production", "..%2f..%2fetc"), "service"),
        (path("shop", "production", "w%00b"), "service"),
        (path("shop", "production", &"x".repeat(41)), "service"),
        (path("shop", "production", "%27%3B--"), "service"),
    ] {
        let answer = server.put(&path, json!({})).await;
        assert_problem(&answer, 400, "invalid", Some(field));
        assert!(
            answer.body["hint"]
                .as_str()
                .expect("advice")
                .contains("a-z"),
            "{}",
            answer.body
        );
        assert_eq!(server.get(&path).await.status, 404, "{path}");
    }
    assert_eq!(server.context.store.view().projects().count(), 0);
}
