//! The CA is replaced under three servers, asked through any of them, and nobody is left behind.

use super::*;

async fn rotate(cluster: &Cluster, through: usize, step: &str) -> (StatusCode, Value) {
    let body = json!({ "step": step });
    let asked = cluster.lives[through].call(&cluster.token, (Method::POST, "/v1/ca/rotate"), body);
    asked.await
}

/// Done, as soon as nobody would be left behind.
async fn rotated(cluster: &Cluster, through: usize, step: &str, phase: &str) -> Value {
    let mut last = Value::Null;
    until(step, async || {
        let (status, body) = rotate(cluster, through, step).await;
        last = body;
        status == StatusCode::OK
    })
    .await;
    assert_eq!(last["phase"], phase, "{last}");
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ca_is_replaced_under_three_servers_and_leaves_none_behind() {
    let mut cluster = Cluster::of_three().await;
    let follower = (cluster.leader().await + 1) % 3;
    let begun = rotated(&cluster, follower, "begin", "begun").await;
    let old = begun["trusted"][0]["fingerprint"].clone();
    let out_of_turn = rotate(&cluster, follower, "finish").await;
    assert_eq!(out_of_turn.0, StatusCode::CONFLICT, "{}", out_of_turn.1);
    let active = rotated(&cluster, follower, "activate", "activated").await;
    assert_eq!(active["trusted"][1]["fingerprint"], old, "trusted still");

    // One that is away would not know the others any more.
    let away = (follower + 1) % 3;
    let away = if away == cluster.leader().await {
        (away + 1) % 3
    } else {
        away
    };
    let options = cluster.lives.remove(away).end().await;
    until("the leader to miss it", async || {
        let asked = cluster.lives[0].call(&cluster.token, (Method::GET, "/v1/ca"), Value::Null);
        asked.await.1["waiting_for"][0]["is_server"] == true
    })
    .await;
    let refused = rotate(&cluster, 0, "finish").await;
    assert_eq!(refused.0, StatusCode::CONFLICT, "{}", refused.1);
    let back = Life::begin(options).await.expect("comes back");
    cluster.lives.push(back);
    let done = rotated(&cluster, 0, "finish", "steady").await;
    assert_ne!(done["trusted"][0]["fingerprint"], old);
    assert_eq!(done["trusted"].as_array().map(Vec::len), Some(1));

    // Connections made anew are made under the new CA alone.
    for _ in 0..3 {
        let options = cluster.lives.remove(0).end().await;
        cluster
            .lives
            .push(Life::begin(options).await.expect("comes back"));
    }
    cluster
        .until_roles("all well", &["leader", "voter", "voter"])
        .await;
    cluster.write(1, "after").await;
}
