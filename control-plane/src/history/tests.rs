//! The history on a real SQLite file.

use std::path::Path;

use tokio::task::JoinHandle;

use super::*;

async fn open(path: &Path) -> (History, JoinHandle<()>) {
    let (history, writer) = History::open(path.to_str().expect("UTF-8"))
        .await
        .expect("location");
    (history, tokio::spawn(writer))
}

fn id(n: u128) -> DeploymentId {
    // Of now, whenever it is called: the daily sweep keeps it.
    static NOW: std::sync::LazyLock<u128> = std::sync::LazyLock::new(|| u128::from(now_ms()));
    DeploymentId::from_u128((*NOW << 80) | n)
}

fn lines(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|n| format!("line {n}")).collect()
}

fn steps(count: u64) -> Vec<Step> {
    (0..count)
        .map(|n| Step {
            at_ms: n,
            text: format!("step {n}"),
        })
        .collect()
}

#[tokio::test]
async fn lines_sent_again_are_kept_once_and_numbers_have_no_gap() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("odd name ?#%.db");
    let (history, writer) = open(&path).await;
    let deployment = id(1);
    assert_eq!(
        history
            .build_lines(deployment, 0, lines(0..3))
            .await
            .expect("kept"),
        3
    );
    assert_eq!(
        history
            .build_lines(deployment, 1, lines(1..5))
            .await
            .expect("kept"),
        5
    );
    assert_eq!(
        history
            .build_lines(deployment, 0, lines(0..2))
            .await
            .expect("kept"),
        5
    );
    history
        .flush_steps(deployment, &steps(2))
        .await
        .expect("kept");
    history
        .flush_steps(deployment, &steps(3))
        .await
        .expect("kept");
    history
        .build_lines(id(2), 0, lines(0..1))
        .await
        .expect("kept");
    let events = history.events(deployment, 0, 100).await.expect("read");
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=8).collect::<Vec<_>>());
    let texts: Vec<&str> = events.iter().map(|event| event.text.as_str()).collect();
    let expected = [
        "line 0", "line 1", "line 2", "line 3", "line 4", "step 0", "step 1", "step 2",
    ];
    assert_eq!(texts, expected);
    drop(history);
    writer.await.expect("ends when the last handle is gone");

    // After a restart numbers go on, and what is kept is still known to be.
    let (history, _writer) = open(&path).await;
    assert!(path.exists(), "the file has the name that was asked for");
    history
        .flush_steps(deployment, &steps(4))
        .await
        .expect("kept");
    let events = history.events(deployment, 8, 100).await.expect("read");
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].seq, events[0].kind), (9, EventKind::Step));
}

#[tokio::test]
async fn watchers_wake_for_their_deployment_only() {
    let dir = tempfile::tempdir().expect("dir");
    let (history, _writer) = open(&dir.path().join("h.db")).await;
    let (mut mine, other) = (history.watch(id(1)), history.watch(id(2)));
    history
        .build_lines(id(1), 0, lines(0..2))
        .await
        .expect("kept");
    tokio::time::timeout(Duration::from_secs(5), mine.changed())
        .await
        .expect("woken")
        .expect("open");
    assert_eq!(*mine.borrow(), 2);
    assert!(!other.has_changed().expect("open"));
}

#[tokio::test]
async fn long_lines_are_cut_and_long_logs_end_with_a_marker() {
    let dir = tempfile::tempdir().expect("dir");
    let (history, _writer) = open(&dir.path().join("h.db")).await;
    let deployment = id(1);
    let long = format!("{}ü\0{}", "x".repeat(MAX_TEXT - 11), "x".repeat(99));
    history
        .build_lines(deployment, 0, vec![long])
        .await
        .expect("kept");
    for first in [MAX_LINES - 1, MAX_LINES - 1, MAX_LINES + 4] {
        let next = history
            .build_lines(deployment, first, lines(0..3))
            .await
            .expect("kept");
        assert_eq!(
            next,
            first + 3,
            "what is beyond the limit is not sent again and again"
        );
    }
    history
        .flush_steps(deployment, &steps(1))
        .await
        .expect("kept");
    let events = history.events(deployment, 0, 100).await.expect("read");
    let texts: Vec<&str> = events.iter().map(|event| event.text.as_str()).collect();
    assert_eq!(texts.len(), 4, "{texts:?}");
    assert!(texts[0].len() <= MAX_TEXT && texts[0].ends_with("[cut]") && !texts[0].contains('\0'));
    assert_eq!((texts[1], texts[3]), ("line 0", "step 0"));
    assert!(texts[2].contains("100000 lines"), "{}", texts[2]);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_moved_aside() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("h.db");
    std::fs::write(
        &path,
        "this is not a database, whatever its name says".repeat(100),
    )
    .expect("write");
    let (history, _writer) = open(&path).await;
    history
        .build_lines(id(1), 0, lines(0..1))
        .await
        .expect("kept in a new file");
    assert_eq!(history.events(id(1), 0, 10).await.expect("read").len(), 1);
    assert!(damaged_files(dir.path()) >= 1);
}

#[tokio::test]
async fn a_file_damaged_while_open_is_replaced() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("h.db");
    let (history, writer) = open(&path).await;
    history
        .build_lines(id(1), 0, lines(0..200))
        .await
        .expect("kept");
    drop(history);
    writer.await.expect("checkpointed");
    let mut bytes = std::fs::read(&path).expect("read");
    // The first page stays: it opens, and breaks on use.
    bytes[4096..].fill(0x5a);
    std::fs::write(&path, bytes).expect("write");
    let (history, _writer) = open(&path).await;
    history
        .build_lines(id(2), 0, lines(0..1))
        .await
        .expect("kept in a new file");
    assert_eq!(history.events(id(2), 0, 10).await.expect("read").len(), 1);
    assert!(damaged_files(dir.path()) >= 1);
    assert!(history.health().is_ok);
}

fn damaged_files(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).expect("dir");
    entries
        .filter(|entry| {
            entry
                .as_ref()
                .expect("entry")
                .file_name()
                .to_string_lossy()
                .contains(".damaged-")
        })
        .count()
}

#[tokio::test]
async fn a_history_that_cannot_be_opened_fails_and_is_counted_but_holds_nothing_up() {
    let dir = tempfile::tempdir().expect("dir");
    let (history, _writer) = open(&dir.path().join("missing").join("h.db")).await;
    history.steps(id(1), &steps(1));
    let started = Instant::now();
    history
        .build_lines(id(1), 0, lines(0..1))
        .await
        .expect_err("no database");
    assert!(started.elapsed() < KEEP_DEADLINE);
    let health = history.health();
    assert!(
        !health.is_ok && health.failures >= 1 && health.dropped >= 1,
        "{health:?}"
    );
}

#[tokio::test]
async fn the_audit_trail_is_read_newest_first() {
    let dir = tempfile::tempdir().expect("dir");
    let (history, _writer) = open(&dir.path().join("h.db")).await;
    for n in 0..3 {
        history.audit(AuditEntry {
            at_ms: n,
            principal: "admin".into(),
            action: "deploy_service".into(),
            resource: format!("services/{n}"),
            outcome: "202".into(),
        });
        // Behind the audit in the queue: kept when this is.
        history
            .build_lines(id(1), n, lines(n..n + 1))
            .await
            .expect("kept");
        // Ids order by the millisecond.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let entries = history.audit_entries(2).await.expect("read");
    let resources: Vec<&str> = entries
        .iter()
        .map(|entry| entry.resource.as_str())
        .collect();
    assert_eq!(resources, ["services/2", "services/1"]);
}

#[tokio::test]
async fn what_is_old_is_deleted() {
    let dir = tempfile::tempdir().expect("dir");
    let (history, _writer) = open(&dir.path().join("h.db")).await;
    let old = DeploymentId::from_u128(u128::from(now_ms() - 200_000) << 80);
    for deployment in [old, id(1)] {
        history
            .build_lines(deployment, 0, lines(0..1))
            .await
            .expect("kept");
    }
    let pool = history.inner.pool().expect("open");
    assert_eq!(
        database::delete_before(&pool, now_ms() - 100_000)
            .await
            .expect("deleted"),
        1
    );
    assert!(history.events(old, 0, 1).await.expect("read").is_empty());
    assert_eq!(history.events(id(1), 0, 1).await.expect("read").len(), 1);
}

#[test]
fn locations() {
    assert!(matches!(
        Location::parse("postgres://u@h/d"),
        Ok(Location::Postgres(_))
    ));
    assert!(
        matches!(Location::parse("sqlite:///var/h.db"), Ok(Location::Sqlite(path)) if path == Path::new("/var/h.db"))
    );
    assert!(matches!(Location::parse("h.db"), Ok(Location::Sqlite(path)) if path.is_absolute()));
    for bad in ["", "sqlite://", "mysql://h/d"] {
        assert!(Location::parse(bad).is_err(), "{bad}");
    }
}
