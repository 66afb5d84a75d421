//! A server that is too far behind gets a snapshot, also over a connection that breaks.

use std::sync::atomic::Ordering;
use std::time::Duration;

use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use tokio::time::timeout;

use crate::proxy::Proxy;
use crate::world::World;

/// Nodes with so much metadata that a snapshot takes many chunks.
const NODES: u128 = 300;
/// A connection to the third server breaks when it has carried so much.
const LIMIT: u64 = 1_500_000;
/// Whatever is awaited happens within.
const PATIENCE: Duration = Duration::from_secs(10);

async fn fill(world: &World) {
    let leader = world.leader().await;
    for id in 1..=NODES {
        let node = world.add_node(leader, id).await;
        let set = (0..40u32).map(|key| {
            // Different everywhere: nothing is to be gained by any encoding.
            let value: String = (0..12)
                .map(|part| format!("{:020x}", id * 7_919 + u128::from(key * 31 + part)))
                .collect();
            (format!("key-{key}"), value)
        });
        let meta = v1::SetNodeMeta {
            node: id_bytes(node.as_u128()),
            set: set.collect(),
            unset: Vec::new(),
        };
        let store = world.store(leader);
        store.propose(Kind::SetNodeMeta(meta)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_breaks_off_goes_on_from_there() {
    let mut world = World::prepare(100).await;
    let proxy = Proxy::start(world.listens[&3], LIMIT, 1).await;
    world.contacts[2].address = proxy.address.to_string();
    for member in [1, 2] {
        world.start_server(member).await;
    }
    world.found().await;
    fill(&world).await;
    let leader = world.leader().await;
    let newest = world.store(leader).view().index();
    world.start_server(3).await;
    world
        .until(3, "caught up", |view| view.index() >= newest)
        .await;
    assert_eq!(world.store(3).view().nodes().count() as u128, NODES);
    // The receiver shows the state before its answer has reached the sender, who counts then.
    let counted = async {
        while world.servers[&leader].outbox.metrics().snapshots_sent == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, counted).await.expect("counted in time");
    let metrics = world.servers[&leader].outbox.metrics();
    assert_eq!((metrics.snapshots_sent, metrics.snapshots_failed), (1, 0));
    assert!(proxy.broken.load(Ordering::Relaxed) >= 1, "it did break");
    let size = world.store(leader).view().encode().len() as u64;
    assert!(size > LIMIT, "the snapshot has {size} bytes");
    let carried = proxy.carried.load(Ordering::Relaxed);
    assert!(
        carried < size + LIMIT / 2 + 1_000_000,
        "{carried} bytes carried of {size}: what had arrived was sent again"
    );
}
