//! A proxy in front that dials addresses: each is one backend, as long as it answers.

use std::net::SocketAddr;

use http::{Request, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::support::{
    App, Client, HOST, SOON, Served, dead_address, route, serve, serve_one, table,
};
use crate::{
    Addresses, Backend, Closed, Ingress, Options, Route, Status, Table, listen_on_endpoints,
};

/// Serves the addresses of an ingress, and tells their port.
fn behind(served: &Served) -> (u16, JoinHandle<Closed>) {
    let listener = listen_on_endpoints(0).expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let (ingress, until) = (served.ingress.clone(), served.shutdown.clone());
    let serving = async move {
        let listener = TcpListener::from_std(listener).expect("of this runtime");
        let never = CancellationToken::new();
        let handover = (never, SOON);
        ingress.serve_endpoints(listener, until, handover).await
    };
    (port, tokio::spawn(serving))
}

fn of(addresses: &Addresses, backend: &Backend) -> SocketAddr {
    addresses.backends[backend]
}

fn backend(app: SocketAddr) -> Backend {
    route(HOST, "/", 1, &[app]).backends[0].clone()
}

async fn get(address: SocketAddr, path: &str) -> super::support::Reply {
    let request = Request::get(path).header("host", HOST);
    Client::connect(address).await.send(request, "").await
}

#[tokio::test]
async fn each_address_is_one_backend_and_its_requests_are_counted() {
    let apps = [App::start("a").await, App::start("b").await];
    let places = [apps[0].address, apps[1].address];
    let served = serve_one(Options::default(), &places).await;
    let (port, _serving) = behind(&served);
    let addresses = served.ingress.addresses(port, 7078);
    assert_eq!(addresses.backends.len(), 2);
    for (app, name) in places.iter().zip(["a", "b"]) {
        for _ in 0..5 {
            assert_eq!(get(of(&addresses, &backend(*app)), "/").await.body, name);
        }
    }
    let service = &served.ingress.metrics().services[0];
    assert_eq!(service.requests, [0, 10, 0, 0, 0, 0]);
    assert_eq!(
        served.ingress.addresses(port, 7078),
        addresses,
        "asked again"
    );
    // Another process with the same table.
    let again = Ingress::new(Options::default());
    again.publish(table(9, &[places[1], places[0]]));
    assert_eq!(again.addresses(port, 7078), addresses);
}

#[tokio::test]
async fn the_proxy_is_believed_who_its_clients_are_and_nobody_comes_again_under_tls() {
    let app = App::start("a").await;
    let options = Options {
        https_redirect: Some(443),
        ..Options::default()
    };
    let served = serve_one(options, &[app.address]).await;
    let (port, _serving) = behind(&served);
    let address = of(&served.ingress.addresses(port, 7078), &backend(app.address));
    let request = Request::get("/headers")
        .header("host", HOST)
        .header("x-forwarded-for", "203.0.113.7")
        .header("x-forwarded-port", "8443")
        .header("x-forwarded-prefix", "/api")
        .header("x-real-ip", "6.6.6.6")
        .header("x-forwarded-proto", "https")
        .header("x-request-id", "of-the-proxy");
    let reply = Client::connect(address).await.send(request, "").await;
    let expected = "GET /headers\nhost: app.test\nx-forwarded-for: 203.0.113.7\n\
                    x-forwarded-host: app.test\nx-forwarded-port: 8443\nx-forwarded-prefix: /api\nx-forwarded-proto: https\n\
                    x-request-id: of-the-proxy\n";
    assert_eq!(reply.body, expected);
    assert_eq!(get(address, "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn another_stands_in_for_a_backend_that_does_not_answer() {
    let app = App::start("a").await;
    let dead = dead_address();
    let served = serve_one(Options::default(), &[dead, app.address]).await;
    let (port, _serving) = behind(&served);
    let address = of(&served.ingress.addresses(port, 7078), &backend(dead));
    for _ in 0..3 {
        assert_eq!(get(address, "/").await.body, "a");
    }
    assert_eq!(served.ingress.metrics().services[0].requests[4], 0);
}

#[tokio::test]
async fn a_removed_backend_is_reached_and_held_as_long_as_an_older_table_leads_there() {
    let (old, new) = (App::start("old").await, App::start("new").await);
    let served = serve_one(Options::default(), &[old.address]).await;
    let (port, _serving) = behind(&served);
    let address = of(&served.ingress.addresses(port, 7078), &backend(old.address));
    served.ingress.publish(table(2, &[new.address]));
    let now = served.ingress.addresses(port, 7078);
    assert!(!now.backends.contains_key(&backend(old.address)));
    served.drained(2).await;
    assert_eq!(get(address, "/").await.body, "old");
    served.drained(2).await;
    let held = tokio::spawn(get(address, "/hold"));
    while old.served() < 2 {
        tokio::task::yield_now().await;
    }
    let late = Status {
        applied_revision: 2,
        drained_revision: 1,
    };
    assert_eq!(served.status(), late);
    old.gate.add_permits(1);
    assert_eq!(held.await.expect("ended").body, "held");
    served.drained(2).await;
    // And when it is gone, the new one stands in.
    old.kill().await;
    assert_eq!(get(address, "/").await.body, "new");
}

#[tokio::test]
async fn requests_of_a_route_that_sleeps_wait_at_its_address() {
    let app = App::start("a").await;
    let served = serve(Options::default()).await;
    let sleeping = |revision, backends: &[SocketAddr]| Table {
        revision,
        routes: vec![Route {
            sleeps: true,
            ..route(HOST, "/x/", 1, backends)
        }],
        ..Table::default()
    };
    served.ingress.publish(sleeping(1, &[]));
    let (port, _serving) = behind(&served);
    let addresses = served.ingress.addresses(port, 7078);
    let address = addresses.asleep[&(HOST.to_owned(), "/x".to_owned())];
    // The proxy has taken the prefix away.
    let waits = tokio::spawn(get(address, "/"));
    while served.ingress.metrics().services[0].in_flight == 0 {
        tokio::task::yield_now().await;
    }
    served.ingress.publish(sleeping(2, &[app.address]));
    assert_eq!(waits.await.expect("ended").body, "a");
    let addresses = served.ingress.addresses(port, 7078);
    assert!(addresses.asleep.is_empty());
    assert_eq!(of(&addresses, &backend(app.address)).port(), port);
}

#[tokio::test]
async fn nobody_is_at_other_addresses() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let (port, _serving) = behind(&served);
    served.ingress.addresses(port, 7078);
    for ip in [[127, 0, 0, 1], [127, 64, 0, 1]] {
        let mut stream = TcpStream::connect((std::net::Ipv4Addr::from(ip), port))
            .await
            .expect("connects");
        let read = tokio::io::AsyncReadExt::read_u8(&mut stream);
        tokio::time::timeout(SOON, read)
            .await
            .expect("at once")
            .expect_err("closed");
    }
    served.shutdown.cancel();
}
