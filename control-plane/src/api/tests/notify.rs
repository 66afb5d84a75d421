//! Receivers: made, changed, seen without their secret, refused, removed.

use super::*;

const CI: &str = "/v1/projects/shop/receivers/ci";

async fn with_project() -> Server {
    let server = Server::start().await;
    let spec = json!({ "source": { "type": "image", "reference": "app:1" } });
    assert_eq!(server.put(WEB, json!({ "spec": spec })).await.status, 201);
    server
}

#[tokio::test]
async fn a_receiver_shows_its_secret_once_and_is_told_of_what_happens() {
    let server = with_project().await;
    let request = json!({ "url": "https://ci.example.test/in", "events": ["deployment.queued"] });
    let made = server.put(CI, request.clone()).await;
    assert_eq!(made.status, 200, "{}", made.body);
    let secret = made.body["secret"].as_str().expect("shown").to_owned();
    assert!(secret.starts_with("whsec_"));
    // Changed, and nothing but what it is told of: the secret is not shown again.
    let changed = server
        .put(CI, json!({ "url": "https://ci.example.test/in" }))
        .await;
    assert_eq!(changed.body["events"].as_array().map(Vec::len), Some(5));
    server.put(CI, request).await;
    let origin = json!({ "type": "image", "reference": "app:1" });
    let deployment = server.post(&format!("{WEB}/deployments"), origin).await;
    let id = deployment.body["id"].as_str().expect("an id").to_owned();
    let seen = server.get(&format!("{CI}/notifications")).await.body;
    let told = &seen["notifications"][0];
    assert_eq!(told["id"], format!("{id}.deployment.queued"), "{seen}");
    assert_eq!(
        (&told["state"], &told["next_ms"]),
        (&json!("pending"), &json!(0))
    );
    assert_eq!(told["service"], "production/web");
    let listed = server.get("/v1/receivers").await.body;
    assert_eq!(listed["receivers"][0]["pending"], 1, "{listed}");
    let metrics = server.get("/metrics").await.body;
    let metrics = metrics.as_str().expect("text");
    let line = "skep_notifications{state=\"pending\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
    for shown in [&changed.body, &seen, &listed] {
        assert!(!shown.to_string().contains(&secret), "{shown}");
    }
    let again = json!({ "notification": format!("{id}.deployment.queued") });
    assert_eq!(server.post(&format!("{CI}/retry"), again).await.status, 200);
    let renewed = json!({ "url": "https://ci.example.test/in", "new_secret": true });
    let renewed = server.put(CI, renewed).await.body;
    assert_ne!(renewed["secret"].as_str().expect("shown"), secret);
    assert_eq!(
        server.call(Method::DELETE, CI, Value::Null).await.status,
        204
    );
    let gone = server.call(Method::DELETE, CI, Value::Null).await;
    assert_problem(&gone, 404, "not_found", Some("receiver"));
}

#[tokio::test]
async fn what_is_odd_is_refused_by_its_field() {
    let server = with_project().await;
    let url = "https://ci.example.test/";
    for (path, body, status, field) in [
        (CI, json!({ "url": "ftp://ci.example.test/" }), 400, "url"),
        (CI, json!({ "url": "http://127.0.0.1/" }), 400, "url"),
        (
            CI,
            json!({ "url": "http://[::ffff:169.254.169.254]/" }),
            400,
            "url",
        ),
        (CI, json!({ "url": url, "events": ["test"] }), 400, "events"),
        (CI, json!({ "url": url, "secret": "mine" }), 400, "secret"),
        (
            "/v1/projects/shop/receivers/Odd",
            json!({ "url": url }),
            400,
            "receiver",
        ),
        (
            "/v1/projects/none/receivers/ci",
            json!({ "url": url }),
            404,
            "project",
        ),
    ] {
        let refused = server.put(path, body).await;
        let code = if status == 404 {
            "not_found"
        } else {
            "invalid"
        };
        assert_problem(&refused, status, code, Some(field));
    }
    server.put(CI, json!({ "url": url, "off": true })).await;
    let off = server.post(&format!("{CI}/test"), json!({})).await;
    assert_problem(&off, 409, "conflict", None);
    let unknown = json!({ "notification": "x" });
    let unknown = server.post(&format!("{CI}/retry"), unknown).await;
    assert_problem(&unknown, 404, "not_found", Some("notification"));
}
