//! Where requests go and what arrives there.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{App, HOST, route, serve, serve_one};
use crate::{Options, Table};

#[tokio::test]
async fn hosts_and_paths_lead_to_their_services() {
    let (a, b, c) = (
        App::start("a").await,
        App::start("b").await,
        App::start("c").await,
    );
    let served = serve(Options::default()).await;
    let routes = vec![
        route("a.test", "/", 1, &[a.address]),
        route("a.test", "/api", 2, &[b.address]),
        route("*.test", "/", 3, &[c.address]),
        route("no`good", "/", 4, &[c.address]),
    ];
    served.ingress.publish(Table {
        revision: 1,
        routes,
        ..Table::default()
    });
    for (host, path, body) in [
        ("a.test", "/", "a"),
        ("A.Test:8080", "/apis", "a"),
        ("a.test.", "/api", "b"),
        ("a.test", "/api/x?y", "b"),
        ("other.test", "/", "c"),
    ] {
        let reply = served.get(host, path).await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (StatusCode::OK, body),
            "{host}{path}"
        );
    }
    for host in ["test", "x.y.test", "127.0.0.1"] {
        let reply = served.get(host, "/").await;
        assert_eq!(
            (reply.status, reply.code()),
            (StatusCode::NOT_FOUND, Some("unknown_host")),
            "{host}"
        );
        assert!(reply.body.contains("routes"), "{}", reply.body);
    }
}

#[tokio::test]
async fn a_backend_learns_the_true_origin_and_the_asked_host() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let request = Request::get("/headers?q=1")
        .header("host", "APP.test:81")
        .header("x-forwarded-for", "6.6.6.6")
        .header("forwarded", "for=6.6.6.6")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("accept", "*/*");
    let reply = served.client().await.send(request, "").await;
    let id = reply.headers["x-request-id"].to_str().expect("text");
    let expected = format!(
        "GET /headers?q=1\naccept: */*\nhost: APP.test:81\nx-forwarded-for: 127.0.0.1\n\
                    x-forwarded-host: APP.test:81\nx-forwarded-port: 81\nx-forwarded-proto: http\n\
                    x-request-id: {id}\n"
    );
    assert_eq!(reply.body, expected);
}

#[tokio::test]
async fn http2_in_clear_works_on_the_same_port() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let stream = TcpStream::connect(served.address).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("speaks");
    tokio::spawn(connection);
    for (path, sent, expected) in [
        (
            "/headers",
            "",
            "POST /headers\ncontent-length: 0\nhost: app.test\n",
        ),
        ("/echo", "a body", "a body"),
    ] {
        let request =
            Request::post(format!("http://{HOST}{path}")).body(Full::new(Bytes::from(sent)));
        let response = sender
            .send_request(request.expect("a request"))
            .await
            .expect("answered");
        assert_eq!(response.status(), StatusCode::OK);
        let body = response
            .into_body()
            .collect()
            .await
            .expect("whole")
            .to_bytes();
        assert!(body.starts_with(expected.as_bytes()), "{path}: {body:?}");
    }
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    // Each part is answered before the next is sent: nothing waits for the end.
    let mut stream = TcpStream::connect(served.address).await.expect("connects");
    let head = format!("POST /echo HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut seen = String::new();
    for part in ["one", "two", "three"] {
        stream
            .write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes())
            .await
            .expect("sent");
        while !seen.contains(part) {
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).await.expect("read");
            assert_ne!(count, 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }
    assert_eq!(served.ingress.metrics().services[0].request_bytes, 11);
    assert_eq!(served.ingress.metrics().services[0].response_bytes, 11);
}

#[tokio::test]
async fn head_requests_keep_the_length_and_the_connection() {
    let app = App::start("name").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let mut client = served.client().await;
    for _ in 0..3 {
        let reply = client
            .send(Request::head("/").header("host", HOST), "")
            .await;
        assert_eq!((reply.status, reply.body.as_str()), (StatusCode::OK, ""));
        assert_eq!(reply.headers["content-length"], "4");
        assert_eq!(
            client
                .send(Request::post("/length").header("host", HOST), "12345")
                .await
                .body,
            "5"
        );
    }
}

#[tokio::test]
async fn only_the_ingress_sets_its_error_header() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let reply = served.get(HOST, "/bad").await;
    assert_eq!(
        (reply.status, reply.code()),
        (StatusCode::INTERNAL_SERVER_ERROR, None)
    );
    assert_eq!(
        served.ingress.metrics().services[0].requests,
        [0, 0, 0, 0, 1, 0]
    );
}

#[tokio::test]
async fn upgraded_connections_carry_bytes_and_count_as_in_flight() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let mut client = served.client().await;
    let request = Request::get("/")
        .header("host", HOST)
        .header("connection", "Upgrade")
        .header("upgrade", "echo");
    let response = client.begin(request, "").await.expect("answered");
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["upgrade"], "echo");
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.expect("upgraded"));
    for message in ["ping", "pong"] {
        tunnel.write_all(message.as_bytes()).await.expect("sent");
        let mut echo = [0; 4];
        tunnel.read_exact(&mut echo).await.expect("echoed");
        assert_eq!(echo, message.as_bytes());
    }
    let metrics = served.ingress.metrics();
    assert_eq!((metrics.tunnels, metrics.services[0].in_flight), (1, 1));
    served.ingress.publish(Table {
        revision: 2,
        routes: Vec::new(),
        ..Table::default()
    });
    assert_eq!(served.status().drained_revision, 1);
    drop(tunnel);
    served.drained(2).await;
}

#[tokio::test]
async fn a_client_that_waits_for_leave_to_send_gets_it() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let mut stream = TcpStream::connect(served.address).await.expect("connects");
    let head = format!(
        "POST /length HTTP/1.1\r\nhost: {HOST}\r\nexpect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut leave = [0; 25];
    stream.read_exact(&mut leave).await.expect("answered");
    assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n5"),
        "{answer}"
    );
}
