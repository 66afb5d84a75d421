//! A build's log that is at another server: shown as it is there, followed there, and said where it is
//! while that server is away.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use skep_model::deployment::Step;

use super::logs::Events;
use super::*;
use crate::history::{Ask, Page};

/// Another server: its history is real, the way to it is not.
struct Other {
    history: History,
    is_away: AtomicBool,
    _dir: tempfile::TempDir,
}

const OTHER: ServerId = ServerId::from_u128(77);

impl Other {
    async fn start() -> Arc<Self> {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("history.db");
        let opened = History::open(path.to_str().expect("UTF-8"), OTHER).await;
        let (history, writer) = opened.expect("opens");
        tokio::spawn(writer);
        Arc::new(Self {
            history,
            is_away: AtomicBool::new(false),
            _dir: dir,
        })
    }

    async fn write(&self, id: DeploymentId, range: std::ops::Range<u64>) {
        let first = range.start;
        let lines = range.map(|n| format!("line {n}")).collect();
        let kept = self.history.build_lines(id, 1, first, lines).await;
        kept.expect("kept");
    }

    /// What was told there comes to this server.
    async fn tell(&self, server: &Server) {
        let (_, places) = server.context.history.places().await.expect("places");
        let offer = self.history.offer(&places).await.expect("offer");
        server
            .context
            .history
            .take(offer.parts)
            .await
            .expect("kept");
    }
}

impl Elsewhere for Other {
    fn events(&self, server: ServerId, ask: Ask) -> BoxFuture<'_, Result<Page, Problem>> {
        Box::pin(async move {
            assert_eq!(server, OTHER);
            let mut fresh = self.history.watch(ask.deployment);
            let read = async || {
                let page = self
                    .history
                    .page(ask.deployment, ask.after, ask.limit)
                    .await;
                page.expect("read")
            };
            let mut page = read().await;
            if ask.wait && page.events.is_empty() {
                fresh.changed().await.expect("open");
                page = read().await;
            }
            if self.is_away.load(Ordering::Relaxed) {
                return Err(Problem::new(Code::Unavailable, "no answer"));
            }
            Ok(page)
        })
    }
}

async fn queued(server: &Server) -> (DeploymentId, Vec<Step>, String) {
    server.put(WEB, Value::Null).await;
    let made = server
        .post(&format!("{WEB}/deployments"), json!({"type": "upload"}))
        .await;
    let id = deployment_id(&made.body);
    let view = server.context.store.view();
    let steps = view.deployment(id).expect("made").steps.clone();
    (id, steps, format!("/v1/deployments/{id}/logs"))
}

fn texts(page: &Value) -> Vec<String> {
    let events = page["events"].as_array().expect("events");
    for (event, number) in events.iter().zip(1..) {
        assert_eq!(event["seq"], number);
    }
    let text = |event: &'_ Value| event["text"].as_str().map(str::to_owned);
    events.iter().filter_map(text).collect()
}

#[tokio::test]
async fn a_page_is_that_of_the_server_which_has_the_log() {
    let other = Other::start().await;
    let server = Server::start_with(other.clone()).await;
    let (id, steps, path) = queued(&server).await;
    other.history.flush_steps(id, &steps).await.expect("kept");
    other.write(id, 0..700).await;
    other.tell(&server).await;
    let page = server.get(&format!("{path}?limit=5000")).await.body;
    let shown = texts(&page);
    let ends = (shown[0].as_str(), shown[700].as_str());
    assert_eq!((shown.len(), ends), (701, ("queued", "line 699")));
    assert!(
        page["problems"].is_null() && page["next"] == 701,
        "{}",
        page["problems"]
    );

    other.is_away.store(true, Ordering::Relaxed);
    let page = server.get(&path).await.body;
    assert_eq!(texts(&page), ["queued"]);
    let problem = page["problems"][0]["message"].as_str().expect("a problem");
    assert!(problem.contains(&OTHER.to_string()), "{problem}");
}

#[tokio::test]
async fn a_log_that_a_history_has_lost_is_said_to_be_lost() {
    let (before, after) = (Other::start().await, Other::start().await);
    let server = Server::start_with(after).await;
    let (id, _, path) = queued(&server).await;
    before.write(id, 0..1).await;
    before.tell(&server).await;
    let page = server.get(&path).await.body;
    assert_eq!(page["problems"][0]["code"], "not_found", "{page}");
    assert_eq!(texts(&page), ["queued"]);
}

#[tokio::test]
async fn a_reader_follows_to_where_the_log_is_and_gets_each_event_once() {
    let other = Other::start().await;
    let server = Server::start_with(other.clone()).await;
    let (id, steps, path) = queued(&server).await;
    let mut events = Events::open(&server, &path, None).await;
    assert_eq!(events.next().await.expect("a step").data["text"], "queued");
    // Where the log is becomes known while somebody reads.
    other.history.flush_steps(id, &steps).await.expect("kept");
    other.write(id, 0..2).await;
    other.tell(&server).await;
    for n in 0..2 {
        let seen = events.next().await.expect("a line");
        assert_eq!(seen.data["text"], format!("line {n}"));
        assert_eq!(seen.id, Some(n + 2));
    }
    // Live, and through a time when it cannot be reached.
    other.write(id, 2..3).await;
    assert_eq!(events.next().await.expect("a line").data["text"], "line 2");
    other.is_away.store(true, Ordering::Relaxed);
    other.write(id, 3..4).await;
    let problem = events.next().await.expect("word of it");
    assert_eq!(
        (problem.name.as_str(), &problem.data["code"]),
        ("problem", &json!("unavailable"))
    );
    other.is_away.store(false, Ordering::Relaxed);
    assert_eq!(events.next().await.expect("a line").data["text"], "line 3");
    // It ends with what the state says here, though the other server has not heard of it.
    let canceled = server
        .post(&format!("/v1/deployments/{id}/cancel"), json!({}))
        .await;
    assert_eq!(canceled.status, 200, "{}", canceled.body);
    let mut last = Vec::new();
    while let Some(seen) = events.next().await {
        last.push(seen.name);
    }
    assert_eq!(last, ["step", "end"]);
}
