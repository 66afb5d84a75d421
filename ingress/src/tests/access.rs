//! The access log as a file: what a line says of requests that end in one way or another.

use std::path::Path;
use std::sync::Arc;

use http::Request;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{App, HOST, Served, crew, serve_ingress, table};
use crate::access::{AccessLog, Writer};
use crate::reach::NoWay;
use crate::{Ingress, Options};

async fn logging(path: &Path, with_query: bool, app: &App) -> (Served, Writer) {
    let (log, writer) = AccessLog::open(path.to_owned(), with_query).expect("opened");
    let served = serve_ingress(Ingress::reaching(
        Options::default(),
        crew(),
        Arc::new(NoWay),
        Some(log),
    ))
    .await;
    served.ingress.publish(table(1, &[app.address]));
    (served, writer)
}

/// All lines, when everything has ended.
async fn lines(path: &Path, served: Served, writer: Writer) -> Vec<Value> {
    served.shutdown.cancel();
    served.task.await.expect("ended");
    tokio::task::spawn_blocking(|| drop(writer))
        .await
        .expect("written");
    let text = std::fs::read_to_string(path).expect("a log");
    let parsed = text.lines().map(serde_json::from_str);
    parsed.collect::<Result<_, _>>().expect("lines of JSON")
}

#[tokio::test]
async fn a_line_says_who_asked_for_what_and_what_came_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let app = App::start("a").await;
    let (served, writer) = logging(&path, false, &app).await;
    let mut client = served.client().await;
    let agent = "a \"browser\"\t1";
    let request = Request::post("/echo?secret=1")
        .header("host", HOST)
        .header("user-agent", agent);
    let id = client.send(request, "a body").await.headers["x-request-id"].clone();
    let request = Request::head("/").header("host", HOST);
    client.send(request, "").await;
    client
        .send(Request::get("/x").header("host", "unknown.test"), "")
        .await;
    drop(client);
    let lines = lines(&path, served, writer).await;
    let line = &lines[0];
    for (name, value) in [
        ("client", "127.0.0.1"),
        ("scheme", "http"),
        ("method", "POST"),
        ("host", HOST),
        ("path", "/echo"),
        ("version", "1.1"),
        ("user_agent", agent),
        ("service", "app.test/"),
        ("request_id", id.to_str().expect("text")),
    ] {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &6.into()));
    assert_eq!(line["complete"], true);
    assert!(line["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
    let time = line["time"].as_str().expect("a time");
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    assert!(line.get("error").is_none());
    assert_eq!(
        (&lines[1]["bytes"], &lines[1]["complete"]),
        (&0.into(), &true.into())
    );
    assert_eq!(lines[2]["status"], 404);
    assert_eq!(lines[2]["error"], "unknown_host");
    assert!(lines[2].get("service").is_none());
    assert_eq!(lines.len(), 3);
}

#[tokio::test]
async fn clients_that_leave_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let app = App::start("a").await;
    let (served, writer) = logging(&path, true, &app).await;
    for (target, seen) in [("/hold?x", None), ("/stream", Some("first"))] {
        let before = app.served();
        let mut stream = TcpStream::connect(served.address).await.expect("connects");
        let head = format!("GET {target} HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        while app.served() == before {
            tokio::task::yield_now().await;
        }
        let mut answer = Vec::new();
        while let Some(seen) = seen
            && !String::from_utf8_lossy(&answer).contains(seen)
        {
            stream.read_buf(&mut answer).await.expect("read");
        }
    }
    let lines = lines(&path, served, writer).await;
    let of = |path: &str| {
        let found = lines.iter().find(|line| line["path"] == path);
        found.unwrap_or_else(|| panic!("{path} in {lines:?}"))
    };
    assert_eq!(of("/hold?x")["status"], 499);
    assert_eq!(of("/hold?x")["complete"], false);
    let cut = of("/stream");
    assert_eq!((&cut["status"], &cut["bytes"]), (&200.into(), &5.into()));
    assert_eq!(cut["complete"], false);
}
