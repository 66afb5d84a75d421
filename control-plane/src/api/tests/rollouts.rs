//! Rollouts: what is shown, what is controlled, what is refused.

use super::*;

const ROLLOUT: &str = "/v1/projects/shop/environments/production/services/web/rollout";

#[tokio::test]
async fn a_rollout_is_shown_paused_promoted_and_aborted() {
    let server = Server::start().await;
    server.join("n1").await;
    let policy = json!({"strategy": "canary", "steps": [{"percent": 10}, {"percent": 50}]});
    let spec = json!({"spec": {"replicas": 4, "rollout": policy}});
    assert_eq!(server.put(WEB, spec).await.status, 201);
    let nothing = server.post(ROLLOUT, json!({"action": "pause"})).await;
    assert_problem(&nothing, 409, "conflict", None);
    server.deploy_live().await;
    let shown = server.get(ROLLOUT).await.body;
    assert_eq!(shown["rollout"], Value::Null);
    assert_eq!(shown["live"]["release"], 1);

    let request = json!({"type": "restart"});
    let made = server.post(&format!("{WEB}/deployments"), request).await;
    assert_eq!(made.status, 202, "{}", made.body);
    let id = deployment_id(&made.body);
    server.start_rollout(id, 1, None).await;
    let shown = server.get(ROLLOUT).await.body["rollout"].clone();
    assert_eq!(shown["phase"], json!({"type": "canary", "step": 0}));
    assert_eq!(
        (&shown["wanted"], &shown["paused"]),
        (&json!(1), &json!(false))
    );
    assert_eq!(shown["waits_for"], "1 more healthy allocations");

    let act = async |body: Value| server.post(ROLLOUT, body).await;
    let paused = act(json!({"action": "pause"})).await;
    assert_eq!(paused.body["rollout"]["paused"], json!(true));
    let refused = act(json!({"action": "promote"})).await;
    assert_problem(&refused, 409, "conflict", None);
    let odd = act(json!({"action": "resume", "full": true})).await;
    assert_problem(&odd, 400, "invalid", Some("full"));
    let odd = act(json!({"action": "undo"})).await;
    assert_problem(&odd, 400, "invalid", None);
    let another = json!({"action": "abort", "deployment": "00000000000000000000000001"});
    let refused = act(another).await;
    assert_problem(&refused, 409, "conflict", Some("deployment"));
    act(json!({"action": "resume"})).await;
    let promoted = act(json!({"action": "promote", "full": true})).await;
    assert_eq!(
        promoted.body["rollout"]["phase"],
        json!({"type": "rolling"})
    );
    let aborted = act(json!({"action": "abort"})).await;
    assert_eq!(aborted.body["rollout"], Value::Null);
    let ended = server.get(&format!("/v1/deployments/{id}")).await.body;
    assert_eq!(ended["status"], "canceled");
    assert_eq!(ended["problem"]["message"], "aborted by admin");
}

#[tokio::test]
async fn a_policy_is_checked_where_it_is_said() {
    let server = Server::start().await;
    for (rollout, field) in [
        (json!({"strategy": "canary"}), "spec.rollout.steps"),
        (
            json!({"strategy": "canary", "steps": [{"percent": 101}]}),
            "spec.rollout.steps[0].percent",
        ),
        (
            json!({"max_unavailable": 1001}),
            "spec.rollout.max_unavailable",
        ),
    ] {
        let refused = server.put(WEB, json!({"spec": {"rollout": rollout}})).await;
        assert_problem(&refused, 400, "invalid", Some(field));
        assert!(refused.body["hint"].is_string(), "{}", refused.body);
    }
}
