//! Connections of no protocol at all: by a port of the node's and by the name in a handshake, through Skep's own
//! ingress and through Traefik; and none is cut before its end when a release replaces another.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::cluster::Cluster;
use skep_tests::talk::Talk;
use skep_tests::traefik::Traefik;
use skep_tests::{place, tls, wait, with_cluster};
use tokio::net::TcpStream;

const NAMED: &str = "db.tcp.test";
const ENDED: &str = "mq.tcp.test";
const WEB: &str = "www.wild.test";
/// A table on its way, or Traefik's own pace.
const FOLLOWS: Duration = Duration::from_secs(90);
/// Far above what the test takes: what ends earlier has ended because it was drained.
const DRAIN_MS: u64 = 300_000;
/// Until an allocation without connections is gone.
const GONE: Duration = Duration::from_secs(60);

/// The first bytes of a client that asks for `host` under TLS.
fn hello(host: &str, trusted_pem: &str) -> Result<Vec<u8>> {
    let mut config = (*tls::client(trusted_pem, None, b"odd/1")?).clone();
    config.enable_sni = true;
    let name = ServerName::try_from(host.to_owned())?;
    let mut connection = ClientConnection::new(config.into(), name)?;
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes)?;
    Ok(bytes)
}

async fn by_port(port: SocketAddr) -> Result<Talk> {
    Talk::begin(TcpStream::connect(port).await?, b"").await
}

/// The app gets the handshake as it came.
async fn by_name(at: SocketAddr, hello: &[u8]) -> Result<Talk> {
    Talk::begin(TcpStream::connect(at).await?, hello).await
}

async fn deployed(cluster: &Cluster, name: &Name, version: &str) -> Result<()> {
    let image = cluster.image(version, &[("ECHO", "1")]).await?;
    let request = json!({ "type": "image", "reference": image });
    cluster.api.live(name, &request).await?;
    Ok(())
}

/// A worker with connections at this port and both names.
fn spec(entry: u16) -> Value {
    json!({
        "type": "worker",
        "update": { "drain_ms": DRAIN_MS },
        "tcp": [
            { "port": 8080, "entry": entry },
            { "port": 8080, "sni": NAMED },
            { "port": 8080, "sni": "*.wild.test" },
            { "port": 8080, "sni": ENDED, "tls": "terminate" },
        ],
    })
}

async fn releases(cluster: &Cluster, name: &Name) -> Result<Vec<u64>> {
    let live = cluster.api.live_allocations(name).await?;
    let mut releases: Vec<u64> = live.iter().map(|one| one.release).collect();
    releases.sort_unstable();
    Ok(releases)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_come_by_port_and_by_name_and_outlive_their_release() {
    with_cluster("tcp", async |cluster| {
        let port = place::free_address()?;
        let name = Name::of("db");
        let refused = cluster
            .api
            .put_service(&name, spec(port.port()))
            .await
            .expect_err("no ports are offered");
        ensure!(
            format!("{refused:#}").contains("skep tcp-ports set"),
            "{refused:#}"
        );
        let range = format!("{0}-{0}", port.port());
        cluster
            .skep
            .run(&["tcp-ports", "set", &range])
            .await?
            .ok()?;
        cluster.api.put_service(&name, spec(port.port())).await?;
        deployed(cluster, &name, "1").await?;
        let web = json!({ "domains": [WEB] });
        cluster.service("web", "http", web).await?;
        let listed = cluster.skep.run(&["tcp-ports"]).await?;
        listed.says(&[&port.port().to_string(), "production/db"])?;
        let made = rcgen::generate_simple_self_signed([ENDED.to_owned()])?;
        let pem = made.cert.pem();
        let body = json!({ "chain": pem, "key": made.signing_key.serialize_pem() });
        cluster
            .api
            .put(&format!("/v1/certificates/{ENDED}"), &body)
            .await?;
        let hello = hello(NAMED, &pem)?;
        let client = tls::client(&pem, None, b"odd/1")?;
        let ended = async || {
            let stream = tls::connect_named((cluster.https, ENDED), &client).await?;
            Talk::begin(stream, b"").await
        };
        let provider = format!("http://{}/v1/traefik", cluster.net_admin);
        let traefik = Traefik::start(&cluster.path(""), &provider, cluster.traefik_api).await?;
        let first = wait::until_ok("a connection through Traefik", FOLLOWS, async || {
            by_name(traefik.entrance, &hello).await
        });
        let through = first.await.with_context(|| traefik.log())?;
        let terminated = wait::until_ok("the certificate", FOLLOWS, ended).await?;
        // Below a wildcard of connections a host of HTTP stays what it is.
        for (host, is_ours) in [("a.wild.test", true), (WEB, false)] {
            let first = self::hello(host, &pem)?;
            for at in [traefik.entrance, cluster.https] {
                let talks = by_name(at, &first).await.is_ok();
                assert_eq!(talks, is_ours, "{host} at {at}");
            }
        }
        let mut open = [
            by_port(port).await?,
            by_name(cluster.https, &hello).await?,
            terminated,
            through,
        ];

        deployed(cluster, &name, "2").await?;
        // New ones go to the new release at once, and the old ones go on.
        let new = [
            by_port(port).await?,
            by_name(cluster.https, &hello).await?,
            ended().await?,
            by_name(traefik.entrance, &hello).await?,
        ];
        for (number, talk) in new.into_iter().enumerate() {
            assert_eq!(talk.version, "version=2", "{number}");
            assert_eq!(talk.end().await?, "bye\n", "{number}");
        }
        assert_eq!(releases(cluster, &name).await?, [1, 2]);
        let count = open.len();
        for (number, talk) in open.iter_mut().enumerate() {
            let said = talk.echo("still there").await;
            said.with_context(|| format!("connection {number}"))?;
            assert_eq!(talk.version, "version=1");
        }
        // The last of them ends, and then the old release does.
        for (number, talk) in open.into_iter().enumerate() {
            assert_eq!(
                releases(cluster, &name).await?,
                [1, 2],
                "{number} of {count}"
            );
            assert_eq!(talk.end().await?, "bye\n", "{number}");
        }
        wait::until_ok("the old release to end", GONE, async || {
            match releases(cluster, &name).await?[..] {
                [2] => Ok(()),
                ref other => bail!("{other:?} run"),
            }
        })
        .await?;

        // Nobody listens for a route that is gone.
        cluster
            .api
            .put_service(&name, json!({ "type": "worker" }))
            .await?;
        wait::until_ok(
            "the port to close",
            FOLLOWS,
            async || match TcpStream::connect(port).await {
                Ok(_) => bail!("it is open"),
                Err(_) => Ok(()),
            },
        )
        .await?;
        traefik.stop().await
    })
    .await;
}
