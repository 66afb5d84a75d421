//! One question, asked once. Follows no redirects, sends no body.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bollard::query_parameters::LogsOptions;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use skep_model::health::Check;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::tls;
use crate::runtime::Runtime;

/// Most of one line of a log that is looked at.
const LINE_MAX: usize = 64 << 10;

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// None was made yet.
    Unprobed,
    /// Nothing listens.
    Refused,
    /// No connection, or no answer, within the time for one.
    TimedOut {
        /// A connection was made, but nothing was answered.
        connected: bool,
    },
    /// It answered, but not well.
    Status(u16),
    /// It spoke no HTTP.
    NotHttp,
    /// It spoke no TLS.
    NotTls,
    /// It says of itself that it does not serve, or knows no such service.
    NotServing(String),
    /// The command exited with this code, and wrote this first.
    Exit(i64, String),
    /// The text is in no line of its log.
    NoLine,
    /// The network said otherwise.
    Network(io::ErrorKind),
    /// Docker did not carry it out.
    Runtime(String),
}

/// A question to one container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// What is asked.
    pub(crate) check: &'a Check,
    /// Where it answers; needed by all that ask over the network.
    pub(crate) at: Option<SocketAddr>,
    /// Longest wait for the answer.
    pub(crate) limit: Duration,
}

impl Question<'_> {
    /// Asks.
    ///
    /// # Errors
    /// The app is not well, or did not say that it is.
    pub(crate) async fn ask(&self, runtime: &Runtime, container: &str) -> Result<(), Fault> {
        self.ask_dialing(runtime, container, self.limit).await
    }

    /// The same, with a limit of its own for the connection.
    pub(super) async fn ask_dialing(
        &self,
        runtime: &Runtime,
        container: &str,
        dial: Duration,
    ) -> Result<(), Fault> {
        match self.check {
            Check::Exec(command) => exec(runtime, container, (command, self.limit)).await,
            Check::Log(text) => {
                let found = find_line(runtime, container, text);
                timeout(self.limit, found)
                    .await
                    .unwrap_or(Err(Fault::NoLine))
            }
            Check::Http(_) | Check::Https(_) | Check::Tcp | Check::Grpc(_) => match self.at {
                Some(at) => reach(self.check, at, (self.limit, dial.min(self.limit))).await,
                None => Err(Fault::Network(io::ErrorKind::AddrNotAvailable)),
            },
        }
    }
}

/// Over the network: within the first limit in all, and the second for connecting.
pub(super) async fn reach(
    check: &Check,
    at: SocketAddr,
    (limit, dial): (Duration, Duration),
) -> Result<(), Fault> {
    let mut connected = false;
    let probed = async {
        let dialed = timeout(dial, TcpStream::connect(at)).await;
        let stream = dialed
            .map_err(|_| Fault::TimedOut { connected: false })?
            .map_err(|error| match error.kind() {
                io::ErrorKind::ConnectionRefused => Fault::Refused,
                kind => Fault::Network(kind),
            })?;
        connected = true;
        match check {
            Check::Http(path) => get(stream, at, path).await,
            Check::Https(path) => {
                let name = ServerName::IpAddress(at.ip().into());
                let stream = tls::connector().connect(name, stream).await;
                get(stream.map_err(|_| Fault::NotTls)?, at, path).await
            }
            Check::Grpc(service) => {
                // It makes its connection itself.
                drop(stream);
                ask_grpc(at, service).await
            }
            Check::Tcp | Check::Exec(_) | Check::Log(_) => Ok(()),
        }
    };
    match timeout(limit, probed).await {
        Ok(result) => result,
        Err(_) => Err(Fault::TimedOut { connected }),
    }
}

async fn get<S>(stream: S, at: SocketAddr, path: &str) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let not_http = |_| Fault::NotHttp;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(not_http)?;
    let request = Request::get(path)
        .header(header::HOST, at.to_string())
        .header(header::USER_AGENT, "skep-health")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| Fault::NotHttp)?;
    let answered = async move {
        sender
            .send_request(request)
            .await
            .map(|response| response.status())
    };
    let mut answered = std::pin::pin!(answered);
    let mut connection = std::pin::pin!(connection);
    let status = tokio::select! {
        status = &mut answered => status,
        // The connection ends by itself only when the answer is complete, or none will come.
        _ = &mut connection => answered.await,
    };
    match status.map_err(not_http)? {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(Fault::Status(status.as_u16())),
    }
}

/// The standard health service (grpc.health.v1), without TLS.
async fn ask_grpc(at: SocketAddr, service: &str) -> Result<(), Fault> {
    let endpoint = Endpoint::from_shared(format!("http://{at}"));
    let endpoint = endpoint.map_err(|_| Fault::NotHttp)?;
    let channel = endpoint.connect().await.map_err(|_| Fault::NotHttp)?;
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answered = HealthClient::new(channel).check(request).await;
    match answered.map(|answer| answer.into_inner().status()) {
        Ok(ServingStatus::Serving) => Ok(()),
        Ok(status) => Err(Fault::NotServing(status.as_str_name().to_owned())),
        Err(status) => Err(Fault::NotServing(status.code().to_string())),
    }
}

async fn exec(
    runtime: &Runtime,
    container: &str,
    (command, limit): (&[String], Duration),
) -> Result<(), Fault> {
    match runtime.exec(container, command, limit).await {
        Ok(ran) if ran.code == 0 => Ok(()),
        Ok(ran) => Err(Fault::Exit(ran.code, ran.output)),
        Err(crate::runtime::Error::Timeout { .. }) => Err(Fault::TimedOut { connected: true }),
        Err(error) => Err(Fault::Runtime(error.message())),
    }
}

/// Until a line of the container's log has `text` in it; an end without one is a fault.
async fn find_line(runtime: &Runtime, container: &str, text: &str) -> Result<(), Fault> {
    let options = LogsOptions {
        follow: true,
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    let mut frames = std::pin::pin!(runtime.docker().logs(container, Some(options)));
    // A line may come in several frames.
    let mut line = Vec::new();
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|error| Fault::Runtime(crate::error_chain(&error)))?;
        for part in frame.into_bytes().split_inclusive(|byte| *byte == b'\n') {
            if line.len() < LINE_MAX {
                line.extend_from_slice(part);
            }
            // A prompt without an end of line counts, too.
            if String::from_utf8_lossy(&line).contains(text) {
                return Ok(());
            }
            if part.ends_with(b"\n") {
                line.clear();
            }
        }
    }
    Err(Fault::NoLine)
}
