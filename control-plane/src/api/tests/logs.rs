//! Logs: pages, live streams that resume without gap or repeat, app logs through the relay.

use std::time::Duration;

use futures_util::StreamExt as _;
use skep_model::allocation::{Allocation, Desired, Observed};
use skep_model::id::AllocationId;
use skep_model::service::Target;

use super::*;

/// Longest wait for the next event: a stream that says nothing has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A stream of server-sent events, read one by one.
pub(super) struct Events {
    body: axum::body::BodyDataStream,
    text: String,
}

#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) id: Option<u64>,
    pub(super) name: String,
    pub(super) data: Value,
}

impl Events {
    pub(super) async fn open(server: &Server, path: &str, last: Option<u64>) -> Self {
        let mut request = request(Method::GET, path, Body::empty());
        let headers = request.headers_mut();
        headers.insert("accept", "text/event-stream".parse().expect("value"));
        if let Some(last) = last {
            headers.insert("last-event-id", last.into());
        }
        let response = server.raw(request).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        }
    }

    /// The next event; none: the stream has ended.
    pub(super) async fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .map(|text| text.trim().to_owned())
                };
                let seen = field("event:").map(|name| Seen {
                    id: field("id:").map(|text| text.parse().expect("number")),
                    name,
                    data: serde_json::from_str(&field("data:").expect("data")).expect("JSON"),
                });
                self.text = rest.to_owned();
                if seen.is_some() {
                    return seen;
                }
                continue;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.body.next())
                .await
                .expect("in time")?;
            self.text
                .push_str(std::str::from_utf8(&chunk.expect("whole")).expect("UTF-8"));
        }
    }

    async fn log_ids(&mut self, count: usize) -> Vec<u64> {
        let mut ids = Vec::new();
        for _ in 0..count {
            let seen = self.next().await.expect("more");
            assert_eq!(seen.data["seq"], seen.id.expect("id"));
            ids.push(seen.id.expect("id"));
        }
        ids
    }
}

async fn deployment(server: &Server) -> DeploymentId {
    server.put(WEB, Value::Null).await;
    let made = server
        .post(&format!("{WEB}/deployments"), json!({"type": "upload"}))
        .await;
    deployment_id(&made.body)
}

async fn write(server: &Server, id: DeploymentId, range: std::ops::Range<u64>) {
    let first = range.start;
    let lines = range.map(|n| format!("line {n}")).collect();
    server
        .context
        .history
        .build_lines(id, 0, first, lines)
        .await
        .expect("kept");
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended() {
    let server = Server::start().await;
    let id = deployment(&server).await;
    write(&server, id, 0..5).await;
    let path = format!("/v1/deployments/{id}/logs");
    let mut after = 0;
    let mut seqs = Vec::new();
    loop {
        let page = server.get(&format!("{path}?after={after}&limit=2")).await;
        assert_eq!(page.body["status"], "queued");
        let events = page.body["events"].as_array().expect("list").clone();
        if events.is_empty() {
            break;
        }
        seqs.extend(
            events
                .iter()
                .map(|event| event["seq"].as_u64().expect("number")),
        );
        after = page.body["next"].as_u64().expect("number");
    }
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6], "five lines and the step `queued`");
    let unknown = format!("/v1/deployments/{}/logs", DeploymentId::from_u128(5));
    assert_problem(&server.get(&unknown).await, 404, "not_found", None);
    // What the state has forgotten is read from the history.
    let forgotten = DeploymentId::from_u128(random::new_id());
    write(&server, forgotten, 0..1).await;
    let page = server
        .get(&format!("/v1/deployments/{forgotten}/logs"))
        .await;
    assert_eq!(
        (&page.body["status"], &page.body["next"]),
        (&Value::Null, &json!(1))
    );
}

#[tokio::test]
async fn a_stream_follows_to_the_end_and_resumes_without_gap_or_repeat() {
    let server = Server::start().await;
    server.join("n1").await;
    let id = deployment(&server).await;
    let path = format!("/v1/deployments/{id}/logs");
    let mut first = Events::open(&server, &path, None).await;
    assert_eq!(first.next().await.expect("step").data["text"], "queued");
    // Comes while it is open.
    write(&server, id, 0..700).await;
    assert_eq!(first.log_ids(300).await, (2..=301).collect::<Vec<_>>());
    drop(first);
    write(&server, id, 700..900).await;
    let mut second = Events::open(&server, &path, Some(301)).await;
    assert_eq!(second.log_ids(600).await, (302..=901).collect::<Vec<_>>());
    server.bring_live(id).await;
    let mut texts = Vec::new();
    let end = loop {
        let seen = second.next().await.expect("an end");
        if seen.name == "end" {
            break seen;
        }
        assert_eq!(
            (seen.name.as_str(), seen.id),
            ("step", Some(902 + texts.len() as u64))
        );
        texts.push(seen.data["text"].as_str().expect("text").to_owned());
    };
    assert_eq!(
        texts,
        ["release 1", "live"],
        "everything is sent before the end"
    );
    assert_eq!(
        (&end.data["status"], &end.data["release"]),
        (&json!("live"), &json!(1))
    );
    assert_eq!(
        end.data["urls"][0],
        "http://web-production-shop.example.test:8080"
    );
    assert_eq!(second.next().await, None, "nothing after the end");
    // Who comes back after the end gets only the end.
    let mut late = Events::open(&server, &path, Some(903)).await;
    assert_eq!(late.next().await.expect("end").name, "end");
}

#[tokio::test]
async fn a_stream_ends_when_the_server_stops() {
    let server = Server::start().await;
    let id = deployment(&server).await;
    let mut events = Events::open(&server, &format!("/v1/deployments/{id}/logs"), None).await;
    events.next().await.expect("step");
    server.context.shutdown.cancel();
    assert_eq!(events.next().await, None);
}

/// Puts an allocation of the live release on a node.
async fn allocate(server: &Server, node: NodeId) -> AllocationId {
    let view = server.context.store.view();
    let service = view.services().next().expect("there").clone();
    let live = service.live.expect("live");
    let allocation = Allocation {
        id: AllocationId::from_u128(random::new_id()),
        service: service.id,
        target: Target { ..live },
        node,
        desired: Desired::Run,
        reason: "test".into(),
        desired_ms: 0,
        desired_index: 0,
        observed: Observed::pending(),
        observed_ms: 0,
        created_ms: 0,
        job: None,
    };
    let base = |id: u128, generation: u64| v1::Base {
        id: id_bytes(id),
        generation,
    };
    server
        .propose(Kind::ApplyPlan(v1::ApplyPlan {
            nodes: vec![base(
                node.as_u128(),
                view.node(node).expect("there").generation,
            )],
            services: vec![base(service.id.as_u128(), service.generation)],
            starts: vec![(&allocation).into()],
            desires: Vec::new(),
        }))
        .await;
    allocation.id
}

async fn asked(from: &mut crate::agents::relay::ToNode) -> v1::LogRequest {
    loop {
        let kind = tokio::time::timeout(PATIENCE, from.recv())
            .await
            .expect("in time")
            .expect("open");
        if let v1::to_agent::Kind::LogRequest(request) = kind {
            return request;
        }
    }
}

fn chunk(request: &v1::LogRequest, lines: &[(u64, &str)]) -> v1::LogChunk {
    v1::LogChunk {
        request: request.request,
        allocation: request.allocation.clone(),
        lines: lines
            .iter()
            .map(|(at_ns, text)| v1::LogLine {
                at_ns: *at_ns,
                stderr: false,
                text: (*text).to_owned(),
                lost: None,
            })
            .collect(),
        problem: None,
    }
}

#[tokio::test]
async fn app_logs_come_through_the_relay_as_lines() {
    let server = Arc::new(Server::start().await);
    let node = server.join("n1").await;
    server.put(WEB, Value::Null).await;
    server.deploy_live().await;
    let allocation = allocate(&server, node).await;
    let relay = server.context.relay.clone();
    let (_, mut to_node) = relay.connect(node);
    let other = Arc::clone(&server);
    let path = format!("{WEB}/logs?tail=5&after=7&until=99&grep=l.o%2B");
    let reading = tokio::spawn(async move { other.get(&path).await });
    let request = asked(&mut to_node).await;
    assert_eq!(
        (request.tail, request.after_ns, request.follow),
        (5, 7, false)
    );
    assert_eq!((request.until_ns, request.grep.as_str()), (99, "l.o+"));
    assert!(
        relay
            .deliver(node, chunk(&request, &[(8, "hello"), (9, "world")]))
            .await
    );
    relay.finish(node, request.request);
    let answer = tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("ends")
        .expect("no panic");
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let text = answer.body.as_str().expect("two documents");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let line = |at_ns: u64, text: &str| json!({"allocation": allocation, "node": "n1", "at_ns": at_ns, "stderr": false, "text": text});
    assert_eq!(lines, [line(8, "hello"), line(9, "world")]);
}

#[tokio::test]
async fn following_takes_in_new_allocations_and_nodes_that_come_back() {
    let server = Server::start().await;
    let node = server.join("n1").await;
    server.put(WEB, Value::Null).await;
    server.deploy_live().await;
    let first = allocate(&server, node).await;
    let relay = server.context.relay.clone();
    // Not connected yet: said once, and tried again.
    let mut events = Events::open(&server, &format!("{WEB}/logs?follow=true&tail=3"), None).await;
    let told = events.next().await.expect("problem");
    assert_eq!(
        (told.name.as_str(), &told.data["problem"]["code"]),
        ("problem", &json!("unavailable"))
    );
    let (session, mut to_node) = relay.connect(node);
    let request = asked(&mut to_node).await;
    assert_eq!(
        (request.tail, request.follow),
        (3, true),
        "what was asked for is not forgotten"
    );
    relay.deliver(node, chunk(&request, &[(5, "one")])).await;
    assert_eq!(events.next().await.expect("line").id, Some(5));
    // Its session breaks and comes back: reading goes on after the last line.
    relay.disconnect(node, session);
    let (_, mut to_node) = relay.connect(node);
    let request = asked(&mut to_node).await;
    assert_eq!((request.after_ns, request.tail), (5, 0));
    let second = allocate(&server, node).await;
    let added = asked(&mut to_node).await;
    assert_eq!(added.allocation, id_bytes(second.as_u128()));
    assert_eq!(
        (added.after_ns, added.tail),
        (0, 0),
        "a new allocation is read from its first line"
    );
    relay.deliver(node, chunk(&added, &[(9, "two")])).await;
    let line = events.next().await.expect("line");
    assert_eq!(
        (&line.data["allocation"], line.id),
        (&json!(second), Some(9))
    );
    assert_ne!(first, second);
    drop(events);
    let canceled = tokio::time::timeout(PATIENCE, async {
        while let Some(kind) = to_node.recv().await {
            if matches!(kind, v1::to_agent::Kind::LogCancel(_)) {
                return;
            }
        }
    });
    canceled
        .await
        .expect("the node is told that nobody reads any more");
}

#[tokio::test]
async fn lines_of_several_nodes_are_in_the_order_of_time_and_gaps_among_them() {
    let server = Arc::new(Server::start().await);
    let nodes = [server.join("n1").await, server.join("n2").await];
    server.put(WEB, Value::Null).await;
    server.deploy_live().await;
    let relay = server.context.relay.clone();
    let mut down = Vec::new();
    for node in nodes {
        allocate(&server, node).await;
        down.push(relay.connect(node).1);
    }
    let other = Arc::clone(&server);
    let reading = tokio::spawn(async move { other.get(&format!("{WEB}/logs?tail=0")).await });
    let first = asked(&mut down[0]).await;
    let second = asked(&mut down[1]).await;
    relay
        .deliver(nodes[0], chunk(&first, &[(1, "a"), (4, "d"), (6, "f")]))
        .await;
    relay.finish(nodes[0], first.request);
    let mut behind = chunk(&second, &[(2, "b"), (3, "gone"), (5, "e")]);
    behind.lines[1].lost = Some(v1::LogLost {
        bytes: 77,
        at_least: true,
    });
    relay.deliver(nodes[1], behind).await;
    relay.finish(nodes[1], second.request);
    let answer = tokio::time::timeout(PATIENCE, reading).await;
    let answer = answer.expect("ends").expect("no panic");
    let lines = answer.body.as_str().expect("documents").lines();
    let lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let times: Vec<u64> = lines
        .iter()
        .map(|line| line["at_ns"].as_u64().expect("a time"))
        .collect();
    assert_eq!(times, [1, 2, 3, 4, 5, 6]);
    assert_eq!(lines[2]["lost"], json!({"bytes": 77, "at_least": true}));
    let wrong = server.get(&format!("{WEB}/logs?follow=true&until=5")).await;
    assert_problem(&wrong, 400, "invalid", Some("until"));
}
