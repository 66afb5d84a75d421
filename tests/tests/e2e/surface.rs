//! What listens: health, metrics, the document of the API, and that everything else asks for a token.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use http::Method;
use serde_json::{Value, json};
use skep_tests::api::Api;
use skep_tests::{Cluster, http as client, place, with_cluster};

/// What answers without a token, and nothing else: health, metrics (loopback), the document, and
/// webhooks, which are signed; and the steps of GitHub Apps in a browser, which a secret of one use leads to.
const PUBLIC: [&str; 12] = [
    "get /health",
    "get /healthz",
    "get /metrics",
    "get /openapi.json",
    "get /readyz",
    "get /v1/github/installed",
    "get /v1/github/made",
    "get /v1/github/make",
    "get /v1/health",
    "post /v1/hooks/github/{app}",
    "post /v1/hooks/r/{hook}",
    "post /v1/hooks/{service}",
];

/// Paths of the document with something in place of their parameters.
fn filled(path: &str) -> String {
    let parts = path
        .split('/')
        .map(|part| if part.starts_with('{') { "x" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_but_the_public_list_asks_for_a_token() {
    with_cluster("surface", async |cluster| {
        let document = cluster.api.get("/openapi.json").await?;
        let checked_in = std::fs::read(place::root().join("docs/openapi.json"))?;
        assert_eq!(
            document,
            serde_json::from_slice::<Value>(&checked_in)?,
            "docs/openapi.json is old"
        );

        let stranger = Api::new(cluster.api.address(), "");
        let mut open = BTreeSet::from(["get /openapi.json".to_owned()]);
        for (path, item) in document["paths"].as_object().context("paths")? {
            for method in item
                .as_object()
                .context("methods")?
                .keys()
                .filter(|key| *key != "parameters")
            {
                let verb: Method = method.to_uppercase().parse()?;
                let answer = stranger.call(verb, &filled(path), Some(&json!({}))).await?;
                if answer.status != 401 || path.contains("/hooks/") {
                    open.insert(format!("{method} {path}"));
                } else if path.starts_with("/git/") {
                    // Git shows text, and asks for a password when it is told how.
                    let asked = answer.headers.get("www-authenticate");
                    let asked = asked.and_then(|it| it.to_str().ok());
                    assert!(
                        asked.is_some_and(|it| it.starts_with("Basic"))
                            && !answer.text().is_empty(),
                        "{method} {path}: {answer:?}"
                    );
                } else {
                    assert_eq!(
                        answer.json::<Value>()?["code"],
                        "unauthenticated",
                        "{method} {path}"
                    );
                }
            }
        }
        assert_eq!(open, PUBLIC.map(str::to_owned).into());

        let missing = cluster
            .api
            .refused(Method::GET, "/v1/nothing", None, 404)
            .await?;
        assert_eq!(missing.code, "not_found");
        cluster
            .api
            .refused(Method::DELETE, "/v1/services", None, 405)
            .await?
            .with_hint()?;
        health_and_metrics(cluster).await
    })
    .await;
}

async fn health_and_metrics(cluster: &Cluster) -> Result<()> {
    let (name, _) = cluster.service("web", "1", json!({})).await?;
    cluster.answers(&name, "1").await?;
    let parts = [
        (
            "server",
            cluster.api.address(),
            &["/healthz", "/readyz", "/health", "/v1/health", "/metrics"][..],
        ),
        ("agent", cluster.agent_admin, &["/healthz", "/metrics"]),
        (
            "net",
            cluster.net_admin,
            &["/healthz", "/readyz", "/metrics"],
        ),
    ];
    for (part, address, paths) in parts {
        for path in paths {
            let answer = client::get(address, part, path).await?;
            assert_eq!(answer.status, 200, "{part}{path}: {}", answer.text());
        }
        let metrics = client::get(address, part, "/metrics").await?;
        let text = metrics.text();
        let samples = text.lines().filter(|line| line.starts_with("skep_"));
        assert!(samples.count() > 3, "{part}: {text}");
        // Prometheus' text format: a name, perhaps labels, a number.
        for line in text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
        {
            let number = line.rsplit(' ').next().unwrap_or_default();
            assert!(number.parse::<f64>().is_ok(), "{part}: {line}");
        }
    }
    // Nothing answers for a host that nobody has.
    let answer = client::get(cluster.ingress, "nobody.localhost", "/").await?;
    assert_eq!(answer.status, 404, "{}", answer.text());
    Ok(())
}
