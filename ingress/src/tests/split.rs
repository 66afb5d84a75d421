//! Services that share a route's requests.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, StatusCode};
use skep_model::id::ServiceId;
use skep_model::route::Part;
use skep_model::routing::RouteSpec;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::support::{App, Client, HOST, SOON, Served, dead_address, route, serve};
use crate::{Options, Route, Table, listen_on_endpoints};

const ASKED: u64 = 200;

/// A route whose own service is 1, of parts (service, weight, backends).
fn split(parts: &[(u128, u32, &[SocketAddr])]) -> Route {
    let backends: Vec<SocketAddr> = parts.iter().flat_map(|(_, _, it)| it.to_vec()).collect();
    let part = |(service, weight, backends): &(u128, u32, &[SocketAddr])| Part {
        service: ServiceId::from_u128(*service),
        name: format!("s{service}"),
        weight: *weight,
        allocations: (route(HOST, "/", 1, backends).backends.iter())
            .map(|backend| backend.allocation)
            .collect(),
    };
    Route {
        parts: parts.iter().map(part).collect(),
        ..route(HOST, "/", 1, &backends)
    }
}

async fn serve_split(route: Route) -> Served {
    let served = serve(Options::default()).await;
    publish(&served, 1, vec![route]);
    served
}

fn publish(served: &Served, revision: u64, routes: Vec<Route>) {
    served.ingress.publish(Table {
        revision,
        routes,
        ..Table::default()
    });
}

/// How many of the requests `name` answered; all are answered well.
async fn answered_by(client: &mut Client, name: &str) -> u64 {
    let mut count = 0;
    for _ in 0..ASKED {
        let request = Request::get("/").header("host", HOST);
        let reply = client.send(request, "").await;
        assert_eq!(reply.status, StatusCode::OK);
        count += u64::from(reply.body == name);
    }
    count
}

/// Requests that ended well, by service.
fn counted(served: &Served, service: u128) -> u64 {
    let all = served.ingress.metrics().services;
    let own = all
        .iter()
        .find(|it| it.service == ServiceId::from_u128(service));
    own.map_or(0, |it| it.requests[1])
}

#[tokio::test]
async fn each_is_counted_for_who_answered_and_a_dead_part_costs_nobody_a_request() {
    let (web, next) = (App::start("web").await, App::start("next").await);
    let parts: [(u128, u32, &[SocketAddr]); 2] =
        [(2, 80, &[web.address]), (3, 20, &[next.address])];
    let served = serve_split(split(&parts)).await;
    let mut client = served.client().await;
    let of_next = answered_by(&mut client, "next").await;
    assert!((10..=90).contains(&of_next), "{of_next} of {ASKED}");
    assert_eq!(
        (
            counted(&served, 1),
            counted(&served, 2),
            counted(&served, 3)
        ),
        (0, ASKED - of_next, of_next)
    );
    next.kill().await;
    assert_eq!(answered_by(&mut client, "web").await, ASKED);
}

#[tokio::test]
async fn a_browser_stays_with_the_part_that_it_had() {
    let (web, next) = (App::start("web").await, App::start("next").await);
    let parts: [(u128, u32, &[SocketAddr]); 2] =
        [(2, 50, &[web.address]), (3, 50, &[next.address])];
    let rules = RouteSpec {
        sticky: true,
        ..RouteSpec::default()
    };
    let served = serve_split(Route {
        rules: Some(Arc::new(rules)),
        ..split(&parts)
    })
    .await;
    let mut client = served.client().await;
    let request = Request::get("/").header("host", HOST);
    let first = client.send(request, "").await;
    let set = first.headers["set-cookie"].to_str().expect("text");
    let cookie = set.split(';').next().expect("a pair").to_owned();
    for _ in 0..20 {
        let request = Request::get("/").header("host", HOST);
        let reply = client.send(request.header("cookie", &cookie), "").await;
        assert_eq!(reply.body, first.body);
    }
}

#[tokio::test]
async fn without_a_backend_the_first_part_is_asked_for_and_whoever_comes_answers() {
    let next = App::start("next").await;
    let asleep = Route {
        sleeps: true,
        ..split(&[(2, 1, &[]), (3, 1, &[])])
    };
    let served = serve_split(asleep).await;
    let mut client = served.client().await;
    let waits = tokio::spawn(async move {
        let request = Request::get("/").header("host", HOST);
        client.send(request, "").await.body
    });
    let is_waiting = |served: &Served| {
        let all = served.ingress.metrics().services;
        let mut all = all.iter().filter(|it| it.in_flight > 0);
        all.next().map(|it| it.service) == Some(ServiceId::from_u128(2))
    };
    while !is_waiting(&served) {
        tokio::task::yield_now().await;
    }
    publish(
        &served,
        2,
        vec![split(&[(2, 1, &[]), (3, 1, &[next.address])])],
    );
    assert_eq!(waits.await.expect("ended"), "next");
    publish(&served, 3, vec![split(&[])]);
    let request = Request::get("/").header("host", HOST);
    let reply = served.client().await.send(request, "").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn at_an_address_a_service_stands_in_for_itself_alone() {
    let (web, next) = (App::start("web").await, App::start("next").await);
    let dead = dead_address();
    let parts: [(u128, u32, &[SocketAddr]); 2] =
        [(2, 99, &[web.address]), (3, 1, &[dead, next.address])];
    let served = serve_split(split(&parts)).await;
    let listener = listen_on_endpoints(0).expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let (ingress, until) = (served.ingress.clone(), served.shutdown.clone());
    let serving = async move {
        let listener = TcpListener::from_std(listener).expect("of this runtime");
        let handover = (CancellationToken::new(), SOON);
        ingress.serve_endpoints(listener, until, handover).await
    };
    tokio::spawn(serving);
    let addresses = served.ingress.addresses(port, 7078);
    let backend = route(HOST, "/", 1, &[dead]).backends[0].clone();
    let mut client = Client::connect(addresses.backends[&backend]).await;
    assert_eq!(answered_by(&mut client, "next").await, ASKED);
    assert_eq!((counted(&served, 2), counted(&served, 3)), (0, ASKED));
}
