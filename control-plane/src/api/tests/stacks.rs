//! Stacks: connected, asked for by pushes to their branch and by people, and refused what they may not be.

use skep_model::stack::{Change, Member, Planned, Reading};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proto::v1::step_stack::{Step, Turn};

use super::hooks::Hook;
use super::*;
use crate::polling::{Asked, Book};

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

/// What a service comes to be that was one by itself.
async fn taken_over(server: &Server) {
    let store = &server.context.store;
    let view = store.view();
    let stack = view.stacks().next().expect("a stack");
    let service = view.service_named(stack.environment, "web").expect("there");
    let environment = id_bytes(stack.environment.as_u128());
    let reading = Reading {
        number: 0,
        commit: "1".repeat(40),
        file: "compose.yaml".into(),
        read_ms: 0,
        services: vec![Planned {
            name: "web".into(),
            change: Change::Same,
            fields: Vec::new(),
        }],
        reports: Vec::new(),
        more_reports: 0,
        end: None,
    };
    let member = Member {
        service: service.id,
        built: None,
        said: ["replicas".to_owned()].into(),
        deployment: None,
        reading: 1,
    };
    let read = Kind::TakeReading(v1::TakeReading {
        environment: environment.clone(),
        generation: stack.generation,
        asked: stack.asked,
        commit: Some(reading.commit.clone()),
        reading: Some((&reading).into()),
        trouble: None,
    });
    store.propose(read).await.expect("taken");
    let turn = Kind::StepStack(v1::StepStack {
        environment,
        reading: 1,
        step: Some(Step::Turn(Turn {
            put: None,
            deployment: None,
            name: "web".into(),
            member: Some((&member).into()),
        })),
    });
    store.propose(turn).await.expect("carried out");
}

#[tokio::test]
async fn a_service_of_a_stack_is_deployed_by_its_stack_alone() {
    let hook = connected().await;
    let path = "/v1/projects/shop/environments/production/services/web";
    let source =
        json!({"type": "git", "repository": "https://forge.test/team/shop.git", "branch": "main"});
    let put = hook.server.put(path, json!({"spec": {"source": source}}));
    assert_eq!(put.await.status, 201);
    let asked_for = |server: &Server| {
        let view = server.context.store.view();
        let mut book = Book::new(0, Asked::default());
        book.due(&view, 10_000_000_000_000).0.len()
    };
    assert_eq!(asked_for(&hook.server), 1, "by itself it is asked for");
    taken_over(&hook.server).await;
    assert_eq!(asked_for(&hook.server), 0);
    let told = hook.push("d-1", &push("main")).await;
    assert_eq!(told.status, 200, "{}", told.body);
    let decisions = told.body["events"].as_array().expect("a list");
    let decisions: Vec<_> = decisions.iter().map(|it| it["decision"].as_str()).collect();
    assert_eq!(
        decisions,
        [
            Some("its stack decides: the Compose file is read again"),
            Some("the stack of shop/production is read"),
        ]
    );
    assert_eq!(hook.deployments(), 0);
    let shown = hook.server.get(path).await;
    assert_eq!(shown.body["stack"]["file"], "compose.yaml");
    assert_eq!(shown.body["stack"]["says"], json!(["replicas"]));
    // A new leader would go on with it: it is not carried out yet.
    let stack = hook.server.get(STACK).await;
    assert_eq!(stack.body["reading"]["services"][0]["name"], "web");
    let gone = hook.server.call(Method::DELETE, STACK, json!({})).await;
    assert_eq!(gone.status, 204);
    assert_eq!(asked_for(&hook.server), 1, "it is one by itself again");
    let told = hook.push("d-2", &push("main")).await;
    assert_eq!(told.status, 202, "{}", told.body);
}
