//! Certificates proved by records in DNS: BIND takes signed updates, a real authority asks it, and the zone is as it was
//! before.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::bind::{self, Bind};
use skep_tests::cluster::Cluster;
use skep_tests::pebble::{Pebble, Ways};
use skep_tests::{wait, with_cluster_set};

/// An order takes some seconds here; one that fails (nonces are refused at times) is made anew a minute later.
const ISSUED: Duration = Duration::from_secs(150);
/// What generated names end in.
const BASE: &str = "apps.pebble.test";
/// A host whose proofs are somebody else's zone to hold.
const DELEGATED: &str = "shop.delegated.test";

async fn set_issuer(cluster: &Cluster, pebble: &Pebble, bind: &Bind, key: &str) -> Result<()> {
    let root = pebble.root.display().to_string();
    let server = bind.address.to_string();
    let arguments = [
        "certificates",
        "issuer",
        "set",
        "--agree-terms",
        "--directory",
        &pebble.directory,
        "--root",
        &root,
        "--challenge",
        "dns-01",
        "--dns",
        "rfc2136",
        "--dns-server",
        &server,
        "--dns-key-name",
        bind::KEY,
        "--dns-key-file",
        key,
    ];
    let set = cluster.skep.run(&arguments).await?.ok()?;
    set.says(&["dns-01 by rfc2136"])?;
    Ok(())
}

async fn listed(cluster: &Cluster) -> Result<Vec<Value>> {
    let all = cluster.skep.run(&["certificates", "ls", "--json"]).await?;
    let all = all.ok()?.json()?;
    Ok(all["certificates"].as_array().cloned().unwrap_or_default())
}

/// A service whose generated name ends in the base domain.
async fn under_base(cluster: &Cluster, name: &str, routes: Value) -> Result<(Name, String)> {
    let (name, _) = cluster
        .service(name, "1", json!({ "routes": routes }))
        .await?;
    let arguments = [
        "domains",
        "base",
        "--project",
        &name.project,
        "-e",
        "production",
        BASE,
    ];
    cluster.skep.run(&arguments).await?.ok()?;
    let host = format!("{}-production-{}.{BASE}", name.service, name.project);
    Ok((name, host))
}

/// An order that is under way, for a name whose zone has a server that does not follow.
struct Stuck<'a> {
    cluster: &'a Cluster,
    pebble: Pebble,
    first: Bind,
    second: Bind,
    host: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_leader_wrote_is_taken_away_by_the_next() {
    let address = bind::address();
    let resolvers = [("SKEP_ACME_RESOLVERS", address.to_string())];
    with_cluster_set("dead", &resolvers, async |cluster| {
        let behind = bind::address();
        let zone = format!("@ IN NS ns2\nns2 IN A {}", behind.ip());
        let zones = [("pebble.test", &*zone)];
        let first = Bind::start(&cluster.path("first"), address, &zones).await?;
        let second = Bind::start(&cluster.path("second"), behind, &zones).await?;
        let ways = Ways {
            resolver: Some(address),
            ..Ways::default()
        };
        let pebble = Pebble::start(&cluster.path("pebble"), (1, 1), ways).await?;
        let (_, host) = under_base(cluster, "web", json!([])).await?;
        let stuck = Stuck {
            cluster,
            pebble,
            first,
            second,
            host,
        };
        kill_in_the_middle(stuck).await
    })
    .await;
}

async fn kill_in_the_middle(stuck: Stuck<'_>) -> Result<()> {
    let (cluster, first) = (stuck.cluster, &stuck.first);
    set_issuer(
        cluster,
        &stuck.pebble,
        first,
        &first.key.display().to_string(),
    )
    .await?;
    let place = format!("_acme-challenge.{BASE}");
    let written = wait::until_ok("a record", ISSUED, async || {
        let texts = first.texts(&place).await?;
        texts.into_iter().next().context("nothing is written")
    });
    let written = written.await?;
    cluster.server.kill().await?;
    assert_eq!(
        first.texts(&place).await?,
        std::slice::from_ref(&written),
        "nobody is there to take it away"
    );
    stuck.second.stop().await?;
    cluster.server.start().await?;
    let issued = wait::until_ok("a certificate", ISSUED, async || {
        stuck.pebble.trusts(cluster.https, &stuck.host).await
    });
    let logs = || format!("{}\n{}", first.log(), cluster.server.log());
    issued.await.with_context(logs)?;
    wait::until_ok("an empty zone", ISSUED, async || {
        let left = first.texts(&place).await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await
    .with_context(logs)?;
    let written = format!("adding an RR at '{place}' TXT \"{written}\"");
    assert_eq!(first.log().matches(&written).count(), 1, "{}", first.log());
    stuck.pebble.stop().await?;
    first.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_proves_wildcards_and_is_left_as_it_was() {
    let address = bind::address();
    let resolvers = [("SKEP_ACME_RESOLVERS", address.to_string())];
    with_cluster_set("zones", &resolvers, async |cluster| {
        let alias = "_acme-challenge.shop IN CNAME shop.proofs.test.";
        let zones = [
            ("pebble.test", ""),
            ("delegated.test", alias),
            ("proofs.test", ""),
        ];
        let bind = Bind::start(&cluster.path("bind"), address, &zones).await?;
        let ways = Ways {
            resolver: Some(address),
            ..Ways::default()
        };
        let pebble = Pebble::start(&cluster.path("pebble"), (1, 1), ways).await?;
        let (name, host) = under_base(cluster, "web", json!([{ "host": DELEGATED }])).await?;

        // Another key under the same name.
        let wrong = cluster.path("wrong.key");
        std::fs::write(&wrong, "d3Jvbmc=")?;
        set_issuer(cluster, &pebble, &bind, &wrong.display().to_string()).await?;
        let told = wait::until_ok("the reason", ISSUED, async || {
            let all = listed(cluster).await?;
            let problems = all.iter().filter_map(|it| it["problem"].as_str());
            match problems.clone().all(|it| !it.is_empty()) && problems.count() == 2 {
                true => Ok(all),
                false => bail!("{all:?}"),
            }
        });
        for it in told.await? {
            let problem = it["problem"].as_str().unwrap_or_default();
            ensure!(
                problem.contains("secret those of the DNS server"),
                "{problem}"
            );
        }

        set_issuer(cluster, &pebble, &bind, &bind.key.display().to_string()).await?;
        let issued = wait::until_ok("certificates", ISSUED, async || {
            let wild = pebble.trusts(cluster.https, &host).await?;
            pebble.trusts(cluster.https, DELEGATED).await?;
            Ok(wild)
        });
        let logs = || format!("{}\n{}\n{}", pebble.log(), bind.log(), cluster.server.log());
        let wild = issued.await.with_context(logs)?;
        let names: Vec<Value> = listed(cluster)
            .await?
            .iter()
            .map(|it| it["names"].clone())
            .collect();
        assert_eq!(names, [json!([format!("*.{BASE}")]), json!([DELEGATED])]);

        // Another name under the domain needs no certificate.
        let other = json!({ "routes": [{ "host": format!("other.{BASE}") }] });
        cluster.api.put_service(&name, other).await?;
        let other = format!("other.{BASE}");
        let shown = wait::until_ok("the same", ISSUED, async || {
            let shown = pebble.trusts(cluster.https, &other).await?;
            ensure!(listed(cluster).await?.len() <= 2, "one more is there");
            Ok(shown)
        });
        assert_eq!(shown.await?, wild);

        // What was written is gone, where it was delegated to, too.
        let places = [
            format!("_acme-challenge.{BASE}"),
            "shop.proofs.test".to_owned(),
        ];
        wait::until_ok("empty zones", ISSUED, async || {
            for place in &places {
                let left = bind.texts(place).await?;
                ensure!(left.is_empty(), "{place} has {left:?}");
            }
            Ok(())
        })
        .await?;
        for place in &places {
            let added = format!("adding an RR at '{place}' TXT");
            ensure!(bind.log().contains(&added), "{added}: {}", bind.log());
        }
        pebble.stop().await?;
        bind.stop().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_had_by_whoever_dns_says_where_that_is_asked_for() {
    let address = bind::address();
    let resolvers = [("SKEP_ACME_RESOLVERS", address.to_string())];
    with_cluster_set("owned", &resolvers, async |cluster| {
        let (name, _) = cluster.service("web", "1", json!({})).await?;
        let on = cluster
            .skep
            .run(&["domains", "proof", "on", "--json"])
            .await?;
        let on = on.ok()?.json()?;
        let record = on["records"][&name.project].as_str().context("a record")?;
        let has = async |host: &str| {
            let spec = json!({ "spec": { "routes": [{ "host": host }] } });
            cluster
                .api
                .call(::http::Method::PUT, &name.path(""), Some(&spec))
                .await
        };
        let silent = has("www.owned.test").await?;
        ensure!(
            silent.status == 503,
            "nobody can be asked: {}",
            silent.text()
        );
        let proved = format!("_skep IN TXT \"something else\"\n_skep IN TXT \"{record}\"");
        let other = "_skep IN TXT \"skep-project=01arz3ndektsv4rrffq69g5fav\"";
        let zones = [("owned.test", &*proved), ("foreign.test", other)];
        let dns = Bind::start(&cluster.path("dns"), address, &zones).await?;
        for (host, at) in [
            ("www.foreign.test", "_skep.foreign.test"),
            ("*.a.foreign.test", "_skep.foreign.test"),
        ] {
            let refused = has(host).await?;
            ensure!(refused.status == 409, "{host}: {}", refused.text());
            let problem: Value = refused.json()?;
            let hint = problem["hint"].to_string();
            ensure!(hint.contains(record) && hint.contains(at), "{problem}");
            ensure!(problem["field"] == "spec.routes[0].host", "{problem}");
        }
        for host in ["www.owned.test", "*.owned.test", "free.localhost"] {
            let had = has(host).await?;
            ensure!(had.status == 200, "{host}: {}", had.text());
        }
        dns.stop().await?;
        let kept = has("*.owned.test").await?;
        ensure!(kept.status == 200, "it has it already: {}", kept.text());
        cluster.skep.run(&["domains", "proof", "off"]).await?.ok()?;
        let first = has("www.foreign.test").await?;
        ensure!(first.status == 200, "first come: {}", first.text());
        Ok(())
    })
    .await;
}
