//! Deployments, releases and uploads.

use super::*;

async fn deploy(server: &Server, body: Value) -> Answer {
    server.post(&format!("{WEB}/deployments"), body).await
}

#[tokio::test]
async fn each_origin_is_checked_and_answered() {
    let server = Server::start().await;
    let missing = deploy(&server, json!({"type": "upload"})).await;
    assert_problem(&missing, 404, "not_found", Some("project"));
    server.put(WEB, Value::Null).await;
    for (body, code, field) in [
        (json!({"type": "redeploy"}), "conflict", None),
        (json!({"type": "restart"}), "conflict", None),
        (json!({"type": "rollback"}), "conflict", None),
        (json!({"type": "source"}), "conflict", Some("source")),
        (
            json!({"type": "rollback", "release": 9}),
            "invalid",
            Some("release"),
        ),
        (
            json!({"type": "image", "reference": "a b"}),
            "invalid",
            Some("reference"),
        ),
        (
            json!({"type": "git", "repository": "--x", "branch": "main"}),
            "invalid",
            Some("repository"),
        ),
        (
            json!({"type": "git", "repository": "r", "branch": "main", "commit": "abc"}),
            "invalid",
            Some("commit"),
        ),
        (
            json!({"type": "git", "repository": "r", "branch": "main", "directory": "../x"}),
            "invalid",
            Some("directory"),
        ),
        (json!({"type": "teleport"}), "invalid", None),
    ] {
        let answer = deploy(&server, body.clone()).await;
        let status = if code == "conflict" { 409 } else { 400 };
        assert_problem(&answer, status, code, field);
        assert!(answer.body["hint"].is_string(), "{}", answer.body);
    }
    let uploaded = deploy(&server, json!({"type": "upload"})).await;
    assert_eq!(uploaded.status, 202);
    assert_eq!(
        (&uploaded.body["status"], &uploaded.body["ended"]),
        (&json!("queued"), &json!(false))
    );
    assert!(uploaded.body["origin"]["upload"].is_string());
    let git = deploy(
        &server,
        json!({"type": "git", "repository": "r", "branch": "main", "commit": "a".repeat(40)}),
    )
    .await;
    assert_eq!(git.body["commit"], "a".repeat(40));
    let first = server
        .get(&format!(
            "/v1/deployments/{}",
            uploaded.body["id"].as_str().expect("id")
        ))
        .await;
    assert_eq!(first.body["status"], "superseded");
    let list = server.get(&format!("{WEB}/deployments")).await;
    // Ids sort by time to the millisecond, and these two may be of the same.
    let mut made = [&uploaded, &git].map(|it| it.body["id"].as_str().expect("id"));
    made.sort_unstable_by(|one, other| other.cmp(one));
    let listed = [0, 1].map(|at| &list.body["deployments"][at]["id"]);
    assert_eq!(listed, made, "newest first");
}

#[tokio::test]
async fn rolling_back_twice_goes_back_two_releases() {
    let server = Server::start().await;
    server.put(WEB, Value::Null).await;
    for expected in 1..=3 {
        assert_eq!(server.deploy_live().await, expected);
    }
    for expected in [2, 1] {
        let answer = deploy(&server, json!({"type": "rollback"})).await;
        assert_eq!(answer.body["origin"]["number"], expected, "{}", answer.body);
        server
            .roll_out(deployment_id(&answer.body), expected, None)
            .await;
    }
    assert_problem(
        &deploy(&server, json!({"type": "rollback"})).await,
        409,
        "conflict",
        Some("release"),
    );
    let forth = deploy(&server, json!({"type": "rollback", "release": 3})).await;
    assert_eq!(forth.body["origin"]["number"], 3);
    let releases = server.get(&format!("{WEB}/releases")).await;
    let shown: Vec<_> = releases.body["releases"]
        .as_array()
        .expect("list")
        .iter()
        .map(|of| (of["number"].as_u64().expect("number"), of["live"] == true))
        .collect();
    assert_eq!(shown, [(3, false), (2, false), (1, true)]);
}

#[tokio::test]
async fn a_deployment_on_its_way_is_canceled_and_an_ended_one_is_not() {
    let server = Server::start().await;
    server.put(WEB, Value::Null).await;
    let made = deploy(&server, json!({"type": "upload"})).await;
    let path = format!(
        "/v1/deployments/{}/cancel",
        made.body["id"].as_str().expect("id")
    );
    let canceled = server.post(&path, Value::Null).await;
    assert_eq!(
        (canceled.status.as_u16(), &canceled.body["status"]),
        (200, &json!("canceled"))
    );
    assert_eq!(canceled.body["problem"]["code"], "canceled");
    assert_problem(
        &server.post(&path, Value::Null).await,
        409,
        "conflict",
        None,
    );
}

#[tokio::test]
async fn an_upload_streams_to_the_node_that_takes_it() {
    let server = Server::start().await;
    server.put(WEB, Value::Null).await;
    let made = deploy(&server, json!({"type": "upload"})).await;
    let upload = made.body["origin"]["upload"]
        .as_str()
        .expect("id")
        .to_owned();
    let uploads = server.context.uploads.clone();
    let id = upload.parse().expect("id");
    let node = tokio::spawn(async move {
        let mut chunks = uploads.take(id).await.expect("met");
        let mut size = 0;
        while let Some(chunk) = chunks.recv().await {
            size += chunk.expect("whole").len();
        }
        size
    });
    // More than the JSON limit: uploads have their own.
    let body = Body::from(vec![7_u8; 3 << 20]);
    let sent = server
        .send(request(Method::PUT, &format!("/v1/uploads/{upload}"), body))
        .await;
    assert_eq!(
        (sent.status.as_u16(), &sent.body["bytes"]),
        (200, &json!(3 << 20)),
        "{}",
        sent.body
    );
    assert_eq!(node.await.expect("no panic"), 3 << 20);
}

#[tokio::test]
async fn an_upload_nobody_waits_for_is_refused_and_one_that_waits_learns_of_the_end() {
    let server = Arc::new(Server::start().await);
    server.put(WEB, Value::Null).await;
    let stray = format!("/v1/uploads/{}", UploadId::from_u128(5));
    assert_problem(
        &server.put(&stray, Value::Null).await,
        404,
        "not_found",
        None,
    );
    let made = deploy(&server, json!({"type": "upload"})).await;
    let path = format!(
        "/v1/uploads/{}",
        made.body["origin"]["upload"].as_str().expect("id")
    );
    let other = Arc::clone(&server);
    let waiting = tokio::spawn(async move {
        other
            .send(request(Method::PUT, &path, Body::from("x")))
            .await
    });
    server
        .finish(deployment_id(&made.body), Status::Canceled, "canceled")
        .await;
    let answer = tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await;
    let answer = answer.expect("told at once").expect("no panic");
    assert!(
        matches!(answer.status.as_u16(), 404 | 409),
        "{}",
        answer.body
    );
}
