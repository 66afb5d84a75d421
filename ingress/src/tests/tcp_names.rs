//! Connections that the name in their TLS handshake leads to a service, and those that a proxy on this machine
//! hands on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use skep_model::tcp::TlsMode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use super::support::{App, HOST, SOON, crew, route};
use super::tcp::{named, rest, say, table, talker};
use super::tls::{certificate, config, modern};
use crate::certificates::provider;
use crate::reach::NoWay;
use crate::{Ingress, Options, Table, TcpRoute};

fn acceptor(host: &str) -> (TlsAcceptor, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).expect("made");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    (acceptor, made.cert.der().to_vec())
}

/// The ingress under TLS, with a certificate for `end.test`, beside an app of HTTP.
async fn serve_tls(app: &App, tcp: Vec<TcpRoute>) -> (Ingress, SocketAddr, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let ingress = Ingress::reaching(Options::default(), crew(), Arc::new(NoWay), None);
    let (own, der) = certificate("end.test");
    ingress.set_certificates(vec![own]);
    ingress.publish(Table {
        revision: 1,
        routes: vec![
            route(HOST, "/", 2, &[app.address]),
            route("http.x.test", "/", 2, &[app.address]),
        ],
        tcp,
    });
    let serving = ingress.clone();
    tokio::spawn(async move {
        let never = (CancellationToken::new(), Duration::ZERO);
        let served = serving.serve_tls_or_hand_over(listener, CancellationToken::new(), never);
        served.await.expect("TLS")
    });
    (ingress, address, der)
}

#[tokio::test]
async fn a_name_leads_to_a_service_that_speaks_tls_itself_or_not() {
    let http = App::start("http").await;
    let (tls, inner_der) = acceptor("db.test");
    let (inner, plain) = (
        talker("inner", Some(tls)).await,
        talker("plain", None).await,
    );
    let routes = vec![
        named("db.test", TlsMode::Passthrough, &[inner.address]),
        named("*.x.test", TlsMode::Passthrough, &[inner.address]),
        named("end.test", TlsMode::Terminate, &[plain.address]),
    ];
    let (ingress, address, own_der) = serve_tls(&http, routes).await;
    let connect = async |name: &str, alpn: &[&str]| {
        let stream = TcpStream::connect(address).await.expect("connects");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let config = config(rustls::ALL_VERSIONS, alpn);
        let shaken = TlsConnector::from(config).connect(name, stream);
        timeout(SOON, shaken)
            .await
            .expect("in time")
            .expect("a handshake")
    };
    // A protocol of its own is no reason to refuse a client.
    for (name, der, answer) in [
        ("db.test", &inner_der, "inner:hi"),
        ("DB.test", &inner_der, "inner:hi"),
        ("a.x.test", &inner_der, "inner:hi"),
        ("end.test", &own_der, "plain:hi"),
    ] {
        let alpn: &[&str] = if der == &own_der { &["mqtt"] } else { &[] };
        let mut stream = connect(name, alpn).await;
        let shown = stream.get_ref().1.peer_certificates().expect("a chain")[0].to_vec();
        assert_eq!(&shown, der, "{name}");
        assert_eq!(say(&mut stream, "hi").await, answer, "{name}");
        stream.shutdown().await.expect("shut");
        assert_eq!(rest(stream).await.expect("a good end"), "bye\n", "{name}");
    }
    // What is of HTTP stays so, a host below the wildcard, too.
    for host in [HOST, "http.x.test"] {
        let mut stream = connect(host, &["http/1.1"]).await;
        let head = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        assert!(
            rest(stream).await.expect("an answer").ends_with("http"),
            "{host}"
        );
    }
    let services = ingress.metrics().services;
    assert_eq!(services[0].tcp.total, 4);
}

#[tokio::test]
async fn a_handshake_that_comes_byte_by_byte_is_read_to_its_end_and_no_further() {
    let http = App::start("http").await;
    let (tls, _) = acceptor("db.test");
    let inner = talker("inner", Some(tls)).await;
    let routes = vec![named("db.test", TlsMode::Passthrough, &[inner.address])];
    let (_ingress, address, _) = serve_tls(&http, routes).await;
    // A slow wire between the client and the ingress.
    let (near, mut far) = tokio::io::duplex(64 << 10);
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.set_nodelay(true).expect("set");
    tokio::spawn(async move {
        let (mut from, mut to) = stream.split();
        let (mut client_from, mut client_to) = tokio::io::split(&mut far);
        let slow = async {
            while let Ok(byte) = client_from.read_u8().await {
                if to.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let _ = tokio::join!(slow, tokio::io::copy(&mut from, &mut client_to));
    });
    let name = ServerName::try_from("db.test").expect("a name");
    let shaken = TlsConnector::from(modern()).connect(name, near);
    let mut stream = timeout(SOON, shaken)
        .await
        .expect("in time")
        .expect("a handshake");
    assert_eq!(say(&mut stream, "hi").await, "inner:hi");
    // What is no handshake is answered as ever.
    let mut odd = TcpStream::connect(address).await.expect("connects");
    odd.write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = Vec::new();
    let _ = timeout(SOON, odd.read_to_end(&mut answer))
        .await
        .expect("ends");
    assert_eq!(answer.first(), Some(&21), "an alert of TLS: {answer:?}");
}

#[tokio::test]
async fn a_proxy_on_this_machine_hands_on_connections_by_address() {
    let app = talker("a", None).await;
    let ingress = Ingress::reaching(Options::default(), crew(), Arc::new(NoWay), None);
    let route = named("db.test", TlsMode::Passthrough, &[app.address]);
    ingress.publish(table(1, vec![route]));
    let listener = crate::listen_on_endpoints(0).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let listener = TcpListener::from_std(listener).expect("registered");
    let serving = ingress.clone();
    tokio::spawn(async move {
        let never = (CancellationToken::new(), Duration::ZERO);
        serving
            .serve_tcp_endpoints(listener, CancellationToken::new(), never)
            .await
    });
    let address = ingress.addresses(1, port).named["db.test"];
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let header = "PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n";
    stream.write_all(header.as_bytes()).await.expect("sent");
    assert_eq!(say(&mut stream, "hi").await, "a:hi");
    // Without a header, and at an address that is nobody's.
    for (address, first) in [
        (address, "hi\n"),
        (
            (std::net::Ipv4Addr::new(127, 64, 9, 9), port).into(),
            header,
        ),
    ] {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream
            .write_all(first.repeat(9).as_bytes())
            .await
            .expect("sent");
        assert!(rest(stream).await.unwrap_or_default().is_empty());
    }
}
