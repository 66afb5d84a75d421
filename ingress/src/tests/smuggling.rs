//! Requests that two readers could read differently, byte for byte: each is refused, or reaches the backend in
//! one clear form. And clients that are slow or half gone.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{App, HOST, SOON, serve_one, table};
use crate::Options;

/// What would be seen if a second request were read out of the first.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: app.test\r\n\r\n";

fn post(headers: &str, body: &str) -> String {
    format!("POST /headers HTTP/1.1\r\nhost: {HOST}\r\n{headers}\r\n{body}{SMUGGLED}")
}

#[tokio::test]
async fn what_is_not_clear_is_refused_and_nothing_after_it_is_read() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let chunk = "0\r\n\r\n";
    for (what, sent) in [
        ("identity", post("transfer-encoding: identity\r\n", "")),
        (
            "identity and a length",
            post(
                "transfer-encoding: identity\r\ncontent-length: 5\r\n",
                "hello",
            ),
        ),
        (
            "chunked not last",
            post("transfer-encoding: chunked, gzip\r\n", chunk),
        ),
        (
            "chunked, then not",
            post(
                "transfer-encoding: chunked\r\ntransfer-encoding: x\r\n",
                chunk,
            ),
        ),
        (
            "vertical tab",
            post("transfer-encoding: \x0bchunked\r\n", chunk),
        ),
        ("quoted", post("transfer-encoding: \"chunked\"\r\n", chunk)),
        (
            "not decoded",
            post("transfer-encoding: gzip, chunked\r\n", chunk),
        ),
        (
            "twice",
            post("transfer-encoding: chunked, chunked\r\n", chunk),
        ),
        (
            "twice, two lines",
            post(
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
                chunk,
            ),
        ),
        (
            "two lengths",
            post("content-length: 5\r\ncontent-length: 6\r\n", "hello"),
        ),
        (
            "a list of lengths",
            post("content-length: 5, 5\r\n", "hello"),
        ),
        ("signed", post("content-length: +5\r\n", "hello")),
        ("negative", post("content-length: -5\r\n", "hello")),
        ("hex", post("content-length: 0x5\r\n", "hello")),
        ("empty", post("content-length: \r\n", "hello")),
        (
            "beyond 64 bits",
            post("content-length: 18446744073709551621\r\n", "hello"),
        ),
        (
            "space before the colon",
            post("content-length : 5\r\n", "hello"),
        ),
        (
            "space before the name",
            post(" content-length: 5\r\n", "hello"),
        ),
        ("folded", post("x-a: b\r\n content-length: 5\r\n", "hello")),
        (
            "folded by a tab",
            post("x-a: b\r\n\ttransfer-encoding: chunked\r\n", chunk),
        ),
        ("a zero byte", post("x-a: b\0c\r\n", "")),
        ("a bare CR", post("x-a: b\rcontent-length: 5\r\n", "hello")),
        ("no colon", post("content-length\r\n", "")),
        ("no name", post(": 5\r\n", "")),
        ("two hosts", post("host: other.test\r\n", "")),
        ("the same host twice", post("host: app.test\r\n", "")),
        (
            "another authority",
            format!("GET http://other.test/ HTTP/1.1\r\nhost: {HOST}\r\n\r\n{SMUGGLED}"),
        ),
        (
            "authority alone",
            format!("GET app.test HTTP/1.1\r\nhost: {HOST}\r\n\r\n{SMUGGLED}"),
        ),
        (
            "a user",
            format!("GET http://u@app.test/ HTTP/1.1\r\nhost: {HOST}\r\n\r\n{SMUGGLED}"),
        ),
        (
            "two spaces",
            format!("GET  / HTTP/1.1\r\nhost: {HOST}\r\n\r\n{SMUGGLED}"),
        ),
        (
            "a space in the path",
            format!("GET /a b HTTP/1.1\r\nhost: {HOST}\r\n\r\n{SMUGGLED}"),
        ),
        (
            "no version",
            format!("GET /\r\nhost: {HOST}\r\n\r\n{SMUGGLED}"),
        ),
        (
            "version 1.2",
            format!("GET / HTTP/1.2\r\nhost: {HOST}\r\n\r\n{SMUGGLED}"),
        ),
        (
            "chunked in 1.0",
            format!(
                "POST / HTTP/1.0\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{SMUGGLED}"
            ),
        ),
    ] {
        let answer = served.raw(sent.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
        assert_eq!(app.served(), 0, "{what}: {answer}");
    }
}

#[tokio::test]
async fn chunks_that_are_not_clear_end_the_request() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    for (what, chunks) in [
        ("a bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("a bare LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("no end of the chunk", "5\r\nhello0\r\n\r\n"),
        ("a longer chunk", "5\r\nhellohello\r\n0\r\n\r\n"),
        ("a sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a negative size", "-1\r\nhello\r\n0\r\n\r\n"),
        ("beyond 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
    ] {
        let sent = format!(
            "POST /length HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{SMUGGLED}"
        );
        let answer = served.raw(sent.as_bytes()).await;
        assert!(
            answer.matches("HTTP/1.1 ").count() <= 1 && !answer.starts_with("HTTP/1.1 2"),
            "{what}: {answer}"
        );
    }
}

#[tokio::test]
async fn what_is_lenient_is_made_clear_for_the_backend() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let close = "connection: close\r\n";
    for (what, sent, expected) in [
        // Read by both as one body: lengths and encodings are the ingress's own.
        (
            "extensions",
            format!("{close}transfer-encoding: chunked\r\n\r\n5;a=b;c\r\nhello\r\n0\r\n\r\n"),
            "5",
        ),
        (
            "bare LF in the head",
            format!("{close}x-a: b\ncontent-length: 5\r\n\r\nhello"),
            "5",
        ),
        (
            "zeros before",
            format!("{close}content-length: 005\r\n\r\nhello"),
            "5",
        ),
        (
            "the same length twice",
            format!("{close}content-length: 5\r\ncontent-length: 5\r\n\r\nhello"),
            "5",
        ),
        (
            "case",
            format!("{close}Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            "5",
        ),
    ] {
        let sent = format!("POST /length HTTP/1.1\r\nhost: {HOST}\r\n{sent}");
        let answer = served.raw(sent.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
        assert!(
            answer.ends_with(&format!("\r\n\r\n{expected}")),
            "{what}: {answer}"
        );
    }
    let head = format!("GET http://app.test/headers HTTP/1.1\nhost: {HOST}\n{close}x-a: b\n\n");
    let answer = served.raw(head.as_bytes()).await;
    assert!(
        answer.contains("\r\n\r\nGET /headers\nhost: app.test\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn headers_that_backends_could_take_for_others_do_not_arrive() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let sent = format!(
        "POST /headers HTTP/1.1\r\nhost: {HOST}\r\nconnection: close, x-forwarded-for, content-length\r\n\
         content-length: 2\r\ncontent_length: 0\r\ntransfer_encoding: chunked\r\nx_forwarded_for: 6.6.6.6\r\n\
         x-user: me\r\nx_user: admin\r\nx.user: admin\r\napi_key: mine\r\n\r\nhi"
    );
    let answer = served.raw(sent.as_bytes()).await;
    let (_, told) = answer.split_once("POST /headers\n").expect("answered");
    let names: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    let expected = [
        "api_key",
        "content-length",
        "host",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-request-id",
        "x-user",
    ];
    assert_eq!(names, expected, "{answer}");
    assert!(
        !told.contains("6.6.6.6") && !told.contains("admin"),
        "{told}"
    );
}

#[tokio::test]
async fn trailers_say_nothing_that_the_head_settles() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let sent = format!(
        "POST /trailers HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\
         trailer: x-sum, x-real-ip, x_forwarded_for\r\n\r\n2\r\nhi\r\n0\r\n\
         x-sum: 1\r\nx-real-ip: 6.6.6.6\r\nx_forwarded_for: 6.6.6.6\r\n\r\n"
    );
    let answer = served.raw(sent.as_bytes()).await;
    assert!(answer.ends_with("\r\n\r\n[\"x-sum\"]"), "{answer}");
}

/// A client that closes its half has gone, as for nginx and Go: nobody works for somebody who left.
#[tokio::test]
async fn a_client_that_closes_its_half_holds_no_backend() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let mut stream = TcpStream::connect(served.address).await.expect("connects");
    let head = format!("GET /hold HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    while app.served() == 0 {
        tokio::task::yield_now().await;
    }
    stream.shutdown().await.expect("half closed");
    served.ingress.publish(table(2, &[]));
    served.drained(2).await;
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
    let _ = ended.expect("closed by the ingress");
    assert!(answer.is_empty(), "{answer:?}");
}

#[tokio::test]
async fn a_body_that_ends_early_is_no_whole_one() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    for (framing, body) in [
        ("content-length: 10", "hello"),
        ("transfer-encoding: chunked", "5\r\nhello\r\n"),
        ("transfer-encoding: chunked", "5\r\nhel"),
    ] {
        let mut stream = TcpStream::connect(served.address).await.expect("connects");
        let sent = format!("POST /length HTTP/1.1\r\nhost: {HOST}\r\n{framing}\r\n\r\n{body}");
        stream.write_all(sent.as_bytes()).await.expect("sent");
        stream.shutdown().await.expect("half closed");
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
        let _ = ended.expect("closed by the ingress");
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.starts_with("HTTP/1.1 2"), "{framing}: {answer}");
    }
    served.ingress.publish(table(2, &[]));
    served.drained(2).await;
}

#[tokio::test]
async fn an_http2_client_that_sends_half_a_head_is_cut() {
    let app = App::start("a").await;
    let options = Options {
        idle_timeout: Duration::from_millis(150),
        ..Options::default()
    };
    let served = serve_one(options, &[app.address]).await;
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // Settings, then headers that announce more to come (no END_HEADERS).
    sent.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    sent.extend([0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]);
    let mut stream = TcpStream::connect(served.address).await.expect("connects");
    stream.write_all(&sent).await.expect("sent");
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
    let _ = ended.expect("closed by the ingress");
    assert_eq!(app.served(), 0);
}
