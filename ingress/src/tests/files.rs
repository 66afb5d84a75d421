//! Static sites: files out of a folder, between real sockets.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use skep_model::id::AllocationId;
use skep_model::routing::RouteSpec;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::support::{App, Client, HOST, SOON, Served, route, serve, table};
use crate::files::{Bundles, FORMAT, File, INDEX, Index, Site, content_name, gzip_name};
use crate::{Backend, Options, Place, Route, Table, listen_on_endpoints};

const LARGE_BYTES: usize = 20 << 20;

/// A folder as the agent leaves it. Text of more than a packet has a smaller twin.
fn unpacked(site: Site, files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut index = Index {
        format: FORMAT,
        site,
        files: [].into(),
    };
    for (content, (path, bytes)) in (1..).zip(files) {
        let at = |name: String| folder.path().join(name);
        fs::write(at(content_name(content)), bytes).expect("written");
        let is_text = path.ends_with(".js") && bytes.len() > 1_500;
        let gzip = is_text.then(|| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(9));
            encoder.write_all(bytes).expect("memory");
            let gzipped = encoder.finish().expect("memory");
            fs::write(at(gzip_name(content)), &gzipped).expect("written");
            gzipped.len() as u64
        });
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let hex = digest.as_ref().iter().map(|it| format!("{it:02x}"));
        let file = File {
            content,
            size: bytes.len() as u64,
            sha256: hex.collect(),
            gzip,
        };
        index.files.insert((*path).to_owned(), file);
    }
    let text = serde_json::to_vec(&index).expect("JSON");
    fs::write(folder.path().join(INDEX), text).expect("written");
    folder
}

fn large() -> Vec<u8> {
    (0..LARGE_BYTES)
        .map(|at| (at * 7 + at / 251) as u8)
        .collect()
}

fn script() -> String {
    "let a = 1;\n".repeat(1_000)
}

fn small_site(spa: bool) -> TempDir {
    let site = Site {
        spa,
        not_found: (!spa).then(|| "404.html".to_owned()),
        headers: [("X-Frame-Options".to_owned(), "DENY".to_owned())].into(),
    };
    unpacked(
        site,
        &[
            ("index.html", b"<h1>home</h1>"),
            ("404.html", b"lost"),
            ("docs/index.html", b"docs"),
            ("assets/app-1a2b3c4d.js", script().as_bytes()),
            (
                "assets/new.css",
                "p { color: red }\n".repeat(1_000).as_bytes(),
            ),
            ("logo.svg", b"<svg/>"),
            ("empty.txt", b""),
        ],
    )
}

fn files_table(revision: u64, bundles: &Bundles, folder: &Path) -> Table {
    let backend = Backend {
        allocation: AllocationId::from_u128(9),
        place: Place::Files(bundles.open(folder).expect("a bundle")),
    };
    Table {
        revision,
        routes: vec![Route {
            backends: vec![backend],
            ..route(HOST, "/", 1, &[])
        }],
        ..Table::default()
    }
}

/// An ingress that hands out the files of `folder`, at revision 1.
async fn serve_files(folder: &Path) -> Served {
    let served = serve(Options::default()).await;
    let bundles = Bundles::default();
    served.ingress.publish(files_table(1, &bundles, folder));
    served
}

async fn ask(
    client: &mut Client,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
) -> (StatusCode, HeaderMap, Bytes) {
    let mut request = Request::builder().method(method).uri(path);
    request = request.header("host", HOST);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.begin(request, "").await.expect("answered");
    let (head, body) = answer.into_parts();
    let body = tokio::time::timeout(SOON, body.collect())
        .await
        .expect("in time");
    (head.status, head.headers, body.expect("whole").to_bytes())
}

#[tokio::test]
async fn files_go_out_with_what_clients_need_to_know() {
    let folder = small_site(false);
    let served = serve_files(folder.path()).await;
    let mut client = served.client().await;
    for (asked, status, length, kind, kept) in [
        ("GET /", 200, 13, "text/html; charset=utf-8", "no-cache"),
        ("HEAD /", 200, 13, "text/html; charset=utf-8", "no-cache"),
        (
            "GET /docs?a=b",
            200,
            4,
            "text/html; charset=utf-8",
            "no-cache",
        ),
        ("GET /docs/", 200, 4, "text/html; charset=utf-8", "no-cache"),
        ("GET /gone", 404, 4, "text/html; charset=utf-8", "no-cache"),
        ("HEAD /gone", 404, 4, "text/html; charset=utf-8", "no-cache"),
        (
            "GET /logo.svg",
            200,
            6,
            "image/svg+xml",
            "public, max-age=0, must-revalidate",
        ),
        (
            "GET /empty.txt",
            200,
            0,
            "text/plain; charset=utf-8",
            "public, max-age=0, must-revalidate",
        ),
        (
            "GET /assets/app-1a2b3c4d.js",
            200,
            11_000,
            "text/javascript; charset=utf-8",
            "public, max-age=31536000, immutable",
        ),
        ("POST /", 405, 49, "text/plain; charset=utf-8", "no-cache"),
        (
            "OPTIONS /",
            405,
            49,
            "text/plain; charset=utf-8",
            "no-cache",
        ),
    ] {
        let (method, path) = asked.split_once(' ').expect("two words");
        let (found, headers, body) = ask(&mut client, (method, path), &[]).await;
        assert_eq!(found, status, "{asked}");
        assert_eq!(headers["content-length"], length.to_string(), "{asked}");
        assert_eq!(headers["content-type"], kind, "{asked}");
        assert_eq!(headers["cache-control"], kept, "{asked}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{asked}");
        assert_eq!(headers["x-frame-options"], "DENY", "{asked}");
        assert!(!headers.contains_key("x-skep-error"), "{asked}");
        let expected = if method == "HEAD" { 0 } else { length };
        assert_eq!(body.len(), expected, "{asked}");
        assert_eq!(headers.contains_key("etag"), status == 200, "{asked}");
        assert_eq!(headers.get("allow").is_some(), status == 405, "{asked}");
    }
    let service = &served.ingress.metrics().services[0];
    assert_eq!(service.requests, [0, 7, 0, 4, 0, 0]);
    assert_eq!(service.in_flight, 0);
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again_and_parts_are_parts() {
    let folder = small_site(false);
    let served = serve_files(folder.path()).await;
    let mut client = served.client().await;
    let path = ("GET", "/assets/app-1a2b3c4d.js");
    let (_, headers, whole) = ask(&mut client, path, &[]).await;
    let tag = headers["etag"].to_str().expect("text").to_owned();
    assert!(tag.starts_with('"'), "strong: {tag}");
    let (status, headers, body) = ask(&mut client, path, &[("if-none-match", &tag)]).await;
    assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(headers["etag"], *tag);
    assert_eq!(headers["vary"], "accept-encoding");
    assert!(!headers.contains_key("content-type") && !headers.contains_key("content-length"));

    let (status, headers, body) = ask(&mut client, path, &[("range", "bytes=10-19")]).await;
    assert_eq!(
        (status, &body[..]),
        (StatusCode::PARTIAL_CONTENT, &whole[10..20])
    );
    assert_eq!(headers["content-range"], "bytes 10-19/11000");
    assert_eq!(headers["content-length"], "10");
    let gzip = [
        ("range", "bytes=-5"),
        ("accept-encoding", "gzip"),
        ("if-range", &*tag),
    ];
    let (status, headers, body) = ask(&mut client, path, &gzip).await;
    assert_eq!(
        (status, &body[..]),
        (StatusCode::PARTIAL_CONTENT, &whole[10_995..])
    );
    assert!(!headers.contains_key("content-encoding"));
    let (status, headers, _) = ask(&mut client, path, &[("range", "bytes=11000-")]).await;
    assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(headers["content-range"], "bytes */11000");
    let other = [("range", "bytes=0-1"), ("if-range", "\"other\"")];
    assert_eq!(ask(&mut client, path, &other).await.0, StatusCode::OK);
    assert_eq!(
        ask(&mut client, path, &[("range", "bytes=0-1,4-5")])
            .await
            .2,
        whole
    );
}

#[tokio::test]
async fn the_smaller_twin_goes_to_those_who_take_it_under_a_tag_of_its_own() {
    let folder = small_site(false);
    let served = serve_files(folder.path()).await;
    let mut client = served.client().await;
    let path = ("GET", "/assets/app-1a2b3c4d.js");
    let taken = ("accept-encoding", "br, gzip");
    let (_, plain, _) = ask(&mut client, path, &[("accept-encoding", "br")]).await;
    let (status, headers, body) = ask(&mut client, path, &[taken]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-encoding"], "gzip");
    assert_eq!(
        (&headers["vary"], &plain["vary"]),
        (&plain["vary"], &headers["vary"])
    );
    assert_eq!(headers["content-length"], body.len().to_string());
    assert_ne!(headers["etag"], plain["etag"]);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&body[..]), &mut text)
        .expect("gzip");
    assert_eq!(text, script());
    let tag = headers["etag"].to_str().expect("text");
    let (status, ..) = ask(&mut client, path, &[taken, ("if-none-match", tag)]).await;
    assert_eq!(status, StatusCode::NOT_MODIFIED);
    let (status, ..) = ask(&mut client, path, &[("if-none-match", tag)]).await;
    assert_eq!(
        status,
        StatusCode::OK,
        "it would get other bytes under that tag"
    );
}

#[tokio::test]
async fn an_app_of_one_page_finds_its_way_and_scripts_that_are_gone_are_gone() {
    let folder = small_site(true);
    let served = serve_files(folder.path()).await;
    let mut client = served.client().await;
    for (path, status, body) in [
        ("/users/7", StatusCode::OK, "<h1>home</h1>"),
        (
            "/assets/app-99999999.js",
            StatusCode::NOT_FOUND,
            "There is no such file on this site.\n",
        ),
        (
            "/%2e%2e/%2e%2e/etc/passwd",
            StatusCode::NOT_FOUND,
            "There is no such file on this site.\n",
        ),
        (
            "/index.json",
            StatusCode::NOT_FOUND,
            "There is no such file on this site.\n",
        ),
        ("/1", StatusCode::OK, "<h1>home</h1>"),
    ] {
        let (found, _, text) = ask(&mut client, ("GET", path), &[]).await;
        assert_eq!((found, &text[..]), (status, body.as_bytes()), "{path}");
    }
}

#[tokio::test]
async fn rules_of_a_route_hold_for_files_too() {
    let folder = small_site(false);
    let served = serve(Options::default()).await;
    let mut files = files_table(1, &Bundles::default(), folder.path());
    files.routes[0].path_prefix = "/site".to_owned();
    files.routes[0].rules = Some(Arc::new(RouteSpec {
        path: "/site".to_owned(),
        strip_prefix: true,
        compress: true,
        sticky: true,
        ..RouteSpec::default()
    }));
    served.ingress.publish(files);
    let mut client = served.client().await;
    let gzip = ("accept-encoding", "gzip");
    let (status, headers, _) = ask(&mut client, ("GET", "/site"), &[gzip]).await;
    assert_eq!(status, StatusCode::OK);
    assert!(headers.contains_key("set-cookie") && !headers.contains_key("content-encoding"));
    // Once, and not twice.
    let path = ("GET", "/site/assets/app-1a2b3c4d.js");
    let (_, headers, body) = ask(&mut client, path, &[gzip]).await;
    assert_eq!(headers.get_all("vary").iter().count(), 1);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&body[..]), &mut text)
        .expect("gzip");
    assert_eq!(text, script());
    // What has no twin.
    let path = ("GET", "/site/assets/new.css");
    let (_, headers, body) = ask(&mut client, path, &[gzip]).await;
    assert_eq!(headers["content-encoding"], "gzip");
    assert!(body.len() < 1_000);
    let weak = headers["etag"].to_str().expect("text");
    assert!(weak.starts_with("W/"), "{weak}");
    let (status, ..) = ask(&mut client, path, &[gzip, ("if-none-match", weak)]).await;
    assert_eq!(status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn a_proxy_in_front_dials_an_address_of_the_files() {
    let folder = small_site(false);
    let served = serve(Options::default()).await;
    let files = files_table(1, &Bundles::default(), folder.path());
    let backend = files.routes[0].backends[0].clone();
    served.ingress.publish(files);
    let listener = listen_on_endpoints(0).expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let (ingress, until) = (served.ingress.clone(), served.shutdown.clone());
    tokio::spawn(async move {
        let listener = TcpListener::from_std(listener).expect("of this runtime");
        let handover = (CancellationToken::new(), SOON);
        ingress.serve_endpoints(listener, until, handover).await
    });
    let address = served.ingress.addresses(port, 7078).backends[&backend];
    let mut client = Client::connect(address).await;
    let (status, _, body) = ask(&mut client, ("GET", "/docs"), &[]).await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"docs"[..]));
    let gzip = [("accept-encoding", "gzip"), ("x-skep-compress", "1")];
    let (_, headers, _) = ask(&mut client, ("GET", "/assets/new.css"), &gzip).await;
    assert_eq!(headers["content-encoding"], "gzip");
}

/// The first bytes of the large file, and what is to come.
async fn begin_large(client: &mut Client) -> (Vec<u8>, Response<Incoming>) {
    let request = Request::get("/large.bin").header("host", HOST);
    let mut answer = client.begin(request, "").await.expect("answered");
    let first = answer.frame().await.expect("a frame").expect("whole");
    (first.into_data().expect("data").to_vec(), answer)
}

#[tokio::test]
async fn a_large_file_on_its_way_outlives_its_table_and_is_drained_at_its_end() {
    let contents = large();
    let folder = unpacked(Site::default(), &[("large.bin", &contents)]);
    let app = App::start("a").await;
    let served = serve_files(folder.path()).await;
    let mut client = served.client().await;
    let (mut got, answer) = begin_large(&mut client).await;
    served.ingress.publish(table(2, &[app.address]));
    assert_eq!(served.get(HOST, "/").await.body, "a");
    assert_eq!(served.status().drained_revision, 1);
    got.extend(
        answer
            .into_body()
            .collect()
            .await
            .expect("whole")
            .to_bytes(),
    );
    assert!(got == contents, "{} bytes came", got.len());
    served.drained(2).await;
    let service = &served.ingress.metrics().services[0];
    assert_eq!(service.in_flight, 0);
}

#[tokio::test]
async fn whoever_stops_reading_stops_the_reading_and_is_forgotten_when_he_leaves() {
    let contents = large();
    let folder = unpacked(Site::default(), &[("large.bin", &contents)]);
    let served = serve_files(folder.path()).await;
    let mut client = served.client().await;
    let (_, answer) = begin_large(&mut client).await;
    served.ingress.publish(Table {
        revision: 2,
        ..Table::default()
    });
    // Others are served meanwhile, and it still counts.
    assert_eq!(served.get(HOST, "/").await.status, StatusCode::NOT_FOUND);
    assert_eq!(served.status().drained_revision, 1);
    drop((answer, client));
    served.drained(2).await;
}

#[tokio::test]
async fn a_part_of_a_large_file_is_read_where_it_lies() {
    let contents = large();
    let folder = unpacked(Site::default(), &[("large.bin", &contents)]);
    let served = serve_files(folder.path()).await;
    let mut client = served.client().await;
    let range = [("range", "bytes=10000000-10500000")];
    let (status, headers, body) = ask(&mut client, ("GET", "/large.bin"), &range).await;
    assert_eq!(status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(headers["content-length"], "500001");
    assert!(body == contents[10_000_000..=10_500_000]);
    let (_, headers, body) = ask(&mut client, ("HEAD", "/large.bin"), &[]).await;
    assert_eq!(
        (&headers["content-length"], body.len()),
        (&"20971520".parse().expect("a value"), 0)
    );
}

#[tokio::test]
async fn a_folder_that_is_gone_is_told_to_clients_and_what_is_in_memory_still_goes_out() {
    let folder = small_site(false);
    let served = serve_files(folder.path()).await;
    assert_eq!(served.get(HOST, "/").await.status, StatusCode::OK);
    folder.close().expect("removed");
    assert_eq!(served.get(HOST, "/").await.status, StatusCode::OK);
    let reply = served.get(HOST, "/docs").await;
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(reply.code(), Some("files_unreadable"));
    assert_eq!(served.ingress.metrics().services[0].in_flight, 0);
}
