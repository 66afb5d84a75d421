//! Quotas, pools and relaxed environments: what is said, what it does to placement, what is refused.

use super::*;

const QUOTA: &str = "/v1/projects/shop/environments/production/quota";
const RELAXED: &str = "/v1/projects/shop/environments/production/relaxed";

async fn why(server: &Server) -> Value {
    let answer = server.get(&format!("{WEB}/why")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

#[tokio::test]
async fn a_quota_is_shown_with_what_is_used_and_refuses_what_is_beyond() {
    let server = Server::start().await;
    server.join("n1").await;
    let missing = server.put(QUOTA, json!({})).await;
    assert_problem(&missing, 404, "not_found", Some("project"));
    server.put(WEB, json!({"spec": {"replicas": 2}})).await;
    server.deploy_live().await;
    let set = server.put(QUOTA, json!({"allocations": 1})).await;
    assert_eq!(set.status, 200, "{}", set.body);
    assert_eq!(set.body["quota"]["allocations"], 1);
    let workspace = "/v1/workspaces/default/quota";
    assert_eq!(
        server
            .put(workspace, json!({"cpu_millis": 50}))
            .await
            .status,
        200
    );
    let refusal = why(&server).await["refusal"]["message"].to_string();
    assert!(
        refusal.contains("beyond the quota of workspace `default`: CPU needs 0.1 cores"),
        "{refusal}"
    );
    server.put(workspace, json!({})).await;
    server.put(QUOTA, json!({"allocations": 0})).await;
    let refusal = why(&server).await["refusal"]["message"].to_string();
    assert!(
        refusal.contains("environment `shop/production`: allocations needs 1, 0 left of 0"),
        "{refusal}"
    );
    let listed = server.get("/v1/quotas").await.body;
    let names: Vec<_> = listed["quotas"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| (one["workspace"].clone(), one["environment"].clone()))
        .collect();
    assert_eq!(
        names,
        [
            (json!("default"), Value::Null),
            (json!("default"), json!("production"))
        ]
    );
    let odd = server.put(QUOTA, json!({"cpu": 1})).await;
    assert_problem(&odd, 400, "invalid", Some("cpu"));
    let gone = server.put("/v1/workspaces/acme/quota", json!({})).await;
    assert_problem(&gone, 404, "not_found", Some("workspace"));
}

#[tokio::test]
async fn a_pool_gives_its_nodes_metadata_and_a_relaxed_environment_does_without() {
    let server = Server::start().await;
    let node = server.join("n1").await;
    server.judge(node, NodeStatus::Ready).await;
    let meta = json!({"set": {"pool": "web"}, "unset": []});
    server.put("/v1/nodes/n1/meta", meta).await;
    let placement = json!({"constraints": ["tier = pro"]});
    server
        .put(WEB, json!({"spec": {"placement": placement}}))
        .await;
    server.deploy_live().await;
    let is_kept_off = |why: &Value| why["nodes"][0]["reasons"].to_string().contains("tier");
    let before = why(&server).await;
    assert!(
        is_kept_off(&before) && before["relaxed_by"].is_null(),
        "{before}"
    );

    let pool =
        json!({"policy": {"cpu_percent": 200, "strategy": "spread"}, "meta": {"tier": "pro"}});
    let put = server.put("/v1/pools/web", pool).await;
    assert_eq!(put.status, 200, "{}", put.body);
    assert_eq!(put.body["policy"]["cpu_percent"], 200);
    assert!(!is_kept_off(&why(&server).await), "the pool says it");
    let own = json!({"set": {"tier": "free"}, "unset": []});
    server.put("/v1/nodes/n1/meta", own).await;
    assert!(
        is_kept_off(&why(&server).await),
        "the node's own word counts"
    );

    let on = server.put("/v1/workspaces/default/relaxed", json!({"relaxed": true}));
    assert_eq!(on.await.body["relaxed"], true);
    let relaxed = why(&server).await;
    assert!(!is_kept_off(&relaxed), "{relaxed}");
    assert_eq!(relaxed["relaxed_by"], "workspace `default`");
    server.put(RELAXED, json!({"relaxed": false})).await;
    assert!(
        is_kept_off(&why(&server).await),
        "the environment is strict"
    );
    server.put(RELAXED, json!({"relaxed": null})).await;
    assert!(!is_kept_off(&why(&server).await));

    assert_eq!(
        server.get("/v1/pools").await.body["pools"][0]["name"],
        "web"
    );
    let odd = json!({"policy": {"cpu_percent": 1}});
    let refused = server.put("/v1/pools/web", odd).await;
    assert_problem(&refused, 400, "invalid", Some("cpu_percent"));
    let remove = || server.call(Method::DELETE, "/v1/pools/web", Value::Null);
    assert_eq!(remove().await.status, 204);
    assert_problem(&remove().await, 404, "not_found", Some("pool"));
}
