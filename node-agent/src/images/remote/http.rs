//! One request to a registry: under TLS unless Docker itself does without, bounded by silence and not by size, and
//! with an answer that is read as far as it may be long.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, USER_AGENT};
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::super::fetch::PIECE_BYTES;
use super::Error;

/// Where Docker looks for the CAs of registries: `HOST/*.crt`.
pub(super) const DOCKER_CERTS: &str = "/etc/docker/certs.d";
/// Connecting, without the handshake.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// What is read of an answer that is no blob.
const BODY_MAX: usize = 4 << 20;
/// One question to the daemon on this machine.
const DOCKER_LIMIT: Duration = Duration::from_secs(30);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What is sent with a request. Given anew to each attempt.
#[derive(Clone)]
pub(super) enum Payload {
    /// Nothing.
    None,
    /// This.
    Bytes(Bytes),
    /// A blob of the store.
    Blob(Arc<File>, u64),
}

impl Payload {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob(_, size) => *size,
        }
    }

    /// The bytes; `moved` hears of each piece that is taken, and is dropped with the last.
    fn body(self, moved: watch::Sender<u64>) -> Body {
        match self {
            Self::None => whole(Bytes::new()),
            Self::Bytes(bytes) => whole(bytes),
            Self::Blob(file, size) => {
                let pieces = try_unfold((file, moved, 0), move |(file, moved, at)| async move {
                    let room = (size - at).min(PIECE_BYTES as u64) as usize;
                    if room == 0 {
                        return Ok(None);
                    }
                    let reader = Arc::clone(&file);
                    let bytes = spawn_blocking(move || read_at(&reader, at, room)).await??;
                    moved.send_modify(|count| *count += 1);
                    let at = at + bytes.len() as u64;
                    Ok(Some((Frame::data(bytes), (file, moved, at))))
                });
                StreamBody::new(pieces).boxed_unsync()
            }
        }
    }
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The same blob may be read by two attempts.
fn read_at(file: &File, at: u64, room: usize) -> io::Result<Bytes> {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; room];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes.into())
}

/// Makes requests to one registry.
pub(super) struct Http {
    client: legacy::Client<HttpsConnector<HttpConnector>, Body>,
    /// `https` or `http`.
    pub(super) scheme: &'static str,
    /// How long nothing may happen.
    pub(super) silence: Duration,
}

impl Http {
    /// For the registry at `host`, trusting what this machine and its Docker trust.
    ///
    /// # Errors
    /// A certificate that is none.
    pub(super) async fn new(
        host: &str,
        docker: &Docker,
        (certs, silence): (&Path, Duration),
    ) -> Result<Self, Error> {
        let folder = certs.join(host);
        let own = spawn_blocking(move || own_roots(&folder)).await;
        let own = own.map_err(|error| Error::Trust(error.to_string()))??;
        let is_plain = own.is_empty() && (is_loopback(host) || is_insecure(host, docker).await);
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_LIMIT));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(trusting(own)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self {
            client: legacy::Client::builder(TokioExecutor::new()).build(https),
            scheme: if is_plain { "http" } else { "https" },
            silence,
        })
    }

    /// Sends one request; the answer's body is still to come.
    pub(super) async fn send(
        &self,
        request: hyper::http::request::Builder,
        payload: Payload,
    ) -> Result<Response<Incoming>, Error> {
        let (moved, mut progress) = watch::channel(0);
        let agent = concat!("skep/", env!("CARGO_PKG_VERSION"));
        let request: Request<Body> = request
            .header(USER_AGENT, agent)
            .header(CONTENT_LENGTH, payload.len())
            .body(payload.body(moved))
            .map_err(|error| Error::Odd(format!("a request cannot be made: {error}")))?;
        let mut answer = std::pin::pin!(self.client.request(request));
        loop {
            // As long as bytes are taken somebody is there, however slow.
            tokio::select! {
                answered = &mut answer => {
                    return answered.map_err(|error| Error::Unreachable(crate::error_chain(&error)));
                }
                moved = timeout(self.silence, progress.changed()) => match moved {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => break,
                    Err(_) => return Err(Error::Silent(self.silence)),
                },
            }
        }
        match timeout(self.silence, answer).await {
            Ok(answered) => {
                answered.map_err(|error| Error::Unreachable(crate::error_chain(&error)))
            }
            Err(_) => Err(Error::Silent(self.silence)),
        }
    }

    /// The body of an answer that is no blob.
    pub(super) async fn read(&self, answer: Response<Incoming>) -> Result<Bytes, Error> {
        let body = Limited::new(answer.into_body(), BODY_MAX).collect();
        match timeout(self.silence, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(Error::Unreachable(error.to_string())),
            Err(_) => Err(Error::Silent(self.silence)),
        }
    }
}

/// The CAs that Docker on this machine has for a registry.
fn own_roots(folder: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|it| it != "crt") {
            continue;
        }
        let odd = |why: &dyn std::fmt::Display| Error::Trust(format!("{}: {why}", path.display()));
        let found = CertificateDer::pem_file_iter(&path).map_err(|error| odd(&error))?;
        for certificate in found {
            all.push(certificate.map_err(|error| odd(&error))?);
        }
    }
    Ok(all)
}

fn trusting(own: Vec<CertificateDer<'static>>) -> Result<ClientConfig, Error> {
    let odd = |error: &dyn std::fmt::Display| Error::Trust(error.to_string());
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    for certificate in own {
        roots.add(certificate).map_err(|error| odd(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| odd(&error))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Docker asks these without TLS, unless it has a CA for them.
fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether the daemon was told to do without TLS there.
async fn is_insecure(host: &str, docker: &Docker) -> bool {
    let Ok(Ok(info)) = timeout(DOCKER_LIMIT, docker.info()).await else {
        return false;
    };
    let known = info.registry_config.and_then(|it| it.index_configs);
    let known = known.and_then(|mut all| all.remove(host));
    known.and_then(|index| index.secure) == Some(false)
}
