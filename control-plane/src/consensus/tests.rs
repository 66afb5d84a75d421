//! The whole component on a real disk, with a machine small enough to check by eye.

use super::handle::{self, CHANGE_FEED};
use super::log::MemoryLog;
use super::service::Error;
use super::*;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod faults;
mod group;
mod kill;
mod members;
mod net;
mod snapshots;

/// Remembers every command: what is lost, doubled or out of order shows.
#[derive(Default)]
struct Recorder {
    seen: Arc<Vec<(u64, String)>>,
}

impl StateMachine for Recorder {
    type View = Arc<Vec<(u64, String)>>;
    type Outcome = usize;
    type Change = String;

    fn apply(&mut self, index: u64, command: &[u8]) -> (usize, Vec<String>) {
        let command = String::from_utf8_lossy(command).into_owned();
        Arc::make_mut(&mut self.seen).push((index, command.clone()));
        (self.seen.len(), vec![command])
    }

    fn view(&self) -> Self::View {
        self.seen.clone()
    }

    fn encode(view: &Self::View) -> Vec<u8> {
        view.iter()
            .map(|(index, command)| format!("{index} {command}\n"))
            .collect::<String>()
            .into()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let parse = |line: &str| {
            let (index, command) = line.split_once(' ')?;
            Some((index.parse().ok()?, command.to_owned()))
        };
        let lines: Option<Vec<_>> = text.lines().map(parse).collect();
        self.seen = Arc::new(lines.ok_or("not a list of commands")?);
        Ok(())
    }

    fn encode_outcome(outcome: &usize) -> Vec<u8> {
        outcome.to_string().into_bytes()
    }

    fn decode_outcome(bytes: &[u8]) -> Result<usize, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        text.parse().map_err(|_| format!("{text} is no count"))
    }
}

struct Running {
    id: u64,
    handle: Handle<Recorder>,
    token: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn start(options: Options) -> Self {
        let (service, handle) =
            Service::open(options, Recorder::default(), Box::new(NoPeers)).expect("opens");
        let token = CancellationToken::new();
        let task = tokio::spawn(service.run(token.clone()));
        Self {
            id: 1,
            handle,
            token,
            task,
        }
    }

    /// Linearizable, as soon as there is a leader to ask.
    async fn read(&self) -> Arc<Vec<(u64, String)>> {
        for _ in 0..1_000 {
            match self.handle.read().await {
                Ok(view) => return view,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("there is no leader to ask");
    }

    async fn stop(self) {
        self.token.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn propose(&self, range: std::ops::RangeInclusive<u64>) {
        for id in range {
            self.handle
                .propose(id.to_string().into_bytes())
                .await
                .unwrap();
        }
    }

    /// Waits for the newest snapshot to be at `index` or later.
    async fn snapshot_at(&self, index: u64) {
        until(|| self.handle.metrics().last_snapshot_index >= index).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("it never came true");
}

fn options(dir: &Path) -> Options {
    Options {
        snapshot_entries: 1_000_000,
        ..Options::new(1, dir.join("data"))
    }
}

fn often(dir: &Path) -> Options {
    Options {
        snapshot_entries: 20,
        tail_entries: 5,
        ..options(dir)
    }
}

fn commands(view: &[(u64, String)]) -> Vec<String> {
    view.iter().map(|(_, command)| command.clone()).collect()
}

fn names(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|id| id.to_string()).collect()
}

#[tokio::test]
async fn a_group_of_one_leads_on_return_from_open_and_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    for run in 1..=3 {
        let (service, handle) =
            Service::open(options(root.path()), Recorder::default(), Box::new(NoPeers)).unwrap();
        let leadership = *handle.leadership().borrow();
        assert!(leadership.is_leader);
        assert_eq!(leadership.term, 1 + run);
        assert_eq!(commands(&handle.view()), names(1..=(run - 1) * 10));
        let token = CancellationToken::new();
        let running = Running {
            id: 1,
            handle,
            task: tokio::spawn(service.run(token.clone())),
            token,
        };
        running.propose((run - 1) * 10 + 1..=run * 10).await;
        assert_eq!(commands(&running.handle.view()), names(1..=run * 10));
        let handle = running.handle.clone();
        running.stop().await;
        assert!(!handle.leadership().borrow().is_leader);
        assert_eq!(
            handle.propose(b"late".to_vec()).await,
            Err(handle::Error::Stopped)
        );
    }
}

#[tokio::test]
async fn proposers_get_their_own_outcomes() {
    let root = tempfile::tempdir().unwrap();
    let running = Running::start(options(root.path()));
    for expected in 1..=5 {
        assert_eq!(running.handle.propose(b"x".to_vec()).await, Ok(expected));
    }
    let many = vec![0; MAX_COMMAND_BYTES + 1];
    let bytes = many.len();
    assert_eq!(
        running.handle.propose(many).await,
        Err(handle::Error::TooLarge { bytes })
    );
    assert_eq!(
        running.handle.propose(Vec::new()).await,
        Err(handle::Error::Empty)
    );
    assert_eq!(
        running.handle.propose(vec![b'y'; MAX_COMMAND_BYTES]).await,
        Ok(6)
    );
    running.stop().await;
}

#[tokio::test]
async fn snapshots_bound_log_and_files_and_a_restart_goes_on_behind_them() {
    let root = tempfile::tempdir().unwrap();
    let running = Running::start(often(root.path()));
    for round in 1..=5 {
        running.propose((round - 1) * 20 + 1..=round * 20).await;
        running.snapshot_at(round * 20).await;
    }
    running.propose(101..=103).await;
    let metrics = running.handle.metrics();
    assert!(metrics.log_entries <= 5, "{metrics:?}");
    assert_eq!(metrics.snapshot_failures, 0);
    running.stop().await;
    let data = root.path().join("data");
    let files = std::fs::read_dir(data.join("snapshots")).unwrap().count();
    assert_eq!(files, 2);
    let log = log::EngineLog::open(&data.join("log"), &data.join("log.mark")).unwrap();
    let loaded = log::LogStore::load(&log).unwrap().unwrap();
    drop(log);
    assert!(loaded.origin.position.index >= 80, "{:?}", loaded.origin);
    assert!(loaded.entries.len() < 60, "{}", loaded.entries.len());
    let running = Running::start(often(root.path()));
    assert_eq!(commands(&running.handle.view()), names(1..=103));
    running.propose(104..=110).await;
    assert_eq!(commands(&running.handle.view()), names(1..=110));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_proposals_at_once_share_their_fsyncs() {
    let root = tempfile::tempdir().unwrap();
    let running = Running::start(options(root.path()));
    let before = running.handle.metrics();
    let proposals: Vec<_> = (0..1_000)
        .map(|id: u64| {
            let handle = running.handle.clone();
            tokio::spawn(async move { handle.propose(id.to_string().into_bytes()).await })
        })
        .collect();
    for proposal in proposals {
        proposal.await.unwrap().unwrap();
    }
    let after = running.handle.metrics();
    assert_eq!(after.proposals - before.proposals, 1_000);
    let fsyncs = after.fsyncs - before.fsyncs;
    assert!(fsyncs < 250, "{fsyncs} fsyncs for 1000 proposals");
    assert_eq!(running.handle.view().len(), 1_000);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_never_older_than_a_batch_or_an_index_or_an_answer() {
    let root = tempfile::tempdir().unwrap();
    let running = Running::start(options(root.path()));
    let mut changes = running.handle.changes();
    let mut applied = running.handle.applied();
    let handle = running.handle.clone();
    let follower = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < 500 {
            tokio::select! {
                batch = changes.recv() => {
                    let batch = batch.unwrap();
                    assert!(handle.view_indexed().0 >= batch.index);
                    seen.extend(batch.changes.iter().cloned());
                }
                moved = applied.changed() => {
                    moved.unwrap();
                    let index = *applied.borrow_and_update();
                    assert!(handle.view_indexed().0 >= index);
                }
            }
        }
        seen
    });
    for id in 1..=500_u64 {
        let count = running
            .handle
            .propose(id.to_string().into_bytes())
            .await
            .unwrap();
        assert!(running.handle.view().len() >= count);
        if id % 50 == 0 {
            assert!(running.handle.read().await.unwrap().len() >= count);
        }
    }
    assert_eq!(follower.await.unwrap(), names(1..=500));
    running.stop().await;
}

#[tokio::test]
async fn a_follower_of_the_feed_that_lags_is_told_and_starts_again_from_a_view() {
    use tokio::sync::broadcast::error::RecvError;
    let root = tempfile::tempdir().unwrap();
    let running = Running::start(options(root.path()));
    let mut changes = running.handle.changes();
    let last = CHANGE_FEED as u64 + 100;
    running.propose(1..=last).await;
    assert!(matches!(changes.recv().await, Err(RecvError::Lagged(_))));
    let mut changes = running.handle.changes();
    let (index, view) = running.handle.view_indexed();
    let mut state = commands(&view);
    running.propose(last + 1..=last + 5).await;
    while state.len() < last as usize + 5 {
        let batch = changes.recv().await.unwrap();
        if batch.index > index {
            state.extend(batch.changes.iter().cloned());
        }
    }
    assert_eq!(state, names(1..=last + 5));
    running.stop().await;
}

#[tokio::test]
async fn dropping_the_future_stops_the_thread_and_frees_the_directory() {
    let root = tempfile::tempdir().unwrap();
    let running = Running::start(options(root.path()));
    running.propose(1..=3).await;
    running.task.abort();
    let again = || Service::open(options(root.path()), Recorder::default(), Box::new(NoPeers));
    until(|| !matches!(again(), Err(Error::InUse { .. }))).await;
    assert_eq!(commands(&again().unwrap().1.view()), names(1..=3));
}

#[tokio::test]
async fn the_log_in_memory_serves_as_well() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryLog::default());
    for run in 1..=3_u64 {
        let (service, handle) = Service::open_with_log(
            often(root.path()),
            store.clone(),
            Recorder::default(),
            Box::new(NoPeers),
        )
        .unwrap();
        assert_eq!(commands(&handle.view()), names(1..=(run - 1) * 50));
        let token = CancellationToken::new();
        let running = Running {
            id: 1,
            handle,
            task: tokio::spawn(service.run(token.clone())),
            token,
        };
        running.propose((run - 1) * 50 + 1..=run * 50).await;
        running.stop().await;
    }
}
