//! Damaged, missing and foreign data: each is named, none is guessed around.

use super::*;

fn open(options: Options) -> Result<Vec<String>, Error> {
    let (_service, handle) = Service::open(options, Recorder::default(), Box::new(NoPeers))?;
    Ok(commands(&handle.view()))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

fn refusal(options: Options) -> String {
    chain(&open(options).expect_err("refused"))
}

/// A stopped server with 75 commands and two snapshots.
async fn filled(root: &Path) -> Vec<std::path::PathBuf> {
    let running = Running::start(often(root));
    for round in 1..=3 {
        running.propose((round - 1) * 25 + 1..=round * 25).await;
        running.snapshot_at(round * 20).await;
    }
    running.stop().await;
    let mut snapshots: Vec<_> = std::fs::read_dir(root.join("data/snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    snapshots.sort();
    assert_eq!(snapshots.len(), 2);
    snapshots
}

fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_newest_snapshot_costs_nothing() {
    let root = tempfile::tempdir().unwrap();
    let snapshots = filled(root.path()).await;
    spoil(&snapshots[1]);
    assert_eq!(open(options(root.path())).unwrap(), names(1..=75));
    assert!(!snapshots[1].exists(), "it was set aside");
    assert!(snapshots[1].with_extension("damaged").exists());
    assert_eq!(open(options(root.path())).unwrap(), names(1..=75));
}

#[tokio::test]
async fn without_any_sound_snapshot_the_server_says_so_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let snapshots = filled(root.path()).await;
    snapshots.iter().for_each(|path| spoil(path));
    for _ in 0..2 {
        let error = refusal(options(root.path()));
        assert!(error.contains("needs a snapshot"), "{error}");
        for path in &snapshots {
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
            assert!(path.exists());
        }
    }
}

#[tokio::test]
async fn a_snapshot_that_ends_before_the_log_begins_is_no_base() {
    let root = tempfile::tempdir().unwrap();
    let paths = filled(root.path()).await;
    let snapshots = snapshot::Snapshots::open(&root.path().join("data/snapshots")).unwrap();
    let mut newest = snapshots.load().unwrap().newest.unwrap();
    for path in paths {
        std::fs::remove_file(path).unwrap();
    }
    newest.taken.position.index = 5;
    snapshots.write(&newest.taken, &newest.state).unwrap();
    let error = refusal(options(root.path()));
    assert!(
        error.contains("the newest readable one ends at 5"),
        "{error}"
    );
}

#[tokio::test]
async fn a_lost_first_snapshot_is_replayed_from_the_log() {
    let root = tempfile::tempdir().unwrap();
    let running = Running::start(often(root.path()));
    running.propose(1..=22).await;
    running.snapshot_at(20).await;
    running.stop().await;
    std::fs::remove_dir_all(root.path().join("data/snapshots")).unwrap();
    assert_eq!(open(options(root.path())).unwrap(), names(1..=22));
}

#[tokio::test]
async fn a_snapshot_that_the_machine_cannot_read_is_named() {
    let root = tempfile::tempdir().unwrap();
    filled(root.path()).await;
    let snapshots = snapshot::Snapshots::open(&root.path().join("data/snapshots")).unwrap();
    let newest = snapshots.load().unwrap().newest.unwrap();
    snapshots.write(&newest.taken, b"nonsense\n").unwrap();
    let error = refusal(options(root.path()));
    assert!(error.contains("not a list of commands"), "{error}");
    assert!(
        error.contains(
            &*snapshots
                .path(newest.taken.position.index)
                .to_string_lossy()
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_damaged_log_is_reported_and_not_started_from() {
    let root = tempfile::tempdir().unwrap();
    filled(root.path()).await;
    let log = root.path().join("data/log");
    let file = std::fs::read_dir(&log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|kind| kind == "raftlog"))
        .unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 40] ^= 0xff;
    std::fs::write(&file, bytes).unwrap();
    let error = refusal(options(root.path()));
    assert!(error.contains(&*file.to_string_lossy()), "{error}");
    assert!(
        error.contains("acknowledged") && error.contains("skep server rebuild"),
        "{error}"
    );
}

#[tokio::test]
async fn a_log_behind_its_snapshot_is_refused() {
    let root = tempfile::tempdir().unwrap();
    filled(root.path()).await;
    let snapshots = snapshot::Snapshots::open(&root.path().join("data/snapshots")).unwrap();
    let mut newest = snapshots.load().unwrap().newest.unwrap();
    newest.taken.position.index += 1_000;
    snapshots.write(&newest.taken, &newest.state).unwrap();
    let error = refusal(options(root.path()));
    assert!(
        error.contains("do not fit together") && error.contains("the log covers"),
        "{error}"
    );
}

#[tokio::test]
async fn missing_foreign_and_busy_directories_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let error = refusal(Options {
        create: false,
        ..options(root.path())
    });
    assert!(error.contains("has run before"), "{error}");
    filled(root.path()).await;
    let error = refusal(Options {
        id: 2,
        ..options(root.path())
    });
    assert!(
        error.contains("log of server 1, this is server 2"),
        "{error}"
    );
    let running = Running::start(options(root.path()));
    let error = refusal(options(root.path()));
    assert!(error.contains("in use by another process"), "{error}");
    running.stop().await;
    std::fs::remove_dir_all(root.path().join("data/log")).unwrap();
    std::fs::remove_file(root.path().join("data/log.mark")).unwrap();
    let error = refusal(options(root.path()));
    assert!(error.contains("snapshots but no Raft log"), "{error}");
}
