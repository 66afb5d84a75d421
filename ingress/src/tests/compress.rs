//! Answers that are compressed on their way.

use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use skep_model::routing::RouteSpec;
use tokio::time::timeout;

use super::support::{App, HOST, SOON, Served, route, serve};
use crate::{Options, Route, Table};

async fn serve_compressed(app: &App) -> Served {
    let rules = RouteSpec {
        compress: true,
        ..RouteSpec::default()
    };
    let served = serve(Options::default()).await;
    served.ingress.publish(Table {
        tcp: Vec::new(),
        revision: 1,
        routes: vec![Route {
            rules: Some(Arc::new(rules)),
            ..route(HOST, "/", 1, &[app.address])
        }],
    });
    served
}

fn ask(path: &str, kind: &str) -> http::request::Builder {
    let request = Request::get(path).header("host", HOST);
    let request = request.header("accept-encoding", "br, gzip");
    request.header("x-answer-content-type", kind)
}

fn unpacked(bytes: &[u8]) -> String {
    let mut text = String::new();
    let read = GzDecoder::new(bytes).read_to_string(&mut text);
    read.expect("gzip to its end");
    text
}

#[tokio::test]
async fn text_is_compressed_and_the_connection_is_used_again() {
    let app = App::start("a").await;
    let served = serve_compressed(&app).await;
    let mut client = served.client().await;
    for _ in 0..3 {
        let response = client.begin(ask("/text", "text/plain"), "").await;
        let (head, body) = response.expect("answered").into_parts();
        assert_eq!(head.headers["content-encoding"], "gzip");
        assert_eq!(head.headers["vary"], "accept-encoding");
        let bytes = body.collect().await.expect("whole").to_bytes();
        assert!(bytes.len() < 200, "{}", bytes.len());
        assert_eq!(unpacked(&bytes), "text ".repeat(1_000));
    }
    for (path, kind) in [("/text", "image/png"), ("/", "text/plain")] {
        let reply = client.send(ask(path, kind), "").await;
        assert_eq!(reply.status, StatusCode::OK);
        assert!(!reply.headers.contains_key("content-encoding"), "{kind}");
    }
    let plain = Request::get("/text").header("host", HOST);
    let plain = plain.header("x-answer-content-type", "text/plain");
    let reply = client.send(plain, "").await;
    assert_eq!(reply.body, "text ".repeat(1_000));
    assert_eq!(reply.headers["vary"], "accept-encoding");
}

#[tokio::test]
async fn a_part_that_has_come_is_not_kept_back() {
    let app = App::start("a").await;
    let served = serve_compressed(&app).await;
    let mut client = served.client().await;
    let response = client.begin(ask("/stream", "text/plain"), "").await;
    let mut body = response.expect("answered").into_body();
    let mut bytes = Vec::new();
    let mut decoder = flate2::write::GzDecoder::new(Vec::new());
    let mut next = async || -> Option<Bytes> {
        let frame = timeout(SOON, body.frame()).await.expect("in time")?;
        frame.expect("unbroken").into_data().ok()
    };
    // The gate is closed: nothing else comes until the first part is here.
    while decoder.get_ref() != b"first" {
        let part = next().await.expect("a part");
        std::io::Write::write_all(&mut decoder, &part).expect("gzip");
        std::io::Write::flush(&mut decoder).expect("gzip");
        bytes.extend_from_slice(&part);
    }
    app.gate.add_permits(1);
    while let Some(part) = next().await {
        bytes.extend_from_slice(&part);
    }
    assert_eq!(unpacked(&bytes), "firstlast");
}

#[tokio::test]
async fn much_is_compressed_without_being_held() {
    let app = App::start("a").await;
    let served = serve_compressed(&app).await;
    let mut client = served.client().await;
    let response = client.begin(ask("/big", "text/plain"), "").await;
    let body = response.expect("answered").into_body();
    let bytes = timeout(SOON * 3, body.collect()).await.expect("in time");
    let bytes = bytes.expect("whole").to_bytes();
    let mut decoder = GzDecoder::new(&bytes[..]);
    let read = std::io::copy(&mut decoder, &mut std::io::sink());
    assert_eq!(read.expect("gzip to its end"), 64 << 20);
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off() {
    let app = App::start("a").await;
    let served = serve_compressed(&app).await;
    let mut client = served.client().await;
    let response = client.begin(ask("/stream", "text/plain"), "").await;
    let mut body = response.expect("answered").into_body();
    assert!(body.frame().await.expect("a part").is_ok());
    app.kill().await;
    let rest = timeout(SOON, body.collect()).await.expect("in time");
    assert!(rest.is_err(), "an end that is none would be taken for all");
}
