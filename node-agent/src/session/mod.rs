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
use skep_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::logins::Logins;
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::servers::Servers;
use crate::shell::Shells;

pub(crate) use outbox::Outbox;
pub(crate) use upload::ServerUploads;

/// First and longest pause before a server is dialed again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
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
    /// Serves shells.
    pub(crate) shells: Shells,
    /// Generation of the desired set on disk.
    pub(crate) held: Option<Generation>,
    /// Whether it is connected.
    pub(crate) metrics: Metrics,
    /// What the node shows.
    pub(crate) credentials: Arc<Reloadable>,
}

impl Session {
    fn heartbeat(&self) -> v1::Heartbeat {
        let ca = self.credentials.issuer();
        v1::Heartbeat {
            ca: ca.map_or_else(Vec::new, |ca| ca.as_bytes().to_vec()),
        }
    }

    /// Keeps a session until `cancel`.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let kept = cancel
                .run_until_cancelled(link::keep(&mut self, &mut backoff))
                .await;
            self.metrics.session(false);
            // Fails only when the agent ends.
            let _ = self.down.send(Down::Ended).await;
            self.outbox.end();
            self.logs.cancel_all();
            match kept {
                None | Some(Error::Closing) => return,
                Some(Error::Facts | Error::Moved) => continue,
                Some(error) => {
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
            if cancel
                .run_until_cancelled(sleep(backoff.next()))
                .await
                .is_none()
            {
                return;
            }
        }
    }
}
