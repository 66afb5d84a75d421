//! Logins at registries: set, listed without their secret, taken away.

use super::*;

#[tokio::test]
async fn a_login_is_sealed_shown_without_its_secret_and_taken_away() {
    let server = Server::start().await;
    let path = "/v1/registries/ghcr.io";
    let login = json!({"user": "me", "password": "very-secret"});
    let set = server.put(path, login.clone()).await;
    assert_eq!(set.status, 200, "{}", set.body);
    assert_eq!(set.body["user"], "me");
    assert_eq!(
        server
            .put("/v1/registries/r.example:5000", login)
            .await
            .status,
        200
    );
    let listed = server.get("/v1/registries").await.body;
    let hosts: Vec<_> = listed["registries"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["host"].clone())
        .collect();
    assert_eq!(hosts, [json!("ghcr.io"), json!("r.example:5000")]);
    for shown in [&set.body, &listed] {
        assert!(!shown.to_string().contains("very-secret"), "{shown}");
    }
    let odd = server
        .put(
            "/v1/registries/UPPER",
            json!({"user": "a", "password": "b"}),
        )
        .await;
    assert_problem(&odd, 400, "invalid", Some("host"));
    let odd = server.put(path, json!({"user": "a", "password": ""})).await;
    assert_problem(&odd, 400, "invalid", Some("password"));
    assert_eq!(
        server.call(Method::DELETE, path, Value::Null).await.status,
        204
    );
    let gone = server.call(Method::DELETE, path, Value::Null).await;
    assert_problem(&gone, 404, "not_found", Some("host"));
}
