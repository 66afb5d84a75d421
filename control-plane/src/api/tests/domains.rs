//! Whose hosts are: claimed by routes, told to whoever asks, kept for a time.

use super::*;

const BASE: &str = "/v1/projects/shop/environments/production/base-domain";
const OTHER: &str = "/v1/projects/blog/environments/production/services/web";

#[tokio::test]
async fn a_host_is_listed_with_who_answers_and_refused_to_others() {
    let server = Server::start().await;
    let routes = json!([
        {"host": "shop.example.com", "path": "/api", "strip_prefix": true},
        {"host": "*.shop.example.com"}
    ]);
    let put = server.put(WEB, json!({"spec": {"routes": routes}})).await;
    assert_eq!(put.status, 201, "{}", put.body);
    let listed = server.get("/v1/domains").await.body;
    let domains = listed["domains"].as_array().expect("a list");
    assert_eq!(domains.len(), 2);
    assert_eq!(domains[0]["host"], "*.shop.example.com");
    assert_eq!(domains[1]["project"], "shop");
    assert_eq!(
        domains[1]["routes"],
        json!([{"path": "/api", "environment": "production", "service": "web"}])
    );
    let foreign = json!({"spec": {"domains": ["shop.example.com"]}});
    let foreign = server.put(OTHER, foreign).await;
    assert_problem(&foreign, 409, "conflict", Some("domains"));
    let message = foreign.body["message"].to_string();
    assert!(message.contains("default/shop/production/web"), "{message}");
    let odd = json!({"spec": {"routes": [{"path": "api"}]}});
    let odd = server.put(WEB, odd).await;
    assert_problem(&odd, 400, "invalid", Some("spec.routes[0].path"));
    // Given up, it is still the project's.
    server.put(WEB, json!({"spec": {}})).await;
    let listed = server.get("/v1/domains").await.body;
    let given_up = &listed["domains"][1];
    assert_eq!(given_up["routes"], json!([]));
    let span = given_up["free_ms"].as_u64().expect("a time")
        - given_up["released_ms"].as_u64().expect("a time");
    assert_eq!(span, skep_model::claim::GRACE_MS);
}

#[tokio::test]
async fn an_environments_names_end_in_its_own_domain() {
    let server = Server::start().await;
    let missing = server.put(BASE, json!({"base_domain": "apps.test"})).await;
    assert_problem(&missing, 404, "not_found", Some("project"));
    server.join("n1").await;
    server.put(WEB, json!({"spec": {}})).await;
    let set = server.put(BASE, json!({"base_domain": "apps.test"})).await;
    assert_eq!(set.status, 200, "{}", set.body);
    assert_eq!(
        (&set.body["base_domain"], &set.body["is_own"]),
        (&json!("apps.test"), &json!(true))
    );
    let urls = server.get(WEB).await.body["urls"].to_string();
    assert!(urls.contains("web-production-shop.apps.test"), "{urls}");
    assert_eq!(server.get(BASE).await.body, set.body);
    let odd = server.put(BASE, json!({"base_domain": "*.a"})).await;
    assert_problem(&odd, 400, "invalid", Some("base_domain"));
    let back = server.put(BASE, json!({"base_domain": null})).await;
    assert_eq!(back.body["is_own"], false, "{}", back.body);
}
