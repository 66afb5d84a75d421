//! Requests of a release that is tried beside the live one are counted apart.

use std::net::SocketAddr;

use http::StatusCode;
use skep_model::id::{AllocationId, DeploymentId, ServiceId};
use skep_model::route::Tried;
use skep_model::sample::TriedCounters;

use super::support::{App, HOST, Served, dead_address, serve, table};
use crate::{Options, Table};

/// A table of two backends, of which the second is tried.
fn trying(revision: u64, backends: [SocketAddr; 2], deployment: u128) -> Table {
    let mut table = table(revision, &backends);
    table.routes[0].tried = vec![Tried {
        service: ServiceId::from_u128(1),
        deployment: DeploymentId::from_u128(deployment),
        allocations: vec![AllocationId::from_u128(backends[1].port().into())],
    }];
    table
}

async fn get(served: &Served, count: usize) {
    for _ in 0..count {
        let reply = served.get(HOST, "/").await;
        assert_eq!(reply.status, StatusCode::OK);
    }
}

fn tried(served: &Served) -> Option<TriedCounters> {
    served.ingress.metrics().services[0].tried
}

#[tokio::test]
async fn what_it_answers_is_counted_apart_and_with_the_rest() {
    let [live, new] = [App::start("live").await, App::start("new").await];
    let served = serve(Options::default()).await;
    let backends = [live.address, new.address];
    served.ingress.publish(table(1, &backends));
    get(&served, 20).await;
    assert_eq!(tried(&served), None);
    let before = new.served();

    served.ingress.publish(trying(2, backends, 7));
    get(&served, 40).await;
    let counted = tried(&served).expect("one is tried");
    let its = new.served() - before;
    assert!(0 < its && its < 40, "{its}");
    assert_eq!(
        (counted.deployment.as_u128(), counted.requests[1]),
        (7, its)
    );
    assert_eq!(counted.latency.iter().sum::<u64>(), its);
    let whole = &served.ingress.metrics().services[0];
    assert_eq!(whole.requests[1], 60, "they are the service's, too");

    // Said again it goes on, the next one begins with nothing, and it ends with its table.
    served.ingress.publish(trying(3, backends, 7));
    assert_eq!(tried(&served), Some(counted));
    served.ingress.publish(trying(4, backends, 8));
    let next = tried(&served).expect("another is tried");
    assert_eq!((next.deployment.as_u128(), next.requests), (8, [0; 6]));
    served.ingress.publish(table(5, &backends));
    get(&served, 20).await;
    assert_eq!(tried(&served), None);
}

#[tokio::test]
async fn requests_that_others_answer_in_its_place_are_counted_against_it() {
    let live = App::start("live").await;
    let served = serve(Options::default()).await;
    let backends = [live.address, dead_address()];
    served.ingress.publish(trying(1, backends, 7));
    get(&served, 20).await;
    let counted = tried(&served).expect("one is tried");
    assert!(counted.moved_on > 0, "{counted:?}");
    assert_eq!(counted.requests, [0; 6], "it answered none");
}

#[tokio::test]
async fn a_request_that_ends_with_it_is_its_failure() {
    let live = App::start("live").await;
    let served = serve(Options::default()).await;
    let gone = live.address;
    live.kill().await;
    served.ingress.publish(trying(1, [dead_address(), gone], 7));
    for _ in 0..10 {
        let reply = served.get(HOST, "/").await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    }
    // Whichever of the two is tried last.
    let counted = tried(&served).expect("one is tried");
    let whole = &served.ingress.metrics().services[0];
    assert_eq!(whole.requests[4], 10);
    assert_eq!(counted.moved_on + counted.requests[4], 10, "{counted:?}");
}
