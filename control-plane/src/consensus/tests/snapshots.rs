//! Snapshots between servers: taken in, broken off, damaged, and crashed upon.

use super::members::{change, check, write_on};
use super::net::Net;
use super::*;
use skep_raft_core::ConfChangeType;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

fn often(options: &mut Options) {
    options.snapshot_entries = 40;
    options.tail_entries = 5;
}

fn join(net: &Net, root: &Path, id: u64) -> Running {
    net.start(root, id, |options| {
        often(options);
        options.join = true;
    })
}

/// A leader with commands 1 to `count`, and an empty learner that it is to know from now on.
async fn with_learner(net: &Net, root: &Path, count: u64) -> BTreeMap<u64, Running> {
    let leader = net.start(root, 1, often);
    leader.propose(1..=count).await;
    let learner = join(net, root, 2);
    let add = change(&[(2, ConfChangeType::AddLearnerNode)]);
    leader.handle.change_members(add).await.unwrap();
    BTreeMap::from([(1, leader), (2, learner)])
}

async fn caught_up(servers: &BTreeMap<u64, Running>, id: u64) {
    until(|| servers[&id].handle.view() == servers[&1].handle.view()).await;
}

async fn stop(servers: BTreeMap<u64, Running>) {
    for server in servers.into_values() {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_learner_starts_from_a_snapshot_and_tells_its_followers() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    let leader = net.start(root.path(), 1, often);
    leader.propose(1..=100).await;
    let learner = join(&net, root.path(), 2);
    let mut feed = learner.handle.changes();
    let add = change(&[(2, ConfChangeType::AddLearnerNode)]);
    leader.handle.change_members(add).await.unwrap();
    let batch = feed.recv().await.unwrap();
    assert!(batch.is_reset);
    assert!(learner.handle.view_indexed().0 >= batch.index);
    let servers = BTreeMap::from([(1, leader), (2, learner)]);
    caught_up(&servers, 2).await;
    servers[&1].propose(101..=103).await;
    caught_up(&servers, 2).await;
    assert!(!feed.recv().await.unwrap().is_reset, "then changes follow");
    assert_eq!(servers[&2].handle.metrics().snapshots_installed, 1);
    check(&servers, 103).await;
    stop(servers).await;
    // What was installed is as good as what was applied.
    let again = net.start(root.path(), 2, often);
    assert_eq!(commands(&again.handle.view()), names(1..=103));
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_catches_up_while_others_write() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    let start = |id| {
        net.start(root.path(), id, |options: &mut Options| {
            often(options);
            options.founders = vec![1, 2, 3];
        })
    };
    let mut servers: BTreeMap<u64, Running> = (1..=3).map(|id| (id, start(id))).collect();
    let next = Arc::new(AtomicU64::new(0));
    let (token, writer) = write_on(&net, next.clone());
    for _ in 0..3 {
        let (first, _) = net.leader().await;
        let away = first % 3 + 1;
        until(|| net.is_active(away) == Some(true)).await;
        net.stop(servers.remove(&away).unwrap()).await;
        // For as long as it seems alive, the log is kept for it.
        until(|| net.is_active(away) == Some(false)).await;
        let gone_at = next.load(Ordering::Relaxed);
        until(|| next.load(Ordering::Relaxed) > gone_at + 100).await;
        let back = start(away);
        let lag = || {
            let next = next.load(Ordering::Relaxed) as usize;
            next.saturating_sub(back.handle.view().len())
        };
        until(|| lag() < 10).await;
        let (_, leader) = net.leader().await;
        assert!(
            back.handle.metrics().snapshots_installed >= 1,
            "{away} left at {gone_at}: {:?}, {:?}",
            leader.group().borrow(),
            net.transfers(),
        );
        servers.insert(away, back);
    }
    token.cancel();
    writer.await.unwrap();
    check(&servers, next.load(Ordering::Relaxed)).await;
    stop(servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_breaks_off_goes_on_where_it_was() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    net.break_after(&[256, 512]);
    let servers = with_learner(&net, root.path(), 200).await;
    caught_up(&servers, 2).await;
    until(|| net.transfers().len() == 3).await;
    let transfers = net.transfers();
    let begins: Vec<u64> = transfers.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(begins, [0, 256, 512], "{transfers:?}");
    assert!(transfers[2].1.is_ok(), "{transfers:?}");
    check(&servers, 200).await;
    stop(servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_goes_on_after_a_restart_of_the_receiver() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    net.break_after(&[320; 4]);
    let mut servers = with_learner(&net, root.path(), 200).await;
    until(|| !net.transfers().is_empty()).await;
    net.cut(2);
    net.stop(servers.remove(&2).unwrap()).await;
    net.break_after(&[]);
    servers.insert(2, join(&net, root.path(), 2));
    net.heal(2);
    caught_up(&servers, 2).await;
    until(|| net.transfers().iter().any(|(_, end)| end.is_ok())).await;
    let last = net.transfers().into_iter().rfind(|(_, end)| end.is_ok());
    assert_eq!(
        last.map(|(offset, _)| offset),
        Some(320),
        "{:?}",
        net.transfers()
    );
    stop(servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_found_and_the_whole_is_sent_again() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    net.flip_at(700);
    let servers = with_learner(&net, root.path(), 200).await;
    caught_up(&servers, 2).await;
    until(|| net.transfers().len() == 2).await;
    let transfers = net.transfers();
    let refused = transfers[0].1.as_ref().expect_err("refused");
    assert!(refused.contains("checksum"), "{refused}");
    assert_eq!(transfers[1], (0, Ok(())), "{transfers:?}");
    check(&servers, 200).await;
    stop(servers).await;
}

fn snapshot_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let listing = std::fs::read_dir(dir.join("snapshots")).unwrap();
    let mut files: Vec<_> = listing.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_log_and_name_is_made_good() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    let servers = with_learner(&net, root.path(), 30).await;
    caught_up(&servers, 2).await;
    stop(servers).await;
    let dir = root.path().join("2");
    let files = snapshot_files(&dir);
    let [snapshot] = &files[..] else {
        panic!("{files:?}");
    };
    let staged = snapshot.with_extension("staged");
    std::fs::rename(snapshot, &staged).unwrap();
    let again = net.start(root.path(), 2, often);
    assert_eq!(commands(&again.handle.view()), names(1..=30));
    again.stop().await;
    assert!(snapshot.exists() && !staged.exists());
    // The other way round, the log has not seen it: it is forgotten, and sent again.
    let other = dir.join("snapshots/00000000000000009999.staged");
    std::fs::copy(snapshot, &other).unwrap();
    net.start(root.path(), 2, often).stop().await;
    assert!(!other.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_attempt_is_superseded_and_more_than_offered_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    let server = net.start(root.path(), 1, |options| options.join = true);
    let offer = SnapshotOffer {
        from: 2,
        index: 50,
        term: 3,
        bytes: 10,
        crc32: 7,
    };
    let mut first = server.handle.receive_snapshot(offer).unwrap();
    first.write(b"12345").unwrap();
    let mut second = server.handle.receive_snapshot(offer).unwrap();
    assert_eq!(second.offset(), 5);
    let late = first.write(b"6").unwrap_err();
    assert!(matches!(late, incoming::Error::Superseded), "{late}");
    let more = second.write(b"678901").unwrap_err();
    assert!(matches!(more, incoming::Error::Length { .. }), "{more}");
    assert_eq!(second.offset(), 5);
    let short = second.finish(Vec::new()).unwrap_err();
    assert!(matches!(short, incoming::Error::Length { .. }), "{short}");
    let other = server
        .handle
        .receive_snapshot(SnapshotOffer { index: 60, ..offer });
    assert_eq!(other.unwrap().offset(), 0);
    assert_eq!(
        snapshot_files(&root.path().join("1")).len(),
        1,
        "one at a time"
    );
    server.stop().await;
}

/// Takes its time to encode.
struct Slow(Recorder);

impl StateMachine for Slow {
    type View = <Recorder as StateMachine>::View;
    type Outcome = usize;
    type Change = String;

    fn apply(&mut self, index: u64, command: &[u8]) -> (usize, Vec<String>) {
        self.0.apply(index, command)
    }

    fn view(&self) -> Self::View {
        self.0.view()
    }

    fn encode(view: &Self::View) -> Vec<u8> {
        std::thread::sleep(Duration::from_secs(2));
        Recorder::encode(view)
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.0.restore(bytes)
    }

    fn encode_outcome(outcome: &usize) -> Vec<u8> {
        Recorder::encode_outcome(outcome)
    }

    fn decode_outcome(bytes: &[u8]) -> Result<usize, String> {
        Recorder::decode_outcome(bytes)
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_slow_snapshot_and_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let mut options = options(root.path());
    often(&mut options);
    options.stop_deadline = Duration::from_millis(50);
    let (service, handle) = Service::open(
        options.clone(),
        Slow(Recorder::default()),
        Box::new(NoPeers),
    )
    .unwrap();
    let token = CancellationToken::new();
    let task = tokio::spawn(service.run(token.clone()));
    for id in 1..=60_u64 {
        handle.propose(id.to_string().into_bytes()).await.unwrap();
    }
    let before = std::time::Instant::now();
    token.cancel();
    task.await.unwrap().unwrap();
    assert!(
        before.elapsed() < Duration::from_secs(1),
        "{:?}",
        before.elapsed()
    );
    let again = || Service::open(options.clone(), Recorder::default(), Box::new(NoPeers));
    assert!(
        matches!(again(), Err(Error::InUse { .. })),
        "the thread still writes there"
    );
    // The one that is let in is kept: dropped, its own threads hold the folder for a moment.
    let opened = std::cell::RefCell::new(None);
    until(|| match again() {
        Err(Error::InUse { .. }) => false,
        other => opened.replace(Some(other)).is_none(),
    })
    .await;
    let (_service, handle) = opened.take().expect("it came true").unwrap();
    assert_eq!(commands(&handle.view()), names(1..=60));
}
