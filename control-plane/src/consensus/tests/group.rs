//! Three servers on one wire: elections, hand-over, and what a server says that cannot act.

use super::net::Net;
use super::*;

fn three(net: &Net, root: &Path) -> HashMap<u64, Running> {
    let start = |id| net.start(root, id, |options| options.founders = vec![1, 2, 3]);
    (1..=3).map(|id| (id, start(id))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_lose_their_leader_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    let mut servers = three(&net, root.path());
    net.insist("a").await;
    let (first, _) = net.leader().await;
    let follower = first % 3 + 1;
    let refused = servers[&follower].handle.propose(b"b".to_vec()).await;
    assert!(
        matches!(refused, Err(handle::Error::NotLeader { .. })),
        "{refused:?}"
    );
    net.stop(servers.remove(&first).unwrap()).await;
    net.insist("c").await;
    let again = net.start(root.path(), first, |_| ());
    servers.insert(first, again);
    net.insist("d").await;
    for server in servers.values() {
        assert_eq!(commands(&server.read().await), ["a", "c", "d"]);
    }
    for server in servers.into_values() {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_alone_does_not_acknowledge() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    let alone = net.start(root.path(), 1, |options| options.founders = vec![1, 2, 3]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!alone.handle.leadership().borrow().is_leader);
    let refused = alone.handle.propose(b"a".to_vec()).await;
    assert_eq!(refused, Err(handle::Error::NotLeader { leader: None }));
    assert!(alone.handle.read().await.is_err());
    alone.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lossy_wire_loses_no_write_and_repeats_none() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    let servers = three(&net, root.path());
    net.lose_percent(10);
    for id in 1..=60_u64 {
        net.insist(&id.to_string()).await;
    }
    net.lose_percent(0);
    net.insist("end").await;
    let mut views = Vec::new();
    for server in servers.values() {
        views.push(commands(&server.read().await));
    }
    let (_, leader) = net.leader().await;
    assert!(views.iter().all(|view| *view == commands(&leader.view())));
    let mut seen: Vec<&String> = views[0].iter().collect();
    seen.dedup();
    let expected = names(1..=60);
    assert_eq!(seen.len(), 61, "a retry doubled: {:?}", views[0]);
    assert!(expected.iter().all(|name| seen.contains(&name)));
    for server in servers.into_values() {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_when_asked_and_when_stopping() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    // An election would take a second at least: what is faster was handed over.
    let slow = |id| {
        net.start(root.path(), id, |options| {
            options.founders = vec![1, 2, 3];
            options.tick = Duration::from_millis(100);
        })
    };
    let mut servers: HashMap<u64, Running> = (1..=3).map(|id| (id, slow(id))).collect();
    net.insist("a").await;
    let (first, leader) = net.leader().await;
    let heir = first % 3 + 1;
    until(|| {
        leader
            .group()
            .borrow()
            .peers
            .iter()
            .all(|peer| peer.is_active)
    })
    .await;
    leader.transfer_leader(Some(heir)).await.unwrap();
    until(|| servers[&heir].handle.leadership().borrow().is_leader).await;
    let group = servers[&heir].handle.group();
    until(|| group.borrow().peers.len() == 2 && group.borrow().peers.iter().all(|p| p.is_active))
        .await;
    assert!(matches!(
        leader.transfer_leader(None).await,
        Err(handle::Error::NotLeader { .. })
    ));
    let refused = servers[&heir].handle.transfer_leader(Some(9)).await;
    assert!(matches!(refused, Err(handle::Error::Refused { .. })));
    let before = std::time::Instant::now();
    net.insist("b").await;
    let stopping = servers.remove(&heir).unwrap();
    stopping.stop().await;
    net.wait_for_other_leader(heir).await;
    assert!(
        before.elapsed() < Duration::from_millis(900),
        "{:?}",
        before.elapsed()
    );
    net.insist("c").await;
    for server in servers.into_values() {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_steps_down_and_its_open_write_is_not_acknowledged() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    let servers = three(&net, root.path());
    net.insist("a").await;
    let (first, old) = net.leader().await;
    net.cut(first);
    let open = tokio::spawn({
        let old = old.clone();
        async move { old.propose(b"never".to_vec()).await }
    });
    let mut group = old.group();
    let stepped_down = group.wait_for(|group| !group.is_leader);
    tokio::time::timeout(Duration::from_secs(5), stepped_down)
        .await
        .expect("the quorum check")
        .unwrap();
    net.insist("b").await;
    net.heal(first);
    let answer = open.await.unwrap();
    assert!(
        matches!(answer, Err(handle::Error::Superseded)),
        "{answer:?}"
    );
    for server in servers.values() {
        assert_eq!(commands(&server.read().await), ["a", "b"]);
    }
    for server in servers.into_values() {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_learn_the_index_and_wait_for_it() {
    let root = tempfile::tempdir().unwrap();
    let net = Net::default();
    let servers = three(&net, root.path());
    net.insist("a").await;
    let (first, leader) = net.leader().await;
    let follower = servers[&(first % 3 + 1)].handle.clone();
    for id in 1..=20_u64 {
        let command = id.to_string().into_bytes();
        let (index, count) = leader.propose_indexed(command).await.unwrap();
        follower
            .wait_applied(index, Duration::from_secs(5))
            .await
            .unwrap();
        assert!(follower.view().len() >= count);
    }
    let never = follower
        .wait_applied(1_000_000, Duration::from_millis(20))
        .await;
    assert!(matches!(
        never,
        Err(handle::Error::Timeout {
            is_write: false,
            ..
        })
    ));
    for server in servers.into_values() {
        server.stop().await;
    }
}
