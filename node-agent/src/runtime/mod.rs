//! Docker, through bollard: every call has a deadline, is counted, and touches only containers
//! that carry this node's labels. Decides nothing.

pub(crate) mod container;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod image;
mod init;
pub(crate) mod inspect;
mod network;
mod oom;
mod spool;
pub(crate) mod tail;
pub(crate) mod transport;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, Mount};
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptions, RemoveContainerOptions, StopContainerOptions,
};
use skep_model::assignment::Assignment;
use skep_model::id::{AllocationId, ClusterId, NodeId, ServiceId};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::logins::Logins;
use crate::metrics::Metrics;
use crate::options::LOG_BUDGET_BYTES;
use crate::plan::{Grant, Phase, Seen};

pub(crate) use network::network_environment;
use transport::Socket;

/// Calls that only read.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Creating, starting, removing: a slow disk takes seconds, a wedged daemon for ever.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// `GET /info` is what a wedged daemon does not answer, unlike ping.
const INFO_TIMEOUT: Duration = Duration::from_secs(5);
/// A daemon under load may be that slow; one that takes longer, twice, while it answers a ping at once,
/// is wedged.
const SLOW_INFO_TIMEOUT: Duration = Duration::from_secs(15);
/// A wedged daemon answers this at once.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Added to a stop's grace for Docker's own work.
const STOP_MARGIN: Duration = Duration::from_secs(20);
/// Starts and removes in flight: measured, more gain nothing and may wedge the daemon.
const CHANGES_MAX: usize = 8;
/// Stops in flight: they mostly wait for the app's own end.
const STOPS_MAX: usize = 32;

/// Docker did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It answered with an error, or could not be reached.
    #[error("docker cannot {action}")]
    Docker {
        /// What was asked.
        action: &'static str,
        /// What it said.
        source: bollard::errors::Error,
    },
    /// It did not answer.
    #[error("docker did not {action} within {} s", limit.as_secs())]
    Timeout {
        /// What was asked.
        action: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// It answers a ping, and twice nothing else.
    #[error("docker answers a ping, and hangs with everything else: restart it")]
    Wedged,
    /// Its answer lacks something.
    #[error("docker's answer lacks {what}")]
    Answer {
        /// What.
        what: &'static str,
    },
}

impl Error {
    /// The thing asked for does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The HTTP status of a refusal.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Docker {
                source: bollard::errors::Error::DockerResponseServerError { status_code, .. },
                ..
            } => Some(*status_code),
            _ => None,
        }
    }

    /// Docker's own words, where it answered.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Docker {
                source: bollard::errors::Error::DockerResponseServerError { message, .. },
                ..
            } => message.clone(),
            Self::Docker {
                source: bollard::errors::Error::DockerStreamError { error },
                ..
            } => error.clone(),
            other => crate::error_chain(other),
        }
    }
}

/// The containers of this node in this daemon.
#[derive(Clone)]
pub(crate) struct Runtime {
    docker: Docker,
    socket: Socket,
    labels: Arc<container::Labels>,
    changes: Arc<Semaphore>,
    stops: Arc<Semaphore>,
    metrics: Metrics,
    init: Arc<AtomicBool>,
    logins: Logins,
    told_no_spool: Arc<AtomicBool>,
    log_size: u64,
    bridges: tokio::sync::watch::Sender<crate::network::Bridges>,
}

impl Runtime {
    /// Prepares to talk to the daemon behind `socket`; it need not run yet.
    ///
    /// # Errors
    /// The path cannot be a socket's.
    pub(crate) fn new(
        socket: &Path,
        (cluster, node): (ClusterId, NodeId),
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let socket = Socket::new(socket);
        let docker = socket.docker().map_err(|source| Error::Docker {
            action: "be reached",
            source,
        })?;
        Ok(Self {
            docker,
            socket,
            labels: Arc::new(container::Labels { cluster, node }),
            changes: Arc::new(Semaphore::new(CHANGES_MAX)),
            stops: Arc::new(Semaphore::new(STOPS_MAX)),
            metrics,
            init: Arc::new(AtomicBool::new(false)),
            logins: Logins::default(),
            told_no_spool: Arc::default(),
            log_size: container::log_size(LOG_BUDGET_BYTES),
            bridges: Default::default(),
        })
    }

    /// The same, with containers whose logs may take `budget` bytes of the node together.
    pub(crate) fn with_log_budget(mut self, budget: u64) -> Self {
        self.log_size = container::log_size(budget);
        self
    }

    /// The client underneath, for builds.
    pub(crate) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// As whom it pulls from registries.
    pub(crate) fn logins(&self) -> &Logins {
        &self.logins
    }

    /// The daemon's socket, for builds.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    async fn call<T>(
        &self,
        action: &'static str,
        limit: Duration,
        asked: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, Error> {
        let result = match timeout(limit, asked).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(source)) => Error::Docker { action, source },
            Err(_) => Error::Timeout { action, limit },
        };
        self.metrics.docker_failure(action);
        Err(result)
    }

    /// Agrees on an API version: once before anything else, and again whenever Docker came back,
    /// since it may have been upgraded.
    pub(crate) async fn negotiate(&self) -> Result<(), Error> {
        let asked = self.docker.clone().negotiate_version();
        self.call("say its version", READ_TIMEOUT, asked).await?;
        Ok(())
    }

    /// What the daemon says of itself: the one call that shows whether it works.
    pub(crate) async fn info(&self) -> Result<bollard::models::SystemInfo, Error> {
        self.info_within(INFO_TIMEOUT).await
    }

    async fn info_within(&self, limit: Duration) -> Result<bollard::models::SystemInfo, Error> {
        let info = self.call("answer", limit, self.docker.info()).await?;
        self.init.store(container::has_init(&info), Relaxed);
        Ok(info)
    }

    /// Whether the daemon works. One that is slow gets a second, longer chance.
    ///
    /// # Errors
    /// [`Error::Wedged`]: it had both, and still answers a ping. Else it is away.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        match self.info().await {
            Ok(_) => return Ok(()),
            Err(Error::Timeout { .. }) => {}
            Err(error) => return Err(error),
        }
        tracing::warn!(
            "docker is slow: it did not answer within {} s",
            INFO_TIMEOUT.as_secs()
        );
        match self.info_within(SLOW_INFO_TIMEOUT).await {
            Ok(_) => Ok(()),
            Err(error @ Error::Timeout { .. }) => {
                let ping = self.call("answer a ping", PING_TIMEOUT, self.docker.ping());
                Err(ping.await.map_or(error, |_| Error::Wedged))
            }
            Err(error) => Err(error),
        }
    }

    /// Every container of this node, by allocation and attempt; what is known of those that run is
    /// complete, those that ended are just that.
    pub(crate) async fn list(&self) -> Result<Vec<(AllocationId, Seen)>, Error> {
        self.list_filtered(self.labels.filter()).await
    }

    /// The containers of one allocation, by attempt.
    pub(crate) async fn list_of(&self, allocation: AllocationId) -> Result<Vec<Seen>, Error> {
        let found = self
            .list_filtered(self.labels.filter_of(allocation))
            .await?;
        Ok(found.into_iter().map(|(_, seen)| seen).collect())
    }

    /// The containers of one service.
    pub(crate) async fn containers_of(&self, service: ServiceId) -> Result<Vec<Seen>, Error> {
        let labels = self.labels.filter_of_service(service);
        let found = self.list_filtered(labels).await?;
        Ok(found.into_iter().map(|(_, seen)| seen).collect())
    }

    async fn list_filtered(&self, labels: Vec<String>) -> Result<Vec<(AllocationId, Seen)>, Error> {
        let options = ListContainersOptions {
            all: true,
            filters: Some([("label".to_owned(), labels)].into()),
            ..Default::default()
        };
        let asked = self.docker.list_containers(Some(options));
        let mut found = Vec::new();
        for summary in self.call("list containers", READ_TIMEOUT, asked).await? {
            let Some((allocation, mut seen)) = inspect::summary(&summary) else {
                continue;
            };
            if inspect::needs_details(&summary) {
                match self.inspect(&seen.id).await {
                    Ok(Some(detailed)) => seen = detailed,
                    Ok(None) => continue,
                    Err(error) => return Err(error),
                }
                // Not witnessed: it ended between the two calls, or runs.
            }
            found.push((allocation, seen));
        }
        found.sort_by_key(|(allocation, seen)| (*allocation, seen.attempt));
        Ok(found)
    }

    /// One container; none: it does not exist (any more).
    pub(crate) async fn inspect(&self, id: &str) -> Result<Option<Seen>, Error> {
        let asked = self.docker.inspect_container(id, None);
        match self.call("inspect a container", READ_TIMEOUT, asked).await {
            Ok(response) => inspect::detailed(&response).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the kernel ended something of a container because it had no more memory, where Docker has not heard of it.
    pub(crate) async fn ran_out_of_memory(&self, id: &str) -> bool {
        let id = id.to_owned();
        let asked = tokio::task::spawn_blocking(move || oom::was_killed(&id));
        asked.await.unwrap_or(false)
    }

    /// Makes a container from an image that is here, and starts it.
    pub(crate) async fn start(
        &self,
        assignment: &Assignment,
        (attempt, grant): (u32, &Grant),
        (image, mounts): (&str, &[Mount]),
    ) -> Result<Option<Seen>, Error> {
        let slot = self.changes.acquire().await.expect("never closed");
        let name = container::name(assignment, attempt);
        let body = self.body(assignment, (attempt, grant), (image, mounts));
        let options = CreateContainerOptions {
            name: Some(name),
            ..Default::default()
        };
        let asked = self.docker.create_container(Some(options), body);
        let created = self
            .call("create a container", CHANGE_TIMEOUT, asked)
            .await?;
        let asked = self.docker.start_container(&created.id, None);
        self.call("start a container", CHANGE_TIMEOUT, asked)
            .await?;
        drop(slot);
        self.inspect(&created.id).await
    }

    /// What Docker is asked to make of an assignment.
    fn body(
        &self,
        assignment: &Assignment,
        numbered: (u32, &Grant),
        (image, mounts): (&str, &[Mount]),
    ) -> ContainerCreateBody {
        let init = self.init.load(Relaxed);
        let own = (image, init, self.log_size);
        let mut body = container::body(assignment, numbered, &self.labels, own);
        if let Some(bridge) = self.bridge_of(assignment) {
            container::put_on(&mut body, &bridge);
        }
        if !mounts.is_empty() {
            body.host_config.get_or_insert_default().mounts = Some(mounts.to_vec());
        }
        body
    }

    /// How a container that ran before an app's own is.
    async fn inspect_init(&self, id: &str) -> Result<Phase, Error> {
        let asked = self.docker.inspect_container(id, None);
        let response = self
            .call("inspect a container", READ_TIMEOUT, asked)
            .await?;
        inspect::state(&response)
    }

    /// SIGTERM (or the image's own signal), then `grace`, then SIGKILL. One that is gone or has
    /// ended is stopped already.
    pub(crate) async fn stop(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let slot = self.stops.acquire().await.expect("never closed");
        let grace_s = grace.as_millis().div_ceil(1_000);
        let options = StopContainerOptions {
            t: Some(i32::try_from(grace_s).unwrap_or(i32::MAX)),
            ..Default::default()
        };
        let asked = self.docker.stop_container(id, Some(options));
        let stopped = self
            .call("stop a container", grace + STOP_MARGIN, asked)
            .await;
        drop(slot);
        match stopped {
            Err(error) if error.is_not_found() || error.status() == Some(304) => Ok(()),
            other => other,
        }
    }

    /// Removes a container with its anonymous volumes, killing it if it still runs. One that is
    /// gone is removed already.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), Error> {
        let slot = self.changes.acquire().await.expect("never closed");
        let options = RemoveContainerOptions {
            v: true,
            force: true,
            link: false,
        };
        let asked = self.docker.remove_container(id, Some(options));
        let removed = self.call("remove a container", CHANGE_TIMEOUT, asked).await;
        drop(slot);
        match removed {
            // 409: another removal of it is under way.
            Err(error) if error.is_not_found() || error.status() == Some(409) => Ok(()),
            other => other,
        }
    }
}
