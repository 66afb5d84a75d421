use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::probe::{Fault, probe};
use super::*;

const SOON: Duration = Duration::from_millis(300);

fn target() -> Target {
    Target {
        allocation: AllocationId::from_u128(1),
        container: "c".into(),
        address: Ipv4Addr::LOCALHOST.into(),
        port: 8_080,
        pid: 0,
        started_ms: clock::now_ms(),
        was_healthy: false,
        health: Health::default(),
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
    assert_eq!(probe(ok, Some("/"), (SOON, SOON)).await, Ok(()));
    let moved = serve(Some(
        "HTTP/1.1 302 Found\r\nlocation: http://x.invalid/\r\n\r\n",
    ))
    .await;
    assert_eq!(probe(moved, Some("/"), (SOON, SOON)).await, Ok(()));
    let broken = serve(Some("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n")).await;
    assert_eq!(
        probe(broken, Some("/"), (SOON, SOON)).await,
        Err(Fault::Status(500))
    );
    assert_eq!(probe(broken, None, (SOON, SOON)).await, Ok(()));
    let other = serve(Some("220 smtp\r\n")).await;
    assert_eq!(
        probe(other, Some("/"), (SOON, SOON)).await,
        Err(Fault::NotHttp)
    );
    let silent = serve(None).await;
    let timed_out = Err(Fault::TimedOut { connected: true });
    assert_eq!(probe(silent, Some("/"), (SOON, SOON)).await, timed_out);
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind")
        .local_addr()
        .expect("address");
    assert_eq!(probe(closed, None, (SOON, SOON)).await, Err(Fault::Refused));
}

#[tokio::test]
async fn the_deadline_counts_from_the_containers_start() {
    let mut late = target();
    late.port = 1;
    late.started_ms -= 120_000;
    let begun = std::time::Instant::now();
    assert_eq!(first_success(&late).await, Err(Fault::Refused));
    assert!(begun.elapsed() < Duration::from_secs(5), "no second minute");
}

#[test]
fn hints_say_where_it_listens() {
    let at = |text: &str| text.parse::<SocketAddr>().expect("address");
    let say =
        |fault, heard: &[SocketAddr]| never_healthy(&target(), &fault, Some(heard)).to_string();
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
    let mut checked = target();
    checked.health.path = Some("/up".into());
    let said = never_healthy(&checked, &Fault::Status(503), None).message;
    assert!(said.ends_with("GET /up on port 8080 answers 503"), "{said}");
}

#[tokio::test]
async fn ports_of_a_live_process_are_found() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let found = ports::listening(std::process::id()).expect("procfs");
    assert!(found.contains(&listener.local_addr().expect("address")));
    assert_eq!(ports::listening(0), None);
}
