//! The whole process on loopback: a real socket, a real ingress, real restarts.

use std::path::Path;

use skep_proto::convert::id_bytes;
use skep_proto::v1::{NodeBackend, NodeRoute, NodeTable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

mod edge;
mod files;
mod traefik;

use super::client::{Client, NetStatusLocal};
use super::*;

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// Far above what anything here takes.
const LIMIT: Duration = Duration::from_secs(10);

struct Running {
    addresses: Addresses,
    client: Client,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

fn options(dir: &Path) -> Options {
    Options {
        data_dir: dir.join("net"),
        socket: dir.join("run/net.sock"),
        ingress_addr: LOOPBACK,
        admin_addr: LOOPBACK,
        mesh_addr: LOOPBACK,
        traefik_port: 0,
        traefik_tcp_port: 0,
        traefik_api: None,
        traefik_file: None,
        run_traefik: None,
        edge: Edge::default(),
        takeover: false,
        admin_token: None,
    }
}

async fn start_with(options: Options) -> Running {
    let shutdown = CancellationToken::new();
    let (sender, receiver) = oneshot::channel();
    let client = Client::new(options.socket.clone());
    let ready = move |addresses| sender.send(addresses).expect("the test waits");
    let task = tokio::spawn(run(options, ready, shutdown.clone()));
    let addresses = receiver.await.expect("started");
    Running {
        addresses,
        client,
        shutdown,
        task,
    }
}

async fn start(dir: &Path) -> Running {
    start_with(options(dir)).await
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        timeout(LIMIT, self.task)
            .await
            .expect("in time")
            .expect("no panic")
            .expect("ended well");
    }

    async fn app(&self, host: &str) -> String {
        request(
            self.addresses.ingress,
            &format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"),
        )
        .await
    }

    /// What load balancers are told, at a host that is not routed.
    async fn ready(&self) -> String {
        let text =
            "GET /.well-known/skep/ready HTTP/1.1\r\nhost: 192.0.2.1\r\nconnection: close\r\n\r\n";
        request(self.addresses.ingress, text).await
    }

    async fn admin(&self, path: &str, header: &str) -> String {
        request(
            self.addresses.admin,
            &format!("GET {path} HTTP/1.1\r\nhost: x\r\n{header}connection: close\r\n\r\n"),
        )
        .await
    }
}

async fn request(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    timeout(LIMIT, stream.read_to_string(&mut answer))
        .await
        .expect("in time")
        .expect("answer");
    answer
}

/// An app that answers every connection once with `text`.
async fn app(text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.expect("bound");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                text.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

fn table(sequence: u64, backends: &[SocketAddr]) -> NodeTable {
    let backend = |(index, address): (usize, &SocketAddr)| NodeBackend {
        allocation: id_bytes(index as u128 + 1),
        address: address.to_string(),
        ..NodeBackend::default()
    };
    NodeTable {
        sequence,
        revision: sequence,
        peers: Vec::new(),
        endpoints: Vec::new(),
        networks: Vec::new(),
        tcp: Vec::new(),
        routes: vec![NodeRoute {
            sleeps: false,
            host: "app.example".to_owned(),
            path_prefix: "/".to_owned(),
            service: id_bytes(1),
            name: "web-production-shop".to_owned(),
            backends: backends.iter().enumerate().map(backend).collect(),
            rules: None,
            parts: Vec::new(),
            tried: Vec::new(),
        }],
        ruled: Vec::new(),
    }
}

async fn status_where(
    net: &Running,
    wanted: impl FnMut(&Option<NetStatusLocal>) -> bool,
) -> Option<NetStatusLocal> {
    let mut status = net.client.watch(CancellationToken::new());
    *timeout(LIMIT, status.wait_for(wanted))
        .await
        .expect("in time")
        .expect("watching")
}

#[tokio::test]
async fn a_published_table_serves_and_survives_a_restart() {
    let dir = tempfile::tempdir().expect("folder");
    let net = start(dir.path()).await;
    assert!(net.app("app.example").await.starts_with("HTTP/1.1 404"));
    assert!(
        net.admin("/v1/traefik", "")
            .await
            .starts_with("HTTP/1.1 503")
    );
    assert!(net.admin("/readyz", "").await.starts_with("HTTP/1.1 503"));
    assert!(net.ready().await.starts_with("HTTP/1.1 503"));

    net.client
        .publish(table(7, &[app("hello").await]))
        .await
        .expect("published");
    assert!(net.app("app.example").await.ends_with("hello"));
    assert!(net.admin("/readyz", "").await.starts_with("HTTP/1.1 200"));
    while !net.ready().await.starts_with("HTTP/1.1 200") {
        tokio::task::yield_now().await;
    }
    let status = status_where(&net, |status| {
        status.is_some_and(|s| s.drained_sequence == 7)
    })
    .await;
    let port = net.addresses.ingress.port();
    assert_eq!(
        status,
        Some(NetStatusLocal {
            applied_sequence: 7,
            drained_sequence: 7,
            ingress_port: port,
            mesh_port: net.addresses.mesh.port(),
            serves_files: true,
            unbound: Default::default(),
            entrances: [Some(net.addresses.ingress), None],
        })
    );
    net.stop().await;

    // No agent speaks: the table is there, and its sequence with it.
    let net = start(dir.path()).await;
    assert!(net.app("app.example").await.ends_with("hello"));
    assert!(net.admin("/readyz", "").await.starts_with("HTTP/1.1 200"));
    status_where(&net, |status| {
        status.is_some_and(|s| s.applied_sequence == 7 && s.drained_sequence == 7)
    })
    .await;
    net.stop().await;
}

#[tokio::test]
async fn older_tables_change_nothing_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("folder");
    let (new, old) = (app("new").await, app("old").await);
    let net = start(dir.path()).await;
    net.client
        .publish(table(9, &[new]))
        .await
        .expect("published");
    for sequence in [9, 8, 0] {
        net.client
            .publish(table(sequence, &[old]))
            .await
            .expect("left alone");
        assert!(net.app("app.example").await.ends_with("new"), "{sequence}");
    }
    net.stop().await;
    let net = start(dir.path()).await;
    net.client
        .publish(table(8, &[old]))
        .await
        .expect("left alone");
    assert!(net.app("app.example").await.ends_with("new"));
    net.client
        .publish(table(10, &[old]))
        .await
        .expect("published");
    assert!(net.app("app.example").await.ends_with("old"));
    net.stop().await;
}

#[tokio::test]
async fn a_damaged_table_is_moved_aside_and_the_agent_fills_it_again() {
    let dir = tempfile::tempdir().expect("folder");
    let net = start(dir.path()).await;
    let backend = app("hello").await;
    net.client
        .publish(table(7, &[backend]))
        .await
        .expect("published");
    net.stop().await;
    let file = dir.path().join("net/table");
    let mut bytes = std::fs::read(&file).expect("file");
    bytes[40] ^= 1;
    std::fs::write(&file, bytes).expect("damage");

    let net = start(dir.path()).await;
    assert!(dir.path().join("net/table.damaged").exists());
    assert!(
        net.admin("/v1/traefik", "")
            .await
            .starts_with("HTTP/1.1 503")
    );
    net.client
        .publish(table(1, &[backend]))
        .await
        .expect("published");
    assert!(net.app("app.example").await.ends_with("hello"));
    net.stop().await;
}

#[tokio::test]
async fn what_means_nothing_is_refused_and_the_old_table_serves_on() {
    let dir = tempfile::tempdir().expect("folder");
    let net = start(dir.path()).await;
    net.client
        .publish(table(3, &[app("hello").await]))
        .await
        .expect("published");
    let mut bad_address = table(4, &[]);
    bad_address.routes[0].backends.push(NodeBackend {
        allocation: id_bytes(1),
        address: "web:80".to_owned(),
        ..NodeBackend::default()
    });
    let mut bad_id = table(4, &[]);
    bad_id.routes[0].service = vec![1];
    for bad in [bad_address, bad_id] {
        let status = net.client.publish(bad).await.expect_err("refused");
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }
    assert!(net.app("app.example").await.ends_with("hello"));
    net.stop().await;
}

#[tokio::test]
async fn metrics_count_requests_and_a_token_guards_them() {
    let dir = tempfile::tempdir().expect("folder");
    let guarded = Options {
        admin_token: Some("right".to_owned()),
        ..options(dir.path())
    };
    let net = start_with(guarded).await;
    net.client
        .publish(table(3, &[app("hello").await]))
        .await
        .expect("published");
    net.app("app.example").await;
    for header in [
        "",
        "authorization: Bearer wrong\r\n",
        "authorization: Bearer \r\n",
        "authorization: right\r\n",
    ] {
        for path in ["/metrics", "/v1/traefik"] {
            assert!(
                net.admin(path, header).await.starts_with("HTTP/1.1 401"),
                "{path} {header}"
            );
        }
    }
    let metrics = net
        .admin("/metrics", "authorization: Bearer right\r\n")
        .await;
    assert!(metrics.contains("skep_net_table_sequence 3\n"), "{metrics}");
    let counted = metrics.lines().any(|line| {
        line.starts_with("skep_ingress_requests_total{")
            && line.contains("code=\"2xx\"")
            && line.ends_with(" 1")
    });
    assert!(counted, "{metrics}");
    assert!(net.admin("/healthz", "").await.starts_with("HTTP/1.1 200"));
    assert!(net.admin("/nope", "").await.starts_with("HTTP/1.1 404"));
    let post =
        "POST /v1/traefik HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert!(
        request(net.addresses.admin, post)
            .await
            .starts_with("HTTP/1.1 405")
    );
    net.stop().await;
}

#[tokio::test]
async fn addresses_open_to_the_network_need_a_token() {
    let dir = tempfile::tempdir().expect("folder");
    let open = SocketAddr::from(([0, 0, 0, 0], 0));
    let cases = [
        (open, None, "is not a loopback"),
        (LOOPBACK, Some(""), "is empty"),
    ];
    for (admin_addr, token, message) in cases {
        let options = Options {
            admin_addr,
            admin_token: token.map(str::to_owned),
            ..options(dir.path())
        };
        let error = run(options, |_| {}, CancellationToken::new())
            .await
            .expect_err("refused");
        assert!(error.to_string().contains(message), "{error}");
    }
    assert!(
        !dir.path().join("net").exists(),
        "refused before anything is made"
    );
}

#[tokio::test]
async fn a_second_process_on_the_same_socket_is_refused_and_harms_nothing() {
    let dir = tempfile::tempdir().expect("folder");
    let net = start(dir.path()).await;
    let error = run(options(dir.path()), |_| {}, CancellationToken::new())
        .await
        .expect_err("refused");
    assert!(
        matches!(error, Error::Socket(UdsError::InUse { .. })),
        "{error:?}"
    );
    net.client
        .publish(table(1, &[]))
        .await
        .expect("still there");
    net.stop().await;
}

#[tokio::test]
async fn the_client_waits_for_the_socket_and_finds_the_next_process() {
    let dir = tempfile::tempdir().expect("folder");
    let client = Client::new(options(dir.path()).socket);
    let mut status = client.watch(CancellationToken::new());
    let away = client
        .publish(table(1, &[]))
        .await
        .expect_err("nobody there");
    assert_eq!(away.code(), tonic::Code::Unavailable);
    for sequence in [1, 2] {
        let net = start(dir.path()).await;
        client
            .publish(table(sequence, &[]))
            .await
            .expect("published");
        let there = |status: &Option<NetStatusLocal>| {
            status.is_some_and(|s| s.applied_sequence == sequence)
        };
        timeout(LIMIT, status.wait_for(there))
            .await
            .expect("in time")
            .expect("watching");
        net.stop().await;
        timeout(LIMIT, status.wait_for(Option::is_none))
            .await
            .expect("in time")
            .expect("watching");
    }
}

#[tokio::test]
async fn stopping_lets_an_open_request_end_and_the_agent_hears_of_it() {
    let dir = tempfile::tempdir().expect("folder");
    let listener = TcpListener::bind(LOOPBACK).await.expect("bound");
    let backend = listener.local_addr().expect("address");
    let net = start(dir.path()).await;
    net.client
        .publish(table(1, &[backend]))
        .await
        .expect("published");
    let address = net.addresses.ingress;
    let open = tokio::spawn(request(
        address,
        "GET / HTTP/1.1\r\nhost: app.example\r\nconnection: close\r\n\r\n",
    ));
    let (mut held, _) = listener.accept().await.expect("the request came");

    net.client.publish(table(2, &[])).await.expect("published");
    let mut status = net.client.watch(CancellationToken::new());
    let applied = |s: &Option<NetStatusLocal>| s.is_some_and(|s| s.applied_sequence == 2);
    let seen = *timeout(LIMIT, status.wait_for(applied))
        .await
        .expect("in time")
        .expect("watching");
    assert_eq!(seen.map(|s| s.drained_sequence), Some(1));

    net.shutdown.cancel();
    // The agent is heard until the last request has ended.
    tokio::task::yield_now().await;
    net.client
        .publish(table(3, &[]))
        .await
        .expect("published while draining");
    // Still served, although no new connection is taken.
    held.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
        .await
        .expect("head");
    held.write_all(b"done").await.expect("body");
    assert!(open.await.expect("ran").ends_with("done"));
    net.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_agent_hears_what_was_counted_all_of_it_first() {
    let dir = tempfile::tempdir().expect("folder");
    let net = start(dir.path()).await;
    net.client.publish(table(1, &[])).await.expect("published");
    let mut idle = net.client.measure().await.expect("there");
    let reading = timeout(LIMIT, idle.message()).await.expect("in time");
    let first = reading.expect("sound").expect("open");
    assert_eq!(first.services, vec![], "nothing was counted");
    let get = "GET / HTTP/1.1\r\nhost: app.example\r\nconnection: close\r\n\r\n";
    let answer = request(net.addresses.ingress, get).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let mut later = net.client.measure().await.expect("there");
    for stream in [&mut idle, &mut later] {
        let reading = timeout(LIMIT, stream.message()).await.expect("in time");
        let reading = reading.expect("sound").expect("open");
        assert_eq!(reading.life, first.life);
        let requests = &reading.services[0].requests;
        assert_eq!(requests.iter().sum::<u64>(), 1, "{reading:?}");
    }
    net.stop().await;
}
