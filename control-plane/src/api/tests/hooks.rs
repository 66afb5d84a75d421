//! Webhooks: what is signed right makes one deployment, everything else none.

use super::*;

const COMMIT: &str = "366701fde727cb7a9e7f21eb88264f59f6f9b89c";

pub(super) struct Hook {
    pub(super) server: Server,
    pub(super) path: String,
    pub(super) secret: String,
}

impl Hook {
    pub(super) async fn start() -> Self {
        let server = Server::start().await;
        let source = json!({"type": "git", "repository": "https://forge.test/shop.git", "branch": "main", "directory": "app"});
        assert_eq!(
            server
                .put(WEB, json!({"spec": {"source": source}}))
                .await
                .status,
            201
        );
        let made = server.post(&format!("{WEB}/webhook"), Value::Null).await;
        let text = |name: &str| made.body[name].as_str().expect("text").to_owned();
        Self {
            path: text("path"),
            secret: text("secret"),
            server,
        }
    }

    pub(super) fn sign(&self, body: &str) -> String {
        format!(
            "sha256={}",
            hex::encode(digest::hmac_sha256(self.secret.as_bytes(), body.as_bytes()))
        )
    }

    pub(super) async fn deliver(&self, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut builder = Request::builder().method(Method::POST).uri(&self.path);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        self.server
            .send(builder.body(Body::from(body.to_owned())).expect("sound"))
            .await
    }

    pub(super) async fn push(&self, id: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let signature = self.sign(&body);
        let headers = [
            ("x-hub-signature-256", signature.as_str()),
            ("x-github-event", "push"),
            ("x-github-delivery", id),
        ];
        self.deliver(&headers, &body).await
    }

    pub(super) fn deployments(&self) -> usize {
        self.server.context.store.view().deployments().count()
    }
}

fn push(reference: &str) -> Value {
    json!({"ref": reference, "before": "0".repeat(40), "after": COMMIT, "deleted": false,
        "repository": {"clone_url": "https://elsewhere.test/evil.git"}})
}

#[tokio::test]
async fn a_signed_push_deploys_its_commit_once() {
    let hook = Hook::start().await;
    let first = hook.push("d-1", &push("refs/heads/main")).await;
    assert_eq!(first.status, 202, "{}", first.body);
    let id = first.body["deployment"].as_str().expect("id").to_owned();
    let made = hook.server.get(&format!("/v1/deployments/{id}")).await;
    assert_eq!(made.body["trigger"], "webhook");
    let origin = json!({"type": "git", "repository": "https://forge.test/shop.git", "branch": "main",
        "commit": COMMIT, "directory": "app"});
    assert_eq!(
        made.body["origin"], origin,
        "the service's own repository, never the payload's"
    );

    let replay = hook.push("d-1", &push("refs/heads/main")).await;
    assert_eq!(replay.status, 200, "{}", replay.body);
    assert_eq!(
        (&replay.body["deployment"], &replay.body["replayed"]),
        (&json!(id), &json!(true))
    );
    assert_eq!(hook.deployments(), 1);
    // Another delivery of the same commit is answered with it, another commit is not.
    let other = hook.push("d-2", &push("refs/heads/main")).await;
    assert_eq!(
        (other.status.as_u16(), &other.body["deployment"]),
        (200, &json!(id))
    );
    assert_eq!(other.body["replayed"], true);
    let mut newer = push("refs/heads/main");
    newer["after"] = json!("a".repeat(40));
    assert_eq!(hook.push("d-3", &newer).await.status, 202);
    assert_eq!(hook.deployments(), 2);
}

#[tokio::test]
async fn what_is_not_signed_right_is_refused_before_it_is_read() {
    let hook = Hook::start().await;
    let body = push("refs/heads/main").to_string();
    let good = hook.sign(&body);
    let flipped = good.replace(&good[70..], if good.ends_with('0') { "1" } else { "0" });
    let empty_key = format!(
        "sha256={}",
        hex::encode(digest::hmac_sha256(b"", body.as_bytes()))
    );
    let cases = [
        ("missing", None),
        ("empty", Some("")),
        ("forge without secret", Some("sha256=")),
        ("empty secret", Some(empty_key.as_str())),
        ("wrong", Some(flipped.as_str())),
        ("short", Some(&good[..40])),
        ("no scheme", Some(&good[7..])),
        ("not hex", Some("sha256=zz")),
    ];
    for (name, signature) in cases {
        let mut headers = vec![("x-github-event", "push"), ("x-github-delivery", "d-1")];
        headers.extend(signature.map(|text| ("x-hub-signature-256", text)));
        let answer = hook.deliver(&headers, &body).await;
        assert_problem(&answer, 401, "unauthenticated", None);
        assert!(
            answer.body["hint"]
                .as_str()
                .expect("advice")
                .contains("secret"),
            "{name}"
        );
        // Not even a body that is no JSON changes the answer.
        assert_problem(
            &hook.deliver(&headers, "{").await,
            401,
            "unauthenticated",
            None,
        );
    }
    assert_eq!(hook.deployments(), 0);
}

#[tokio::test]
async fn what_is_not_for_us_is_ignored_with_the_reason() {
    let hook = Hook::start().await;
    let mut deleted = push("refs/heads/main");
    deleted["deleted"] = json!(true);
    deleted["after"] = json!("0".repeat(40));
    let cases = [
        (push("refs/heads/other"), "main"),
        (push("refs/tags/v1"), "branch"),
        (deleted, "deleted"),
    ];
    for (body, word) in cases {
        let answer = hook.push("d-1", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(
            answer.body["ignored"]
                .as_str()
                .expect("reason")
                .contains(word),
            "{}",
            answer.body
        );
    }
    let body = r#"{"zen": "hi"}"#;
    let signature = hook.sign(body);
    let signed = |event: &'static str| {
        [
            ("x-hub-signature-256", signature.clone()),
            ("x-github-event", event.to_owned()),
        ]
    };
    for (event, field) in [("ping", "pong"), ("star", "ignored")] {
        let headers = signed(event);
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = hook.deliver(&headers, body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(!answer.body[field].is_null(), "{}", answer.body);
    }
    assert_eq!(hook.deployments(), 0);
}

#[tokio::test]
async fn signed_nonsense_is_refused_with_what_is_wrong() {
    let hook = Hook::start().await;
    let mut odd = push("refs/heads/main");
    odd["after"] = json!("--upload-pack=x");
    assert_problem(&hook.push("d-1", &odd).await, 400, "invalid", Some("after"));
    assert_problem(&hook.push("d-1", &json!([])).await, 400, "invalid", None);
    assert_problem(
        &hook.push(&"d".repeat(201), &push("refs/heads/main")).await,
        400,
        "invalid",
        Some("x-github-delivery"),
    );
    let body = push("refs/heads/main").to_string();
    let signature = hook.sign(&body);
    let answer = hook
        .deliver(&[("x-hub-signature-256", &signature)], &body)
        .await;
    assert_problem(&answer, 400, "invalid", Some("x-github-event"));
    let answer = hook
        .deliver(
            &[
                ("x-hub-signature-256", &signature),
                ("x-github-event", "push"),
            ],
            &body,
        )
        .await;
    assert_problem(&answer, 400, "invalid", Some("x-github-delivery"));
    assert_eq!(hook.deployments(), 0);
}

#[tokio::test]
async fn a_large_push_is_taken_and_a_larger_one_refused() {
    let hook = Hook::start().await;
    let mut large = push("refs/heads/main");
    large["commits"] = json!(["x".repeat(2 << 20)]);
    assert_eq!(hook.push("d-1", &large).await.status, 202);
    let body = "x".repeat(MAX_HOOK_BYTES + 1);
    let signature = hook.sign(&body);
    let headers = [
        ("x-hub-signature-256", signature.as_str()),
        ("x-github-event", "push"),
    ];
    assert_problem(&hook.deliver(&headers, &body).await, 413, "too_large", None);
}

#[tokio::test]
async fn a_service_without_a_secret_takes_nothing_and_a_new_secret_ends_the_old_one() {
    let hook = Hook::start().await;
    let other = "/v1/projects/shop/environments/production/services/bare";
    hook.server.put(other, Value::Null).await;
    let shown = hook.server.get(&format!("{other}/webhook")).await;
    assert_eq!(
        (&shown.body["has_secret"], &shown.body["secret"]),
        (&json!(false), &Value::Null)
    );
    let path = shown.body["path"].as_str().expect("path").to_owned();
    let bare = Hook {
        path,
        secret: String::new(),
        ..hook
    };
    assert_problem(
        &bare.push("d-1", &push("refs/heads/main")).await,
        401,
        "unauthenticated",
        None,
    );
    let hook = Hook::start().await;
    let rotated = hook
        .server
        .post(&format!("{WEB}/webhook"), Value::Null)
        .await;
    assert_problem(
        &hook.push("d-1", &push("refs/heads/main")).await,
        401,
        "unauthenticated",
        None,
    );
    let fresh = Hook {
        secret: rotated.body["secret"].as_str().expect("text").to_owned(),
        ..hook
    };
    assert_eq!(
        fresh.push("d-1", &push("refs/heads/main")).await.status,
        202
    );
    let shown = fresh.server.get(&format!("{WEB}/webhook")).await;
    assert_eq!(
        (&shown.body["has_secret"], &shown.body["secret"]),
        (&json!(true), &Value::Null)
    );
    let gone = Hook {
        path: "/v1/hooks/00000000000000000000000005".into(),
        ..fresh
    };
    assert_problem(
        &gone.push("d-1", &push("refs/heads/main")).await,
        404,
        "not_found",
        None,
    );
}
