//! Stacks: connected, asked for by pushes to their branch and by people, and refused what they may not be.

use super::hooks::Hook;
use super::*;

const STACK: &str = "/v1/stacks/shop/production";

async fn connected() -> Hook {
    let server = Server::start().await;
    let body = json!({"repository": "git@forge.test:team/shop.git", "branch": "main"});
    let put = server.put(STACK, body).await;
    assert_eq!(put.status, 200, "{}", put.body);
    assert_eq!(put.body["state"], "reading");
    let waits = put.body["problem"]["message"].as_str().expect("why");
    assert!(waits.contains("no node that builds"), "{waits}");
    let asked = json!({"repository": "https://forge.test/team/shop"});
    let made = server.post("/v1/repository-webhooks", asked).await;
    let text = |name: &str| made.body[name].as_str().expect("text").to_owned();
    Hook {
        path: text("path"),
        secret: text("secret"),
        server,
    }
}

/// How often somebody wanted the file read.
fn asked(hook: &Hook) -> u64 {
    let view = hook.server.context.store.view();
    view.stacks().next().map_or(0, |stack| stack.asked)
}

fn push(branch: &str) -> Value {
    json!({"ref": format!("refs/heads/{branch}"), "before": "f".repeat(40), "after": "1".repeat(40),
        "repository": {"full_name": "team/shop", "clone_url": "https://forge.test/team/shop.git"},
        "commits": []})
}

#[tokio::test]
async fn a_push_to_its_branch_has_the_file_read() {
    let hook = connected().await;
    assert_eq!(asked(&hook), 1);
    let told = hook.push("d-1", &push("main")).await;
    assert_eq!(told.status, 200, "{}", told.body);
    let event = &told.body["events"][0];
    assert_eq!(event["decision"], "the stack of shop/production is read");
    assert!(told.body["ignored"].is_null(), "{}", told.body);
    assert_eq!(asked(&hook), 2);
    let other = hook.push("d-2", &push("dev")).await;
    assert!(other.body["ignored"].is_string(), "{}", other.body);
    assert_eq!(asked(&hook), 2);
    let synced = hook.server.post(&format!("{STACK}/sync"), json!({})).await;
    assert_eq!(synced.status, 200, "{}", synced.body);
    assert_eq!(asked(&hook), 3);
}

#[tokio::test]
async fn what_is_no_stack_is_refused_and_what_is_none_is_not_found() {
    let hook = connected().await;
    let server = &hook.server;
    for (field, body) in [
        (
            "path",
            json!({"repository": "https://a.test/b", "branch": "main", "path": "../x"}),
        ),
        (
            "repository",
            json!({"repository": "ext::sh", "branch": "main"}),
        ),
        (
            "poll_ms",
            json!({"repository": "https://a.test/b", "branch": "main", "poll_ms": 1}),
        ),
    ] {
        let put = server.put(STACK, body).await;
        assert_problem(&put, 400, "invalid", Some(field));
    }
    let body = json!({"reading": 0, "approve": ["web"]});
    let removed = server.post(&format!("{STACK}/removals"), body).await;
    assert_problem(&removed, 400, "invalid", Some("approve"));
    let listed = server.get("/v1/stacks").await;
    assert_eq!(listed.body["stacks"].as_array().map(Vec::len), Some(1));
    let gone = server.call(Method::DELETE, STACK, json!({})).await;
    assert_eq!(gone.status, 204, "{}", gone.body);
    for path in [STACK, "/v1/stacks/shop/none", "/v1/stacks/none/production"] {
        assert_problem(
            &server.get(path).await,
            404,
            "not_found",
            Some("environment"),
        );
    }
    let pushed = hook.push("d-1", &push("main")).await;
    assert!(pushed.body["ignored"].is_string(), "{}", pushed.body);
}
