//! What stands between clients and a service, with both ingresses: compressed answers, pages from elsewhere,
//! somebody who is asked first, a breaker.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::cluster::Cluster;
use skep_tests::http::{self as client, Answer};
use skep_tests::traefik::Traefik;
use skep_tests::{wait, with_cluster};

/// A poll of the provider, and Traefik's own throttle of 2 s between configurations; a container that starts.
const FOLLOWS: Duration = Duration::from_secs(90);
/// `ann` with the password `secret`.
const USER: &str = "ann:$2y$04$hqqCpOR5LQaVdT7GQBB9IeM/FUT3jdb4reC3l/S80BB2G1uEgBGhu";
/// A page that may ask.
const PAGE: (&str, &str) = ("origin", "https://a.example");

async fn ask(
    entrance: SocketAddr,
    (method, host, target): (&str, &str, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer> {
    let mut request = Request::builder().method(method).uri(target);
    request = request.header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    client::send(entrance, request.body(body)?).await
}

async fn is_compressed(entrance: SocketAddr) -> Result<()> {
    let text = "text ".repeat(1_000);
    let echo = ("POST", "zip.test", "/echo");
    let gzip = ("accept-encoding", "gzip");
    let plain = ("content-type", "text/plain");
    let answer = ask(entrance, echo, &[gzip, plain], &text).await?;
    ensure!(
        answer.header("content-encoding") == "gzip",
        "{:?}",
        answer.headers
    );
    ensure!(
        answer.header("vary") == "accept-encoding",
        "{:?}",
        answer.headers
    );
    ensure!(answer.body.starts_with(&[0x1f, 0x8b]) && answer.body.len() < 500);
    for headers in [
        &[plain][..],
        &[gzip, ("content-type", "image/png")],
        &[gzip],
    ] {
        let answer = ask(entrance, echo, headers, &text).await?;
        ensure!(answer.header("content-encoding").is_empty(), "{headers:?}");
        ensure!(answer.text() == text, "{headers:?}");
    }
    let small = ask(entrance, echo, &[gzip, plain], "text").await?;
    ensure!(small.text() == "text", "{}", small.text());
    Ok(())
}

/// Browsers ask without a password; what is refused for want of one can be read by the page.
async fn pages_are_told(entrance: SocketAddr) -> Result<()> {
    let may = ("access-control-request-method", "PUT");
    let asked = ("OPTIONS", "cors.test", "/");
    let told = ask(entrance, asked, &[PAGE, may], "").await?;
    ensure!(told.status == 200, "{} {}", told.status, told.text());
    for (name, value) in [
        ("access-control-allow-origin", "https://a.example"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "600"),
    ] {
        ensure!(told.header(name) == value, "{name}: {:?}", told.headers);
    }
    let stranger = ("origin", "https://b.example");
    let told = ask(entrance, asked, &[stranger, may], "").await?;
    ensure!(told.header("access-control-allow-origin").is_empty());
    let refused = ask(entrance, ("PUT", "cors.test", "/"), &[PAGE], "").await?;
    ensure!(
        refused.status == 401,
        "{} {}",
        refused.status,
        refused.text()
    );
    ensure!(refused.header("access-control-allow-origin") == "https://a.example");
    ensure!(refused.header("access-control-expose-headers") == "X-Total");
    ensure!(
        refused.header("vary").contains("Origin"),
        "{:?}",
        refused.headers
    );
    Ok(())
}

async fn is_asked_first(entrance: SocketAddr) -> Result<()> {
    let forged = ("server", "forged");
    let passed = ask(entrance, ("GET", "open.test", "/head"), &[forged], "").await?;
    let text = passed.text();
    ensure!(passed.status == 200, "{} {text}", passed.status);
    ensure!(text.contains("server: skep-test-app\n"), "{text}");
    ensure!(!text.contains("forged"), "{text}");
    let refused = ask(entrance, ("GET", "shut.test", "/"), &[], "").await?;
    ensure!(
        refused.status == 404,
        "{} {}",
        refused.status,
        refused.text()
    );
    ensure!(
        refused.text().contains("/healthz"),
        "who was asked says why"
    );
    let away = ask(entrance, ("GET", "away.test", "/"), &[], "").await?;
    ensure!(away.status >= 500, "{} {}", away.status, away.text());
    Ok(())
}

/// One of two replicas ends without an answer; the other one would answer, but is not asked for a time.
async fn is_left_alone(entrance: SocketAddr) -> Result<()> {
    let through = async |status: u16| {
        let answer = ask(entrance, ("GET", "frail.test", "/"), &[], "").await?;
        ensure!(
            answer.status == status,
            "{} {}",
            answer.status,
            answer.text()
        );
        // An answer of the data plane's would say that nobody is there.
        ensure!(answer.header("x-skep-error") != "no_backend");
        Ok(())
    };
    wait::until_ok("a closed breaker", FOLLOWS, async || through(200).await).await?;
    wait::until_ok("a breaker that opens", FOLLOWS, async || {
        // Among many good answers of before one is not enough. A POST is not tried with the other replica.
        let crash = ("POST", "frail.test", "/crash");
        ask(entrance, crash, &[], "").await?;
        through(503).await
    })
    .await?;
    wait::until_ok("a breaker that closes", FOLLOWS, async || {
        through(200).await
    })
    .await
}

async fn deploy(cluster: &Cluster) -> Result<()> {
    let (auth, _) = cluster.service("auth", "1", json!({})).await?;
    let environment = cluster.environment(&auth).await?;
    let port = environment.get("PORT").context("no PORT")?;
    let id = cluster.containers.of_cluster(&cluster.id).await?;
    let id = id.first().context("no container")?.id.clone();
    let address = cluster.containers.address(&id).await?;
    let asks = |host: &str, port: &str, path: &str| {
        let url = format!("http://{address}:{port}{path}");
        json!({ "host": host, "forward_auth": { "url": url, "response_headers": ["Server"] } })
    };
    let cors = json!({
        "origins": ["https://a.example"], "methods": ["PUT"], "expose": ["X-Total"], "credentials": true,
    });
    let routes = json!([
        { "host": "zip.test", "compress": true },
        { "host": "cors.test", "cors": cors, "basic_auth": [USER] },
        asks("open.test", port, "/head"),
        asks("shut.test", port, "/nothing"),
        asks("away.test", "1", "/"),
    ]);
    cluster
        .service("web", "1", json!({ "routes": routes }))
        .await?;
    let breaker = json!({ "network_error_percent": 30, "open_ms": 1_000 });
    let routes = json!([{ "host": "frail.test", "circuit_breaker": breaker }]);
    let spec = json!({ "routes": routes, "replicas": 2 });
    let frail = Name::of("frail");
    cluster.service(&frail.service, "1", spec).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ingresses_guard_a_service_alike() {
    with_cluster("guards", async |cluster| {
        let provider = format!("http://{}/v1/traefik", cluster.net_admin);
        let traefik = Traefik::start(&cluster.path(""), &provider, cluster.traefik_api).await?;
        deploy(cluster).await?;
        wait::until_ok("Traefik to follow", FOLLOWS, async || {
            let frail = ("GET", "frail.test", "/");
            let answer = ask(traefik.entrance, frail, &[], "").await?;
            ensure!(answer.status == 200, "{}", answer.status);
            Ok(())
        })
        .await
        .with_context(|| traefik.log())?;
        for (name, entrance) in [("embedded", cluster.ingress), ("Traefik", traefik.entrance)] {
            is_compressed(entrance).await.with_context(|| name)?;
            pages_are_told(entrance).await.with_context(|| name)?;
            is_asked_first(entrance).await.with_context(|| name)?;
            is_left_alone(entrance).await.with_context(|| name)?;
        }
        traefik.stop().await
    })
    .await;
}
