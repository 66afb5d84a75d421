//! What only a file can do: be damaged, be missing, and go on.

use std::path::Path;

use super::*;

async fn open(path: &Path) -> (History, JoinHandle<()>) {
    super::open(path.to_str().expect("UTF-8")).await
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
        .build_lines(id(1), 0, 0, lines(0..1))
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
        .build_lines(id(1), 0, 0, lines(0..200))
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
        .build_lines(id(2), 0, 0, lines(0..1))
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
        .build_lines(id(1), 0, 0, lines(0..1))
        .await
        .expect_err("no database");
    assert!(started.elapsed() < KEEP_DEADLINE);
    let health = history.health();
    assert!(
        !health.is_ok && health.failures >= 1 && health.dropped >= 1,
        "{health:?}"
    );
}
