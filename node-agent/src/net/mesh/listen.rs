//! From other nodes: only nodes of the cluster are heard, and only containers that this node's agent holds
//! fit for traffic are reached.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use hyper::{Method, Request, Response, StatusCode};
use skep_identity::grpc::{self, Conn};
use skep_identity::tls::{self, ClientAuth, Reloadable};
use skep_ingress::files::Bundle;
use skep_model::id::AllocationId;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::stream::MeshStream;
use super::{
    ALPN, CONNECTION_WINDOW_BYTES, LEASE_PATH, LEAVING_PATH, Local, Mesh, Open, SEND_BUFFER_BYTES,
    STREAM_WINDOW_BYTES,
};

/// Streams at a time on one connection: each is a connection to a container.
const LIMIT_STREAMS: u32 = 8_192;
/// Containers are on this machine: a slower one is as good as dead.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Its first words come with the last of TLS.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// What a stream buffers in each direction.
const COPY_BYTES: usize = 16 << 10;

/// Serves other nodes until `shutdown`; then streams have as long as `drain` says.
pub(in crate::net) async fn serve(
    listener: StdListener,
    mesh: Arc<Mesh>,
    shutdown: CancellationToken,
    drain: impl Fn() -> Duration,
) -> io::Result<()> {
    let mut own = mesh.own();
    let connections = TaskTracker::new();
    loop {
        let known = tokio::select! {
            () = shutdown.cancelled() => break,
            known = own.wait_for(Option::is_some) => known.ok().and_then(|own| own.clone()),
        };
        let Some(known) = known else { break };
        own.mark_unchanged();
        // Ends with this identity: a node that has joined anew is another one.
        let until = shutdown.child_token();
        let accept = accept(
            TcpListener::from_std(listener.try_clone()?)?,
            known,
            (mesh.clone(), connections.clone()),
            (until.clone(), shutdown.clone()),
        );
        tokio::select! {
            () = accept => {}
            _ = own.changed() => until.cancel(),
        }
    }
    // Nobody is to wait for who accepts no more.
    drop(listener);
    connections.close();
    let _ = timeout(drain(), connections.wait()).await;
    Ok(())
}

async fn accept(
    listener: TcpListener,
    own: Arc<Reloadable>,
    (mesh, connections): (Arc<Mesh>, TaskTracker),
    (until, shutdown): (CancellationToken, CancellationToken),
) {
    let config = tls::server_config(&own, ClientAuth::Required, ALPN);
    let mut incoming = grpc::incoming(listener, config, until);
    while let Some(accepted) = incoming.next().await {
        let Ok(conn) = accepted else { continue };
        connections.spawn(connection(conn, mesh.clone(), shutdown.clone()));
    }
}

async fn connection(conn: Conn, mesh: Arc<Mesh>, shutdown: CancellationToken) {
    let node = conn.peer().identity.and_then(|identity| identity.node_id());
    let shaken = h2::server::Builder::new()
        .max_concurrent_streams(LIMIT_STREAMS)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .handshake::<_, Bytes>(conn);
    let Ok(Ok(mut connection)) = timeout(HANDSHAKE_LIMIT, shaken).await else {
        return;
    };
    let mut closing = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = shutdown.cancelled(), if !closing => {
                closing = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        match accepted {
            None => return,
            Some(Err(error)) => {
                tracing::debug!(?node, %error, "a connection of another node broke");
                return;
            }
            Some(Ok((request, reply))) => {
                let (mesh, shutdown) = (mesh.clone(), shutdown.clone());
                // Ends with the connection at the latest.
                tokio::spawn(async move {
                    match node {
                        Some(_) if request.uri().path() == LEAVING_PATH => {
                            leaving(reply, shutdown).await;
                        }
                        Some(_) if request.uri().path() == LEASE_PATH => {
                            let held = mesh.lease().is_held();
                            answer(
                                reply,
                                if held {
                                    StatusCode::OK
                                } else {
                                    StatusCode::SERVICE_UNAVAILABLE
                                },
                            );
                        }
                        Some(_) => stream(request, reply, mesh).await,
                        None => answer(reply, StatusCode::FORBIDDEN),
                    }
                });
            }
        }
    }
}

/// Answers when this process wants no more of the connection, or never.
async fn leaving(mut reply: SendResponse<Bytes>, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {
            // Whoever is gone needs no answer.
            let _ = reply.send_response(Response::new(()), true);
        }
        _ = std::future::poll_fn(|cx| reply.poll_reset(cx)) => {}
    }
}

/// Says no more than this.
fn answer(mut reply: SendResponse<Bytes>, status: StatusCode) {
    let mut head = Response::new(());
    *head.status_mut() = status;
    // Whoever is gone needs no answer.
    let _ = reply.send_response(head, true);
}

/// Connects to the container that the request names, and ties the two together; or hands out its files.
async fn stream(request: Request<RecvStream>, mut reply: SendResponse<Bytes>, mesh: Arc<Mesh>) {
    let (allocation, reached) = match reach(&request, &mesh).await {
        Ok(reached) => reached,
        Err(status) => return answer(reply, status),
    };
    let _open = Open::new(&mesh.counters, |it| &it.within);
    let Ok(send) = reply.send_response(Response::new(()), false) else {
        return;
    };
    let mut other = MeshStream::new(send, request.into_body());
    let mut container = match reached {
        Reached::Container(container) => container,
        Reached::Files(bundle) => return bundle.serve(other).await,
    };
    let copied = copy_bidirectional_with_sizes(&mut other, &mut container, COPY_BYTES, COPY_BYTES);
    if let Err(error) = copied.await {
        tracing::debug!(%allocation, %error, "a stream of another node broke");
    }
}

/// What a stream leads to.
enum Reached {
    Container(TcpStream),
    Files(Bundle),
}

async fn reach(
    request: &Request<RecvStream>,
    mesh: &Mesh,
) -> Result<(AllocationId, Reached), StatusCode> {
    if request.method() != Method::CONNECT {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let named = request.uri().authority().and_then(|it| {
        let allocation: AllocationId = it.host().parse().ok()?;
        Some((allocation, it.port_u16()?))
    });
    let (allocation, port) = named.ok_or(StatusCode::BAD_REQUEST)?;
    let ip = match mesh.local(allocation).ok_or(StatusCode::NOT_FOUND)? {
        Local::At(ip) => ip,
        Local::Files(bundle) => return Ok((allocation, Reached::Files(bundle))),
    };
    let connected = timeout(CONNECT_LIMIT, TcpStream::connect(SocketAddr::new(ip, port)));
    let Ok(Ok(container)) = connected.await else {
        return Err(StatusCode::BAD_GATEWAY);
    };
    // A failure means that it is gone already: the first read will tell.
    let _ = container.set_nodelay(true);
    Ok((allocation, Reached::Container(container)))
}
