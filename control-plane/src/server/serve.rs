//! Everything that a server does once its log is open, as a set of tasks that end together.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use skep_identity::seal::SealingKey;
use skep_identity::tls::{ALPN_GRPC, ALPN_HTTPS, ClientAuth, Reloadable, server_config};
use skep_identity::{grpc, https, key_file};
use skep_proto::v1::agents_server::AgentsServer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::filter::Filter;

use super::admit::Admission;
use super::announce::{self, Announcer};
use super::bootstrap::Bootstrap;
use super::identity::{self, Issuer};
use super::joining::Kept;
use super::listeners::{Listeners, local_address};
use super::{Begun, Core, Error, Options, Ready, clock, found};
use crate::acme::Tally;
use crate::agents::fleet::Fleet;
use crate::agents::notices::Notices;
use crate::agents::relay::Relay;
use crate::agents::service::{AgentsService, Shared};
use crate::agents::uploads::Uploads;
use crate::api::neighbours::Neighbours;
use crate::forges::Tokens;
use crate::history::History;
use crate::hosts::Promises;
use crate::peers::{
    Contact, ControlService, Directory, Fetcher, Forwarder, Links, Outbox, PeersService, copying,
    presence, samples, service,
};
use crate::pki::{Authority, Terms};
use crate::polling::Asked;
use crate::samples::Samples;
use crate::scaling::Scaling;
use crate::secrets::Secrets;
use crate::store::Store;
use crate::witness::Witnesses;
use crate::{api, reconcile};

/// Calls at once on one connection: automation has hundreds of writes under way.
const MAX_STREAMS: u32 = 4096;
/// Bytes under way on one call and on one connection before the sender waits: above what a link of
/// 1 Gbit/s and 50 ms holds.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Largest gRPC message: a desired set of a full node, with its variables.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// How often an idle connection is probed, and how long an answer may take.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// What all parts together get to end.
const END_DEADLINE: Duration = Duration::from_secs(15);

/// How a part ended: by its name, or with a fault.
type Ended = Result<String, Error>;

/// The state, and what passes through this server and between it and the others.
struct Passing {
    store: Store,
    wrapped: Arc<[u8]>,
    secrets: Secrets,
    own: Arc<Reloadable>,
    issuer: Issuer,
    fleet: Fleet,
    peers: service::Parts,
    links: Links,
    fetcher: Arc<Fetcher>,
}

/// Serves until `shutdown`, or until a part ends by itself.
pub(super) async fn serve(
    mut begun: Begun,
    (store, outbox): Core,
    ready: impl FnOnce(Ready) + Send,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let kept = begun.standing.kept.take();
    let keys = open_keys(&begun, &store, kept.as_ref()).await?;
    let remembered = kept.iter().flat_map(|kept| &kept.servers);
    let directory = Directory::new(begun.own.member, remembered.map(Contact::from));
    let mut parts = JoinSet::new();
    let (history, writer) = History::open(&begun.options.history_url(), begun.own.id).await?;
    parts.spawn(named("history", writer));
    let core = (store, outbox, directory, history);
    let passing = connect(&mut parts, keys, core, shutdown);
    let Begun {
        options,
        standing,
        own,
        listeners,
        ..
    } = begun;
    let listeners = catch_up(&passing, listeners, shutdown).await?;
    if shutdown.is_cancelled() {
        return wait(parts, shutdown).await;
    }
    if let Some(why) = standing.raises {
        announce::raise_incarnation(&passing.store, &own, (&options.data_dir, why)).await?;
    }
    let announcer = Announcer {
        store: passing.store.clone(),
        own: own.clone(),
        data_dir: options.data_dir.clone(),
    };
    let announcing = announcer.run(shutdown.clone());
    parts.spawn(async { announcing.await.map(|()| "announcing".to_owned()) });
    let said = Ready {
        server: own.id,
        member: own.member,
        api: local_address(&listeners.api)?,
        http: listeners.http.as_ref().map(local_address).transpose()?,
        cluster: local_address(&listeners.cluster)?,
    };
    start(&mut parts, passing, (&options, listeners), shutdown).await?;
    tracing::info!(api = %said.api, cluster = %said.cluster, name = own.name, member = own.member, "server is ready");
    ready(said);
    wait(parts, shutdown).await
}

/// What proves who this server is, and opens what the state has sealed.
struct Keys {
    data_key: SealingKey,
    /// The same, as this server's operator's key wraps it.
    wrapped: Arc<[u8]>,
    secrets: Secrets,
    own: Arc<Reloadable>,
    issuer: Issuer,
    terms: Terms,
}

/// The data key from where it is, founding the cluster where there is none, and the own certificate:
/// from the replica, or from joining while that is empty.
async fn open_keys(begun: &Begun, store: &Store, kept: Option<&Kept>) -> Result<Keys, Error> {
    let Begun {
        options,
        standing,
        own,
        advertised,
        listeners,
    } = begun;
    let data_key = match (kept, store.view().cluster()) {
        (Some(kept), _) => kept.data_key.clone(),
        (None, Some(cluster)) => found::data_key(cluster, &standing.operator)?,
        (None, None) => found::found(store, options, (&standing.operator, own)).await?,
    };
    let secrets = Secrets::new(data_key.clone());
    let issuer = Issuer {
        server: own.id,
        names: Arc::new(identity::names(options, listeners, advertised)?),
        secrets: secrets.clone(),
        lifetime: options.terms.lifetime,
    };
    let credentials = match (store.view().cluster(), kept) {
        (Some(cluster), _) => issuer.issue(cluster)?,
        (None, Some(kept)) => kept.credentials.clone(),
        (None, None) => return Err(Error::Part("the cluster is not there".to_owned())),
    };
    Ok(Keys {
        wrapped: key_file::wrap(&standing.operator, &data_key).into(),
        data_key,
        secrets,
        own: Reloadable::new(&credentials).map_err(identity::Error::from)?,
        issuer,
        terms: options.terms,
    })
}

/// Opens the ways to the other servers.
fn connect(
    parts: &mut JoinSet<Ended>,
    keys: Keys,
    (store, outbox, directory, history): (Store, Outbox, Directory, History),
    shutdown: &CancellationToken,
) -> Passing {
    let consensus = store.consensus().clone();
    let following = directory
        .clone()
        .follow(consensus.clone(), shutdown.clone());
    parts.spawn(named("directory", following));
    let links = Links::new(Arc::clone(&keys.own), directory.clone());
    let carrying = outbox
        .clone()
        .run(links.clone(), consensus.clone(), shutdown.clone());
    parts.spawn(named("peers", carrying));
    let forwarder = Arc::new(Forwarder::new(links.clone(), consensus));
    let store = store.with_forward(forwarder);
    let fleet = Fleet::default();
    let fetcher = Arc::new(Fetcher::new(links.clone()));
    let peers = service::Parts {
        store: store.clone(),
        directory,
        outbox,
        fleet: fleet.clone(),
        samples: Samples::default(),
        relay: Relay::reaching(fleet.clone(), fetcher.clone()),
        uploads: Uploads::reaching(fetcher.clone()),
        history,
        joiner: Arc::new(Admission {
            store: store.clone(),
            secrets: keys.secrets.clone(),
            data_key: keys.data_key,
            terms: keys.terms,
        }),
        shutdown: shutdown.clone(),
    };
    Passing {
        store,
        wrapped: keys.wrapped,
        secrets: keys.secrets,
        own: keys.own,
        issuer: keys.issuer,
        fleet,
        peers,
        links,
        fetcher,
    }
}

/// Lets a server without a state be spoken to by the others alone, until their leader has given it one.
async fn catch_up(
    passing: &Passing,
    listeners: Listeners,
    shutdown: &CancellationToken,
) -> Result<Listeners, Error> {
    if passing.store.view().cluster().is_some() {
        return Ok(listeners);
    }
    tracing::info!("waiting for the leader's snapshot");
    let (listeners, second) = listeners.second_cluster()?;
    let until_caught_up = shutdown.child_token();
    let tls = server_config(&passing.own, ClientAuth::Optional, ALPN_GRPC);
    let incoming = grpc::incoming(second, tls, until_caught_up.clone());
    let mut parts = passing.peers.clone();
    parts.shutdown = until_caught_up.clone();
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(PeersService::new(parts).into_server())
        .serve_with_incoming_shutdown(incoming, until_caught_up.clone().cancelled_owned());
    let serving = tokio::spawn(serving);
    let mut applied = passing.store.consensus().applied();
    let caught_up = async {
        while passing.store.view().cluster().is_none() {
            if applied.changed().await.is_err() {
                break;
            }
        }
    };
    let done = shutdown.run_until_cancelled(caught_up).await;
    until_caught_up.cancel();
    let _ = tokio::time::timeout(END_DEADLINE, serving).await;
    if done.is_some() {
        let view = passing.store.view();
        let cluster = view.cluster();
        let cluster = cluster.ok_or_else(|| Error::Part("the log has ended".to_owned()))?;
        let credentials = passing.issuer.issue(cluster)?;
        passing
            .own
            .replace(&credentials)
            .map_err(identity::Error::from)?;
        tracing::info!(index = view.index(), "caught up with the cluster");
    }
    Ok(listeners)
}

/// Starts what needs the state.
async fn start(
    parts: &mut JoinSet<Ended>,
    passing: Passing,
    (options, listeners): (&Options, Listeners),
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let view = passing.store.view();
    let cluster = view.cluster().cloned();
    let cluster = cluster.ok_or_else(|| Error::Part("the cluster is not there".to_owned()))?;
    let ca = passing.secrets.signing_ca(&cluster);
    let ca = Arc::new(ca.map_err(identity::Error::from)?);
    let history = passing.peers.history.clone();
    keep_in_touch(parts, &passing, shutdown);
    let neighbours = Neighbours::new(passing.issuer.server, Arc::clone(&passing.own));
    let watching = clock::watch(passing.store.clone(), neighbours.clone(), shutdown.clone());
    parts.spawn(named("clocks", watching));
    let notices = Notices::default();
    let noticing = notices.follow(&passing.store, shutdown.clone());
    parts.spawn(named("notices", noticing));
    let tokens = Tokens::new(passing.secrets.clone(), &options.notify_allow);
    let shared = Shared {
        notices,
        tokens: tokens.clone(),
        store: passing.store.clone(),
        secrets: passing.secrets.clone(),
        history: history.clone(),
        fleet: passing.fleet.clone(),
        samples: passing.peers.samples.clone(),
        relay: passing.peers.relay.clone(),
        uploads: passing.peers.uploads.clone(),
        authority: Authority::new(
            passing.store.clone(),
            passing.secrets.clone(),
            options.terms,
        ),
        shutdown: shutdown.clone(),
    };
    let bootstrap = match &options.bootstrap {
        Some(_) => Some(Bootstrap::begin(options, &ca, &listeners).await?),
        None => None,
    };
    let scaling = Scaling::default();
    let witnesses = Witnesses::default();
    let tally = Tally::default();
    let promises = Promises::default();
    let asked = Asked::default();
    let context = api::Context {
        tokens: tokens.clone(),
        store: passing.store.clone(),
        secrets: passing.secrets.clone(),
        history: history.clone(),
        elsewhere: passing.fetcher.clone(),
        uploads: shared.uploads.clone(),
        relay: shared.relay.clone(),
        fleet: shared.fleet.clone(),
        samples: shared.samples.clone(),
        scaling: scaling.clone(),
        witnesses: witnesses.clone(),
        tally: tally.clone(),
        promises: promises.clone(),
        programs: options.provider_programs.clone(),
        asked: asked.clone(),
        resolvers: options.means.resolvers.clone(),
        notify_allow: options.notify_allow.clone(),
        own: api::Own {
            neighbours,
            data_dir: Arc::new(options.data_dir.clone()),
            wrapped_data_key: Arc::clone(&passing.wrapped),
            started: Instant::now(),
            outbox: passing.peers.outbox.clone(),
        },
        shutdown: shutdown.clone(),
    };
    serve_api(
        parts,
        context,
        &passing.own,
        (listeners.api, listeners.http),
    );
    serve_cluster(parts, shared, &passing, listeners.cluster);
    let duties = reconcile::Parts {
        tokens,
        store: passing.store.clone(),
        fleet: passing.fleet.clone(),
        history,
        secrets: passing.secrets.clone(),
        samples: passing.peers.samples.clone(),
        scaling,
        relay: passing.peers.relay.clone(),
        witnesses,
        means: options.means.clone(),
        tally,
        promises,
        programs: options.provider_programs.clone(),
        asked,
        notify_allow: options.notify_allow.clone(),
    };
    parts.spawn(named("duties", reconcile::run(duties, shutdown.clone())));
    if let (Some(path), Some(bootstrap)) = (&options.bootstrap, bootstrap) {
        bootstrap
            .write(path, (&passing.store, &ca), shutdown)
            .await?;
    }
    Ok(())
}

/// Keeps the certificate good, tells the others who is connected here, and copies their histories.
fn keep_in_touch(parts: &mut JoinSet<Ended>, passing: &Passing, shutdown: &CancellationToken) {
    let renewing = passing.issuer.clone().keep_fresh(
        Arc::clone(&passing.own),
        passing.store.clone(),
        shutdown.clone(),
    );
    parts.spawn(named("certificate renewal", renewing));
    let reporting = presence::report(
        passing.links.clone(),
        passing.fleet.clone(),
        shutdown.clone(),
    );
    parts.spawn(named("presence", reporting));
    let history = passing.peers.history.clone();
    let copying = copying::copy(passing.links.clone(), history, shutdown.clone());
    parts.spawn(named("copying of histories", copying));
    let relaying = samples::relay(
        passing.links.clone(),
        passing.peers.samples.clone(),
        passing.store.clone(),
        shutdown.clone(),
    );
    parts.spawn(named("samples", relaying));
}

/// Waits until shutdown, then for the parts; a part that ends before is a fault.
async fn wait(mut parts: JoinSet<Ended>, shutdown: &CancellationToken) -> Result<(), Error> {
    let mut result = Ok(());
    tokio::select! {
        () = shutdown.cancelled() => {}
        Some(ended) = parts.join_next() => {
            if !shutdown.is_cancelled() {
                result = Err(match ended {
                    Ok(Ok(name)) => Error::Part(name),
                    Ok(Err(error)) => error,
                    Err(error) => Error::Part(error.to_string()),
                });
                shutdown.cancel();
            }
        }
    }
    // Each part has its own deadline for what is under way; this one is for all of them.
    let _ = tokio::time::timeout(END_DEADLINE, async {
        while parts.join_next().await.is_some() {}
    })
    .await;
    result
}

async fn named<T>(name: &'static str, part: impl Future<Output = T>) -> Ended {
    part.await;
    Ok(name.to_owned())
}

/// One listener for all that comes with a certificate: agents, servers, operators.
fn serve_cluster(
    parts: &mut JoinSet<Ended>,
    shared: Shared,
    passing: &Passing,
    listener: TcpListener,
) {
    let shutdown = shared.shutdown.clone();
    let tls = server_config(&passing.own, ClientAuth::Optional, ALPN_GRPC);
    let incoming = grpc::incoming(listener, tls, shutdown.clone());
    let control = ControlService::new(shared.store.clone(), shutdown.clone());
    let agents = AgentsServer::new(AgentsService::new(shared))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(Some(MAX_STREAMS))
        .initial_stream_window_size(Some(STREAM_WINDOW_BYTES))
        .initial_connection_window_size(Some(CONNECTION_WINDOW_BYTES))
        .add_service(agents)
        .add_service(PeersService::new(passing.peers.clone()).into_server())
        .add_service(control.into_server())
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned());
    parts.spawn(named("the cluster's listener", server));
}

fn serve_api(
    parts: &mut JoinSet<Ended>,
    context: api::Context,
    own: &Arc<Reloadable>,
    listeners: (TcpListener, Option<TcpListener>),
) {
    let shutdown = context.shutdown.clone();
    let router = api::router(context);
    let tls = server_config(own, ClientAuth::Optional, ALPN_HTTPS);
    let incoming = grpc::incoming(listeners.0, tls, shutdown.clone());
    let service = Filter::new(router.clone(), api::by_http1);
    let serving = https::serve(incoming, service, shutdown.clone());
    parts.spawn(named("api", serving));
    if let Some(plain) = listeners.1 {
        // With the caller's address: some answers are for callers on this machine alone.
        let router = router.into_make_service_with_connect_info::<SocketAddr>();
        let serving = axum::serve(plain, router).with_graceful_shutdown(shutdown.cancelled_owned());
        parts.spawn(named("http", serving.into_future()));
    }
}
