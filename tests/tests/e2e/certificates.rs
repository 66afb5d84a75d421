//! Certificates of apps from a real authority: proved by the embedded ingress in clear and under TLS, and through
//! Traefik; shown after a restart with nobody else alive; a failure that says what to do.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use skep_tests::cluster::Cluster;
use skep_tests::pebble::{Pebble, Ways, trusts};
use skep_tests::traefik::Traefik;
use skep_tests::{wait, with_cluster};

/// An order takes a second or two here; one that fails (nonces are refused at times) is made anew a minute later.
const ISSUED: Duration = Duration::from_secs(120);
const HOST: &str = "shop.pebble.test";
const TOKEN: &str = "for-traefik";
const BINDING: (&str, &str) = ("key-1", "c2tlcC10ZXN0cy1iaW5kLXRvLXRoaXMtYWNjb3VudA");
/// Long enough for Traefik, which takes a new configuration every 2 s.
const LIFE_S: u32 = 30;

async fn set_issuer(cluster: &Cluster, pebble: &Pebble, more: &[&str]) -> Result<()> {
    let root = pebble.root.display().to_string();
    let mut arguments = vec!["certificates", "issuer", "set", "--agree-terms"];
    arguments.extend(["--contact", "ops@example.com"]);
    arguments.extend(["--directory", &pebble.directory, "--root", &root]);
    arguments.extend(more);
    cluster.skep.run(&arguments).await?.ok()?;
    Ok(())
}

/// One certificate as the command line lists it.
async fn listed(cluster: &Cluster, name: &str) -> Result<Value> {
    let all = cluster.skep.run(&["certificates", "ls", "--json"]).await?;
    let all = all.ok()?.json()?;
    let mut found = all["certificates"].as_array().context("a list")?.iter();
    let found = found.find(|it| it["name"] == name).cloned();
    found.with_context(|| format!("{name} is not in {all}"))
}

/// What is shown for `host`, once it is of this authority and not `before`.
async fn shown(pebble: &Pebble, (at, host): (SocketAddr, &str), before: &[u8]) -> Result<Vec<u8>> {
    let what = format!("a certificate for {host}");
    let shown = wait::until_ok(&what, ISSUED, async || {
        let leaf = pebble.trusts(at, host).await?;
        if leaf == before {
            bail!("the same is shown");
        }
        Ok(leaf)
    });
    shown.await.with_context(|| pebble.log())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_gets_its_certificate_and_keeps_it_whoever_dies() {
    with_cluster("certificates", async |cluster| {
        let ports = (cluster.ingress.port(), cluster.https.port());
        let pebble = Pebble::start(&cluster.path("pebble"), ports, Ways::default()).await?;
        let lost = "lost.pebble.test";
        pebble.resolve(lost, Ipv4Addr::new(127, 0, 0, 9)).await?;
        set_issuer(cluster, &pebble, &[]).await?;
        let routes = json!([{ "host": HOST }, { "host": lost }]);
        cluster
            .service("web", "1", json!({ "routes": routes }))
            .await?;
        let first = shown(&pebble, (cluster.https, HOST), &[]).await?;
        let view = listed(cluster, HOST).await?;
        assert_eq!(view["names"], json!([HOST]), "{view}");
        assert_eq!(view["problem"], "", "{view}");

        // Nobody listens where DNS leads: people are told so.
        let told = wait::until_ok("the reason", ISSUED, async || {
            let view = listed(cluster, lost).await?;
            match view["problem"].as_str() {
                Some(why) if !why.is_empty() => Ok(why.to_owned()),
                _ => bail!("{view}"),
            }
        });
        let told = told.await?;
        assert!(
            told.contains("port 80") && told.contains("the issuer says"),
            "{told}"
        );
        let status = cluster.skep.run(&["status"]).await?.ok()?;
        status.says(&["1 failing", "skep certificates ls"])?;
        // Put right, and asked again by hand.
        pebble.resolve(lost, Ipv4Addr::LOCALHOST).await?;
        cluster
            .skep
            .run(&["certificates", "renew", lost])
            .await?
            .ok()?;
        shown(&pebble, (cluster.https, lost), &[]).await?;
        assert_eq!(listed(cluster, lost).await?["problem"], "");

        // Renewed, proved under TLS this time.
        set_issuer(cluster, &pebble, &["--challenge", "tls-alpn-01"]).await?;
        cluster
            .skep
            .run(&["certificates", "renew", HOST])
            .await?
            .ok()?;
        let second = shown(&pebble, (cluster.https, HOST), &first).await?;
        // No order went on before the ingress had said that it has the proof.
        let log = cluster.server.log();
        assert!(!log.contains("do not say that they can prove"), "{log}");

        // The data plane alone, out of its own folder; no key is readable there.
        for part in [&cluster.server, &cluster.agent, &cluster.net] {
            part.kill().await?;
        }
        let sealed = std::fs::read(cluster.path("node/net/certificates"))?;
        assert!(!sealed.windows(7).any(|window| window == b"PRIVATE"));
        cluster.net.start().await?;
        let after = shown(&pebble, (cluster.https, HOST), &first).await?;
        assert_eq!(after, second);
        pebble.stop().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traefik_leads_authorities_to_us_and_shows_what_they_issue() {
    with_cluster("certified", async |cluster| {
        // Keys are for whoever shows the token.
        let same = Path::new("");
        let net = cluster
            .net
            .like(same, same)
            .env("SKEP_NET_ADMIN_TOKEN", TOKEN);
        cluster.net.kill().await?;
        net.start().await?;
        let provider = format!("http://{}/v1/traefik", cluster.net_admin);
        let traefik =
            Traefik::start_with_token(&cluster.path(""), &provider, cluster.traefik_api, TOKEN)
                .await?;
        // Two authorities: the first looks at the ingress and wants an account of its own, the second looks at Traefik
        // alone, and what it issues is soon over.
        let ports = (cluster.ingress.port(), cluster.https.port());
        let ways = Ways {
            binding: Some(BINDING),
            ..Ways::default()
        };
        let first = Pebble::start(&cluster.path("first"), ports, ways).await?;
        let port = traefik.entrance.port();
        let ways = Ways {
            life_s: Some(LIFE_S),
            ..Ways::default()
        };
        let second = Pebble::start(&cluster.path("second"), (port, port), ways).await?;
        let key = cluster.path("binding");
        std::fs::write(&key, BINDING.1)?;
        let key = key.display().to_string();
        let bound = ["--eab-key-id", BINDING.0, "--eab-key-file", &key];
        set_issuer(cluster, &first, &bound).await?;
        let routes = json!([{ "host": HOST }]);
        cluster
            .service("web", "1", json!({ "routes": routes }))
            .await?;
        shown(&first, (traefik.entrance, HOST), &[])
            .await
            .with_context(|| traefik.log())?;
        // Another authority is asked at once for what the first one issued.
        set_issuer(cluster, &second, &[]).await?;
        let early = shown(&second, (traefik.entrance, HOST), &[])
            .await
            .with_context(|| traefik.log())?;
        // And again by itself, when two thirds of its life are over.
        shown(&second, (cluster.https, HOST), &early).await?;
        traefik.stop().await?;
        net.kill().await?;
        first.stop().await?;
        second.stop().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_names_are_the_local_cas() {
    with_cluster("private-names", async |cluster| {
        let none = cluster.skep.run(&["certificates", "ca"]).await?.code(1)?;
        none.says(&["there is no local CA", "--make"])?;
        let made = cluster.skep.run(&["certificates", "ca", "--make"]).await?;
        let root = made.ok()?.stdout;
        let again = cluster.skep.run(&["certificates", "ca", "--make"]).await?;
        assert_eq!(again.ok()?.stdout, root, "the same stays");
        let routes = json!([{ "host": "shop.internal" }]);
        let (name, _) = cluster
            .service("web", "1", json!({ "routes": routes }))
            .await?;
        let generated = cluster.host(&name);
        for host in [&*generated, "shop.internal"] {
            wait::until_ok(host, ISSUED, async || {
                trusts(&root, cluster.https, host).await
            })
            .await?;
        }
        let view = listed(cluster, "shop.internal").await?;
        assert_eq!(view["names"], json!(["shop.internal"]), "{view}");
        // Ended, nobody renews them; what was issued is shown on.
        cluster
            .skep
            .run(&["certificates", "ca", "--rm"])
            .await?
            .ok()?;
        trusts(&root, cluster.https, "shop.internal").await?;
        Ok(())
    })
    .await;
}
