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

#[tokio::test]
async fn where_images_are_pushed_is_said_shown_without_secrets_and_taken_back() {
    let server = Server::start().await;
    let path = "/v1/push-registry";
    let none = server.get(path).await;
    assert_eq!(none.status, 200);
    assert_eq!(none.body["registry"], Value::Null);
    let wanted = json!({"host": "r.example:5000", "prefix": "team", "user": "ci", "password": "very-secret",
        "pull": {"user": "reader", "password": "less-secret"}, "required": true});
    let set = server.put(path, wanted.clone()).await;
    assert_eq!(set.status, 200, "{}", set.body);
    let shown = &server.get(path).await.body["registry"];
    assert_eq!(
        (&shown["host"], &shown["pull_user"], &shown["required"]),
        (&json!("r.example:5000"), &json!("reader"), &json!(true))
    );
    for said in [&set.body, shown] {
        assert!(!said.to_string().contains("secret"), "{said}");
    }
    for (field, value) in [
        ("host", json!("https://r")),
        ("prefix", json!("Team")),
        ("password", json!("")),
        ("user", json!("a:b")),
    ] {
        let mut odd = wanted.clone();
        odd[field] = value;
        assert_problem(&server.put(path, odd).await, 400, "invalid", Some(field));
    }
    let mut odd = wanted;
    odd["pull"]["password"] = json!("");
    assert_problem(&server.put(path, odd).await, 400, "invalid", Some("pull"));
    let remove = || server.call(Method::DELETE, path, Value::Null);
    assert_eq!(remove().await.status, 204);
    assert_eq!(remove().await.status, 404);
}
