//! TLS between real sockets: which certificate is shown to whom and when, what is agreed upon, and clients
//! that do not get on with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::support::{App, HOST, SOON, table};
use crate::certificates::provider;
use crate::{Certificate, Closed, Ingress, Options};

/// An ingress that is served under TLS.
struct Served {
    ingress: Ingress,
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<Closed>,
}

async fn serve(options: Options, app: &App) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (ingress, shutdown) = (Ingress::new(options), CancellationToken::new());
    ingress.publish(table(1, &[app.address]));
    let (serving, token) = (ingress.clone(), shutdown.clone());
    let task = tokio::spawn(async move {
        let never = (CancellationToken::new(), Duration::ZERO);
        let served = serving.serve_tls_or_hand_over(listener, token, never);
        served.await.expect("TLS")
    });
    Served {
        ingress,
        address,
        shutdown,
        task,
    }
}

/// A certificate and its DER.
pub(super) fn certificate(name: &str) -> (Certificate, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("made");
    let key = made.signing_key.serialize_pem();
    let certificate = Certificate::from_pem(made.cert.pem().as_bytes(), key.as_bytes());
    (
        certificate.expect("one that can be shown"),
        made.cert.der().to_vec(),
    )
}

/// Sees which certificate is shown, and takes any.
#[derive(Debug)]
struct Any;

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

pub(super) fn config(
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&str],
) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
    Arc::new(config)
}

pub(super) fn modern() -> Arc<ClientConfig> {
    config(rustls::ALL_VERSIONS, &["http/1.1"])
}

async fn dial(served: &Served, name: &str, config: Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(served.address).await.expect("connects");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let shaken = TlsConnector::from(config).connect(name, stream);
    let shaken = tokio::time::timeout(SOON, shaken).await;
    shaken.expect("in time").expect("a handshake")
}

fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    let chain = stream.get_ref().1.peer_certificates().expect("a chain");
    chain[0].to_vec()
}

/// One GET and its whole answer; keeps the connection.
async fn get(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let whole = |answer: &[u8]| {
        let text = String::from_utf8_lossy(answer).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))?;
        (body.len() == length.parse::<usize>().ok()?).then_some(text)
    };
    loop {
        if let Some(text) = whole(&answer) {
            return text;
        }
        let read = tokio::time::timeout(SOON, stream.read_buf(&mut answer)).await;
        assert!(read.expect("in time").expect("read") > 0, "{answer:?}");
    }
}

#[tokio::test]
async fn names_get_their_certificates_and_unknown_ones_an_answer() {
    let app = App::start("a").await;
    let served = serve(Options::default(), &app).await;
    let (own, own_der) = certificate(HOST);
    let (wild, wild_der) = certificate("*.test");
    served.ingress.set_certificates(vec![own, wild]);
    for (name, expected) in [
        (HOST, Some(&own_der)),
        ("APP.test", Some(&own_der)),
        ("other.test", Some(&wild_der)),
        ("x.other.test", None),
        ("127.0.0.1", None),
    ] {
        let mut stream = dial(&served, name, modern()).await;
        let seen = shown(&stream);
        match expected {
            Some(expected) => assert_eq!(&seen, expected, "{name}"),
            None => assert!(seen != own_der && seen != wild_der, "{name}"),
        }
        assert!(get(&mut stream, "/").await.ends_with("\r\n\r\na"), "{name}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_at_once_and_no_connection_is_touched() {
    let app = App::start("a").await;
    let served = serve(Options::default(), &app).await;
    let (old, old_der) = certificate(HOST);
    let (new, new_der) = certificate(HOST);
    served.ingress.set_certificates(vec![old]);
    let mut before = dial(&served, HOST, modern()).await;
    assert_eq!(shown(&before), old_der);
    get(&mut before, "/").await;
    served.ingress.set_certificates(vec![new]);
    let after = dial(&served, HOST, modern()).await;
    assert_eq!(shown(&after), new_der);
    assert!(get(&mut before, "/").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn apps_learn_that_the_client_came_under_tls() {
    let app = App::start("a").await;
    let options = Options {
        https_redirect: Some(443),
        ..Options::default()
    };
    let served = serve(options, &app).await;
    let mut stream = dial(&served, HOST, modern()).await;
    let answer = get(&mut stream, "/headers").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        answer.contains("x-forwarded-port: 443\nx-forwarded-proto: https\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn http2_is_agreed_upon_in_the_handshake() {
    let app = App::start("a").await;
    let served = serve(Options::default(), &app).await;
    let stream = dial(
        &served,
        HOST,
        config(rustls::ALL_VERSIONS, &["h2", "http/1.1"]),
    )
    .await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("speaks");
    tokio::spawn(connection);
    let request = Request::get(format!("https://{HOST}/headers"))
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let response = sender.send_request(request).await.expect("answered");
    assert_eq!(response.version(), Version::HTTP_2);
    let body = response
        .into_body()
        .collect()
        .await
        .expect("whole")
        .to_bytes();
    let body = String::from_utf8_lossy(&body);
    assert!(body.contains("x-forwarded-proto: https\n"), "{body}");
    let first = dial(&served, HOST, modern()).await;
    assert_eq!(first.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn sessions_are_resumed_by_both_versions() {
    let app = App::start("a").await;
    let served = serve(Options::default(), &app).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = config(&[version], &["http/1.1"]);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut stream = dial(&served, HOST, config.clone()).await;
            // The tickets of 1.3 come with the answer.
            get(&mut stream, "/").await;
            kinds.push(stream.get_ref().1.handshake_kind());
        }
        assert_eq!(
            kinds,
            [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]
        );
    }
}

/// All that comes until the end.
async fn to_the_end(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(sent).await.expect("sent");
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer))
        .await
        .expect("ends");
    answer
}

#[tokio::test]
async fn handshakes_end_in_time_or_not_at_all() {
    let app = App::start("a").await;
    let options = Options {
        handshake_timeout: Duration::from_millis(100),
        ..Options::default()
    };
    let served = serve(options, &app).await;
    assert_eq!(to_the_end(served.address, b"").await, b"", "silent");
    assert_eq!(
        to_the_end(served.address, b"\x16\x03\x01\x02").await,
        b"",
        "half of one"
    );
    let plain = to_the_end(served.address, b"GET / HTTP/1.1\r\nhost: app.test\r\n\r\n").await;
    assert!(plain.first() == Some(&0x15), "an alert: {plain:?}");
    assert_eq!(served.ingress.metrics().failed_arrivals, 3);
    assert_eq!(app.served(), 0);
}

#[tokio::test]
async fn clients_that_stall_keep_nobody_out() {
    let app = App::start("a").await;
    let options = Options {
        handshake_timeout: 10 * SOON,
        max_handshakes: 1,
        ..Options::default()
    };
    let served = serve(options, &app).await;
    let mut stalling = TcpStream::connect(served.address).await.expect("connects");
    let mut stream = dial(&served, HOST, modern()).await;
    let read = stalling.read_u8();
    let ended = tokio::time::timeout(SOON, read).await;
    ended.expect("pushed out").expect_err("without a word");
    assert!(get(&mut stream, "/").await.ends_with("\r\n\r\na"));
    assert_eq!(served.ingress.metrics().failed_arrivals, 1);
}

#[tokio::test]
async fn what_is_under_way_ends_well_at_shutdown() {
    let app = App::start("a").await;
    let served = serve(Options::default(), &app).await;
    let mut stream = dial(&served, HOST, modern()).await;
    let head = format!("GET /hold HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    while app.served() == 0 {
        tokio::task::yield_now().await;
    }
    served.shutdown.cancel();
    app.gate.add_permits(1);
    let mut answer = Vec::new();
    // To the end, and that is announced: whoever cuts the connection cannot shorten an answer.
    stream
        .read_to_end(&mut answer)
        .await
        .expect("closed by TLS");
    assert!(String::from_utf8_lossy(&answer).ends_with("held"));
    assert_eq!(served.task.await.expect("ended"), Closed { cut: 0 });
}
