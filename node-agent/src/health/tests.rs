use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use skep_model::health::{Health, Probe};
use skep_model::id::{ClusterId, NodeId};

use super::probe::reach;
use super::*;
use crate::metrics::Metrics;

const SOON: Duration = Duration::from_millis(300);

fn target() -> Target {
    Target {
        allocation: AllocationId::from_u128(1),
        container: "c".into(),
        address: Some(Ipv4Addr::LOCALHOST.into()),
        pid: 0,
        started_ms: clock::now_ms(),
        was_healthy: false,
        checks: Checks::of(&Health::default(), Some(8_080)),
        deadline: Duration::from_secs(60),
    }
}

/// What never was started asks nothing of Docker.
fn watch(target: Target) -> (Watch, mpsc::Receiver<Report>) {
    let (reports, told) = mpsc::channel(8);
    let ids = (ClusterId::from_u128(1), NodeId::from_u128(2));
    let runtime = Runtime::new("/nonexistent".as_ref(), ids, Metrics::default());
    let watch = Watch {
        target,
        runtime: runtime.expect("a path"),
        reports,
        started: CancellationToken::new(),
    };
    (watch, told)
}

fn question(check: &Check) -> Question<'_> {
    Question {
        check,
        at: Some((Ipv4Addr::LOCALHOST, 8_080).into()),
        limit: SOON,
    }
}

/// Answers each connection with `text`; with none it keeps silent.
async fn serve(text: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let at = listener.local_addr().expect("address");
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            if let Some(text) = text {
                let _ = stream.read(&mut [0; 1_024]).await;
                let _ = stream.write_all(text.as_bytes()).await;
            } else {
                open.push(stream);
            }
        }
    });
    at
}

#[tokio::test]
async fn faults_are_told_apart() {
    let ok = serve(Some("HTTP/1.1 204 No Content\r\n\r\n")).await;
    let root = Check::Http("/".into());
    assert_eq!(reach(&root, ok, (SOON, SOON)).await, Ok(()));
    let moved = serve(Some(
        "HTTP/1.1 302 Found\r\nlocation: http://x.invalid/\r\n\r\n",
    ))
    .await;
    assert_eq!(reach(&root, moved, (SOON, SOON)).await, Ok(()));
    let broken = serve(Some("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n")).await;
    assert_eq!(
        reach(&root, broken, (SOON, SOON)).await,
        Err(Fault::Status(500))
    );
    assert_eq!(reach(&Check::Tcp, broken, (SOON, SOON)).await, Ok(()));
    let other = serve(Some("220 smtp\r\n")).await;
    assert_eq!(reach(&root, other, (SOON, SOON)).await, Err(Fault::NotHttp));
    let silent = serve(None).await;
    let timed_out = Err(Fault::TimedOut { connected: true });
    assert_eq!(reach(&root, silent, (SOON, SOON)).await, timed_out);
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind")
        .local_addr()
        .expect("address");
    assert_eq!(
        reach(&Check::Tcp, closed, (SOON, SOON)).await,
        Err(Fault::Refused)
    );
}

#[tokio::test]
async fn the_deadline_counts_from_the_containers_start() {
    let mut late = target();
    late.checks = Checks::of(&Health::default(), Some(1));
    late.started_ms -= 120_000;
    let (watch, _reports) = watch(late);
    let asked = watch.target.checks.readiness.clone().expect("a port");
    let begun = std::time::Instant::now();
    assert_eq!(watch.until_deadline(&asked).await, Err(Fault::Refused));
    assert!(begun.elapsed() < Duration::from_secs(5), "no second minute");
}

#[test]
fn hints_say_where_it_listens() {
    let at = |text: &str| text.parse::<SocketAddr>().expect("address");
    let within = Duration::from_secs(60);
    let say = |fault, heard: &[SocketAddr]| {
        never_healthy(&question(&Check::Tcp), within, (&fault, Some(heard))).to_string()
    };
    let cases = [
        (
            say(Fault::Refused, &[at("127.0.0.1:3000")]),
            "never became healthy within 60 s: nothing answers on port 8080 \
             (it listens on 127.0.0.1:3000 only: make it listen on 0.0.0.0)",
        ),
        (
            say(Fault::Refused, &[at("0.0.0.0:3000"), at("127.0.0.1:8080")]),
            "never became healthy within 60 s: nothing answers on port 8080 \
             (it listens on 127.0.0.1:8080 only: make it listen on 0.0.0.0)",
        ),
        (
            say(Fault::Refused, &[at("[::]:3000"), at("127.0.0.11:41000")]),
            "never became healthy within 60 s: nothing answers on port 8080 \
             (it listens on port 3000: set `port` to that, or make it listen on what PORT says)",
        ),
        (
            say(Fault::Refused, &[]),
            "never became healthy within 60 s: nothing answers on port 8080 \
             (it listens on no port at all: it should listen on 0.0.0.0:8080 (PORT says so))",
        ),
    ];
    for (said, expected) in cases {
        assert_eq!(said, expected);
    }
    let up = Check::Http("/up".into());
    let said = never_healthy(&question(&up), within, (&Fault::Status(503), None)).message;
    assert!(said.ends_with("GET /up on port 8080 answers 503"), "{said}");
}

#[tokio::test]
async fn ports_of_a_live_process_are_found() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let found = ports::listening(std::process::id()).expect("procfs");
    assert!(found.contains(&listener.local_addr().expect("address")));
    assert_eq!(ports::listening(0), None);
}

/// A gRPC health service that knows one name.
async fn serve_grpc() -> SocketAddr {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("shop.Orders", tonic_health::ServingStatus::Serving)
        .await;
    reporter
        .set_service_status("shop.Bills", tonic_health::ServingStatus::NotServing)
        .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let at = listener.local_addr().expect("address");
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
    at
}

#[tokio::test]
async fn grpc_is_asked_by_the_name_of_its_service() {
    let at = serve_grpc().await;
    let limits = (Duration::from_secs(10), Duration::from_secs(10));
    let ask = async |name: &str| reach(&Check::Grpc(name.into()), at, limits).await;
    assert_eq!(ask("shop.Orders").await, Ok(()));
    let not_serving = Err(Fault::NotServing("NOT_SERVING".into()));
    assert_eq!(ask("shop.Bills").await, not_serving);
    assert!(matches!(ask("shop.Other").await, Err(Fault::NotServing(_))));
    let other = serve(Some("220 smtp\r\n")).await;
    let refused = reach(&Check::Grpc(String::new()), other, limits).await;
    assert_ne!(refused, Ok(()));
}

#[tokio::test]
async fn what_speaks_no_tls_is_said() {
    let plain = serve(Some("HTTP/1.1 204 No Content\r\n\r\n")).await;
    let asked = reach(&Check::Https("/".into()), plain, (SOON, SOON)).await;
    assert_eq!(asked, Err(Fault::NotTls));
}

/// A port that answers until it is closed.
struct Door {
    at: SocketAddr,
    cancel: CancellationToken,
}

async fn door() -> Door {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let at = listener.local_addr().expect("address");
    let cancel = CancellationToken::new();
    let open = cancel.clone();
    tokio::spawn(async move {
        let accept = async { while listener.accept().await.is_ok() {} };
        open.run_until_cancelled(accept).await;
    });
    Door { at, cancel }
}

#[tokio::test]
async fn startup_comes_first_and_a_dead_container_is_told_once() {
    let (ready, alive) = (door().await, door().await);
    let probe = |port| Probe {
        port: Some(port),
        interval_ms: 20,
        failures: 2,
        ..Probe::new(Check::Tcp)
    };
    let health = Health {
        startup: Some(probe(alive.at.port())),
        liveness: Some(probe(alive.at.port())),
        ..Health::default()
    };
    let mut asked = target();
    asked.checks = Checks::of(&health, Some(ready.at.port()));
    let (watch, mut told) = watch(asked);
    let running = tokio::spawn(async move { watch.run().await });
    let first = told.recv().await.expect("a word").verdict;
    assert!(matches!(first, Verdict::Healthy), "{first:?}");
    alive.cancel.cancel();
    let second = told.recv().await.expect("a word").verdict;
    let Verdict::Dead(problem) = second else {
        panic!("{second:?}");
    };
    assert!(
        problem.message.contains("2 liveness checks in a row"),
        "{problem}"
    );
    running.await.expect("ended by itself");
    assert!(told.recv().await.is_none(), "the last word");
}
