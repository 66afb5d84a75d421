//! Against servers on loopback that speak TLS and write bytes: what is on the wire is what counts.

use std::net::SocketAddr;
use std::sync::Mutex;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::calls;
use crate::client::Client;
use crate::credentials::Credentials;
use crate::error::Kind;
use crate::ids::{At, GuestKind, Vmid};

/// A server that answers each request with the next of its texts, and closes after the last.
struct Server {
    address: SocketAddr,
    pem: String,
    pin: String,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answers: Vec<String>) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let server = Self {
            address: listener.local_addr().expect("bound"),
            pem: cert.pem(),
            pin: hex::encode_upper(Sha256::digest(cert.der())),
            heard: Arc::default(),
        };
        let (heard, mut answers) = (server.heard.clone(), answers.into_iter());
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                while let Some(request) = request_of(&mut stream).await {
                    heard.lock().expect("sound").push(request);
                    let Some(answer) = answers.next() else { return };
                    let is_last = answer.is_empty() || answer.contains("Connection: close");
                    let _ = stream.write_all(answer.as_bytes()).await;
                    if is_last {
                        break;
                    }
                }
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("sound").clone()
    }

    fn client(&self, trust: &Trust) -> Client<Https> {
        client(&[self.url()], trust)
    }
}

fn client(hosts: &[String], trust: &Trust) -> Client<Https> {
    let token = Credentials::token("a@pve!b=c").expect("one");
    Client::new(Https::new(hosts, trust).expect("hosts"), token)
}

async fn request_of(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).await.ok()?;
        if count == 0 {
            return None;
        }
        read.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.parse::<usize>().ok())?
        });
        if body.len() >= length.unwrap_or(0) {
            return Some(text);
        }
    }
}

fn answer(head: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {head}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn vm() -> At<'static> {
    At {
        host: "pve",
        kind: GuestKind::Qemu,
        vmid: Vmid::new(101).expect("in range"),
    }
}

const TASK: &str = r#"{"data":"UPID:pve:1:2:3:qmdestroy:101:root@pam:"}"#;

#[tokio::test]
async fn what_an_old_host_says_in_its_reason_is_heard() {
    let gone = "500 Configuration file 'nodes/pve/qemu-server/101.conf' does not exist";
    let server = Server::start(vec![answer(gone, r#"{"data":null}"#)]).await;
    let client = server.client(&Trust::Ca(server.pem.clone()));
    let error = client.send(&calls::guests::status(vm())).await;
    let error = error.expect_err("gone");
    assert_eq!(error.kind, Kind::NotFound, "{error}");
    assert!(error.text.starts_with("Configuration file"), "{error}");
}

#[tokio::test]
async fn no_body_where_none_is_taken_and_a_length_where_one_is() {
    let server = Server::start(vec![
        answer("200 OK", TASK),
        answer("200 OK", TASK),
        answer("200 OK", TASK),
    ])
    .await;
    let client = server.client(&Trust::Ca(server.pem.clone()));
    let what = calls::guests::Remove {
        purge: true,
        unreferenced_disks: true,
    };
    client
        .send(&calls::guests::remove(vm(), what))
        .await
        .expect("removed");
    client
        .send(&calls::guests::start(vm()))
        .await
        .expect("started");
    client
        .send(&calls::guests::stop(vm(), true))
        .await
        .expect("stopped");
    let heard: Vec<String> = server.heard().iter().map(|it| it.to_lowercase()).collect();
    assert!(
        heard[0].starts_with(
            "delete /api2/json/nodes/pve/qemu/101?purge=1&destroy-unreferenced-disks=1 http/1.1\r\n"
        ),
        "{}",
        heard[0]
    );
    assert!(!heard[0].contains("content-length"), "{}", heard[0]);
    assert!(heard[1].contains("content-length: 0\r\n"), "{}", heard[1]);
    assert!(
        heard[2].ends_with("\r\n\r\noverrule-shutdown=1"),
        "{}",
        heard[2]
    );
    for request in &heard {
        assert!(
            request.contains("authorization: pveapitoken=a@pve!b=c\r\n"),
            "{request}"
        );
        assert!(!request.contains("transfer-encoding"), "{request}");
    }
}

#[tokio::test]
async fn only_who_is_believed_is_talked_to() {
    let stranger = Server::start(vec![answer("200 OK", r#"{"data":"100"}"#)]).await;
    let server = Server::start(vec![
        answer("200 OK", r#"{"data":"101"}"#),
        answer("200 OK", r#"{"data":"102"}"#),
    ])
    .await;
    let next = calls::cluster::next_id();
    let by_pin =
        server.client(&Trust::pins([stranger.pin.as_str(), server.pin.as_str()]).expect("pins"));
    assert_eq!(by_pin.send(&next).await.expect("known").get(), 101);
    let by_ca = server.client(&Trust::Ca(server.pem.clone()));
    assert_eq!(by_ca.send(&next).await.expect("known").get(), 102);
    for trust in [
        Trust::Ca(stranger.pem.clone()),
        Trust::pins([stranger.pin.as_str()]).expect("pin"),
    ] {
        let error = server
            .client(&trust)
            .send(&next)
            .await
            .expect_err("a stranger");
        assert_eq!(error.kind, Kind::NotAnswered);
        if matches!(trust, Trust::Pins(_)) {
            assert!(error.text.contains("was it renewed?"), "{error}");
        }
    }
    assert_eq!(
        server.heard().len(),
        2,
        "nothing is said to who is not believed"
    );
}

#[tokio::test]
async fn another_host_answers_where_one_is_away() {
    let away = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let closed = away.local_addr().expect("bound");
    drop(away);
    let server = Server::start(vec![
        answer("200 OK", TASK),
        answer("200 OK", r#"{"data":"101"}"#),
    ])
    .await;
    let hosts = [format!("https://{closed}"), server.url()];
    let client = client(&hosts, &Trust::Ca(server.pem.clone()));
    // Nothing has reached the first: also what changes something goes to the second.
    client
        .send(&calls::guests::start(vm()))
        .await
        .expect("started");
    client
        .send(&calls::cluster::next_id())
        .await
        .expect("answered");
}

#[tokio::test]
async fn a_line_that_breaks_in_a_change_is_not_tried_elsewhere() {
    let broken = Server::start(vec![String::new()]).await;
    let other = Server::start(vec![answer("200 OK", r#"{"data":"101"}"#)]).await;
    let hosts = [broken.url(), other.url()];
    let trust = Trust::pins([broken.pin.as_str(), other.pin.as_str()]).expect("pins");
    let client = client(&hosts, &trust);
    let error = client
        .send(&calls::guests::start(vm()))
        .await
        .expect_err("nobody knows");
    assert_eq!(error.kind, Kind::OutcomeUnknown, "{error}");
    assert_eq!((broken.heard().len(), other.heard().len()), (1, 0));
    // A read that comes next asks the other.
    client
        .send(&calls::cluster::next_id())
        .await
        .expect("answered");
    assert_eq!(other.heard().len(), 1);
}

#[tokio::test]
async fn a_kept_line_that_was_closed_is_noticed() {
    let closing =
        |body: &str| answer("200 OK", body).replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let server = Server::start(vec![
        closing(r#"{"data":"101"}"#),
        closing(r#"{"data":"102"}"#),
    ])
    .await;
    let client = server.client(&Trust::Ca(server.pem.clone()));
    for number in [101, 102] {
        let next = client.send(&calls::cluster::next_id()).await;
        assert_eq!(next.expect("answered").get(), number);
    }
}

#[test]
fn addresses_of_hosts_are_looked_at() {
    let trust = Trust::pins(["AB".repeat(32).as_str()]).expect("a pin");
    for odd in [
        "pve:8006",
        "http://pve:8006",
        "https://pve:8006/api2",
        "https://root:pw@pve:8006",
        "",
    ] {
        Https::new(&[odd], &trust).expect_err(odd);
    }
    Https::new(
        &["https://[::1]:8006", "https://pve.example.com:8006/"],
        &trust,
    )
    .expect("two");
    Https::new(&[] as &[&str], &trust).expect_err("none");
}
