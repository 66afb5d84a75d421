//! Three servers on an in-process wire: nothing in the component knows only one.

use super::*;
use skep_raft_core::Outgoing;

type Directory = Arc<Mutex<HashMap<u64, Handle<Recorder>>>>;

struct Wire(Directory);

impl Transport for Wire {
    fn send(&mut self, messages: Vec<Outgoing>) {
        for message in messages {
            let peer = self.0.lock().unwrap().get(&message.to).cloned();
            // A peer that is gone loses its messages, as on a real wire.
            let _lost = peer.map(|peer| peer.deliver(message.bytes));
        }
    }
}

fn join(id: u64, root: &Path, directory: &Directory) -> Running {
    let options = Options {
        founders: vec![1, 2, 3],
        tick: Duration::from_millis(10),
        ..Options::new(id, root.join(id.to_string()))
    };
    let (service, handle) = Service::open(
        options,
        Recorder::default(),
        Box::new(Wire(directory.clone())),
    )
    .unwrap();
    directory.lock().unwrap().insert(id, handle.clone());
    let token = CancellationToken::new();
    Running {
        handle,
        task: tokio::spawn(service.run(token.clone())),
        token,
    }
}

async fn leader(directory: &Directory) -> (u64, Handle<Recorder>) {
    let find = || {
        let directory = directory.lock().unwrap();
        let leads = |handle: &Handle<Recorder>| handle.leadership().borrow().is_leader;
        directory
            .iter()
            .find(|(_, handle)| leads(handle))
            .map(|(id, it)| (*id, it.clone()))
    };
    until(|| find().is_some()).await;
    find().expect("just found")
}

/// As a client does: asks whoever leads until the command is in.
async fn insist(directory: &Directory, command: &str) {
    for _ in 0..100 {
        let (_, handle) = leader(directory).await;
        match handle.propose(command.as_bytes().to_vec()).await {
            Ok(_) => return,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{command} was never taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_lose_their_leader_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let directory = Directory::default();
    let mut servers: HashMap<u64, Running> = (1..=3)
        .map(|id| (id, join(id, root.path(), &directory)))
        .collect();
    insist(&directory, "a").await;
    let (first, _) = leader(&directory).await;
    let follower = first % 3 + 1;
    let refused = servers[&follower].handle.propose(b"b".to_vec()).await;
    assert!(
        matches!(refused, Err(handle::Error::NotLeader { .. })),
        "{refused:?}"
    );
    directory.lock().unwrap().remove(&first);
    servers.remove(&first).unwrap().stop().await;
    insist(&directory, "c").await;
    servers.insert(first, join(first, root.path(), &directory));
    insist(&directory, "d").await;
    for server in servers.values() {
        let view = server.handle.read().await;
        let view = match view {
            Ok(view) => view,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                until(|| server.handle.leadership().borrow().leader.is_some()).await;
                server.handle.read().await.unwrap()
            }
        };
        assert_eq!(commands(&view), ["a", "c", "d"]);
    }
    for server in servers.into_values() {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_alone_does_not_acknowledge() {
    let root = tempfile::tempdir().unwrap();
    let directory = Directory::default();
    let alone = join(1, root.path(), &directory);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!alone.handle.leadership().borrow().is_leader);
    let refused = alone.handle.propose(b"a".to_vec()).await;
    assert_eq!(refused, Err(handle::Error::NotLeader { leader: None }));
    assert!(alone.handle.read().await.is_err());
    alone.stop().await;
}
