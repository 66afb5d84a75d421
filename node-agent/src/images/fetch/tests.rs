use std::collections::VecDeque;

use futures_util::stream;
use tempfile::TempDir;

use super::*;

/// What a peer does when it is asked, in turn; the last one for ever.
#[derive(Debug, Clone)]
enum Act {
    Give,
    Lie,
    Missing,
    Refuse,
    /// Gives so many bytes more, and breaks off.
    Break(usize),
    /// Begins at 0 whatever is asked.
    FromStart,
}

/// Peers by number, each with what it does; and what they were asked.
struct Peers {
    content: Vec<u8>,
    acts: Mutex<HashMap<u128, VecDeque<Act>>>,
    asked: Mutex<Vec<(u128, u64)>>,
}

impl Ask for Arc<Peers> {
    fn ask(
        &self,
        peer: &ImagePeer,
        _: Digest,
        start: u64,
    ) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let id = peer.node.as_u128();
        self.asked.lock().push((id, start));
        let mut acts = self.acts.lock();
        let acts = acts.get_mut(&id).expect("a known peer");
        let act = match acts.len() {
            1 => acts[0].clone(),
            _ => acts.pop_front().expect("an act"),
        };
        let rest = self.content[start as usize..].to_vec();
        let answer = |start, parts: Vec<Result<Bytes, String>>| {
            Ok(Answer {
                start,
                bytes: stream::iter(parts).boxed(),
            })
        };
        let answer = match act {
            Act::Give => answer(
                start,
                rest.chunks(7).map(|it| Ok(it.to_vec().into())).collect(),
            ),
            Act::Lie => answer(start, vec![Ok(vec![0; rest.len()].into())]),
            Act::Missing => Err(Refusal::Missing),
            Act::Refuse => Err(Refusal::Broken("refused".into())),
            Act::Break(count) => answer(
                start,
                vec![Ok(rest[..count].to_vec().into()), Err("it broke".into())],
            ),
            Act::FromStart => answer(0, vec![Ok(self.content.clone().into())]),
        };
        Box::pin(async move { answer })
    }
}

struct World {
    _folder: TempDir,
    peers: Arc<Peers>,
    store: Arc<Store>,
    fetcher: Arc<Fetcher>,
    digest: Digest,
}

fn world(acts: &[(u128, &[Act])]) -> World {
    let content: Vec<u8> = (0..100).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(Store::open(folder.path(), 1 << 20).expect("opened"));
    let acts = acts
        .iter()
        .map(|(id, acts)| (*id, acts.iter().cloned().collect()));
    let peers = Arc::new(Peers {
        acts: Mutex::new(acts.collect()),
        asked: Mutex::default(),
        content: content.clone(),
    });
    let ask = Arc::new(peers.clone());
    World {
        _folder: folder,
        fetcher: Fetcher::new(store.clone(), ask, Metrics::default()),
        peers,
        store,
        digest: Digest::of(&content),
    }
}

impl World {
    fn peers(&self) -> Vec<ImagePeer> {
        let mut ids: Vec<u128> = self.peers.acts.lock().keys().copied().collect();
        ids.sort_unstable();
        let peer = |id| ImagePeer {
            node: NodeId::from_u128(id),
            address: "here:1".into(),
        };
        ids.into_iter().map(peer).collect()
    }

    async fn fetch(&self) -> Result<(), String> {
        let _offer = self
            .fetcher
            .offer(&[(self.digest, Some(100))], &self.peers());
        let fetched = self.fetcher.fetch(self.digest).await;
        fetched.map_err(|error| error.to_string())
    }

    fn asked(&self) -> Vec<(u128, u64)> {
        std::mem::take(&mut *self.peers.asked.lock())
    }
}

#[tokio::test]
async fn a_blob_comes_from_whoever_has_it_and_only_once() {
    let world = world(&[(1, &[Act::Missing]), (2, &[Act::Refuse]), (3, &[Act::Give])]);
    assert_eq!(world.fetch().await, Ok(()));
    assert_eq!(world.asked(), [(1, 0), (2, 0), (3, 0)]);
    assert_eq!(world.store.size(world.digest), Some(100));
    assert_eq!(world.fetch().await, Ok(()));
    assert_eq!(world.asked(), [], "it is here");
}

#[tokio::test]
async fn what_broke_off_is_gone_on_with_elsewhere() {
    let world = world(&[
        (1, &[Act::Break(30)]),
        (2, &[Act::Break(30)]),
        (3, &[Act::Give]),
    ]);
    assert_eq!(world.fetch().await, Ok(()));
    assert_eq!(world.asked(), [(1, 0), (2, 30), (3, 60)]);
}

#[tokio::test]
async fn an_agent_that_was_killed_goes_on_where_it_was() {
    let world = world(&[(1, &[Act::Give])]);
    let mut writer = world.store.partial(world.digest, 100).await.expect("begun");
    writer
        .write(&world.peers.content[..40])
        .await
        .expect("written");
    writer.flush().await.expect("flushed");
    drop(writer);
    assert_eq!(world.fetch().await, Ok(()));
    assert_eq!(world.asked(), [(1, 40)]);
}

#[tokio::test]
async fn a_peer_that_knows_no_ranges_is_read_from_the_start() {
    let world = world(&[(1, &[Act::Break(30)]), (2, &[Act::FromStart])]);
    assert_eq!(world.fetch().await, Ok(()));
    assert_eq!(world.asked(), [(1, 0), (2, 30)]);
}

#[tokio::test]
async fn a_liar_is_refused_and_not_asked_again() {
    let world = world(&[(1, &[Act::Lie]), (2, &[Act::Give])]);
    assert_eq!(world.fetch().await, Ok(()));
    assert_eq!(world.asked(), [(1, 0), (2, 0)]);
    let peers = world.peers();
    let order = world
        .fetcher
        .troubles
        .lock()
        .order(&peers, clock::now_ms())
        .len();
    assert_eq!(order, 1, "the liar is left out");
}

#[tokio::test]
async fn alone_a_liar_gives_nothing() {
    let world = world(&[(1, &[Act::Lie])]);
    let error = world.fetch().await.expect_err("a lie");
    assert!(error.contains("could not be fetched"), "{error}");
    assert_eq!(world.store.size(world.digest), None);
    assert_eq!(world.asked(), [(1, 0)], "a liar is not asked again");
}

#[tokio::test]
async fn of_two_givers_nobody_is_called_a_liar() {
    let world = world(&[
        (1, &[Act::Break(30), Act::Give]),
        (2, &[Act::Lie, Act::Give]),
    ]);
    assert_eq!(world.fetch().await, Ok(()));
    let peers = world.peers();
    let order = world
        .fetcher
        .troubles
        .lock()
        .order(&peers, clock::now_ms())
        .len();
    assert_eq!(order, 2);
}

#[tokio::test]
async fn what_nobody_has_is_said_at_once() {
    let world = world(&[(1, &[Act::Missing]), (2, &[Act::Missing])]);
    let error = world.fetch().await.expect_err("nobody has it");
    assert!(error.contains("no node"), "{error}");
    assert_eq!(world.asked().len(), 2);
    assert!(
        world.fetcher.fetch(world.digest).await.is_err(),
        "nobody is offered"
    );
}

#[tokio::test]
async fn a_reader_follows_while_it_comes() {
    let world = world(&[(1, &[Act::Break(50)]), (2, &[Act::Give])]);
    let _offer = world
        .fetcher
        .offer(&[(world.digest, Some(100))], &world.peers());
    let coming = world.fetcher.start(world.digest).expect("offered");
    let parts: Vec<_> = coming.bytes(20).collect().await;
    let parts: Result<Vec<Bytes>, _> = parts.into_iter().collect();
    assert_eq!(parts.expect("read").concat(), world.peers.content[20..]);
}

#[tokio::test]
async fn a_reader_that_begins_late_reads_what_is_whole_by_then() {
    let world = world(&[(1, &[Act::Give])]);
    let _offer = world
        .fetcher
        .offer(&[(world.digest, Some(100))], &world.peers());
    let coming = world.fetcher.start(world.digest).expect("offered");
    coming.clone().whole().await.expect("fetched");
    assert!(!world.store.partial_path(world.digest).exists());
    let parts: Vec<_> = coming.bytes(0).collect().await;
    let parts: Result<Vec<Bytes>, _> = parts.into_iter().collect();
    assert_eq!(parts.expect("read").concat(), world.peers.content);
}
