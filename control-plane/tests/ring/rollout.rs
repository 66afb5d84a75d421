//! A deployment goes round: build, release, placement, routes, drain, stop.

use skep_model::allocation::{Desired, State as Seen};
use skep_model::deployment::{Origin, Status, Trigger};
use skep_model::node::NodeStatus;
use skep_proto::convert::id_bytes;
use skep_proto::v1;

use super::node::*;
use super::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_goes_round_and_the_next_replaces_it_in_order() {
    let server = Server::start().await;
    put_service(&server).await;
    let mut node = Node::join(&server, "one").await;
    assert!(node.desired().await.full);
    server
        .until("ready", |view| {
            view.nodes().all(|node| node.status == NodeStatus::Ready)
        })
        .await;

    let first = server.deploy(Trigger::Api, image()).await;
    let order = node.desired().await;
    assert!(!order.full);
    assert_eq!(
        order.set.unwrap().builds[0].deployment,
        id_bytes(first.as_u128())
    );
    node.built(id_bytes(first.as_u128())).await;
    let old = node.take_start().await;
    // The table is acknowledged as it comes: only then is it live.
    while server.status(first) != Status::Live {
        match node.next().await {
            v1::to_agent::Kind::Routes(table) => {
                node.routes(table.revision, table.revision).await;
                if table.routes.iter().any(|route| !route.backends.is_empty()) {
                    server
                        .until("live", |view| {
                            view.deployment(first).unwrap().status == Status::Live
                        })
                        .await;
                }
            }
            _ => continue,
        }
    }

    // Restart: the same release in a new allocation; the old one drains, and stops only when the
    // ingress says that it has let go of it.
    let second = server
        .deploy(Trigger::Restart, Origin::Release { number: 1 })
        .await;
    let new = node.take_start().await;
    assert_ne!(new, old);
    let (mut told_drain, mut withdrawn) = (false, None);
    let mut with_old = 0;
    while !told_drain || withdrawn.is_none() {
        match node.next().await {
            v1::to_agent::Kind::Routes(table) => {
                let lacks_old = table
                    .routes
                    .iter()
                    .all(|r| r.backends.iter().all(|b| b.allocation != old));
                let has_new = table
                    .routes
                    .iter()
                    .any(|r| r.backends.iter().any(|b| b.allocation == new));
                if lacks_old && has_new {
                    withdrawn = Some(table.revision);
                } else {
                    with_old = table.revision;
                    node.routes(with_old, with_old).await;
                }
            }
            v1::to_agent::Kind::Desired(desired) => {
                let set = desired.set.unwrap();
                assert!(
                    !set.assignments.iter().any(|a| is(a, Desired::Stop)),
                    "stopped before the ingress let go"
                );
                told_drain |= set
                    .assignments
                    .iter()
                    .any(|a| a.allocation == old && is(a, Desired::Drain));
            }
            _ => {}
        }
    }
    let revision = withdrawn.unwrap();
    // Applied but not drained: requests are still under way, nothing stops.
    node.routes(revision, with_old).await;
    server
        .until("second is live", |view| {
            view.deployment(second).unwrap().status == Status::Live
        })
        .await;
    let still = |view: &skep_state::State| view.allocations().all(|a| a.desired != Desired::Stop);
    assert!(still(&server.store.view()));
    node.routes(revision, revision).await;
    let stop = loop {
        let set = node.desired().await.set.unwrap();
        if let Some(stop) = set.assignments.into_iter().find(|a| is(a, Desired::Stop)) {
            break stop;
        }
    };
    assert_eq!(stop.allocation, old);
    node.see(old.clone(), Seen::Stopped).await;
    let gone = node.desired().await;
    assert_eq!(gone.removed_allocations, vec![old]);
    assert_eq!(server.status(first), Status::Superseded);
}
