//! Ports for connections: offered by operators, taken by services' routes, told to whoever asks.

use super::*;

const PORTS: &str = "/v1/tcp-ports";
const OTHER: &str = "/v1/projects/blog/environments/production/services/db";

#[tokio::test]
async fn ports_are_offered_taken_listed_and_refused_to_others() {
    let server = Server::start().await;
    let entry = json!({"spec": {"type": "worker", "tcp": [{"port": 5432, "entry": 15_432}]}});
    let early = server.put(WEB, entry.clone()).await;
    assert_problem(&early, 409, "conflict", Some("tcp[0].entry"));
    let hint = early.body["hint"].to_string();
    assert!(hint.contains("skep tcp-ports set"), "{hint}");
    let odd = json!({"ports": {"first": 9, "last": 8}});
    let odd = server.put(PORTS, odd).await;
    assert_problem(&odd, 400, "invalid", Some("ports"));
    let range = json!({"ports": {"first": 15_000, "last": 15_999}});
    let set = server.put(PORTS, range).await;
    assert_eq!(set.status, 200, "{}", set.body);
    let put = server.put(WEB, entry.clone()).await;
    assert_eq!(put.status, 201, "{}", put.body);
    let listed = server.get(PORTS).await.body;
    assert_eq!(
        listed["entries"],
        json!([{"port": 15_432, "project": "shop", "environment": "production", "service": "web"}])
    );
    let foreign = server.put(OTHER, entry).await;
    assert_problem(&foreign, 409, "conflict", Some("tcp[0].entry"));
    let message = foreign.body["message"].to_string();
    assert!(message.contains("default/shop/production/web"), "{message}");
    let none = server.put(PORTS, json!({"ports": null})).await;
    assert_problem(&none, 409, "conflict", Some("ports"));
    let both = json!({"spec": {"domains": ["a.io"], "tcp": [{"port": 1, "sni": "a.io"}]}});
    let both = server.put(WEB, both).await;
    assert_problem(&both, 400, "invalid", Some("spec.tcp[0].sni"));
    // A host of connections is listed with those of HTTP.
    let named = json!({"spec": {"type": "worker", "tcp": [{"port": 1, "sni": "db.a.io"}]}});
    server.put(WEB, named).await;
    let listed = server.get("/v1/domains").await.body;
    assert_eq!(listed["domains"][0]["routes"][0]["path"], "TLS", "{listed}");
    let none = server.put(PORTS, json!({"ports": null})).await;
    assert_eq!(
        (none.status.as_u16(), &none.body["ports"]),
        (200, &json!(null))
    );
}
