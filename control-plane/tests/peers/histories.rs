//! Audit and timelines are at every server, wherever they were written; build logs are read where
//! they are.

use skep_control_plane::history::{Ask, AuditEntry, Elsewhere as _, History};
use skep_model::deployment::Step;
use skep_model::id::DeploymentId;
use skep_model::problem::Code;

use crate::world::{MEMBERS, PATIENCE, World, server_id};

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(now.unwrap().as_millis()).unwrap()
}

fn deployment() -> DeploymentId {
    DeploymentId::from_u128(u128::from(now_ms()) << 80)
}

fn note(history: &History, resource: &str) {
    history.audit(AuditEntry {
        at_ms: now_ms(),
        principal: "admin".into(),
        action: "put_service".into(),
        resource: resource.into(),
        outcome: "200".into(),
    });
}

/// Waits until a server's audit trail has these, in any order.
async fn audited(world: &World, member: u64, resources: &[&str]) {
    let history = &world.servers[&member].history;
    let copied = async {
        loop {
            let entries = history.audit_entries(100).await.unwrap_or_default();
            let mut found: Vec<_> = entries.iter().map(|entry| &*entry.resource).collect();
            found.sort_unstable();
            if found == resources {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, copied).await;
    assert!(done.is_ok(), "never at server {member}: {resources:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_noted_at_one_server_is_at_all_and_comes_back_after_a_loss() {
    let mut world = World::start().await;
    note(&world.servers[&1].history, "a");
    note(&world.servers[&2].history, "b");
    for member in MEMBERS {
        audited(&world, member, &["a", "b"]).await;
    }
    // One is away while another writes, then that one is gone, too: the third passes it on.
    world.stop_server(3).await;
    note(&world.servers[&1].history, "c");
    audited(&world, 2, &["a", "b", "c"]).await;
    world.stop_server(1).await;
    // And its file is lost meanwhile.
    let file = world.history_file(3);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
    }
    world.start_server(3).await;
    audited(&world, 3, &["a", "b", "c"]).await;
    // The first one's file is lost as well: its own entries come from the others.
    let file = world.history_file(1);
    std::fs::write(&file, "no database".repeat(1_000)).unwrap();
    world.start_server(1).await;
    audited(&world, 1, &["a", "b", "c"]).await;
    note(&world.servers[&1].history, "d");
    for member in MEMBERS {
        audited(&world, member, &["a", "b", "c", "d"]).await;
    }
    let behind = world.servers[&2].history.behind();
    assert!(behind.contains_key(&server_id(1)), "{behind:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_log_is_read_at_the_server_that_has_it_as_it_grows() {
    let mut world = World::start().await;
    let id = deployment();
    let (holder, reader) = (
        world.servers[&1].history.clone(),
        world.servers[&2].history.clone(),
    );
    let mut located = reader.watch(id);
    let step = Step {
        at_ms: now_ms(),
        text: "building".into(),
    };
    holder.steps(id, &[step]);
    let lines = |range: std::ops::Range<u32>| range.map(|n| format!("line {n}")).collect();
    holder.build_lines(id, 1, 0, lines(0..2)).await.unwrap();
    let holders = async {
        loop {
            let found = reader.holders(id).await.unwrap();
            if let Some(holder) = found.first() {
                return *holder;
            }
            located.changed().await.unwrap();
        }
    };
    let found = tokio::time::timeout(PATIENCE, holders).await.expect("told");
    assert!(found.server == server_id(1) && !found.is_here);

    let fetcher = world.servers[&2].fetcher.clone();
    let ask = move |after, wait| Ask {
        deployment: id,
        after,
        limit: 100,
        wait,
        index: 0,
    };
    let page = fetcher.events(found.server, ask(1, false)).await.unwrap();
    assert!(page.holds_log && page.steps_before == 1);
    let texts: Vec<_> = page.events.iter().map(|event| &*event.text).collect();
    assert_eq!(texts, ["line 0", "line 1"]);
    // Who waits is told at once.
    let waiting = tokio::spawn({
        let fetcher = fetcher.clone();
        async move { fetcher.events(server_id(1), ask(3, true)).await }
    });
    holder.build_lines(id, 1, 2, lines(2..3)).await.unwrap();
    let page = tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    let page = page.unwrap().unwrap();
    assert_eq!(page.events[0].text, "line 2");
    assert_eq!(
        reader.events(id, 0, 100).await.unwrap().len(),
        1,
        "no line is copied"
    );

    world.stop_server(1).await;
    let away = fetcher.events(found.server, ask(0, false)).await;
    assert_eq!(away.unwrap_err().code, Code::Unavailable);
    assert_eq!(reader.events(id, 0, 100).await.unwrap()[0].text, "building");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_know_the_call_is_left_out_and_the_others_go_on() {
    let mut world = World::prepare(10_000).await;
    let _older = world.start_older(2).await;
    world.start_server(1).await;
    note(&world.servers[&1].history, "a");
    let fetcher = world.servers[&1].fetcher.clone();
    let ask = Ask {
        deployment: deployment(),
        after: 0,
        limit: 1,
        wait: false,
        index: 0,
    };
    let refused = fetcher.events(server_id(2), ask).await.unwrap_err();
    assert!(refused.message.contains("older version"), "{refused}");
    world.start_server(3).await;
    audited(&world, 3, &["a"]).await;
    let behind = world.servers[&3].history.behind();
    assert!(!behind.contains_key(&server_id(2)), "{behind:?}");
}
