//! The embedded ingress beside other proxies, and what many routes take.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hyper_util::rt::TokioIo;
use skep_proto::v1::net_client::NetClient;
use skep_proto::v1::{NodeBackend, NodeRoute, NodeTable};
use skep_tests::figures::{Figure, p50, quantile};
use skep_tests::fire::{Fire, Outcome};
use skep_tests::process::{Process, cpu_time_of};
use skep_tests::{http, place, wait};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::{MIB, ROUNDS, ROUTES, SEEN};

const ROUND: Duration = Duration::from_secs(3);
const CONNECTIONS: u32 = 64;
pub(super) const ENDS: Duration = Duration::from_secs(15);

/// Something that answers for `bench.test`.
pub(super) struct Proxy {
    pub(super) process: Process,
    pub(super) address: SocketAddr,
    /// Of a data plane: where Traefik would poll.
    admin: Option<SocketAddr>,
}

impl Proxy {
    pub(super) fn fire(&self, duration: Duration, rate: Option<f64>) -> Fire {
        Fire {
            address: self.address,
            host: "bench.test".into(),
            connections: CONNECTIONS,
            duration,
            rate,
        }
    }

    /// Of the process and its children.
    async fn cpu(&self) -> Result<Duration> {
        let pid = self.process.pid().await.context("it runs")?;
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let children = children.split_whitespace().map(str::parse::<u32>);
        let mut all = cpu_time_of(pid)?;
        for child in children {
            all += cpu_time_of(child?)?;
        }
        Ok(all)
    }

    /// Fires, and how much CPU each request took, in microseconds.
    pub(super) async fn measure(&self, rate: Option<f64>) -> Result<(Outcome, f64)> {
        let before = self.cpu().await?;
        let outcome = self.fire(ROUND, rate).run().await?;
        let used = self.cpu().await? - before;
        let each = used.as_secs_f64() * 1e6 / outcome.count.max(1) as f64;
        Ok((outcome, each))
    }
}

pub(super) async fn proxies() -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let upstream = place::free_address()?;
    let origin = nginx(
        dir.path(),
        "origin",
        1,
        upstream,
        "return 200 \"hello, world\\n\";",
    )
    .await?;
    let peers = [
        nginx_proxy(dir.path(), upstream).await?,
        haproxy(dir.path(), upstream).await?,
    ];
    let (own, mut net) = skep_net(dir.path()).await?;
    net.publish(routes(1, 1, upstream)).await?;
    let all = [&own, &peers[0], &peers[1]];
    for proxy in all {
        wait::until_ok("a proxy to answer", SEEN, async || {
            proxy
                .fire(Duration::from_millis(1), None)
                .run()
                .await
                .map(drop)
        })
        .await?;
    }
    let mut rates = [const { Vec::new() }; 3];
    let mut costs = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (at, proxy) in all.iter().enumerate() {
            let (outcome, cost) = proxy.measure(None).await?;
            rates[at].push(outcome.rate);
            costs[at].push(cost);
        }
    }
    let [own_rate, nginx_rate, haproxy_rate] = rates.each_mut().map(|it| p50(it));
    let [own_cost, nginx_cost, haproxy_cost] = costs.each_mut().map(|it| p50(it));
    let mut p99s = [const { Vec::new() }; 3];
    let mut p50s = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (at, proxy) in all.iter().enumerate() {
            let (mut outcome, _) = proxy.measure(Some(nginx_rate / 2.0)).await?;
            p99s[at].push(quantile(&mut outcome.latencies_us, 0.99));
            p50s[at].push(p50(&mut outcome.latencies_us));
        }
    }
    let [own_p99, nginx_p99, haproxy_p99] = p99s.each_mut().map(|it| p50(it));
    let [own_p50, nginx_p50, _] = p50s.each_mut().map(|it| p50(it));
    let one = |metric, value, peer, of_peer, unit| {
        Figure::alone(metric, value, unit).beside(peer, of_peer)
    };
    let mut figures = vec![
        one(
            "traffic.requests_per_s",
            own_rate,
            "nginx",
            nginx_rate,
            "1/s",
        ),
        one(
            "traffic.requests_per_s",
            own_rate,
            "haproxy",
            haproxy_rate,
            "1/s",
        ),
        one(
            "traffic.cpu_us_per_request",
            own_cost,
            "nginx",
            nginx_cost,
            "us",
        ),
        one(
            "traffic.cpu_us_per_request",
            own_cost,
            "haproxy",
            haproxy_cost,
            "us",
        ),
        one("traffic.latency_us_p50", own_p50, "nginx", nginx_p50, "us"),
        one("traffic.latency_us_p99", own_p99, "nginx", nginx_p99, "us"),
        one(
            "traffic.latency_us_p99",
            own_p99,
            "haproxy",
            haproxy_p99,
            "us",
        ),
    ];
    figures.extend(many_routes(dir.path(), upstream).await?);
    for proxy in [&own, &peers[0], &peers[1], &origin] {
        // Asked: of an nginx that is killed the workers stay.
        proxy.process.terminate(ENDS).await?;
    }
    Ok(figures)
}

/// A data plane of its own with many routes: what they take.
async fn many_routes(dir: &Path, upstream: SocketAddr) -> Result<Vec<Figure>> {
    let (own, mut net) = skep_net(&dir.join("many")).await?;
    let empty = own.process.rss_bytes().await? as f64;
    let wanted = routes(1, ROUTES, upstream);
    let begun = Instant::now();
    net.publish(wanted).await?;
    let published_ms = begun.elapsed().as_secs_f64() * 1e3;
    own.fire(Duration::from_millis(500), None).run().await?;
    let full = own.process.rss_bytes().await? as f64;
    let admin = own.admin.context("a data plane")?;
    let (mut rendered, mut fetched) = (Vec::new(), Vec::new());
    for turn in 0..ROUNDS {
        net.publish(routes(2 + turn as u64, ROUTES - turn, upstream))
            .await?;
        let begun = Instant::now();
        let answer = http::get(admin, "traefik", "/v1/traefik").await?;
        fetched.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(
            answer.status == 200 && answer.body.len() > 100 * ROUTES,
            "a body"
        );
        rendered.push(rendered_ms(admin).await?);
    }
    own.process.kill().await?;
    Ok(vec![
        Figure::alone("traffic.memory_5000_routes_mib", full / MIB, "MiB"),
        Figure::alone("of it before the routes", empty / MIB, "MiB"),
        Figure::alone("traffic.publish_5000_routes_ms", published_ms, "ms"),
        Figure::alone("traffic.render_5000_routes_ms", p50(&mut rendered), "ms"),
        Figure::alone("rendered and fetched", p50(&mut fetched), "ms"),
    ])
}

/// How long the newest configuration for Traefik took to make.
async fn rendered_ms(admin: SocketAddr) -> Result<f64> {
    let metrics = http::get(admin, "net", "/metrics").await?.text();
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix("skep_net_traefik_render_seconds "));
    Ok(value.context("a metric of rendering")?.parse::<f64>()? * 1e3)
}

/// One host for all of one, else one for each, all of the same upstream.
pub(super) fn routes(sequence: u64, count: usize, upstream: SocketAddr) -> NodeTable {
    let id = |number: usize| (number as u128 + 1).to_be_bytes().to_vec();
    let route = |number: usize| NodeRoute {
        host: match number {
            0 => "bench.test".to_owned(),
            _ => format!("web-{number}.bench.test"),
        },
        path_prefix: "/".to_owned(),
        service: id(number),
        name: format!("web-{number}-production-bench"),
        backends: vec![NodeBackend {
            allocation: id(number),
            address: upstream.to_string(),
            ..NodeBackend::default()
        }],
        ..NodeRoute::default()
    };
    NodeTable {
        sequence,
        revision: sequence,
        routes: (0..count).map(route).collect(),
        ..NodeTable::default()
    }
}

pub(super) async fn skep_net(dir: &Path) -> Result<(Proxy, NetClient<Channel>)> {
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(dir.join("run"))?;
    let (address, admin) = (place::free_address()?, place::free_address()?);
    let socket = dir.join("run/net.sock");
    let process = Process::new("skep-net", &place::skep_binary()?, dir.join("net.log"))
        .args([
            "net".into(),
            "--data-dir".into(),
            dir.join("net").into_os_string(),
        ])
        .args(["--socket".into(), socket.clone().into_os_string()])
        .args(["--ingress-addr", &address.to_string()])
        .args(["--admin-addr", &admin.to_string()])
        .args(["--mesh-addr", "127.0.0.1:0", "--traefik-port", "0"])
        .args(["--traefik-tcp-port", "0"]);
    process.start().await?;
    let dial = tower::service_fn(move |_: hyper::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let mut net = None;
    wait::until_ok("the data plane", SEEN, async || {
        let endpoint = Endpoint::from_static("http://net");
        let channel = endpoint.connect_with_connector(dial.clone()).await?;
        net = Some(NetClient::new(channel).max_encoding_message_size(64 << 20));
        Ok(())
    })
    .await?;
    let proxy = Proxy {
        process,
        address,
        admin: Some(admin),
    };
    Ok((proxy, net.context("connected")?))
}

async fn nginx_proxy(dir: &Path, upstream: SocketAddr) -> Result<Proxy> {
    let text = "proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
                proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;";
    let extra = format!("upstream origin {{ server {upstream}; keepalive {CONNECTIONS}; }}");
    nginx_with(dir, "proxy", (2, &extra), place::free_address()?, text).await
}

pub(super) async fn nginx(
    dir: &Path,
    name: &str,
    workers: usize,
    address: SocketAddr,
    location: &str,
) -> Result<Proxy> {
    nginx_with(dir, name, (workers, ""), address, location).await
}

async fn nginx_with(
    dir: &Path,
    name: &str,
    (workers, extra): (usize, &str),
    address: SocketAddr,
    location: &str,
) -> Result<Proxy> {
    let path = |suffix: &str| dir.join(format!("nginx-{name}.{suffix}"));
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};", path(kind).display()))
        .join(" ");
    let text = format!(
        "daemon off; worker_processes {workers}; pid {pid}; error_log {log};\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 100000000; {temporary} {extra}\n\
         server {{ listen {address}; location / {{ {location} }} }} }}\n",
        pid = path("pid").display(),
        log = path("log").display(),
    );
    let config = path("conf");
    std::fs::write(&config, text)?;
    let process = Process::new(&format!("nginx-{name}"), Path::new("nginx"), path("out"))
        .args(["-c".into(), config.into_os_string()])
        .args(["-e".into(), path("log").into_os_string()]);
    process.start().await?;
    Ok(Proxy {
        process,
        address,
        admin: None,
    })
}

async fn haproxy(dir: &Path, upstream: SocketAddr) -> Result<Proxy> {
    let address = place::free_address()?;
    let config: PathBuf = dir.join("haproxy.cfg");
    let text = format!(
        "global\n nbthread 2\n maxconn 4096\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         frontend in\n bind {address}\n option forwardfor\n default_backend origin\n\
         backend origin\n http-reuse always\n server origin {upstream}\n"
    );
    std::fs::write(&config, text)?;
    let process = Process::new("haproxy", Path::new("haproxy"), dir.join("haproxy.log")).args([
        "-db".into(),
        "-f".into(),
        config.into_os_string(),
    ]);
    process.start().await?;
    Ok(Proxy {
        process,
        address,
        admin: None,
    })
}
