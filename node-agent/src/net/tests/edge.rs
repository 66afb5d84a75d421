//! The edge as an operator sets it: TLS with certificates from a folder, handed over with the rest; the
//! access log; and what does not fit together.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use skep_model::tcp::Door;
use skep_proto::v1::NodeTcpRoute;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

const NAME: &str = "app.example";

/// What a client needs to believe the pair, which is written to the folder.
fn write_pair(folder: &Path) -> Arc<ClientConfig> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("made");
    std::fs::create_dir_all(folder).expect("a folder");
    let key = made.signing_key.serialize_pem();
    std::fs::write(folder.join("app.key"), key).expect("written");
    std::fs::write(folder.join("app.crt"), made.cert.pem()).expect("written");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

async fn dial(net: &Running, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let address = net.addresses.https.expect("TLS is spoken");
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(NAME).expect("a name");
    timeout(
        LIMIT,
        TlsConnector::from(config.clone()).connect(name, stream),
    )
    .await
    .expect("in time")
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    let get = format!("GET / HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n");
    stream.write_all(get.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    timeout(LIMIT, stream.read_to_string(&mut answer))
        .await
        .expect("in time")
        .expect("an answer");
    answer
}

fn encrypting(dir: &Path) -> Options {
    Options {
        edge: Edge {
            https_addr: Some(LOOPBACK),
            certificates: Some(dir.join("certificates")),
            https_redirect: Some(8443),
            access_log: Some(dir.join("access.log")),
            ..Edge::default()
        },
        ..options(dir)
    }
}

#[tokio::test]
async fn tls_is_spoken_with_the_folders_certificates_and_handed_over() {
    let dir = tempfile::tempdir().expect("folder");
    let config = write_pair(&dir.path().join("certificates"));
    std::fs::write(dir.path().join("certificates/broken.crt"), "no PEM").expect("written");
    let first = start_with(encrypting(dir.path())).await;
    let backend = app("hello").await;
    first
        .client
        .publish(table(1, &[backend]))
        .await
        .expect("published");
    let mut stream = dial(&first, &config).await.expect("a handshake");
    assert!(ask(&mut stream).await.ends_with("hello"));
    let plain = first.app(NAME).await;
    assert!(
        plain.contains("location: https://app.example:8443/\r\n"),
        "{plain}"
    );

    // One connection before and one after the other takes over.
    let mut open = dial(&first, &config).await.expect("a handshake");
    let takeover = Options {
        takeover: true,
        ..encrypting(dir.path())
    };
    let second = start_with(takeover).await;
    assert_eq!(second.addresses.https, first.addresses.https);
    assert!(ask(&mut open).await.ends_with("hello"));
    timeout(LIMIT, first.task)
        .await
        .expect("in time")
        .expect("no panic")
        .expect("ended well");
    let mut stream = dial(&second, &config).await.expect("a handshake");
    assert!(ask(&mut stream).await.ends_with("hello"));
    second.stop().await;
    let log = std::fs::read_to_string(dir.path().join("access.log")).expect("a log");
    let of = |scheme: &str| log.matches(&format!("\"scheme\":\"{scheme}\"")).count();
    assert_eq!((of("https"), of("http")), (3, 1), "{log}");
}

#[tokio::test]
async fn an_entry_of_a_tcp_route_changes_hands_with_its_connections() {
    let dir = tempfile::tempdir().expect("folder");
    let listener = TcpListener::bind(LOOPBACK).await.expect("bound");
    let backend = listener.local_addr().expect("address");
    let free = std::net::TcpListener::bind(LOOPBACK).expect("bound");
    let entry = free.local_addr().expect("address");
    let mut with = table(1, &[]);
    with.tcp.push(NodeTcpRoute {
        door: Some((&Door::Entry(entry.port())).into()),
        service: id_bytes(1),
        name: "db".to_owned(),
        backends: vec![NodeBackend {
            allocation: id_bytes(9),
            address: backend.to_string(),
            ..NodeBackend::default()
        }],
        ..NodeTcpRoute::default()
    });
    let first = start(dir.path()).await;
    first.client.publish(with.clone()).await.expect("published");
    // Somebody has the port: the agent hears of it, and of its end.
    let is_unbound = |unbound: bool| {
        move |status: &Option<NetStatusLocal>| {
            status.is_some_and(|it| (it.unbound.first == entry.port()) == unbound)
        }
    };
    let told = status_where(&first, is_unbound(true)).await.expect("told");
    let warning = told.unbound.warning().expect("one");
    assert!(
        warning.text.contains(&entry.port().to_string()),
        "{warning:?}"
    );
    drop(free);
    status_where(&first, is_unbound(false)).await;
    let accept = async || {
        let taken = timeout(LIMIT, listener.accept()).await;
        taken.expect("in time").expect("a connection").0
    };
    let mut open = TcpStream::connect(entry).await.expect("connects");
    let mut held = accept().await;

    let second = start_with(Options {
        takeover: true,
        ..options(dir.path())
    })
    .await;
    let new = TcpStream::connect(entry).await.expect("never refused");
    drop((new, accept().await));
    // What was open before is of the first still, and holds it.
    open.write_all(b"hi").await.expect("sent");
    let mut word = [0; 2];
    held.read_exact(&mut word).await.expect("carried");
    assert_eq!((&word, first.task.is_finished()), (b"hi", false));
    with.sequence = 2;
    with.tcp.clear();
    second.client.publish(with).await.expect("published");
    let applied = |s: &Option<NetStatusLocal>| s.is_some_and(|s| s.applied_sequence == 2);
    let seen = status_where(&second, applied).await.expect("told");
    assert_eq!(seen.drained_sequence, 1);
    drop((open, held));
    timeout(LIMIT, first.task)
        .await
        .expect("in time")
        .expect("no panic")
        .expect("ended well");
    second.stop().await;
}

#[tokio::test]
async fn certificates_are_read_again_at_sighup() {
    let dir = tempfile::tempdir().expect("folder");
    let folder = dir.path().join("certificates");
    let old = write_pair(&folder);
    let net = start_with(encrypting(dir.path())).await;
    dial(&net, &old).await.expect("a handshake");
    let new = write_pair(&folder);
    dial(&net, &new).await.expect_err("it was not told yet");
    let pid = std::process::id().to_string();
    let sent = Command::new("kill").args(["-HUP", &pid]).status();
    assert!(sent.expect("kill").success());
    let changed = async {
        while dial(&net, &new).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, changed).await.expect("the new one is shown");
    dial(&net, &old).await.expect_err("the old one is gone");
    net.stop().await;
}

#[tokio::test]
async fn an_edge_that_does_not_fit_together_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let missing = dir.path().join("missing");
    let taken = std::net::TcpListener::bind(LOOPBACK).expect("bound");
    let edge = |set: &dyn Fn(&mut Edge)| {
        let mut edge = Edge::default();
        set(&mut edge);
        edge
    };
    for (edge, message) in [
        (edge(&|it| it.proxy_protocol = true), "--trusted-proxies"),
        (edge(&|it| it.https_redirect = Some(443)), "--https-addr"),
        (
            edge(&|it| it.access_log = Some(missing.join("log"))),
            "access log",
        ),
        (
            edge(&|it| it.certificates = Some(missing.clone())),
            "folder of certificates",
        ),
        (
            edge(&|it| it.https_addr = taken.local_addr().ok()),
            "apps under TLS",
        ),
    ] {
        let options = Options {
            edge,
            ..options(dir.path())
        };
        let error = run(options, |_| {}, CancellationToken::new())
            .await
            .expect_err("refused");
        assert!(error.to_string().contains(message), "{error}");
    }
}
