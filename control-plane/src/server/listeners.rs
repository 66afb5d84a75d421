//! Where a server listens, and under which address others reach it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use skep_model::server::check_address;
use tokio::net::TcpListener;

use super::{Error, Options};

/// A documentation address (RFC 5737): asking for the way there sends nothing.
const FAR_AWAY: (Ipv4Addr, u16) = (Ipv4Addr::new(203, 0, 113, 1), 9);

/// The listeners of a server, bound before anything is announced.
pub(super) struct Listeners {
    pub(super) api: TcpListener,
    pub(super) http: Option<TcpListener>,
    /// Agents, servers and operators.
    pub(super) cluster: TcpListener,
}

impl Listeners {
    pub(super) async fn bind(options: &Options) -> Result<Self, Error> {
        let http = match options.http_addr {
            Some(address) if !address.ip().is_loopback() => {
                return Err(Error::NotLoopback(address));
            }
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        Ok(Self {
            api: listen(options.api_addr).await?,
            http,
            cluster: listen(options.agent_addr).await?,
        })
    }

    /// A second handle on the cluster's socket: what listens there while the server is not ready yet
    /// goes, and the socket stays.
    pub(super) fn second_cluster(self) -> Result<(Self, TcpListener), Error> {
        let failed =
            |error: std::io::Error| Error::Part(format!("the cluster's listener: {error}"));
        let socket = self.cluster.into_std().map_err(failed)?;
        let second = socket.try_clone().map_err(failed)?;
        let listeners = Self {
            cluster: TcpListener::from_std(socket).map_err(failed)?,
            ..self
        };
        Ok((listeners, TcpListener::from_std(second).map_err(failed)?))
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })
}

pub(super) fn local_address(listener: &TcpListener) -> Result<SocketAddr, Error> {
    listener
        .local_addr()
        .map_err(|error| Error::Part(error.to_string()))
}

/// How others reach this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Advertised {
    /// Name or address of the machine, as it is in a certificate.
    pub(super) host: String,
    /// `host:port` where servers, agents and operators are spoken to.
    pub(super) cluster: String,
    /// `host:port` of the API.
    pub(super) api: String,
}

/// What the options say; else the address that is listened on; else the one from which this machine
/// reaches others.
pub(super) fn advertised(options: &Options, listeners: &Listeners) -> Result<Advertised, Error> {
    let bound = local_address(&listeners.cluster)?.ip();
    let host = match &options.advertise {
        Some(host) => host.clone(),
        None if bound.is_unspecified() => outward().to_string(),
        None => bound.to_string(),
    };
    let at = |port: u16| match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    };
    let cluster = at(local_address(&listeners.cluster)?.port());
    let api = at(local_address(&listeners.api)?.port());
    check_address("advertise", &cluster).map_err(Error::Advertise)?;
    Ok(Advertised { host, cluster, api })
}

fn outward() -> IpAddr {
    let found = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect(FAR_AWAY).and_then(|()| socket.local_addr()));
    found.map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip())
}
