//! Jobs and schedules: what is made, what is refused, what is shown.

use super::*;

const JOBS: &str = "/v1/projects/shop/environments/production/services/web/jobs";

#[tokio::test]
async fn a_command_is_run_with_what_is_live_and_canceled() {
    let server = Server::start().await;
    server.join("n1").await;
    server.put(WEB, Value::Null).await;
    let run = json!({"command": ["sh", "-c", "x"], "variables": [
        {"name": "KEY", "value": "hidden", "secret": true}
    ]});
    let refused = server.post(JOBS, run.clone()).await;
    assert_problem(&refused, 409, "conflict", None);
    server.deploy_live().await;
    // A web service has nothing that ends by itself.
    let refused = server.post(JOBS, json!({})).await;
    assert_problem(&refused, 400, "invalid", Some("command"));
    let odd = json!({"command": ["x"], "retries": 101});
    assert_problem(
        &server.post(JOBS, odd).await,
        400,
        "invalid",
        Some("retries"),
    );
    let odd = json!({"command": ["x"], "variables": [{"name": "1", "value": ""}]});
    assert_eq!(server.post(JOBS, odd).await.status, 400);
    let odd = json!({"command": ["x"], "what": 1});
    assert_problem(&server.post(JOBS, odd).await, 400, "invalid", Some("what"));

    let made = server.post(JOBS, run).await;
    assert_eq!(made.status, 202, "{}", made.body);
    assert_eq!(made.body["status"], "pending");
    assert_eq!(
        made.body["cause"],
        json!({"type": "request", "by": "admin", "command": ["sh", "-c", "x"], "variables": ["KEY"]})
    );
    assert!(!made.body.to_string().contains("hidden"));
    let id = made.body["id"].as_str().expect("id").to_owned();
    let path = format!("/v1/jobs/{id}");
    assert_eq!(server.get(&path).await.body, made.body);
    let listed = server.get("/v1/jobs?service=web").await;
    assert_eq!(listed.body, json!({"jobs": [made.body], "schedules": []}));
    let others = server.get("/v1/jobs?service=other").await;
    assert_eq!(others.body, json!({"jobs": [], "schedules": []}));

    let canceled = server.post(&format!("{path}/cancel"), json!({})).await;
    assert_eq!(
        (canceled.status.as_u16(), &canceled.body["canceling"]),
        (202, &json!(true))
    );
    let gone = server
        .post("/v1/jobs/00000000000000000000000001/cancel", json!({}))
        .await;
    assert_problem(&gone, 404, "not_found", Some("job"));
}

#[tokio::test]
async fn a_schedule_is_checked_shown_paused_and_followed_again() {
    let server = Server::start().await;
    server.join("n1").await;
    let schedule = format!("{WEB}/schedule");
    for (run, field) in [
        (json!({"mode": "cron"}), "spec.run.schedule"),
        (
            json!({"mode": "cron", "schedule": "0 25 * * *"}),
            "spec.run.schedule",
        ),
        (
            json!({"mode": "cron", "schedule": "@daily", "time_zone": "Home"}),
            "spec.run.time_zone",
        ),
        (
            json!({"mode": "batch", "schedule": "@daily"}),
            "spec.run.schedule",
        ),
        (json!({"mode": "batch", "retries": 101}), "spec.run.retries"),
    ] {
        let refused = server.put(WEB, json!({"spec": {"run": run}})).await;
        assert_problem(&refused, 400, "invalid", Some(field));
        assert!(refused.body["hint"].is_string(), "{}", refused.body);
    }
    server.put(WEB, Value::Null).await;
    let none = server.post(&schedule, json!({"paused": true})).await;
    assert_problem(&none, 409, "conflict", None);
    let run = json!({"mode": "cron", "schedule": "30 2 * * *", "time_zone": "Europe/Berlin"});
    server.put(WEB, json!({"spec": {"run": run}})).await;
    server.deploy_live().await;
    let shown = server.get("/v1/jobs").await.body["schedules"][0].clone();
    assert_eq!(
        (&shown["schedule"], &shown["paused"]),
        (&json!("30 2 * * *"), &json!(false))
    );
    assert!(
        shown["next_ms"].as_u64() > Some(1_700_000_000_000),
        "{shown}"
    );
    let paused = server.post(&schedule, json!({"paused": true})).await;
    assert_eq!(
        (&paused.body["paused"], &paused.body["next_ms"]),
        (&json!(true), &Value::Null)
    );
    let resumed = server.post(&schedule, json!({"paused": false})).await;
    assert_eq!(resumed.body["next_ms"], shown["next_ms"]);
    // Now, whatever the schedule says.
    let made = server.post(JOBS, json!({})).await;
    assert_eq!(
        (made.status.as_u16(), &made.body["limits"]["retries"]),
        (202, &json!(0))
    );
    let scaled = server
        .post(&format!("{WEB}/scale"), json!({"replicas": 5}))
        .await;
    assert_problem(&scaled, 409, "conflict", Some("replicas"));
}
