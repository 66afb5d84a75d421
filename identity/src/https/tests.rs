use http_body_util::Full;
use hyper::body::Bytes;
use rustls_pki_types::ServerName;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::grpc::{Peer, incoming};
use crate::testing::Cluster;
use crate::tls::{ALPN_HTTPS, ClientAuth, pinned_client_config, server_config};

struct Site {
    cluster: Cluster,
    address: SocketAddr,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
    /// Says when a request to `/slow` has arrived, and lets it finish when dropped.
    arrived: mpsc::Receiver<mpsc::Sender<()>>,
}

async fn site() -> Site {
    let cluster = Cluster::new(1);
    let config = server_config(&cluster.server(7), ClientAuth::Optional, ALPN_HTTPS);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let shutdown = CancellationToken::new();
    let (notice, arrived) = mpsc::channel(1);
    let service = tower::service_fn(move |request: Request<RequestBody>| {
        let notice = notice.clone();
        async move {
            if request.uri().path() == "/old" && request.version() == http::Version::HTTP_2 {
                return Err(h2::Error::from(h2::Reason::HTTP_1_1_REQUIRED));
            }
            if request.uri().path() == "/slow" {
                let (hold, mut released) = mpsc::channel(1);
                notice.send(hold).await.expect("the test listens");
                released.recv().await;
            }
            let peer = request.extensions().get::<Peer>().expect("a peer");
            let text = format!("{:?} {:?}", request.version(), peer.identity);
            Ok(Response::new(Full::new(Bytes::from(text))))
        }
    });
    let incoming = incoming(listener, config, shutdown.clone());
    let served = tokio::spawn(serve(incoming, service, shutdown.clone()));
    Site {
        cluster,
        address,
        shutdown,
        served,
        arrived,
    }
}

impl Site {
    async fn connect(&self, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
        let config = pinned_client_config(self.cluster.ca.fingerprint(), alpn);
        let stream = TcpStream::connect(self.address).await.expect("connect");
        let name = ServerName::try_from("localhost").expect("name");
        TlsConnector::from(config)
            .connect(name, stream)
            .await
            .expect("handshake")
    }
}

async fn get(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: skep\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer
}

#[tokio::test]
async fn both_versions_of_http_are_served() {
    let site = site().await;
    let answer = get(&mut site.connect(&[b"http/1.1"]).await, "/").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("HTTP/1.1 None"),
        "{answer}"
    );

    let stream = TokioIo::new(site.connect(&[b"h2"]).await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .expect("h2");
    tokio::spawn(connection);
    let request = Request::get("https://skep/")
        .body(Full::<Bytes>::default())
        .expect("request");
    let response = sender.send_request(request).await.expect("response");
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .expect("body");
    assert_eq!(body.to_bytes(), "HTTP/2.0 None");
    site.shutdown.cancel();
}

#[tokio::test]
async fn a_request_that_fails_is_reset_for_the_reason_it_gave() {
    let site = site().await;
    let stream = TokioIo::new(site.connect(&[b"h2"]).await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .expect("h2");
    tokio::spawn(connection);
    let request = Request::get("https://skep/old")
        .body(Full::<Bytes>::default())
        .expect("request");
    let error = sender.send_request(request).await.expect_err("refused");
    let reason = std::error::Error::source(&error)
        .and_then(|it| it.downcast_ref::<h2::Error>())
        .and_then(h2::Error::reason);
    assert_eq!(reason, Some(h2::Reason::HTTP_1_1_REQUIRED), "{error:?}");
    let answer = get(&mut site.connect(&[b"http/1.1"]).await, "/old").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    site.shutdown.cancel();
}

#[tokio::test]
async fn shutdown_lets_a_request_finish() {
    let mut site = site().await;
    let mut stream = site.connect(&[b"http/1.1"]).await;
    let request = tokio::spawn(async move { get(&mut stream, "/slow").await });
    let hold = site.arrived.recv().await.expect("arrived");
    site.shutdown.cancel();
    tokio::task::yield_now().await;
    assert!(!site.served.is_finished(), "waits for the request");
    drop(hold);
    assert!(request.await.expect("task").starts_with("HTTP/1.1 200"));
    timeout(Duration::from_secs(5), site.served)
        .await
        .expect("in time")
        .expect("ended");
}
