//! Where a data plane listens: anew, or with the listeners of the one that it takes over from.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;

use skep_identity::grpc::BoundUds;
use skep_ingress::listen_on_endpoints;
use tokio::net::TcpListener;

use super::handover::{self, Succession};
use super::{Error, Options, TRAEFIK, bind, edge, failed};

/// Where it listens.
pub(super) struct Sockets {
    pub(super) apps: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) agent: BoundUds,
    pub(super) mesh: StdListener,
    pub(super) endpoints: TcpListener,
    pub(super) named: TcpListener,
    pub(super) https: Option<TcpListener>,
    /// Of TCP routes; a predecessor had them.
    pub(super) entries: Vec<StdListener>,
    /// Handles of all but those, for a successor.
    pub(super) handles: Vec<OwnedFd>,
}

/// Listens, or takes the listeners of the data plane that runs.
pub(super) async fn sockets(options: &Options) -> Result<(Sockets, Option<Succession>), Error> {
    let apps_failed = failed("apps", options.ingress_addr);
    let admin_failed = failed("the admin endpoint", options.admin_addr);
    let mesh_failed = failed("other nodes", options.mesh_addr);
    let (apps, admin, agent, given, succession) = if options.takeover {
        let (given, succession) = handover::succeed(&options.socket).await?;
        let agent = BoundUds::inherited(&options.socket, given.agent)?;
        let rest = (given.mesh, given.endpoints, given.https);
        let of_tcp = (given.named, given.entries);
        (
            given.apps,
            given.admin,
            agent,
            (rest, of_tcp),
            Some(succession),
        )
    } else {
        // The agent's first: it keeps a second process from the same data.
        let agent = bind(options.socket.clone()).await?;
        let apps = listen("apps", options.ingress_addr).await?;
        let admin = listen("the admin endpoint", options.admin_addr).await?;
        let apps = apps.into_std().map_err(apps_failed)?;
        let admin = admin.into_std().map_err(admin_failed)?;
        let nothing = ((None, None, None), (None, Vec::new()));
        (apps, admin, agent, nothing, None)
    };
    let ((given_mesh, given_endpoints, given_https), (given_named, entries)) = given;
    let mesh = match given_mesh {
        Some(mesh) => mesh,
        None => StdListener::bind(options.mesh_addr).map_err(mesh_failed)?,
    };
    let endpoints = for_traefik(given_endpoints, options.traefik_port)?;
    let named = for_traefik(given_named, options.traefik_tcp_port)?;
    let traefik_failed = failed(TRAEFIK, at_traefik(options.traefik_port));
    let https = edge::listen(&options.edge, given_https)?;
    let mut handles = vec![
        apps.try_clone().map_err(apps_failed)?.into(),
        admin.try_clone().map_err(admin_failed)?.into(),
        agent.duplicate().map_err(Error::Serve)?,
        mesh.try_clone().map_err(mesh_failed)?.into(),
        endpoints.try_clone().map_err(traefik_failed)?.into(),
    ];
    mesh.set_nonblocking(true).map_err(mesh_failed)?;
    // Each has its place.
    let sixth = https.as_ref().unwrap_or(&admin);
    handles.push(sixth.try_clone().map_err(apps_failed)?.into());
    handles.push(named.try_clone().map_err(traefik_failed)?.into());
    let tokio_of = |listener: StdListener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    let sockets = Sockets {
        apps: tokio_of(apps).map_err(apps_failed)?,
        admin: tokio_of(admin).map_err(admin_failed)?,
        agent,
        mesh,
        endpoints: tokio_of(endpoints).map_err(traefik_failed)?,
        named: tokio_of(named).map_err(traefik_failed)?,
        entries,
        https: https.map(tokio_of).transpose().map_err(apps_failed)?,
        handles,
    };
    Ok((sockets, succession))
}

pub(super) fn at_traefik(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn for_traefik(given: Option<StdListener>, port: u16) -> Result<StdListener, Error> {
    let listener = given.map_or_else(|| listen_on_endpoints(port), Ok);
    listener.map_err(failed(TRAEFIK, at_traefik(port)))
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen {
            what,
            address,
            source,
        })
}
