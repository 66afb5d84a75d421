//! Agents without machines: each keeps a real session with a server over mTLS, does at once what it
//! is told and says that it is healthy. Thousands of them in one process make a large cluster's
//! state through the very path that real agents use.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use skep_model::allocation::{Desired, State};
use skep_proto::convert::enum_number;
use skep_proto::v1;
use skep_proto::v1::agents_client::AgentsClient;
use skep_proto::v1::from_agent::Kind as Up;
use skep_proto::v1::to_agent::Kind as Down;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::grpc_tls;
use super::node::{Member, facts, join_over};
use crate::tls;

/// As an agent's own; a node that is silent for 10 s is lost.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Handshakes and joins under way: more would only wait for the processor.
const AT_ONCE: usize = 32;
/// Messages that wait for the connection.
const QUEUE: usize = 8;
/// Before a session that broke is made again.
const AGAIN: Duration = Duration::from_secs(1);
/// What a build writes, where builds write something.
pub const BUILD_LINES: [&str; 3] = ["fetching", "building", "built"];
/// A desired set of one node, with all of its variables.
const MESSAGE_MAX_BYTES: usize = 64 << 20;

/// Joins so many nodes over a few connections; their names count from `first`.
///
/// # Errors
/// One is refused.
pub async fn join_all(
    server: SocketAddr,
    ca_pem: &str,
    token: &str,
    first: usize,
    count: usize,
) -> Result<Vec<Member>> {
    let config = grpc_tls(ca_pem, None)?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE.min(count) {
        let (config, next, token) = (config.clone(), next.clone(), token.to_owned());
        tasks.spawn(async move {
            let mut client = AgentsClient::new(tls::channel(server, config).await?);
            let mut joined = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(joined);
                }
                let name = format!("node{:05}", first + number);
                joined.push(join_over(&mut client, &token, &name).await?);
            }
        });
    }
    let mut all = Vec::with_capacity(count);
    while let Some(joined) = tasks.join_next().await {
        all.extend(joined??);
    }
    Ok(all)
}

/// Agents in session; their end ends the sessions.
pub struct Agents {
    stop: CancellationToken,
    connected: Arc<AtomicUsize>,
    healthy: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Agents {
    /// Lets every node keep a session with `server`, again whenever it breaks.
    pub fn start(server: SocketAddr, members: Vec<Member>) -> Self {
        Self::begin(server, members, false)
    }

    /// The same; each build writes [`BUILD_LINES`].
    pub fn with_build_logs(server: SocketAddr, members: Vec<Member>) -> Self {
        Self::begin(server, members, true)
    }

    fn begin(server: SocketAddr, members: Vec<Member>, has_logs: bool) -> Self {
        let stop = CancellationToken::new();
        let counts = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let [connected, healthy] = counts;
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for member in members {
            let agent = Agent {
                server,
                member,
                room: room.clone(),
                connected: connected.clone(),
                healthy: healthy.clone(),
                known: HashMap::new(),
                sequence: 0,
                has_logs,
            };
            let stopped = stop.clone();
            tasks.spawn(async move {
                let _ = stopped.run_until_cancelled_owned(agent.keep()).await;
            });
        }
        Self {
            stop,
            connected,
            healthy,
            _tasks: tasks,
        }
    }

    /// How many are in session.
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// How many allocations they said are healthy.
    pub fn healthy(&self) -> usize {
        self.healthy.load(Ordering::Relaxed)
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Agent {
    server: SocketAddr,
    member: Member,
    room: Arc<Semaphore>,
    connected: Arc<AtomicUsize>,
    healthy: Arc<AtomicUsize>,
    /// What was last said of each allocation.
    known: HashMap<Vec<u8>, State>,
    sequence: u64,
    has_logs: bool,
}

impl Agent {
    async fn keep(mut self) {
        loop {
            if let Err(error) = self.session().await {
                eprintln!("{}: {error:#}", self.member.id);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn session(&mut self) -> Result<()> {
        let permit = self.room.clone().acquire_owned().await?;
        let shown = tls::Shown {
            chain_pem: &self.member.certificate_pem,
            key_pem: &self.member.key_pem,
        };
        let config = grpc_tls(&self.member.ca_pem, Some(shown))?;
        let channel = tls::channel(self.server, config).await?;
        let mut client = AgentsClient::new(channel).max_decoding_message_size(MESSAGE_MAX_BYTES);
        let (up, queue) = mpsc::channel(QUEUE);
        let hello = v1::Hello {
            facts: Some(facts(&self.member.name)),
            held: None,
            ..Default::default()
        };
        send(&up, Up::Hello(hello)).await?;
        let mut inbound = client
            .session(ReceiverStream::new(queue))
            .await?
            .into_inner();
        drop(permit);
        self.connected.fetch_add(1, Ordering::Relaxed);
        let ended = self.serve(&up, &mut inbound).await;
        self.connected.fetch_sub(1, Ordering::Relaxed);
        ended
    }

    async fn serve(
        &mut self,
        up: &mpsc::Sender<v1::FromAgent>,
        inbound: &mut tonic::Streaming<v1::ToAgent>,
    ) -> Result<()> {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        loop {
            tokio::select! {
                _ = heartbeat.tick() => send(up, Up::Heartbeat(v1::Heartbeat::default())).await?,
                message = inbound.message() => {
                    let message = message?.context("the server ended the session")?;
                    self.take(up, message).await?;
                }
            }
        }
    }

    async fn take(&mut self, up: &mpsc::Sender<v1::FromAgent>, message: v1::ToAgent) -> Result<()> {
        match message.kind {
            Some(Down::Desired(desired)) => {
                let is_full = desired.full;
                let set = desired.set.unwrap_or_default();
                for order in set.builds.iter().filter(|_| self.has_logs) {
                    let log = v1::BuildLog {
                        deployment: order.deployment.clone(),
                        first: 0,
                        lines: BUILD_LINES.map(str::to_owned).to_vec(),
                        run: Vec::new(),
                    };
                    send(up, Up::BuildLog(log)).await?;
                }
                let observed = self.obey(set, is_full);
                if is_full || !observed.allocations.is_empty() || !observed.builds.is_empty() {
                    send(up, Up::Observed(observed)).await?;
                }
                Ok(())
            }
            Some(Down::Routes(table)) => {
                let revision = table.revision;
                let routes = v1::RouteStatus {
                    applied_revision: revision,
                    drained_revision: revision,
                    incarnation: table.incarnation,
                };
                send(up, Up::Routes(routes)).await
            }
            _ => Ok(()),
        }
    }

    /// Does what is wanted, at once.
    fn obey(&mut self, set: v1::DesiredSet, is_full: bool) -> v1::ObservedSet {
        let mut allocations = Vec::new();
        for assignment in set.assignments {
            let runs = assignment.desired != enum_number(&Desired::ALL, &Desired::Stop);
            let state = if runs { State::Healthy } else { State::Stopped };
            let before = self.known.insert(assignment.allocation.clone(), state);
            if before == Some(state) && !is_full {
                continue;
            }
            if before != Some(state) && runs {
                self.healthy.fetch_add(1, Ordering::Relaxed);
            }
            allocations.push(v1::AllocationObservation {
                allocation: assignment.allocation,
                observed: Some(v1::Observed {
                    state: enum_number(&State::ALL, &state),
                    ..v1::Observed::default()
                }),
            });
        }
        let builds = set.builds.into_iter().map(built).collect();
        self.sequence += 1;
        v1::ObservedSet {
            sequence: self.sequence,
            full: is_full,
            allocations,
            builds,
            runtime_ok: true,
            ..v1::ObservedSet::default()
        }
    }
}

/// An image is there without being fetched.
fn built(order: v1::BuildOrder) -> v1::BuildObservation {
    let image = v1::Image {
        reference: "registry.invalid/bench:1".to_owned(),
        digest: format!("sha256:{}", "0".repeat(64)),
        ..v1::Image::default()
    };
    let built = v1::Built {
        image: Some(image),
        ..v1::Built::default()
    };
    v1::BuildObservation {
        deployment: order.deployment,
        outcome: Some(v1::BuildOutcome {
            kind: Some(v1::build_outcome::Kind::Built(built)),
        }),
    }
}

async fn send(up: &mpsc::Sender<v1::FromAgent>, kind: Up) -> Result<()> {
    let sent = up.send(v1::FromAgent { kind: Some(kind) }).await;
    sent.context("the session ended")
}
