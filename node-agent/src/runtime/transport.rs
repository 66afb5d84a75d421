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

/// The daemon's socket: a connection for each request. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Socket(Arc<PathBuf>);

impl Socket {
    /// The socket at a path; nothing need listen there yet.
    pub(crate) fn new(path: &Path) -> Self {
        Self(Arc::new(path.to_owned()))
    }

    /// A client for the daemon behind it.
    ///
    /// # Errors
    /// None that depends on the socket.
    pub(crate) fn docker(&self) -> Result<Docker, Error> {
        let socket = self.clone();
        let transport = move |request: BollardRequest| {
            let socket = socket.clone();
            async move { socket.send(request).await }
        };
        Docker::connect_with_custom_transport(
            transport,
            Some(ADDRESS),
            CLIENT_TIMEOUT_S,
            API_DEFAULT_VERSION,
        )
    }

    /// A client whose questions to `path` have `query` too: what bollard's options lack.
    ///
    /// # Errors
    /// Nobody listens, or no daemon.
    pub(crate) async fn docker_asking(
        &self,
        path: &'static str,
        query: String,
    ) -> Result<Docker, Error> {
        let socket = self.clone();
        let transport = move |mut request: BollardRequest| {
            let socket = socket.clone();
            let uri = request.uri();
            if uri.path().ends_with(path)
                && let Ok(more) = Uri::try_from(format!("{uri}&{query}"))
            {
                *request.uri_mut() = more;
            }
            async move { socket.send(request).await }
        };
        Docker::connect_with_custom_transport(
            transport,
            Some(ADDRESS),
            CLIENT_TIMEOUT_S,
            API_DEFAULT_VERSION,
        )?
        .negotiate_version()
        .await
    }

    /// As `DOCKER_HOST` names it.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.0.display())
    }

    /// One request, for what bollard has no words for. Has no deadline; dropping the future or the
    /// answer closes the connection.
    ///
    /// # Errors
    /// Nobody listens, or the connection broke before there was an answer.
    pub(crate) async fn send(
        &self,
        mut request: BollardRequest,
    ) -> Result<Response<Incoming>, Error> {
        let stream = UnixStream::connect(self.0.as_path()).await?;
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
}
