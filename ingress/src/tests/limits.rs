//! Clients that send too much, too slowly, or two things at once.

use std::time::Duration;

use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{App, HOST, serve_one};
use crate::Options;

const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn heads_are_limited_in_size_and_count() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let many: String = (0..101).map(|number| format!("h{number}: x\r\n")).collect();
    let large = format!("large: {}\r\n", "x".repeat(40 * 1024));
    for (headers, status) in [(String::new(), "200"), (many, "431"), (large, "431")] {
        let request =
            format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n{headers}\r\n");
        let answer = served.raw(request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{status}: {answer}"
        );
    }
    assert_eq!(app.served(), 1);
}

#[tokio::test]
async fn requests_need_exactly_one_valid_host() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    for hosts in [
        String::new(),
        format!("host: {HOST}\r\nhost: {HOST}\r\n"),
        format!("host: {HOST}/..\r\n"),
        format!("host: user@{HOST}\r\n"),
    ] {
        let answer = served
            .raw(format!("GET / HTTP/1.1\r\nconnection: close\r\n{hosts}\r\n").as_bytes())
            .await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains("bad_host"),
            "{hosts}: {answer}"
        );
    }
    let connect =
        format!("CONNECT {HOST}:80 HTTP/1.1\r\nhost: {HOST}:80\r\nconnection: close\r\n\r\n");
    assert!(
        served
            .raw(connect.as_bytes())
            .await
            .starts_with("HTTP/1.1 405 ")
    );
    assert_eq!(app.served(), 0);
}

#[tokio::test]
async fn a_request_with_two_lengths_cannot_carry_a_second_one() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    for lengths in [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
    ] {
        let request = format!(
            "POST /headers HTTP/1.1\r\nhost: {HOST}\r\n{lengths}\r\n\r\n0\r\n\r\n{smuggled}"
        );
        let before = app.served();
        let answer = served.raw(request.as_bytes()).await;
        // One answer and the end of the connection: what follows is not read as a request. The
        // backend gets the chunked body alone.
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(
            answer.contains("transfer-encoding: chunked") && !answer.contains("content-length: 5"),
            "{answer}"
        );
        assert_eq!(app.served(), before + 1);
    }
    for lengths in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: +5",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: xchunked",
    ] {
        let before = app.served();
        let answer = served
            .raw(format!("POST / HTTP/1.1\r\nhost: {HOST}\r\n{lengths}\r\n\r\nhello").as_bytes())
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{lengths}: {answer}");
        assert_eq!(app.served(), before);
    }
}

#[tokio::test]
async fn bodies_are_limited_where_asked_for() {
    let app = App::start("a").await;
    let options = Options {
        max_request_body_bytes: Some(8),
        ..Options::default()
    };
    let served = serve_one(options, &[app.address]).await;
    let mut client = served.client().await;
    assert_eq!(
        client
            .send(Request::post("/length").header("host", HOST), "12345678")
            .await
            .body,
        "8"
    );
    let reply = client
        .send(Request::post("/length").header("host", HOST), "123456789")
        .await;
    assert_eq!(
        (reply.status, reply.code()),
        (StatusCode::PAYLOAD_TOO_LARGE, Some("body_too_large"))
    );
    assert_eq!(app.served(), 1);
    let chunked = format!(
        "POST /length HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
         5\r\n12345\r\n5\r\n12345\r\n0\r\n\r\n"
    );
    let answer = served.raw(chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_long_before_an_idle_connection() {
    let app = App::start("a").await;
    let options = Options {
        header_read_timeout: SHORT,
        ..Options::default()
    };
    let served = serve_one(options, &[app.address]).await;
    for begun in ["P", "PRI * HTTP/2.0", "GET / HTTP/1.1\r\nhost: a"] {
        assert_eq!(served.raw(begun.as_bytes()).await, "", "{begun}");
    }
    // A connection between two requests may wait for longer than a head.
    let mut client = served.client().await;
    let request = || Request::get("/").header("host", HOST);
    assert_eq!(client.send(request(), "").await.body, "a");
    tokio::time::sleep(3 * SHORT).await;
    assert_eq!(client.send(request(), "").await.body, "a");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let app = App::start("a").await;
    let options = Options {
        idle_timeout: SHORT,
        ..Options::default()
    };
    let served = serve_one(options, &[app.address]).await;
    let once = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    for sent in ["", once.as_str()] {
        let answer = served.raw(sent.as_bytes()).await;
        assert_eq!(answer.is_empty(), sent.is_empty(), "{answer}");
    }
}

#[tokio::test]
async fn an_upload_may_be_slow_but_not_stop() {
    let app = App::start("a").await;
    let options = Options {
        response_timeout: 2 * SHORT,
        ..Options::default()
    };
    let served = serve_one(options, &[app.address]).await;
    let mut stream = TcpStream::connect(served.address).await.expect("connects");
    let head = format!("POST /length HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 6\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    for _ in 0..6 {
        tokio::time::sleep(SHORT).await;
        stream.write_all(b"x").await.expect("sent");
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("answered");
    assert_eq!(&answer, b"HTTP/1.1 200");
    let stopped = format!(
        "POST /length HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 6\r\nconnection: close\r\n\r\nxxx"
    );
    let answer = served.raw(stopped.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let app = App::start("a").await;
    let options = Options {
        write_stall_timeout: SHORT,
        ..Options::default()
    };
    let served = serve_one(options, &[app.address]).await;
    let mut stream = TcpStream::connect(served.address).await.expect("connects");
    stream
        .write_all(format!("GET /big HTTP/1.1\r\nhost: {HOST}\r\n\r\n").as_bytes())
        .await
        .expect("sent");
    while app.served() == 0 {
        tokio::task::yield_now().await;
    }
    served.ingress.publish(super::support::table(2, &[]));
    assert_eq!(served.status().drained_revision, 1);
    served.drained(2).await;
}
