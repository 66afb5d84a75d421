//! Services and variables.

use super::*;

#[tokio::test]
async fn a_service_is_made_changed_scaled_stopped_and_removed() {
    let server = Server::start().await;
    server.join("n1").await;
    assert_problem(&server.get(WEB).await, 404, "not_found", Some("project"));
    let made = server
        .put(
            WEB,
            json!({"spec": {"replicas": 2, "domains": ["shop.example.com"]}}),
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["state"], "new");
    let urls = json!([
        "http://web-production-shop.example.test:8080",
        "http://shop.example.com:8080"
    ]);
    assert_eq!(made.body["urls"], urls);
    assert_eq!(
        made.body["allocations"],
        json!({"wanted": 2, "live": 0, "healthy": 0})
    );

    let index = server.context.store.view().index();
    let same = server.put(WEB, json!({"spec": made.body["spec"]})).await;
    assert_eq!(
        (same.status.as_u16(), &same.body["generation"]),
        (200, &json!(1))
    );
    assert_eq!(
        server.context.store.view().index(),
        index,
        "nothing to do: nothing in the log"
    );

    let stale = server
        .put(WEB, json!({"spec": {"replicas": 3}, "if_generation": 7}))
        .await;
    assert_problem(&stale, 409, "conflict", Some("if_generation"));
    let changed = server
        .put(WEB, json!({"spec": {"replicas": 3}, "if_generation": 1}))
        .await;
    assert_eq!(
        (changed.status.as_u16(), &changed.body["generation"]),
        (200, &json!(2))
    );
    let refused = server.put(WEB, json!({"spec": {"replicas": 1001}})).await;
    assert_problem(&refused, 400, "invalid", Some("spec.replicas"));

    let scaled = server
        .post(&format!("{WEB}/scale"), json!({"replicas": 5}))
        .await;
    assert_eq!(scaled.body["spec"]["replicas"], 5);
    let refused = server
        .post(&format!("{WEB}/scale"), json!({"replicas": 5000}))
        .await;
    assert_problem(&refused, 400, "invalid", Some("replicas"));
    assert_problem(
        &server.post(&format!("{WEB}/scale"), json!({})).await,
        400,
        "invalid",
        Some("replicas"),
    );

    let stopped = server.post(&format!("{WEB}/stop"), Value::Null).await;
    assert_eq!(
        (
            &stopped.body["state"],
            &stopped.body["allocations"]["wanted"]
        ),
        (&json!("stopped"), &json!(0))
    );

    let removed = server.call(Method::DELETE, WEB, Value::Null).await;
    assert_eq!(
        (removed.status.as_u16(), &removed.body["state"]),
        (202, &json!("removing"))
    );
    assert_problem(
        &server.put(WEB, json!({"spec": {"replicas": 1}})).await,
        409,
        "conflict",
        None,
    );
    let refused = server
        .post(&format!("{WEB}/deployments"), json!({"type": "upload"}))
        .await;
    assert_problem(&refused, 409, "conflict", None);
}

#[tokio::test]
async fn lists_are_filtered_by_name() {
    let server = Server::start().await;
    for (project, environment, service) in [
        ("shop", "production", "web"),
        ("shop", "staging", "web"),
        ("blog", "production", "api"),
    ] {
        let path = format!("/v1/projects/{project}/environments/{environment}/services/{service}");
        assert_eq!(server.put(&path, Value::Null).await.status, 201);
    }
    let names = async |query: &str| {
        let answer = server.get(&format!("/v1/services{query}")).await;
        let services = answer.body["services"].as_array().expect("list").clone();
        let name = |of: &Value| {
            format!(
                "{}/{}",
                of["project"].as_str().expect("text"),
                of["environment"].as_str().expect("text")
            )
        };
        services.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(
        names("").await,
        ["blog/production", "shop/production", "shop/staging"]
    );
    assert_eq!(
        names("?project=shop&environment=staging").await,
        ["shop/staging"]
    );
    assert_eq!(
        names("?service=web").await,
        ["shop/production", "shop/staging"]
    );
    let allocations = server.get("/v1/allocations?service=web&all=true").await;
    assert_eq!(allocations.body, json!({"allocations": []}));
}

#[tokio::test]
async fn variables_are_checked_and_secrets_never_come_out() {
    let server = Server::start().await;
    server.put(WEB, Value::Null).await;
    let path = format!("{WEB}/variables");
    let patch = |body: Value| server.call(Method::PATCH, &path, body);

    let bad = patch(json!({"set": [{"name": "A=B", "value": "x"}]})).await;
    assert_problem(&bad, 400, "invalid", Some("set.name"));
    assert!(bad.body["message"].as_str().expect("text").contains("A=B"));
    let bad = server
        .put(WEB, json!({"variables": [{"name": "A=B", "value": "x"}]}))
        .await;
    assert_problem(&bad, 400, "invalid", Some("variables.name"));
    let twice = json!({"set": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]});
    assert_problem(&patch(twice).await, 400, "invalid", Some("set"));
    assert_problem(
        &patch(json!({"unset": ["NONE"]})).await,
        404,
        "not_found",
        Some("unset"),
    );

    let odd = "a=b\n\"quoted\" ${X} ü";
    let set = patch(json!({"set": [
        {"name": "PLAIN", "value": odd},
        {"name": "KEY", "value": "hunter2", "secret": true},
    ]}))
    .await;
    assert_eq!(set.status, 200, "{}", set.body);
    let listed = server.get(&path).await;
    let expected = json!([
        {"name": "KEY", "value": null, "secret": true},
        {"name": "PLAIN", "value": odd, "secret": false},
    ]);
    assert_eq!(listed.body["variables"], expected);
    assert!(
        listed.body.get("deployment").is_none(),
        "nothing is live: nothing to deploy again"
    );
    for body in [&set.body, &listed.body, &server.get(WEB).await.body] {
        assert!(!body.to_string().contains("hunter2"), "{body}");
    }
    let snapshot = server.context.store.view().encode();
    assert!(
        !snapshot.windows(7).any(|bytes| bytes == b"hunter2"),
        "sealed before it enters the log"
    );

    let unset = patch(json!({"unset": ["KEY"]})).await;
    assert_eq!(unset.body["variables"].as_array().expect("list").len(), 1);
}

#[tokio::test]
async fn a_change_of_variables_is_deployed_at_once_but_never_in_the_way_of_a_build() {
    let server = Server::start().await;
    server.put(WEB, Value::Null).await;
    let path = format!("{WEB}/variables");
    let set = |value: &'static str, redeploy: bool| {
        let body = json!({"set": [{"name": "A", "value": value}], "redeploy": redeploy});
        server.call(Method::PATCH, &path, body)
    };
    let first = server.deploy_live().await;
    assert!(set("1", false).await.body.get("deployment").is_none());
    let again = set("2", true).await;
    assert_eq!(again.body["deployment"]["trigger"], "redeploy");
    assert_eq!(
        again.body["deployment"]["origin"],
        json!({"type": "release", "number": first})
    );
    let once_more = set("3", true).await;
    assert_eq!(
        once_more.body["deployment"]["id"], again.body["deployment"]["id"],
        "it waits still"
    );
    let build = server
        .post(&format!("{WEB}/deployments"), json!({"type": "upload"}))
        .await;
    let during = set("4", true).await;
    assert_eq!(
        during.body["deployment"]["id"], build.body["id"],
        "the build goes on"
    );
}

#[tokio::test]
async fn a_plan_and_its_reasons_are_told_and_nothing_is_done() {
    let server = Server::start().await;
    server.put(WEB, json!({"spec": {"replicas": 2}})).await;
    let none = server.get(&format!("{WEB}/why")).await;
    assert_problem(&none, 409, "conflict", None);
    let node = server.join("n1").await;
    let facts = skep_model::node::Facts {
        cpu_millis: 4_000,
        memory_bytes: 8 << 30,
        ..skep_model::node::Facts::default()
    };
    let grown = v1::UpdateNode {
        node: id_bytes(node.as_u128()),
        facts: Some((&facts).into()),
    };
    server.propose(Kind::UpdateNode(grown)).await;
    server.deploy_live().await;
    let before = server.context.store.view().index();
    let why = server.get(&format!("{WEB}/why")).await;
    assert_eq!(why.status, 200, "{}", why.body);
    assert_eq!(why.body["nodes"].as_array().expect("a list").len(), 1);
    let plan = server
        .post(&format!("{WEB}/plan"), json!({"replicas": 4}))
        .await;
    assert_eq!(plan.status, 200, "{}", plan.body);
    assert_eq!(plan.body["new_release"], false);
    let starts: usize = plan.body["steps"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|step| step["starts"].as_array().expect("a list").len())
        .sum();
    let running = why.body["allocations"].as_array().expect("a list").len();
    assert_eq!(starts + running, 4, "{}", plan.body);
    let refused = server
        .post(&format!("{WEB}/plan"), json!({"replicas": 9_999}))
        .await;
    assert_problem(&refused, 400, "invalid", Some("spec.replicas"));
    let spec = json!({"replicas": 2, "placement": {"constraints": ["tier = pro"]}});
    let moved = server
        .post(&format!("{WEB}/plan"), json!({ "spec": spec }))
        .await;
    assert_eq!(moved.body["new_release"], true, "{}", moved.body);
    let text = moved.body["refusal"]["message"]
        .as_str()
        .expect("a refusal");
    assert!(text.contains("tier = pro"), "{text}");
    assert_eq!(server.context.store.view().index(), before);
}
