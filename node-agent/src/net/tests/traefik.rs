//! What Traefik hears: its polls, held until something changes for it, and its own word for what it uses.

use skep_ingress::traefik::revision_router;
use skep_proto::v1::NodeEndpoint;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Reads until `end` has come.
async fn read_to(stream: &mut TcpStream, end: &str) -> String {
    let mut read = String::new();
    while !read.contains(end) {
        let mut part = vec![0; 4096];
        let got = timeout(LIMIT, stream.read(&mut part)).await;
        let count = got.expect("in time").expect("an answer");
        assert!(count > 0, "closed after {read}");
        read.push_str(std::str::from_utf8(&part[..count]).expect("text"));
    }
    read
}

#[tokio::test]
async fn a_poll_on_one_connection_waits_for_a_change() {
    let dir = tempfile::tempdir().expect("folder");
    let net = start(dir.path()).await;
    let (one, other) = (app("one").await, app("other").await);
    let publish = async |sequence, backend| {
        let table = table(sequence, &[backend]);
        net.client.publish(table).await.expect("published");
    };
    publish(3, one).await;
    let mut traefik = TcpStream::connect(net.addresses.admin)
        .await
        .expect("connected");
    let poll = "GET /v1/traefik HTTP/1.1\r\nhost: x\r\n\r\n";
    traefik.write_all(poll.as_bytes()).await.expect("sent");
    read_to(&mut traefik, "rev-3.skep").await;
    // What is left of the answer, and none to a second poll.
    traefik.write_all(poll.as_bytes()).await.expect("sent");
    let mut rest = String::new();
    let second = timeout(Duration::from_millis(300), async {
        rest = read_to(&mut traefik, "HTTP/1.1").await;
    });
    assert!(second.await.is_err(), "answered at once: {rest}");
    publish(4, other).await;
    read_to(&mut traefik, "rev-4.skep").await;
    // Who connects anew is answered, and so is a poll that nothing happens for.
    assert!(net.admin("/v1/traefik", "").await.contains("rev-4.skep"));
    traefik.write_all(poll.as_bytes()).await.expect("sent");
    read_to(&mut traefik, "rev-4.skep").await;
    // One that waits keeps nobody from ending.
    traefik.write_all(poll.as_bytes()).await.expect("sent");
    net.stop().await;
}

#[tokio::test]
async fn traefik_gets_the_same_routes_and_never_an_empty_map() {
    let dir = tempfile::tempdir().expect("folder");
    let net = start(dir.path()).await;
    let backend = app("hello").await;
    net.client
        .publish(table(3, &[backend]))
        .await
        .expect("published");
    let body = net.admin("/v1/traefik", "").await;
    assert!(body.contains("content-type: application/json"), "{body}");
    for part in ["Host(`app.example`)", "skep-rev-3"] {
        assert!(body.contains(part), "{part} in {body}");
    }
    // Its address of this machine, not the container's.
    let urls = body.split("\"url\":\"http://").skip(1);
    let addresses = urls.filter_map(|url| url.split_once('"')?.0.parse::<SocketAddr>().ok());
    let mut given = addresses.filter(|it| it.port() == net.addresses.traefik_port);
    let address = given.next().expect("an address");
    let through = "GET / HTTP/1.1\r\nhost: app.example\r\nconnection: close\r\n\r\n";
    assert!(request(address, through).await.ends_with("hello"));
    net.client
        .publish(NodeTable {
            sequence: 4,
            ..Default::default()
        })
        .await
        .expect("published");
    let body = net.admin("/v1/traefik", "").await;
    assert!(
        body.starts_with("HTTP/1.1 200") && body.contains("skep-rev-4"),
        "{body}"
    );
    assert!(
        !body.contains("{}") && !body.contains("app.example"),
        "{body}"
    );
    net.stop().await;
}

/// The API of a Traefik that knows the table of `sequence` and no newer one.
async fn knows(sequence: u64) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.expect("bound");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        let known = format!("/api/http/routers/{}@http ", revision_router(sequence));
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let count = stream.read(&mut head).await.unwrap_or(0);
            let is_known = String::from_utf8_lossy(&head[..count]).contains(&known);
            let status = if is_known { "200 OK" } else { "404 Not Found" };
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn traefik_hears_nothing_of_a_table_that_routes_alike_and_counts_as_having_it() {
    let dir = tempfile::tempdir().expect("folder");
    let api = Some(knows(3).await);
    let net = start_with(Options {
        traefik_api: api,
        ..options(dir.path())
    })
    .await;
    let (one, other) = (app("one").await, app("other").await);
    let publish = async |table| net.client.publish(table).await.expect("published");
    let drained = async |sequence| {
        status_where(&net, |status| {
            status.is_some_and(|it| {
                it.applied_sequence >= sequence && it.drained_sequence == sequence
            })
        })
        .await
    };
    publish(table(3, &[one])).await;
    assert!(net.admin("/v1/traefik", "").await.contains("rev-3.skep"));
    drained(3).await;
    // It would never say that it knows this one.
    let endpoint = NodeEndpoint {
        allocation: id_bytes(9),
        ip: "172.17.0.9".into(),
        ..NodeEndpoint::default()
    };
    publish(NodeTable {
        endpoints: vec![endpoint],
        ..table(4, &[one])
    })
    .await;
    drained(4).await;
    assert!(net.admin("/v1/traefik", "").await.contains("rev-3.skep"));
    publish(table(5, &[other])).await;
    assert!(net.app("app.example").await.ends_with("other"));
    assert!(net.admin("/v1/traefik", "").await.contains("rev-5.skep"));
    // Not what it does not say to use, though it has fetched it.
    let early = status_where(&net, |status| {
        status.is_some_and(|it| it.applied_sequence == 5)
    });
    assert!(early.await.is_some_and(|it| it.drained_sequence < 5));
    net.stop().await;
}
