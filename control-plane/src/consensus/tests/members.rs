//! Groups that grow, shrink and are replaced, while clients write.

use super::net::Net;
use super::*;
use skep_raft_core::members::{Plan, plan};
use skep_raft_core::{ConfChangeSingle, ConfChangeType, ConfChangeV2};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

/// A learner this close behind counts as caught up.
const NEAR: u64 = 50;

pub(super) fn change(steps: &[(u64, ConfChangeType)]) -> ConfChangeV2 {
    let singles: Vec<ConfChangeSingle> = steps
        .iter()
        .map(|&(node_id, kind)| {
            let mut single = ConfChangeSingle {
                node_id,
                ..ConfChangeSingle::default()
            };
            single.set_change_type(kind);
            single
        })
        .collect();
    ConfChangeV2 {
        changes: singles.into(),
        ..ConfChangeV2::default()
    }
}

/// As the leader's duty does it: plans and changes until nothing is left to do.
pub(super) async fn settle(net: &Net, wanted: &[u64]) -> Group {
    for _ in 0..2_000 {
        let (id, leader) = net.leader().await;
        let group = leader.group().borrow().clone();
        let caught_up: BTreeSet<u64> = group
            .peers
            .iter()
            .filter(|peer| peer.is_active && peer.matched + NEAR >= group.commit)
            .map(|peer| peer.member)
            .collect();
        let step = match plan(wanted, id, &group.members, &caught_up) {
            _ if !group.is_leader => Ok(()),
            Plan::Nothing => return group,
            Plan::Change(change) => leader.change_members(change).await,
            Plan::TransferFirst { to } => leader.transfer_leader(Some(to)).await,
            Plan::Wait(_) => Ok(()),
        };
        if let Err(error) = step {
            assert!(
                error.is_retryable() || matches!(error, handle::Error::Refused { .. }),
                "{error}"
            );
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{wanted:?} was never reached");
}

/// Writes numbers until told to stop, and says how many.
pub(super) fn write_on(net: &Net, next: Arc<AtomicU64>) -> (CancellationToken, JoinHandle<()>) {
    let (net, token) = (net.clone(), CancellationToken::new());
    let stop = token.clone();
    let task = tokio::spawn(async move {
        while !stop.is_cancelled() {
            let id = next.fetch_add(1, Ordering::Relaxed) + 1;
            net.insist(&id.to_string()).await;
        }
    });
    (token, task)
}

/// Everything written is in every view, in order; a retry may have doubled some.
pub(super) async fn check(servers: &BTreeMap<u64, Running>, written: u64) {
    for server in servers.values() {
        let mut seen = commands(&server.read().await);
        seen.dedup();
        assert_eq!(seen, names(1..=written), "server {}", server.id);
    }
}

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

#[tokio::test(flavor = "multi_thread")]
async fn one_server_becomes_three_then_five_then_three_then_one_under_load() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    let next = Arc::new(AtomicU64::new(0));
    let mut servers = BTreeMap::from([(1, net.start(root.path(), 1, often))]);
    let (stop, writer) = write_on(&net, next.clone());
    let steps: [&[u64]; 7] = [
        &[1, 2],
        &[1, 2, 3],
        &[1, 2, 3, 4, 5],
        // Member 3's data is lost: its server comes back as member 6.
        &[1, 2, 4, 5, 6],
        // The first leader goes too.
        &[2, 4, 5, 6],
        &[4, 6],
        &[6],
    ];
    for wanted in steps {
        for id in wanted {
            if !servers.contains_key(id) {
                servers.insert(*id, join(&net, root.path(), *id));
            }
        }
        let group = settle(&net, wanted).await;
        let voters = [0, 1, 1, 3, 3, 5][wanted.len()];
        assert_eq!(group.members.voters.len(), voters, "{wanted:?}: {group:?}");
        let gone: Vec<u64> = servers
            .keys()
            .copied()
            .filter(|id| !wanted.contains(id))
            .collect();
        for id in gone {
            net.stop(servers.remove(&id).unwrap()).await;
        }
    }
    stop.cancel();
    writer.await.unwrap();
    check(&servers, next.load(Ordering::Relaxed)).await;
    let last = servers.remove(&6).unwrap();
    assert!(last.handle.metrics().snapshots_installed >= 1);
    last.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_server_may_restart_between_any_two_steps_of_a_change() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    let mut servers = BTreeMap::from([(1, net.start(root.path(), 1, often))]);
    for id in 1..=100_u64 {
        net.insist(&id.to_string()).await;
    }
    for id in 2..=3 {
        servers.insert(id, join(&net, root.path(), id));
    }
    let mut written = 100;
    for _ in 0..40 {
        let (id, leader) = net.leader().await;
        let group = leader.group().borrow().clone();
        let peers = group.peers.iter();
        let caught_up = peers
            .filter(|peer| peer.is_active && peer.matched + NEAR >= group.commit)
            .map(|peer| peer.member)
            .collect();
        match plan(&[1, 2, 3], id, &group.members, &caught_up) {
            Plan::Nothing => break,
            Plan::Change(change) => {
                // Whatever became of it, the next round sees.
                let _maybe = leader.change_members(change).await;
                for id in 1..=3 {
                    net.stop(servers.remove(&id).unwrap()).await;
                    servers.insert(id, join(&net, root.path(), id));
                }
                written += 1;
                net.insist(&written.to_string()).await;
            }
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    let group = settle(&net, &[1, 2, 3]).await;
    assert_eq!(group.members.voters, [1, 2, 3]);
    check(&servers, written).await;
    for server in servers.into_values() {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_makes_no_sense_is_refused_and_stops_nobody() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    let server = net.start(root.path(), 1, often);
    let bad = [
        change(&[(1, ConfChangeType::RemoveNode)]),
        // Leaving a joint membership that is not joint.
        ConfChangeV2::default(),
    ];
    for change in bad {
        let refused = server.handle.change_members(change).await;
        assert!(
            matches!(refused, Err(handle::Error::Refused { .. })),
            "{refused:?}"
        );
    }
    net.insist("a").await;
    let learner = change(&[(2, ConfChangeType::AddLearnerNode)]);
    server.handle.change_members(learner).await.unwrap();
    assert_eq!(server.handle.group().borrow().members.learners, [2]);
    // A learner does not vote, and is not waited for.
    net.insist("b").await;
    net.stop(server).await;
    let server = net.start(root.path(), 1, often);
    assert!(server.handle.leadership().borrow().is_leader, "at once");
    net.insist("c").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_survivor_becomes_the_whole_group_and_keeps_what_it_has() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    let mut servers: BTreeMap<u64, Running> = (1..=3)
        .map(|id| {
            let start = |options: &mut Options| {
                often(options);
                options.founders = vec![1, 2, 3];
            };
            (id, net.start(root.path(), id, start))
        })
        .collect();
    for id in 1..=100_u64 {
        net.insist(&id.to_string()).await;
    }
    for server in servers.values() {
        server.read().await;
    }
    for id in 1..=3 {
        net.stop(servers.remove(&id).unwrap()).await;
    }
    let dir = root.path().join("2");
    let found = offline::inspect(&dir).unwrap();
    assert_eq!((found.member, found.members.voters.len()), (2, 3));
    assert!(found.snapshot.is_some());
    let sole = offline::make_sole_member(&dir).unwrap();
    assert_eq!(
        (&sole.members.voters[..], &sole.members.learners[..]),
        (&[2][..], &[][..])
    );
    assert!(sole.term > found.term);
    let survivor = net.start(root.path(), 2, often);
    assert!(survivor.handle.leadership().borrow().is_leader, "at once");
    net.insist("101").await;
    check(&BTreeMap::from([(2, survivor)]), 101).await;
}
