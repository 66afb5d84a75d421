//! The server as a process: opens what is on disk, founds or joins a cluster where there is none yet,
//! and wires consensus, peers, history, API, agents' sessions and the leader's duties together.
//!
//! ```text
//! standing ─► (join) ─► consensus ─► (found) ─► certificate ─► peers ─► (catch up) ─► everything else
//! ```
//!
//! No step but founding and joining needs another server: a cluster that was switched off as a whole
//! comes back by itself.

mod admit;
mod announce;
mod bootstrap;
mod clock;
mod found;
mod identity;
mod joining;
mod listeners;
mod options;
pub mod recover;
mod serve;
mod standing;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use skep_identity::{key_file, random, secret_file};
use skep_model::problem::Problem;
use skep_model::server::Server;
use skep_state::FIRST_MEMBER;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::machine::Machine;
use crate::peers::{Outbox, PeerTransport};
use crate::store::Store;
use crate::{consensus, history, local};
use listeners::{Advertised, Listeners};
use standing::Standing;

pub use options::{Join, Options, Ready, Start};
pub(crate) use standing::{LOCAL, RAFT};

/// What handing leadership on may take when a server stops.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(3);

/// Why a server does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A private file or folder.
    #[error(transparent)]
    File(#[from] secret_file::Error),
    /// The operator's key.
    #[error(transparent)]
    Key(#[from] key_file::Error),
    /// Local facts.
    #[error(transparent)]
    Local(#[from] local::Error),
    /// The log.
    #[error(transparent)]
    Consensus(#[from] consensus::service::Error),
    /// The history.
    #[error("the history cannot be opened")]
    History(#[from] history::Error),
    /// Certificates.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// Founding or reading the cluster.
    #[error(transparent)]
    Found(#[from] found::Error),
    /// Joining, or reading what was kept of it.
    #[error(transparent)]
    Join(#[from] joining::Error),
    /// The last survivor could not be made the whole group.
    #[error(transparent)]
    Recover(#[from] recover::Error),
    /// A new cluster, or a joining server, where there is data.
    #[error("{} holds a server's data already: choose another folder", .0.display())]
    Occupied(PathBuf),
    /// Nothing to rebuild.
    #[error("{} holds no server's data: use `skep server join`", .0.display())]
    NothingToRebuild(PathBuf),
    /// The cluster has removed this server.
    #[error(
        "the cluster has removed this server; to come back, join with an empty data folder instead of {}",
        .0.display()
    )]
    Removed(PathBuf),
    /// The old log cannot be set aside.
    #[error("{} cannot be set aside", path.display())]
    Aside {
        /// The log.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}; is another skep running? choose another address"
    )]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Others cannot reach it under this address.
    #[error("{0}")]
    Advertise(Problem),
    /// Plain HTTP asked for beyond loopback.
    #[error("the API is served without TLS on loopback only, not on {0}: leave --http-addr out")]
    NotLoopback(SocketAddr),
    /// A part of the server ended by itself.
    #[error("a part of the server stopped: {0}")]
    Part(String),
    /// The bootstrap file does not encode.
    #[error("the bootstrap file cannot be written")]
    Bootstrap(#[from] serde_json::Error),
}

/// What is known before the log is opened.
struct Begun {
    options: Options,
    standing: Standing,
    own: Server,
    advertised: Advertised,
    listeners: Listeners,
}

/// Runs a server until `shutdown`, or until a part of it fails; `ready` is called once it serves.
///
/// # Errors
/// What kept it from starting, or made it stop.
pub async fn run(
    options: Options,
    ready: impl FnOnce(Ready) + Send,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let standing = blocking({
        let options = options.clone();
        move || Standing::open(&options)
    })
    .await?;
    let listeners = Listeners::bind(&options).await?;
    let advertised = listeners::advertised(&options, &listeners)?;
    let own = own_server(&options, &standing, &advertised);
    let begun = Begun {
        options,
        standing,
        own,
        advertised,
        listeners,
    };
    let begun = begin(begun, &shutdown).await?;
    let (transport, outbox) = PeerTransport::new();
    let settings = settings(&begun);
    let data_dir = begun.options.data_dir.clone();
    let (service, consensus) = blocking(move || {
        let opened = consensus::Service::open(settings, Machine::default(), Box::new(transport))?;
        standing::note_begun(&data_dir)?;
        Ok(opened)
    })
    .await?;
    let store = Store::new(consensus);
    // Consensus outlives the rest: what is under way at shutdown can still be committed.
    let log_token = CancellationToken::new();
    let mut log = AbortOnDropHandle::new(tokio::spawn(service.run(log_token.clone())));
    let parts_token = CancellationToken::new();
    let serving = serve::serve(begun, (store.clone(), outbox), ready, &parts_token);
    let mut serving = std::pin::pin!(serving);
    let result = tokio::select! {
        result = &mut serving => result,
        ended = &mut log => {
            parts_token.cancel();
            let _ = serving.await;
            return log_result(ended);
        }
        () = shutdown.cancelled() => {
            hand_on(&store).await;
            parts_token.cancel();
            serving.await
        }
    };
    parts_token.cancel();
    log_token.cancel();
    result.and(log_result(log.await))
}

fn log_result(
    ended: Result<Result<(), consensus::service::Error>, tokio::task::JoinError>,
) -> Result<(), Error> {
    Ok(ended.map_err(|error| Error::Part(error.to_string()))??)
}

/// Gives leadership to another server before this one stops, so that nobody waits for an election.
async fn hand_on(store: &Store) {
    let group = store.consensus().group().borrow().clone();
    if !group.is_leader || group.members.voters.len() < 2 {
        return;
    }
    let moved = store.consensus().transfer_leader(None);
    match tokio::time::timeout(TRANSFER_DEADLINE, moved).await {
        Ok(Ok(())) => tracing::info!("leadership handed on"),
        Ok(Err(error)) => tracing::warn!(%error, "leadership could not be handed on"),
        Err(_) => tracing::warn!("leadership could not be handed on in time"),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Part(error.to_string()))?
}

fn own_server(options: &Options, standing: &Standing, advertised: &Advertised) -> Server {
    Server {
        id: standing.server,
        member: standing.member.unwrap_or(FIRST_MEMBER),
        name: options.name.clone(),
        cluster_address: advertised.cluster.clone(),
        api_address: advertised.api.clone(),
        version: crate::version().to_owned(),
        feature_level: skep_state::feature_level(),
        joined_ms: 0,
    }
}

/// Joins where that is to be done, and settles the member id.
async fn begin(mut begun: Begun, shutdown: &CancellationToken) -> Result<Begun, Error> {
    let standing = &mut begun.standing;
    if standing.is_to_join(&begun.options.start) {
        let (with, is_rebuild) = match &begun.options.start {
            Start::Join(with) => (with, false),
            Start::Rebuild(with) => (with, true),
            Start::Run | Start::Init => unreachable!("only these two join"),
        };
        let kept = joining::join(with, (&begun.own, is_rebuild), shutdown).await?;
        begun.own.member = kept.member;
        standing.kept = Some(kept);
        standing.has_begun = false;
    } else if standing.member.is_some() {
        return Ok(begun);
    }
    standing.member = Some(begun.own.member);
    let data_dir = begun.options.data_dir.clone();
    blocking(move || {
        let standing = &begun.standing;
        let kept = standing.kept.as_ref();
        standing::begin(
            &data_dir,
            begun.own.member,
            kept.map(|kept| (kept, &standing.operator)),
        )?;
        Ok(begun)
    })
    .await
}

fn settings(begun: &Begun) -> consensus::Options {
    let standing = &begun.standing;
    let dir = standing::raft_dir(&begun.options.data_dir);
    let mut settings = consensus::Options::new(begun.own.member, dir);
    settings.create = !standing.has_begun;
    settings.join = standing.kept.is_some();
    settings.seed = u64::from_be_bytes(random::bytes());
    settings
}

/// Both halves of what carries this server's Raft messages, and the state.
type Core = (Store, Outbox);
