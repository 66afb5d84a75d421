//! Connections to Docker's socket. Bollard's own refuses a socket that is not there yet: an agent
//! may start before Docker does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::{Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Bollard's own limit for the beginning of an answer, in seconds: ours are shorter.
const CLIENT_TIMEOUT_S: u64 = 900;
/// Only has to be an address: the socket's path says where.
const ADDRESS: &str = "http://docker";

/// A client for the daemon behind `socket`: a connection for each request.
pub(super) fn docker(socket: &Path) -> Result<Docker, Error> {
    let socket: Arc<PathBuf> = Arc::new(socket.to_owned());
    let transport = move |request: BollardRequest| {
        let socket = socket.clone();
        async move { send(&socket, request).await }
    };
    Docker::connect_with_custom_transport(
        transport,
        Some(ADDRESS),
        CLIENT_TIMEOUT_S,
        API_DEFAULT_VERSION,
    )
}

async fn send(socket: &Path, mut request: BollardRequest) -> Result<Response<Incoming>, Error> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer's body, or when whoever reads it does.
    tokio::spawn(connection.with_upgrades());
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    request
        .headers_mut()
        .insert(header::HOST, HeaderValue::from_static("docker"));
    Ok(sender.send_request(request).await?)
}
