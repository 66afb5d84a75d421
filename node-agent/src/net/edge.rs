//! What the ingress does beside serving tables, as the operator says: the second listener, under TLS, proxies
//! in front, the access log.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;

use skep_ingress::access::{self, AccessLog, Writer};
use skep_ingress::trust::{Proxies, Trusted};
use skep_ingress::{Closed, Crew, Ingress, Reach, TlsError};
use skep_model::routing::Cidr;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{DRAIN_LIMIT, HANDOVER_LIMIT, certificates};

/// What the second listener is for.
const WHAT: &str = "apps under TLS";
/// Threads that serve apps: one a core, but a big machine has other work as well, and each keeps connections
/// to containers of its own.
const MAX_THREADS: usize = 16;

/// What the ingress is told at its start. By default nothing: HTTP alone, every client believed nothing.
#[derive(Debug, Clone, Default)]
pub struct Edge {
    /// Where apps are served under TLS. Port 0: any. None: they are not.
    pub https_addr: Option<SocketAddr>,
    /// A folder of pairs `NAME.crt` and `NAME.key`, in PEM; read again at SIGHUP.
    pub certificates: Option<PathBuf>,
    /// The port of HTTPS that plain requests are sent to.
    pub https_redirect: Option<u16>,
    /// Whose word about clients is believed.
    pub trusted_proxies: Vec<Proxies>,
    /// Connections of trusted proxies begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// What routes may ask by `forward_auth` though it is this node or its link.
    pub forward_auth_allow: Vec<Cidr>,
    /// The file that gets a line for each request.
    pub access_log: Option<PathBuf>,
    /// These lines hold queries.
    pub access_log_query: bool,
}

/// The edge cannot be what the operator says.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody would ever be heard.
    #[error(
        "the PROXY protocol is spoken by trusted proxies alone: name your load balancers by --trusted-proxies"
    )]
    NobodyTrusted,
    /// Requests would be sent to where nobody listens.
    #[error(
        "plain requests cannot be sent to https where nobody speaks it: give --https-addr, or name the proxy that does by --trusted-proxies"
    )]
    NobodySpeaksTls,
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for {WHAT}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The certificates.
    #[error(transparent)]
    Certificates(#[from] certificates::Error),
    /// The access log.
    #[error(transparent)]
    AccessLog(#[from] access::Error),
    /// The threads that serve apps.
    #[error("cannot start the threads that serve apps")]
    Threads(#[source] io::Error),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Edge {
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            return Err(Error::NobodyTrusted);
        }
        let speaks_tls = self.https_addr.is_some() || !self.trusted_proxies.is_empty();
        if self.https_redirect.is_some() && !speaks_tls {
            return Err(Error::NobodySpeaksTls);
        }
        Ok(())
    }
}

/// An ingress that serves nothing yet, and what writes its log. Waits for the disk.
pub(super) fn start(
    edge: &Edge,
    reach: Arc<dyn Reach>,
) -> Result<(Ingress, Option<Writer>), Error> {
    let log = match &edge.access_log {
        Some(path) => Some(AccessLog::open(path.clone(), edge.access_log_query)?),
        None => None,
    };
    let (log, writer) = log.unzip();
    let options = skep_ingress::Options {
        drain_timeout: DRAIN_LIMIT,
        trusted_proxies: Trusted::new(&edge.trusted_proxies),
        proxy_protocol: edge.proxy_protocol,
        https_redirect: edge.https_redirect,
        forward_auth_allow: edge.forward_auth_allow.clone(),
        ..Default::default()
    };
    let threads = available_parallelism().map_or(1, NonZero::get);
    let crew = Crew::new(threads.min(MAX_THREADS)).map_err(Error::Threads)?;
    let ingress = Ingress::reaching(options, crew, reach, log);
    if let Some(folder) = &edge.certificates {
        ingress.set_certificates(certificates::at_start(folder)?);
    }
    Ok((ingress, writer))
}

/// Listens for TLS if it is to be spoken. What a predecessor gave is used, whatever its address; if it gave
/// none it had none.
pub(super) fn listen(
    edge: &Edge,
    given: Option<StdListener>,
) -> Result<Option<StdListener>, Error> {
    let Some(address) = edge.https_addr else {
        return Ok(None);
    };
    let listener = match given {
        Some(listener) => Ok(listener),
        None => StdListener::bind(address),
    };
    let listener = listener.map_err(|source| Error::Listen { address, source })?;
    Ok(Some(listener))
}

/// Where TLS is spoken.
pub(super) fn address_of(
    edge: &Edge,
    listener: Option<&TcpListener>,
) -> Result<Option<SocketAddr>, Error> {
    let (Some(address), Some(listener)) = (edge.https_addr, listener) else {
        return Ok(None);
    };
    let local = listener.local_addr();
    Ok(Some(
        local.map_err(|source| Error::Listen { address, source })?,
    ))
}

/// Where apps are served.
pub(super) struct Doors {
    pub(super) plain: TcpListener,
    pub(super) encrypted: Option<TcpListener>,
    /// For a proxy on this machine: requests, and connections by name.
    pub(super) endpoints: TcpListener,
    pub(super) named: TcpListener,
    /// Ports of TCP routes that a predecessor had, and the address of all of them.
    pub(super) entries: (IpAddr, Vec<StdListener>),
}

/// Serves apps, in clear, under TLS, to a proxy on this machine and by TCP routes, until all have ended.
pub(super) async fn serve(
    ingress: Ingress,
    doors: Doors,
    (shutdown, handed): (CancellationToken, CancellationToken),
) -> Result<Closed, super::Error> {
    let handover = (handed, HANDOVER_LIMIT);
    let both = || (shutdown.clone(), handover.clone());
    let (until, next) = both();
    let in_clear = ingress.serve_or_hand_over(doors.plain, until, next);
    let (until, next) = both();
    let to_proxy = ingress.serve_endpoints(doors.endpoints, until, next);
    let (until, next) = both();
    let named = ingress.serve_tcp_endpoints(doors.named, until, next);
    let (until, next) = both();
    let entries = ingress.serve_entries(doors.entries, until, next);
    let encrypted = async {
        match doors.encrypted {
            Some(listener) => {
                let (until, next) = both();
                let served = ingress.serve_tls_or_hand_over(listener, until, next);
                served.await.map_err(Error::Tls)
            }
            None => Ok(Closed { cut: 0 }),
        }
    };
    let others = async { Ok::<_, Error>(tokio::join!(in_clear, to_proxy, named, entries)) };
    let ((plain, proxied, named, entries), encrypted) = tokio::try_join!(others, encrypted)?;
    Ok(Closed {
        cut: plain.cut + proxied.cut + named.cut + entries.cut + encrypted.cut,
    })
}
