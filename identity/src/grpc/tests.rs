use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::{Channel, Server};
use tonic_prost::ProstCodec;

use super::*;
use crate::name::Role;
use crate::testing::Cluster;
use crate::tls::{
    ALPN_GRPC, ClientAuth, Expected, client_config, pinned_client_config, server_config,
};

const A_SERVER: Expected = Expected::Role(Role::Server);
const PATIENCE: Duration = Duration::from_secs(20);

/// A service with one method, that answers who asks.
#[derive(Clone)]
struct WhoAmI;

impl NamedService for WhoAmI {
    const NAME: &'static str = "skep.test.WhoAmI";
}

impl tower::Service<http::Request<Body>> for WhoAmI {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = tower::service_fn(|request: tonic::Request<()>| async move {
            let peer = request.extensions().get::<Peer>().copied();
            let peer = peer.ok_or_else(|| tonic::Status::internal("no peer"))?;
            let name = peer
                .identity
                .map_or("nobody".to_owned(), |identity| identity.to_string());
            let from = if peer.is_local() { "here" } else { "afar" };
            Ok::<_, tonic::Status>(tonic::Response::new(format!("{name} from {from}")))
        });
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, ()>::default());
            Ok(grpc.unary(answer, request).await)
        })
    }
}

async fn ask(channel: &Channel) -> Result<String, tonic::Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    let asked = async {
        grpc.ready()
            .await
            .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static("/skep.test.WhoAmI/Ask");
        grpc.unary(
            tonic::Request::new(()),
            path,
            ProstCodec::<(), String>::default(),
        )
        .await
    };
    let answer = tokio::time::timeout(PATIENCE, asked)
        .await
        .expect("an answer in time");
    answer.map(tonic::Response::into_inner)
}

fn serve(incoming: Incoming, shutdown: &CancellationToken) {
    let shutdown = shutdown.clone().cancelled_owned();
    let server = Server::builder()
        .add_service(WhoAmI)
        .serve_with_incoming_shutdown(incoming, shutdown);
    tokio::spawn(server);
}

async fn serve_tls(config: Arc<ServerConfig>, shutdown: &CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    serve(incoming(listener, config, shutdown.clone()), shutdown);
    address
}

fn dial(address: SocketAddr, config: Arc<ClientConfig>) -> Channel {
    channel(&address.to_string(), config).expect("an address")
}

#[tokio::test]
async fn handlers_learn_who_calls() {
    let cluster = Cluster::new(1);
    let shutdown = CancellationToken::new();
    let server = cluster.server(7);
    let config = server_config(&server, ClientAuth::Required, ALPN_GRPC);
    let address = serve_tls(config, &shutdown).await;
    let node = cluster.node(8);
    let good = dial(address, client_config(&node, A_SERVER, ALPN_GRPC));
    let expected = format!("{} from afar", cluster.node_identity(8));
    assert_eq!(ask(&good).await.expect("answer"), expected);

    let wrong_role = client_config(&node, Expected::Role(Role::Node), ALPN_GRPC);
    assert!(ask(&dial(address, wrong_role)).await.is_err());
    let stranger = Cluster::new(1).node(8);
    let stranger = client_config(&stranger, A_SERVER, ALPN_GRPC);
    assert!(ask(&dial(address, stranger)).await.is_err());
    let nobody = pinned_client_config(cluster.ca.fingerprint(), ALPN_GRPC);
    assert!(ask(&dial(address, nobody)).await.is_err());

    server
        .replace(&cluster.credentials(cluster.server_identity(7)))
        .expect("renewed");
    assert_eq!(ask(&good).await.expect("the connection goes on"), expected);
    shutdown.cancel();
}

#[tokio::test]
async fn who_joins_has_no_identity_yet() {
    let cluster = Cluster::new(1);
    let shutdown = CancellationToken::new();
    let config = server_config(&cluster.server(7), ClientAuth::Optional, ALPN_GRPC);
    let address = serve_tls(config, &shutdown).await;
    let pinned = pinned_client_config(cluster.ca.fingerprint(), ALPN_GRPC);
    assert_eq!(
        ask(&dial(address, pinned)).await.expect("answer"),
        "nobody from afar"
    );
    shutdown.cancel();
}

#[tokio::test]
async fn silent_and_plaintext_clients_hold_nobody_up() {
    let cluster = Cluster::new(1);
    let shutdown = CancellationToken::new();
    let config = server_config(&cluster.server(7), ClientAuth::Required, ALPN_GRPC);
    let address = serve_tls(config, &shutdown).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.expect("connect"));
    }
    let mut plain = TcpStream::connect(address).await.expect("connect");
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("write");
    let node = dial(
        address,
        client_config(&cluster.node(8), A_SERVER, ALPN_GRPC),
    );
    ask(&node).await.expect("served meanwhile");
    shutdown.cancel();
}

#[tokio::test]
async fn a_channel_comes_back_after_its_server_did() {
    let cluster = Cluster::new(1);
    let config = server_config(&cluster.server(7), ClientAuth::Required, ALPN_GRPC);
    let first = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    serve(incoming(listener, config.clone(), first.clone()), &first);
    let node = dial(
        address,
        client_config(&cluster.node(8), A_SERVER, ALPN_GRPC),
    );
    ask(&node).await.expect("first");
    first.cancel();
    let listener = loop {
        // The address is free once the first server's task has ended.
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let second = CancellationToken::new();
    serve(incoming(listener, config, second.clone()), &second);
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(ask(&node).await.is_ok());
    }
    assert!(answers.contains(&true), "{answers:?}");
    second.cancel();
}

#[tokio::test]
async fn shutdown_ends_the_stream_of_connections() {
    let config = server_config(&Cluster::new(1).server(7), ClientAuth::Required, ALPN_GRPC);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let shutdown = CancellationToken::new();
    let mut stream = incoming(listener, config, shutdown.clone());
    let _half_open = TcpStream::connect(address).await.expect("connect");
    shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.next()).await;
    assert!(ended.expect("in time").is_none());
}

#[tokio::test]
async fn the_unix_socket_is_private_and_served_once() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("run/agent.sock");
    let shutdown = CancellationToken::new();
    let bound = bind_uds(&path).expect("bind");
    let mode = |path| {
        std::fs::metadata(path)
            .expect("metadata")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode(&path), mode(&dir.path().join("run"))), (0o600, 0o700));
    serve(
        incoming_uds(bound, shutdown.clone()).expect("serve"),
        &shutdown,
    );
    let channel = channel_uds(&path);
    assert_eq!(ask(&channel).await.expect("answer"), "nobody from here");
    assert!(matches!(bind_uds(&path), Err(UdsError::InUse { .. })));
    shutdown.cancel();
}

#[test]
fn stale_sockets_are_replaced_and_other_files_left_alone() {
    let dir = tempfile::tempdir().expect("folder");
    let folder = dir.path().join("run");
    let path = folder.join("agent.sock");
    drop(bind_uds(&path).expect("first"));
    assert!(path.exists(), "a killed process leaves its socket");
    drop(bind_uds(&path).expect("second"));

    let file = folder.join("notes");
    std::fs::write(&file, b"precious").expect("write");
    assert!(matches!(bind_uds(&file), Err(UdsError::NotASocket { .. })));
    assert_eq!(std::fs::read(&file).expect("read"), b"precious");
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).expect("chmod");
    assert!(matches!(bind_uds(&path), Err(UdsError::Folder(_))));
}

#[test]
fn addresses_need_host_and_port() {
    let pinned = || pinned_client_config(Cluster::new(1).ca.fingerprint(), ALPN_GRPC);
    for bad in [
        "",
        "host",
        "http://host:1",
        "host:1/path",
        "user@host:1",
        ":x",
    ] {
        assert!(channel(bad, pinned()).is_err(), "{bad}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        for good in ["host:1", "10.0.0.1:7000", "[::1]:7000"] {
            assert!(channel(good, pinned()).is_ok(), "{good}");
        }
    });
}
