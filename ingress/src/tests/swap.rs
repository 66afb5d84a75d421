//! Changing tables under traffic: nothing fails, and drained means drained.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::{Request, StatusCode};
use http_body_util::BodyExt;

use super::support::{App, Client, HOST, SOON, serve, serve_one, table};
use crate::{Options, Status, Table};

const CLIENTS: usize = 16;
const SWAPS: u64 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_tables_alternate_and_removed_backends_are_killed() {
    let mut current = App::start("app").await;
    let served = serve_one(Options::default(), &[current.address]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            tokio::spawn(hammer(
                served.address,
                number,
                Arc::clone(&stop),
                Arc::clone(&done),
            ))
        })
        .collect();
    for revision in 2..2 + SWAPS {
        let next = App::start("app").await;
        served.ingress.publish(table(revision, &[next.address]));
        served.drained(revision).await;
        std::mem::replace(&mut current, next).kill().await;
        // Let the new backend be used before it goes.
        let target = done.load(Ordering::SeqCst) + 50;
        while done.load(Ordering::SeqCst) < target {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        let failures = client.await.expect("the client ended");
        assert_eq!(failures, Vec::<String>::new());
    }
    let expected = Status {
        applied_revision: 1 + SWAPS,
        drained_revision: 1 + SWAPS,
    };
    assert_eq!(served.status(), expected);
    let service = &served.ingress.metrics().services[0];
    assert_eq!(
        service.requests,
        [0, done.load(Ordering::SeqCst), 0, 0, 0, 0]
    );
    assert_eq!(service.in_flight, 0);
}

async fn hammer(
    address: std::net::SocketAddr,
    number: usize,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) -> Vec<String> {
    let mut failures = Vec::new();
    let mut client = Client::connect(address).await;
    while !stop.load(Ordering::SeqCst) && failures.is_empty() {
        let (request, body, expected) = if number.is_multiple_of(2) {
            (Request::post("/echo"), "some body", "some body")
        } else {
            (Request::get("/"), "", "app")
        };
        match client.try_send(request.header("host", HOST), body).await {
            Ok(reply) if reply.status == StatusCode::OK && reply.body == expected => {}
            other => failures.push(format!("{other:?}")),
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
    failures
}

#[tokio::test]
async fn a_held_request_holds_the_drained_revision() {
    let (old, new) = (App::start("old").await, App::start("new").await);
    let served = serve_one(Options::default(), &[old.address]).await;
    assert_eq!(
        served.status(),
        Status {
            applied_revision: 1,
            drained_revision: 1
        }
    );
    let mut client = served.client().await;
    let held = tokio::spawn(async move {
        client
            .send(Request::get("/hold").header("host", HOST), "")
            .await
    });
    while old.served() == 0 {
        tokio::task::yield_now().await;
    }
    served.ingress.publish(table(5, &[new.address]));
    assert_eq!(
        served.status(),
        Status {
            applied_revision: 5,
            drained_revision: 4
        }
    );
    assert_eq!(served.get(HOST, "/").await.body, "new");
    served.ingress.publish(table(7, &[]));
    assert_eq!(
        served.status(),
        Status {
            applied_revision: 7,
            drained_revision: 4
        },
        "7 has drained, 5 has not"
    );
    old.gate.add_permits(1);
    assert_eq!(held.await.expect("ended").body, "held");
    served.drained(7).await;
}

#[tokio::test]
async fn a_streaming_answer_counts_until_its_last_byte() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let mut client = served.client().await;
    let response = client
        .begin(Request::get("/stream").header("host", HOST), "")
        .await
        .expect("begun");
    let mut body = response.into_body();
    let first = body
        .frame()
        .await
        .expect("a part")
        .expect("whole")
        .into_data()
        .expect("data");
    assert_eq!(first, "first");
    served.ingress.publish(Table {
        revision: 2,
        routes: Vec::new(),
        ..Table::default()
    });
    assert_eq!(served.status().drained_revision, 1);
    app.gate.add_permits(1);
    assert_eq!(body.collect().await.expect("whole").to_bytes(), "last");
    served.drained(2).await;
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_backend() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let mut client = served.client().await;
    let held = tokio::spawn(async move {
        client
            .send(Request::get("/hold").header("host", HOST), "")
            .await
    });
    while app.served() == 0 {
        tokio::task::yield_now().await;
    }
    served.ingress.publish(table(2, &[]));
    assert_eq!(served.status().drained_revision, 1);
    held.abort();
    served.drained(2).await;
}

#[tokio::test]
async fn revisions_that_go_back_never_claim_too_much() {
    let app = App::start("a").await;
    let served = serve(Options::default()).await;
    served.ingress.publish(table(10, &[app.address]));
    let mut client = served.client().await;
    let held = tokio::spawn(async move {
        client
            .send(Request::get("/hold").header("host", HOST), "")
            .await
    });
    while app.served() == 0 {
        tokio::task::yield_now().await;
    }
    served.ingress.publish(table(11, &[]));
    served.ingress.publish(table(3, &[]));
    assert_eq!(
        served.status(),
        Status {
            applied_revision: 3,
            drained_revision: 2
        }
    );
    app.gate.add_permits(1);
    held.await.expect("ended");
    served.drained(3).await;
    assert_eq!(served.status().drained_revision, 3);
}

#[tokio::test]
async fn shutdown_lets_requests_end_and_takes_no_more() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let mut idle = served.client().await;
    assert_eq!(
        idle.send(Request::get("/").header("host", HOST), "")
            .await
            .body,
        "a"
    );
    let mut client = served.client().await;
    let held = tokio::spawn(async move {
        client
            .send(Request::get("/hold").header("host", HOST), "")
            .await
    });
    while app.served() < 2 {
        tokio::task::yield_now().await;
    }
    served.shutdown.cancel();
    while tokio::net::TcpStream::connect(served.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    app.gate.add_permits(1);
    assert_eq!(held.await.expect("ended").body, "held");
    let closed = tokio::time::timeout(SOON, served.task)
        .await
        .expect("in time")
        .expect("ended");
    assert_eq!(closed.cut, 0);
}

#[tokio::test]
async fn shutdown_cuts_what_does_not_end() {
    let app = App::start("a").await;
    let options = Options {
        drain_timeout: std::time::Duration::from_millis(50),
        ..Options::default()
    };
    let served = serve_one(options, &[app.address]).await;
    let mut client = served.client().await;
    let held = tokio::spawn(async move {
        client
            .try_send(Request::get("/hold").header("host", HOST), "")
            .await
    });
    while app.served() == 0 {
        tokio::task::yield_now().await;
    }
    served.shutdown.cancel();
    let closed = tokio::time::timeout(SOON, served.task)
        .await
        .expect("in time")
        .expect("ended");
    assert_eq!(closed.cut, 1);
    assert!(held.await.expect("ended").is_err());
}
