//! Webhooks of each forge, as it sends them: recorded bodies, its own headers, its own proof.

use super::hooks::Hook;
use super::*;

/// Forge, headers (`SIG`: the HMAC in hex, `TOKEN`: the secret), body, branch, commit.
type Case = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
    &'static str,
);

const CASES: [Case; 7] = [
    (
        "forgejo",
        &[
            ("x-forgejo-event", "push"),
            ("x-forgejo-delivery", "f-1"),
            ("x-forgejo-signature", "SIG"),
            ("x-gitea-event", "push"),
            ("x-gitea-delivery", "f-1"),
            ("x-gitea-signature", "SIG"),
            ("x-gogs-event", "push"),
            ("x-github-event", "push"),
            ("x-github-delivery", "f-1"),
            ("x-hub-signature-256", "sha256=SIG"),
        ],
        include_str!("../../../../forge/fixtures/forgejo/HookPush.json"),
        "main",
        "ef98532add3b2feb7a137426bba1248724367df5",
    ),
    (
        "gitea",
        &[
            ("x-gitea-event", "push"),
            ("x-gitea-delivery", "g-1"),
            ("x-gitea-signature", "SIG"),
            ("x-github-event", "push"),
            ("x-github-delivery", "g-1"),
        ],
        include_str!("../../../../forge/fixtures/gitea/HookPushMulti.json"),
        "main",
        "29be01c073851cf0db0c6a466e396b725a670453",
    ),
    (
        "github",
        &[
            ("x-github-event", "push"),
            ("x-github-delivery", "h-1"),
            ("x-hub-signature-256", "sha256=SIG"),
        ],
        include_str!("../../../../forge/fixtures/github/HookPush.json"),
        "main",
        "366701fde727cb7a9e7f21eb88264f59f6f9b89c",
    ),
    (
        "gitlab",
        &[
            ("x-gitlab-event", "Push Hook"),
            ("x-gitlab-event-uuid", "l-1"),
            ("x-gitlab-token", "TOKEN"),
        ],
        include_str!("../../../../forge/fixtures/gitlab/HookPush.json"),
        "main",
        "16862e368d8ab812e48833b741dad720d6e2cb7f",
    ),
    (
        "bitbucket",
        &[
            ("x-event-key", "repo:push"),
            ("x-request-uuid", "b-1"),
            ("x-hook-uuid", "the-hook"),
            ("x-hub-signature", "sha256=SIG"),
        ],
        include_str!("../../../../forge/fixtures/bitbucket/HookPush.json"),
        "main",
        "c14c1bb05dfb1fdcdf06b31485fff61b0ea44277",
    ),
    (
        "bitbucket-dc",
        &[
            ("x-event-key", "repo:refs_changed"),
            ("x-request-id", "d-1"),
            ("x-hub-signature", "sha256=SIG"),
        ],
        include_str!("../../../../forge/fixtures/bitbucket-dc/HookPush.json"),
        "main",
        "178864a7d521b6f5e720b386b2c2b0ef8563e0dc",
    ),
    (
        "generic",
        &[
            ("x-skep-delivery", "s-1"),
            ("x-skep-signature", "sha256=SIG"),
        ],
        "{\"ref\": \"refs/heads/main\", \"commit\": \"178864a7d521b6f5e720b386b2c2b0ef8563e0dc\"}",
        "main",
        "178864a7d521b6f5e720b386b2c2b0ef8563e0dc",
    ),
];

async fn send(hook: &Hook, headers: &[(&str, &str)], body: &str) -> Answer {
    let tag = hook.sign(body).replace("sha256=", "");
    let filled: Vec<(&str, String)> = headers
        .iter()
        .map(|(name, value)| {
            let value = value.replace("SIG", &tag).replace("TOKEN", &hook.secret);
            (*name, value)
        })
        .collect();
    let headers: Vec<_> = filled
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    hook.deliver(&headers, body).await
}

async fn set_spec(hook: &Hook, pushes: Value, directory: &str) {
    let source = json!({"type": "git", "repository": "https://forge.test/shop.git", "branch": "main",
        "directory": directory});
    let spec = json!({"spec": {"source": source, "pushes": pushes}});
    let put = hook.server.put(WEB, spec).await;
    assert_eq!(put.status, 200, "{}", put.body);
}

#[tokio::test]
async fn every_forge_deploys_once_and_is_believed_by_its_own_proof_only() {
    for (forge, headers, body, branch, commit) in CASES {
        let hook = Hook::start().await;
        set_spec(&hook, json!({}), "").await;
        // Each proof is damaged on its way, then missing, then of another secret.
        let is_proof = |value: &str| value.contains("SIG") || value.contains("TOKEN");
        let damaged: Vec<_> = headers
            .iter()
            .map(|(name, value)| match is_proof(value) {
                true if value.contains("sha256=") => (*name, "sha256=SI"),
                true => (*name, "0"),
                false => (*name, *value),
            })
            .collect();
        let bare: Vec<_> = headers
            .iter()
            .copied()
            .filter(|(_, value)| !is_proof(value))
            .collect();
        for (sent, body) in [(damaged, body), (bare, body)] {
            let answer = send(&hook, &sent, body).await;
            assert_problem(&answer, 401, "unauthenticated", None);
        }
        let other = Hook {
            secret: "another".into(),
            server: hook.server,
            path: hook.path.clone(),
        };
        assert_problem(
            &send(&other, headers, body).await,
            401,
            "unauthenticated",
            None,
        );
        let hook = Hook {
            secret: hook.secret,
            ..other
        };
        assert_eq!(hook.deployments(), 0, "{forge}");

        let made = send(&hook, headers, body).await;
        assert_eq!(made.status, 202, "{forge}: {}", made.body);
        let id = made.body["deployment"].as_str().expect("an id").to_owned();
        let shown = hook.server.get(&format!("/v1/deployments/{id}")).await;
        let origin = &shown.body["origin"];
        assert_eq!(
            (&origin["branch"], &origin["commit"]),
            (&json!(branch), &json!(commit))
        );
        assert_eq!(
            origin["repository"], "https://forge.test/shop.git",
            "never the payload's"
        );
        assert!(
            made.body["events"][0]["decision"].as_str().is_some(),
            "{}",
            made.body
        );

        let again = send(&hook, headers, body).await;
        assert_eq!(
            (again.status.as_u16(), &again.body["replayed"]),
            (200, &json!(true))
        );
        assert_eq!(again.body["deployment"], id, "{forge}");
        assert_eq!(hook.deployments(), 1, "{forge}");
        let keys = hook.server.context.store.view();
        let service = hook.path.rsplit('/').next().expect("an id").to_owned();
        let delivery = headers.iter().find(|(name, _)| {
            name.ends_with("delivery")
                || name.starts_with("x-request")
                || name.ends_with("event-uuid")
        });
        let delivery = delivery.expect("each has one").1;
        // Several events of one delivery have a key each.
        let suffix = if forge == "bitbucket-dc" { "/0" } else { "" };
        assert!(
            keys.delivery(&format!("{forge}/{service}/{delivery}{suffix}"))
                .is_some(),
            "{forge}"
        );
    }
}

#[tokio::test]
async fn each_event_of_a_delivery_is_told_of() {
    let hook = Hook::start().await;
    set_spec(&hook, json!({}), "").await;
    let (_, headers, body, ..) = CASES[5];
    let answer = send(&hook, headers, body).await;
    let events = answer.body["events"].as_array().expect("a list").clone();
    let decided: Vec<_> = events
        .iter()
        .map(|it| it["decision"].as_str().expect("words"))
        .collect();
    assert_eq!(events.len(), 3, "{}", answer.body);
    assert!(decided[0].starts_with("deployed: "), "{decided:?}");
    assert!(decided[1].contains("deploys the branch"), "{decided:?}");
    assert!(decided[2].contains("deleted"), "{decided:?}");
    assert_eq!(hook.deployments(), 1);
}

#[tokio::test]
async fn watched_paths_tags_and_markers_decide() {
    let hook = Hook::start().await;
    hook.server.deploy_live().await;
    let before = hook.deployments();
    let commit = |digit: &str, message: &str, file: &str| {
        json!({"ref": "refs/heads/main", "before": "0".repeat(39) + "1", "after": digit.repeat(40),
            "commits": [{"id": digit.repeat(40), "message": message, "added": [file], "modified": [], "removed": []}]})
    };
    // The first deployment from git is made whatever was touched.
    assert_eq!(
        hook.push("d-1", &commit("1", "x", "docs/a")).await.status,
        202
    );
    set_spec(&hook, json!({"watch": ["api/**", "!**/*.md"]}), "").await;
    for (number, (message, file, is_made)) in [
        ("x", "docs/a", false),
        ("x", "api/a.md", false),
        ("x", "api/a.rs", true),
        ("x [skip ci]", "api/a.rs", false),
    ]
    .into_iter()
    .enumerate()
    {
        let digit = ["2", "3", "4", "5"][number];
        let answer = hook
            .push(&format!("w-{number}"), &commit(digit, message, file))
            .await;
        assert_eq!(answer.status == 202, is_made, "{file}: {}", answer.body);
        assert_eq!(
            answer.body["ignored"].is_string(),
            !is_made,
            "{file}: {}",
            answer.body
        );
    }
    set_spec(&hook, json!({"tags": "v*"}), "").await;
    let tag = |name: &str| json!({"ref": format!("refs/tags/{name}"), "after": "6".repeat(40)});
    assert_eq!(
        hook.push("t-1", &commit("7", "x", "api/a.rs")).await.status,
        200
    );
    assert_eq!(hook.push("t-2", &tag("w1")).await.status, 200);
    assert_eq!(hook.push("t-3", &tag("v1")).await.status, 202);
    // GitHub and Gitea tell of one tag twice.
    assert_eq!(hook.push("t-4", &tag("v1")).await.status, 200);
    assert_eq!(hook.deployments(), before + 3);
    let odd = json!({"spec": {"pushes": {"watch": ["["]}}});
    assert_problem(
        &hook.server.put(WEB, odd).await,
        400,
        "invalid",
        Some("spec.pushes.watch"),
    );
}

#[tokio::test]
async fn only_the_administrator_forces() {
    let hook = Hook::start().await;
    let body = json!({"ref": "refs/heads/main", "after": "1".repeat(40)}).to_string();
    let (_, headers, ..) = CASES[2];
    assert_eq!(send(&hook, headers, &body).await.status, 202);
    let forcing = Hook {
        path: format!("{}?force=1", hook.path),
        ..hook
    };
    assert_problem(
        &send(&forcing, headers, &body).await,
        401,
        "unauthenticated",
        None,
    );
    let token = format!("Bearer {TOKEN}");
    let known: Vec<_> = headers
        .iter()
        .copied()
        .chain([("authorization", token.as_str())])
        .collect();
    assert_eq!(send(&forcing, &known, &body).await.status, 202);
    assert_eq!(forcing.deployments(), 2);
    // The token alone proves no delivery.
    let unsigned = [
        ("x-github-event", "push"),
        ("authorization", token.as_str()),
    ];
    assert_problem(
        &send(&forcing, &unsigned, &body).await,
        401,
        "unauthenticated",
        None,
    );
    let odd = Hook {
        path: forcing.path.replace("=1", "=maybe"),
        ..forcing
    };
    assert_problem(
        &send(&odd, &known, &body).await,
        400,
        "invalid",
        Some("force"),
    );
}

#[tokio::test]
async fn what_asks_for_nothing_is_never_refused() {
    let hook = Hook::start().await;
    let gitlab = |event: &'static str| [("x-gitlab-event", event), ("x-gitlab-token", "TOKEN")];
    let merge = include_str!("../../../../forge/fixtures/gitlab/HookPullRequestUpdated.json");
    let deleted = format!(
        "{{\"ref\": \"refs/heads/main\", \"after\": \"{}\"}}",
        "0".repeat(40)
    );
    for (event, body) in [
        ("Merge Request Hook", merge),
        ("Pipeline Hook", "{}"),
        ("System Hook", "{\"event_name\": \"project_create\"}"),
        ("Push Hook", &deleted),
    ] {
        let answer = send(&hook, &gitlab(event), body).await;
        assert_eq!(answer.status, 200, "{event}: {}", answer.body);
        assert!(answer.body["ignored"].is_string(), "{}", answer.body);
    }
    let nothing = [
        ("x-event-key", "repo:push"),
        ("x-hub-signature", "sha256=SIG"),
    ];
    let answer = send(&hook, &nothing, "{\"push\": {\"changes\": []}}").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(hook.deployments(), 0);
}
