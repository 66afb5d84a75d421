//! Webhooks of repositories: one delivery for all services that come from one, each taken once.

use super::hooks::Hook;
use super::*;

const REPOSITORIES: &str = "/v1/repository-webhooks";

/// A cluster with three services of one repository, in two projects, and one of another; and the webhook.
async fn start() -> Hook {
    let server = Server::start().await;
    for (path, repository, directory) in [
        (
            "shop/environments/production/services/web",
            "https://forge.test/team/mono.git",
            "web",
        ),
        (
            "shop/environments/production/services/api",
            "git@forge.test:team/mono.git",
            "api",
        ),
        (
            "other/environments/production/services/all",
            "ssh://git@FORGE.test:2222/Team/mono",
            "",
        ),
        (
            "other/environments/production/services/else",
            "https://forge.test/team/else.git",
            "",
        ),
    ] {
        let source = json!({"type": "git", "repository": repository, "branch": "main", "directory": directory});
        let path = format!("/v1/projects/{path}");
        let put = server.put(&path, json!({"spec": {"source": source}}));
        assert_eq!(put.await.status, 201, "{path}");
    }
    let asked = json!({"repository": "http://user@forge.test:3000/team/mono.git/"});
    let made = server.post(REPOSITORIES, asked).await;
    assert_eq!(made.status, 200, "{}", made.body);
    assert_eq!(made.body["repository"], "forge.test/team/mono");
    let services = json!([
        "shop/production/web",
        "shop/production/api",
        "other/production/all"
    ]);
    assert_eq!(made.body["services"], services);
    let text = |name: &str| made.body[name].as_str().expect("text").to_owned();
    Hook {
        path: text("path"),
        secret: text("secret"),
        server,
    }
}

fn push(commit: &str, full_name: &str, files: &[&str]) -> Value {
    json!({"ref": "refs/heads/main", "before": "f".repeat(40), "after": commit.repeat(40),
        "repository": {"full_name": full_name, "clone_url": format!("https://forge.test/{full_name}.git")},
        "commits": [{"id": commit.repeat(40), "message": "x", "added": files, "modified": [], "removed": []}]})
}

#[tokio::test]
async fn one_delivery_deploys_every_service_that_it_touches_and_each_once() {
    let hook = start().await;
    // Nothing was deployed from git before: all are.
    let first = hook.push("d-1", &push("1", "team/mono", &["web/a"])).await;
    assert_eq!(first.status, 202, "{}", first.body);
    let told = first.body["events"].as_array().expect("a list");
    let names: Vec<_> = told
        .iter()
        .map(|it| it["service"].as_str().expect("a name"))
        .collect();
    assert_eq!(
        names,
        [
            "shop/production/web",
            "shop/production/api",
            "other/production/all"
        ]
    );
    assert_eq!(hook.deployments(), 3);
    let second = hook.push("d-2", &push("2", "Team/Mono", &["web/a"])).await;
    assert_eq!(second.status, 202, "{}", second.body);
    let made = |body: &Value| {
        let all = body["events"].as_array().expect("a list").clone();
        let all = all
            .into_iter()
            .map(|it| it["deployment"].as_str().map(str::to_owned));
        all.collect::<Vec<_>>()
    };
    let wanted = made(&second.body);
    assert_eq!(
        wanted.iter().map(Option::is_some).collect::<Vec<_>>(),
        [true, false, true],
        "api was not touched: {}",
        second.body
    );
    assert_eq!(hook.deployments(), 5);
    let again = hook.push("d-2", &push("2", "team/mono", &["web/a"])).await;
    assert_eq!((again.status.as_u16(), made(&again.body)), (200, wanted));
    assert_eq!(hook.deployments(), 5);
}

#[tokio::test]
async fn what_is_of_another_repository_or_of_nobody_changes_nothing() {
    let hook = start().await;
    let foreign = hook.push("d-1", &push("1", "team/else", &["a"])).await;
    assert_eq!(foreign.status, 200, "{}", foreign.body);
    let why = foreign.body["ignored"].as_str().expect("a reason");
    assert!(
        why.contains("the webhook is for forge.test/team/mono"),
        "{why}"
    );
    let unsigned = Hook {
        secret: "another".into(),
        server: hook.server,
        path: hook.path.clone(),
    };
    let body = push("1", "team/mono", &["a"]);
    assert_problem(
        &unsigned.push("d-2", &body).await,
        401,
        "unauthenticated",
        None,
    );
    assert_eq!(unsigned.deployments(), 0);
    let lonely = json!({"repository": "https://forge.test/team/lonely"});
    let made = unsigned.server.post(REPOSITORIES, lonely).await;
    let text = |name: &str| made.body[name].as_str().expect("text").to_owned();
    let lonely = Hook {
        path: text("path"),
        secret: text("secret"),
        server: unsigned.server,
    };
    let answer = lonely.push("d-3", &push("1", "team/lonely", &["a"])).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        answer.body["ignored"],
        "no service comes from forge.test/team/lonely"
    );
    let body = "{}";
    let signature = lonely.sign(body);
    let ping = [
        ("x-hub-signature-256", signature.as_str()),
        ("x-github-event", "ping"),
    ];
    assert_eq!(lonely.deliver(&ping, body).await.body["pong"], true);
}

#[tokio::test]
async fn a_webhook_keeps_its_url_while_its_secret_changes_and_goes() {
    let hook = start().await;
    let listed = hook.server.get(REPOSITORIES).await;
    let all = listed.body["webhooks"].as_array().expect("a list");
    assert_eq!(all.len(), 1);
    assert!(
        all[0]["secret"].is_null() && all[0]["path"] == hook.path,
        "{}",
        listed.body
    );
    let id = all[0]["id"].as_str().expect("an id").to_owned();
    let asked = json!({"repository": "git@forge.test:team/mono.git"});
    let rotated = hook.server.post(REPOSITORIES, asked).await;
    assert_eq!(rotated.body["path"], hook.path);
    let body = push("1", "team/mono", &["web/a"]);
    assert_problem(&hook.push("d-1", &body).await, 401, "unauthenticated", None);
    let hook = Hook {
        secret: rotated.body["secret"].as_str().expect("text").to_owned(),
        ..hook
    };
    assert_eq!(hook.push("d-1", &body).await.status, 202);
    for odd in ["/srv/git/shop.git", "shop", ""] {
        let asked = json!({ "repository": odd });
        let refused = hook.server.post(REPOSITORIES, asked).await;
        assert_problem(&refused, 400, "invalid", Some("repository"));
    }
    let path = format!("{REPOSITORIES}/{id}");
    let gone = hook.server.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!(gone.status, 204, "{}", gone.body);
    assert_problem(&hook.push("d-2", &body).await, 404, "not_found", None);
}
