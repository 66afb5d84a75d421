//! The one stream to a server: dialed out, kept up, dialed again, to another server where one fails.
//! Carries desired state down and
//! observed state up; judges only whether what comes down is newer than what is held. Losing it
//! changes nothing for containers.

mod build_log;
mod desired;
mod link;
mod observations;
mod outbox;
mod samples;
#[cfg(test)]
mod tests;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use skep_identity::tls::Reloadable;
use skep_model::assignment::{DesiredSet, Generation};
use skep_model::id::{AllocationId, ClusterId, DeploymentId};
use skep_model::route::RouteTable;
use skep_proto::{INCARNATION, v1};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::logins::Logins;
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::network::Checks;
use crate::registries::Registries;
use crate::routes::Certificates;
use crate::seat::Seat;
use crate::servers::Servers;
use crate::shell::Shells;
use crate::sources::Sources;
use crate::witness::Witness;

pub(crate) use observations::Condition;
pub(crate) use outbox::Outbox;
pub(crate) use upload::ServerUploads;

/// First and longest pause before a server is dialed again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A session that its agent did not end is over after ten seconds of silence: whoever is refused for
/// longer than twice that has another agent before it.
const DOUBLED_FOR: Duration = Duration::from_secs(20);
/// What a server may send in one message: a full desired set with its variables.
const MESSAGE_MAX_BYTES: usize = 256 << 20;

/// A session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No connection, or it broke.
    #[error("the server cannot be reached, or ended the session")]
    Transport(#[from] tonic::Status),
    /// It does not answer.
    #[error("the server did not begin the session within {} s", .0.as_secs())]
    Slow(Duration),
    /// It ended the stream.
    #[error("the server ended the session")]
    Ended,
    /// What came down cannot be taken.
    #[error("what the server sent is refused")]
    Refused(#[from] desired::Refused),
    /// The machine's facts changed: they are told at the beginning of a session.
    #[error("the node's facts changed")]
    Facts,
    /// Another server is the one to speak to now.
    #[error("going over to another server")]
    Moved,
    /// The desired set could not be written down; it will be sent again.
    #[error("the desired set could not be stored")]
    NotStored,
    /// The agent ends.
    #[error("the agent ends")]
    Closing,
}

/// What came down.
#[derive(Debug)]
pub(crate) enum Down {
    /// A desired set that is newer than the one held.
    Desired {
        /// What changed.
        change: Box<DesiredChange>,
        /// Answered when it is on disk; false or dropped: it is not.
        stored: oneshot::Sender<bool>,
    },
    /// The session is over: until the next desired set nobody says what is to run.
    Ended,
    /// The node was fenced: all that it has goes. Answered when nothing is left; dropped: it has to be tried again.
    Fenced(oneshot::Sender<()>),
    /// A route table, and the incarnation of the cluster that it belongs to.
    Routes(u64, RouteTable),
}

/// A full desired set, or a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DesiredChange {
    /// Everything: what is not in it is not desired.
    pub(crate) full: bool,
    /// New and changed assignments and builds.
    pub(crate) set: DesiredSet,
    /// Assignments that are no more (deltas only).
    pub(crate) removed_allocations: Vec<AllocationId>,
    /// Builds that are no more (deltas only).
    pub(crate) removed_builds: Vec<DeploymentId>,
    /// What somebody wants ended of what is in quarantine; all of it each time.
    pub(crate) dismissed: Vec<AllocationId>,
}

/// Everything that a session needs.
pub(crate) struct Session {
    /// Whom to speak to.
    pub(crate) servers: Servers,
    /// Ours: another cluster's desired set is refused.
    pub(crate) cluster: ClusterId,
    /// What goes up.
    pub(crate) outbox: Arc<Outbox>,
    /// Takes what comes down.
    pub(crate) down: mpsc::Sender<Down>,
    /// Serves requests for logs.
    pub(crate) logs: Logs,
    /// As whom to pull from registries.
    pub(crate) logins: Logins,
    /// What the data plane is to show and to prove.
    pub(crate) certificates: Certificates,
    /// Serves shells.
    pub(crate) shells: Shells,
    /// Knocks at other nodes.
    pub(crate) witness: Witness,
    /// Dials other nodes' data planes.
    pub(crate) checks: Checks,
    /// Asks repositories.
    pub(crate) sources: Sources,
    /// Asks registries.
    pub(crate) registries: Registries,
    /// Generation of the desired set on disk.
    pub(crate) held: Option<Generation>,
    /// Whether it is connected.
    pub(crate) metrics: Metrics,
    /// What the node shows.
    pub(crate) credentials: Arc<Reloadable>,
    /// What this life of the agent shows.
    pub(crate) seat: Arc<Seat>,
    /// Until when the servers count on this node.
    pub(crate) lease: watch::Sender<Option<Instant>>,
}

/// Whether an error says that another agent speaks for this node, and if so whether time may change
/// that: the session of a life that was killed is there until the server notices.
fn is_doubled(error: &Error) -> Option<bool> {
    match error {
        Error::Transport(status) => match status.code() {
            tonic::Code::AlreadyExists => Some(true),
            tonic::Code::FailedPrecondition => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// The incarnation of the node for which a server wants everything dropped first; none: it does not say so.
fn fenced_in(error: &Error) -> Option<u64> {
    let Error::Transport(status) = error else {
        return None;
    };
    let said = status.metadata().get(INCARNATION)?;
    said.to_str().ok()?.parse().ok()
}

impl Session {
    /// Has everything dropped that runs here, and remembers for which incarnation. Whether that is done.
    async fn begin_anew(&self, incarnation: u64) -> bool {
        let (dropped, is_dropped) = oneshot::channel();
        if self.down.send(Down::Fenced(dropped)).await.is_err() || is_dropped.await.is_err() {
            return false;
        }
        let seat = self.seat.clone();
        let kept = tokio::task::spawn_blocking(move || seat.begin_incarnation(incarnation)).await;
        kept.unwrap_or(false)
    }

    fn heartbeat(&self, number: u64) -> v1::Heartbeat {
        let ca = self.credentials.issuer();
        v1::Heartbeat {
            ca: ca.map_or_else(Vec::new, |ca| ca.as_bytes().to_vec()),
            number,
        }
    }

    /// Keeps a session until `cancel`, or until it is certain that another agent speaks for this node:
    /// then it tells what the server says.
    pub(crate) async fn run(mut self, cancel: CancellationToken) -> Option<String> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut doubled_since: Option<Instant> = None;
        loop {
            let kept = link::keep(&mut self, &mut backoff, &cancel).await;
            self.metrics.session(false);
            // Fails only when the agent ends.
            let _ = self.down.send(Down::Ended).await;
            self.witness.cancel_all();
            self.outbox.end();
            self.logs.cancel_all();
            match kept {
                Error::Closing => return None,
                Error::Facts | Error::Moved => {
                    doubled_since = None;
                    continue;
                }
                error => {
                    if let Some(incarnation) = fenced_in(&error) {
                        let begun = self.begin_anew(incarnation);
                        if cancel.run_until_cancelled(begun).await? {
                            doubled_since = None;
                            continue;
                        }
                    }
                    doubled_since = match is_doubled(&error) {
                        None => None,
                        Some(may_pass) => {
                            let since = *doubled_since.get_or_insert_with(Instant::now);
                            if !may_pass || since.elapsed() >= DOUBLED_FOR {
                                return Some(crate::credentials::explain(&error));
                            }
                            Some(since)
                        }
                    };
                    let why = crate::credentials::explain(&error);
                    let server = self.servers.address();
                    if backoff.is_first() {
                        tracing::warn!(%server, %why, "no session with a server");
                    } else {
                        tracing::debug!(%server, %why, "still no session with a server");
                    }
                    self.servers.move_on();
                }
            }
            cancel.run_until_cancelled(sleep(backoff.next())).await?;
        }
    }
}
